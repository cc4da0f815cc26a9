"""Ollama's own client for Python."""

import json

import ollama
import pytest
from conftest import FUNCTIONS as TOOLS, MODEL

GREEDY = {"temperature": 0, "num_predict": 60, "repeat_penalty": 1}


@pytest.fixture(scope="module")
def client(server):
    return ollama.Client(host=server.url)


def test_chat_and_its_stream(client):
    request = {"model": MODEL, "messages": [{"role": "user", "content": "Count to five."}], "options": GREEDY}
    whole = client.chat(**request)
    assert whole.done and whole.done_reason in ("stop", "length") and whole.message.content
    assert whole.eval_count > 0 and whole.prompt_eval_count > 0
    pieces = list(client.chat(stream=True, **request))
    assert "".join(piece.message.content for piece in pieces) == whole.message.content
    assert [piece.done for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert client.chat(**request | {"model": f"{MODEL}:latest"}).message.content == whole.message.content


def test_generate(client):
    answer = client.generate(model=MODEL, prompt="Say hello.", system="Be brief.", options=GREEDY)
    assert answer.done and answer.response
    raw = client.generate(model=MODEL, prompt="def add(a, b):\n    return", raw=True, options=GREEDY)
    assert raw.response


def test_logprobs(client):
    request = {"model": MODEL, "options": GREEDY | {"num_predict": 4}, "logprobs": True, "top_logprobs": 2}
    messages = [{"role": "user", "content": "Count to five."}]
    whole = client.chat(messages=messages, **request)
    assert len(whole.logprobs) == 4
    assert all(entry.logprob <= 0 and len(entry.top_logprobs) == 2 for entry in whole.logprobs)
    pieces = list(client.chat(messages=messages, stream=True, **request))
    assert [entry.token for piece in pieces for entry in piece.logprobs or []] == [entry.token for entry in whole.logprobs]
    assert len(client.generate(prompt="Count to five.", **request).logprobs) == 4
    with pytest.raises(ollama.ResponseError, match="options.mirostat"):
        client.chat(model=MODEL, messages=messages, options={"mirostat": 2})


def test_the_older_embeddings(client):
    older = client.embeddings(model=MODEL, prompt="a cat").embedding
    assert older == client.embed(model=MODEL, input="a cat").embeddings[0]


def test_formats(client):
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    for format in ("json", schema):
        answer = client.chat(
            model=MODEL, messages=[{"role": "user", "content": "n is 5"}], format=format, options=GREEDY
        )
        value = json.loads(answer.message.content)
        assert isinstance(value, dict) and (format == "json" or isinstance(value["n"], int))


def test_tools(client):
    answer = client.chat(
        model=MODEL,
        messages=[{"role": "user", "content": "What is the weather in Ulm? Use get_weather."}],
        tools=TOOLS,
        options=GREEDY,
    )
    for call in answer.message.tool_calls or []:
        assert call.function.name == "get_weather" and isinstance(call.function.arguments, dict)


def test_what_there_is(client):
    (listed,) = client.list().models
    assert listed.model == MODEL and listed.details.format == "gguf"
    assert client.ps().models[0].model == MODEL
    shown = client.show(MODEL)
    assert "tools" in shown.capabilities and shown.details.quantization_level
    with pytest.raises(ollama.ResponseError) as wrong:
        client.show("other")
    assert wrong.value.status_code == 404
