"""The streams of tests/transcripts, which src/api/transcripts_test.cc compares byte for byte, as the makers' SDKs read them."""

import contextlib
import json
import os
import pathlib
import subprocess

import anthropic
import ollama
import openai
import pytest
from conftest import FUNCTIONS
from replay import TRANSCRIPTS, replaying

THOUGHTS = "Ulm, then Rome.\n"
TEXT = 'I "look"\nit up: \u00e9\u2713\N{CLOUD WITH RAIN}'
CALLS = [("get_weather", {"city": "Ulm"}), ("get_weather", {"city": "Rome"})]
MESSAGES = [{"role": "user", "content": "Where does it rain?"}]


@contextlib.contextmanager
def openai_client(name):
    with replaying(name) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


@contextlib.contextmanager
def anthropic_client(name):
    with replaying(name) as url, anthropic.Anthropic(base_url=url, api_key="none", max_retries=0) as client:
        yield client


def test_openai_chat():
    with openai_client("openai_chat.sse") as client:
        with client.chat.completions.stream(model="fake", messages=MESSAGES, tools=FUNCTIONS) as stream:
            answer = stream.get_final_completion()
    (choice,) = answer.choices
    assert choice.finish_reason == "tool_calls" and choice.message.content == TEXT
    assert choice.message.reasoning_content == THOUGHTS
    assert [call.id for call in choice.message.tool_calls] == ["call_1", "call_2"]
    assert [(call.function.name, json.loads(call.function.arguments)) for call in choice.message.tool_calls] == CALLS
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (20, 30)
    assert answer.usage.prompt_tokens_details.cached_tokens == 16
    assert answer.usage.completion_tokens_details.reasoning_tokens == 5


def test_openai_completion():
    with openai_client("openai_completion.sse") as client:
        chunks = list(client.completions.create(model="fake", prompt="The sky is", n=2, stream=True))
    choices = [choice for chunk in chunks for choice in chunk.choices]
    texts = ["".join(choice.text for choice in choices if choice.index == i) for i in (0, 1)]
    assert texts == [" blue", ' "grey"\n']
    assert [(c.index, c.finish_reason) for c in choices if c.finish_reason] == [(0, "stop"), (1, "length")]
    assert [c.logprobs.token_logprobs for c in choices] == [[-0.25], [-0.5], [], [-1]]
    assert choices[0].logprobs.top_logprobs == [{" blue": -0.25, "bytes:\\xe2\\x80": -9}]


def test_openai_responses():
    with openai_client("openai_responses.sse") as client:
        with client.responses.stream(model="fake", input="Where does it rain?") as stream:
            events = list(stream)
            response = stream.get_final_response()
    assert response.status == "completed" and response.output_text == TEXT and response.instructions == "Be brief."
    thoughts, message, *calls = response.output
    assert thoughts.type == "reasoning" and thoughts.content[0].text == THOUGHTS
    assert message.type == "message" and message.status == "completed"
    assert [call.call_id for call in calls] == ["call_1", "call_2"]
    assert [(call.name, json.loads(call.arguments)) for call in calls] == CALLS
    assert response.usage.input_tokens_details.cached_tokens == 16 and response.usage.total_tokens == 50
    assert [event.sequence_number for event in events if hasattr(event, "sequence_number")][-1] == len(events) - 1


def test_anthropic_messages():
    with anthropic_client("anthropic_messages.sse") as client:
        with client.messages.stream(model="fake", max_tokens=99, messages=MESSAGES) as stream:
            message = stream.get_final_message()
    thinking, text, *calls = message.content
    assert (thinking.type, thinking.thinking) == ("thinking", THOUGHTS)
    assert (text.type, text.text) == ("text", TEXT)
    assert [call.id for call in calls] == ["call_1", "call_2"]
    assert [(call.name, call.input) for call in calls] == CALLS
    assert message.stop_reason == "tool_use" and message.usage.output_tokens == 30
    usage = message.usage
    assert (usage.input_tokens, usage.cache_creation_input_tokens, usage.cache_read_input_tokens) == (2, 2, 16)


def test_ollama_chat():
    with replaying("ollama_chat.ndjson") as url:
        pieces = list(ollama.Client(host=url).chat(model="fake", messages=MESSAGES, stream=True))
    assert "".join(piece.message.thinking or "" for piece in pieces) == THOUGHTS
    assert "".join(piece.message.content for piece in pieces) == TEXT
    calls = [call.function for piece in pieces for call in piece.message.tool_calls or []]
    assert [(call.name, call.arguments) for call in calls] == CALLS
    assert [piece.done for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert pieces[-1].done_reason == "stop" and pieces[-1].eval_count == 30 and pieces[-1].prompt_eval_count == 20


def test_errors_in_the_middle_are_raised():
    with openai_client("openai_chat_error.sse") as client, pytest.raises(openai.APIError, match="it took too long"):
        list(client.chat.completions.create(model="fake", messages=MESSAGES, stream=True))
    with anthropic_client("anthropic_messages_error.sse") as client, pytest.raises(anthropic.APIError, match="it took too long"):
        list(client.messages.create(model="fake", max_tokens=9, messages=MESSAGES, stream=True))
    with replaying("ollama_chat_error.ndjson") as url, pytest.raises(ollama.ResponseError, match="it took too long"):
        list(ollama.Client(host=url).chat(model="fake", messages=MESSAGES, stream=True))


def test_the_sdks_for_node():
    node = pathlib.Path(__file__).parent / "node"
    assert (node / "node_modules").is_dir(), f"npm ci --prefix {node} installs the SDKs"
    with contextlib.ExitStack() as stack:
        names = {path.stem: path.name for path in TRANSCRIPTS.iterdir() if "error" not in path.stem}
        urls = {f"TRELLIS_REPLAY_{stem.upper()}": stack.enter_context(replaying(name)) for stem, name in names.items()}
        command = ["node", "--test", str(node / "transcripts.test.mjs")]
        run = subprocess.run(command, env=os.environ | urls, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout + run.stderr
