"""The official OpenAI SDK: tools, structured outputs, streams, as its own parser reads them."""

import json

import openai
import pytest
from conftest import FUNCTIONS as TOOLS, MODEL


@pytest.fixture(scope="module")
def client(server):
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none")


def call_of(message):
    (call,) = message.tool_calls
    assert call.type == "function" and call.id and call.function.name == "get_weather"
    arguments = json.loads(call.function.arguments)
    assert isinstance(arguments["city"], str) and arguments.get("unit", "celsius") in ("celsius", "fahrenheit")
    return call


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
def test_a_call_that_must_be_is_made_and_its_result_read(client, choice):
    messages = [{"role": "user", "content": "What is the weather in Ulm?"}]
    request = {"model": MODEL, "tools": TOOLS, "temperature": 0, "max_tokens": 200}
    answer = client.chat.completions.create(messages=messages, tool_choice=choice, **request)
    assert answer.choices[0].finish_reason == "tool_calls"
    call = call_of(answer.choices[0].message)
    messages += [
        answer.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "9 degrees, rain"},
    ]
    after = client.chat.completions.create(messages=messages, tool_choice="none", **request)
    assert after.choices[0].message.tool_calls is None and after.choices[0].message.content
    # All of the first turn but its end is a prefix of the second.
    assert after.usage.prompt_tokens_details.cached_tokens >= answer.usage.prompt_tokens - 8


def test_a_streamed_call_is_the_whole_one(client):
    request = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "Weather in Rome, in fahrenheit?"}],
        "tools": TOOLS,
        "tool_choice": "required",
        "temperature": 0,
        "max_tokens": 200,
    }
    whole = call_of(client.chat.completions.create(**request).choices[0].message)
    with client.chat.completions.stream(**request) as stream:
        streamed = call_of(stream.get_final_completion().choices[0].message)
    assert streamed.function.arguments == whole.function.arguments


def test_parallel_calls(client):
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Call get_weather for Ulm, and again for Rome."}],
        tools=TOOLS,
        tool_choice="required",
        parallel_tool_calls=True,
        temperature=0,
        max_tokens=300,
    )
    calls = answer.choices[0].message.tool_calls
    assert len({call.id for call in calls}) == len(calls) >= 1
    assert all(json.loads(call.function.arguments)["city"] for call in calls)


def test_structured_output(client):
    schema = {
        "type": "object",
        "properties": {
            "answer": {"type": "integer"},
            "words": {"type": "array", "items": {"type": "string", "maxLength": 20}, "maxItems": 3},
        },
        "required": ["answer", "words"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "What is six times seven?"}],
        response_format={"type": "json_schema", "json_schema": {"name": "a", "strict": True, "schema": schema}},
        temperature=0,
        max_tokens=300,
    )
    assert answer.choices[0].finish_reason == "stop"
    value = json.loads(answer.choices[0].message.content)
    assert isinstance(value["answer"], int) and len(value["words"]) <= 3 and set(value) == {"answer", "words"}


def test_json_object(client):
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "A JSON object with your name."}],
        response_format={"type": "json_object"},
        temperature=0,
        max_tokens=300,
    )
    assert isinstance(json.loads(answer.choices[0].message.content), dict)


def test_what_cannot_be_is_a_bad_request(client):
    for more in (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"not": {}}}}},
        {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "none"}}},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]},
    ):
        request = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5} | more
        with pytest.raises(openai.BadRequestError):
            client.chat.completions.create(**request)


def test_the_sdk_knows_what_each_request_is_called(client):
    request = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
    answer = client.chat.completions.create(**request)
    assert answer._request_id.startswith("req_")
    own = client.chat.completions.create(**request, extra_headers={"x-request-id": "my-request-1"})
    assert own._request_id == "my-request-1"
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(**{**request, "temperature": 1000})
    assert error.value.request_id == error.value.response.json()["request_id"]
