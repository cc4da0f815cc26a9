"""The official Anthropic SDK: messages, streams, tools, the cache's counts."""

import json

import anthropic
import pytest
from conftest import MODEL, WEATHER

TOOLS = [{"name": WEATHER["name"], "description": WEATHER["description"], "input_schema": WEATHER["schema"]}]
HARNESS = "You are a careful assistant. " + "Every answer is short and in plain words. " * 40


@pytest.fixture(scope="module")
def client(server):
    return anthropic.Anthropic(base_url=server.url, api_key="none")


# The SDK has no name for it any more.
GREEDY = {"extra_body": {"temperature": 0}}


def test_a_message(client):
    message = client.messages.create(
        model=MODEL, max_tokens=20, **GREEDY, system="Be brief.", messages=[{"role": "user", "content": "Hi!"}]
    )
    assert message.type == "message" and message.role == "assistant"
    assert message.content[0].type == "text" and message.content[0].text
    assert message.stop_reason in ("end_turn", "max_tokens")
    count = client.messages.count_tokens(
        model=MODEL, system="Be brief.", messages=[{"role": "user", "content": "Hi!"}]
    )
    usage = message.usage
    assert count.input_tokens == (
        usage.input_tokens + usage.cache_read_input_tokens + usage.cache_creation_input_tokens
    )


def test_a_stream_is_the_whole_message(client):
    request = {
        **GREEDY,
        "model": MODEL,
        "max_tokens": 40,
        "messages": [{"role": "user", "content": "Count to ten."}],
    }
    whole = client.messages.create(**request)
    with client.messages.stream(**request) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == whole.content[0].text == final.content[0].text
    assert final.stop_reason == whole.stop_reason
    assert final.usage.output_tokens == whole.usage.output_tokens


def test_tools(client):
    messages = [{"role": "user", "content": "What is the weather in Ulm?"}]
    request = {"model": MODEL, "max_tokens": 200, "tools": TOOLS, **GREEDY}
    first = client.messages.create(messages=messages, tool_choice={"type": "any"}, **request)
    assert first.stop_reason == "tool_use"
    (call,) = [block for block in first.content if block.type == "tool_use"]
    assert call.name == "get_weather" and isinstance(call.input["city"], str)
    with client.messages.stream(messages=messages, tool_choice={"type": "tool", "name": "get_weather"}, **request) as s:
        streamed = [block for block in s.get_final_message().content if block.type == "tool_use"]
    assert streamed[0].input == call.input
    messages += [
        {"role": "assistant", "content": [block.model_dump() for block in first.content]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "9 degrees"}]},
    ]
    after = client.messages.create(messages=messages, tool_choice={"type": "none"}, **request)
    assert after.content[0].type == "text"
    assert after.usage.cache_read_input_tokens > 0


def test_a_schema_holds_the_answer(client):
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
    message = client.messages.create(
        model=MODEL,
        max_tokens=60,
        **GREEDY,
        messages=[{"role": "user", "content": "n is 5"}],
        output_config={"format": {"type": "json_schema", "schema": schema}},
    )
    assert isinstance(json.loads(message.content[0].text)["n"], int)


def test_what_the_cache_read_and_created_adds_up(client):
    def ask(question):
        return client.messages.create(
            model=MODEL,
            max_tokens=4,
            system=[{"type": "text", "text": HARNESS, "cache_control": {"type": "ephemeral"}}],
            messages=[{"role": "user", "content": question}],
        ).usage

    first, second = ask("One?"), ask("Two?")
    assert first.cache_creation_input_tokens > 300
    assert second.cache_creation_input_tokens == 0
    assert second.cache_read_input_tokens >= first.cache_creation_input_tokens + first.cache_read_input_tokens


def test_errors_are_the_sdks(client):
    with pytest.raises(anthropic.NotFoundError):
        client.messages.create(model="other", max_tokens=4, messages=[{"role": "user", "content": "a"}])
    with pytest.raises(anthropic.BadRequestError):
        client.messages.create(
            model=MODEL,
            max_tokens=4,
            messages=[{"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "http://a"}}]}],
        )


def test_the_sdk_knows_what_each_request_is_called(client):
    request = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
    assert client.messages.create(**request)._request_id.startswith("req_")
    with pytest.raises(anthropic.BadRequestError) as error:
        client.messages.create(**{**request, "messages": []})
    assert error.value.request_id == error.value.response.json()["request_id"]
