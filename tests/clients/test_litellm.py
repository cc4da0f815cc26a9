"""LiteLLM, by its three ways to a server like this."""

import json

import litellm
import pytest
from conftest import FUNCTIONS as TOOLS, MODEL

MESSAGES = [{"role": "user", "content": "Weather in Ulm?"}]


def ways(server):
    return [
        {"model": f"openai/{MODEL}", "api_base": f"{server.url}/v1", "api_key": "none"},
        {"model": f"anthropic/{MODEL}", "api_base": server.url, "api_key": "none"},
        {"model": f"ollama_chat/{MODEL}", "api_base": server.url},
    ]


@pytest.mark.parametrize("way", range(3))
def test_an_answer_and_its_stream(server, way):
    request = ways(server)[way] | {"messages": MESSAGES, "max_tokens": 20, "temperature": 0}
    whole = litellm.completion(**request).choices[0].message.content
    assert whole
    pieces = litellm.completion(stream=True, **request)
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == whole


@pytest.mark.parametrize("way", range(2))
def test_a_call(server, way):
    answer = litellm.completion(
        **ways(server)[way], messages=MESSAGES, tools=TOOLS, tool_choice="required", max_tokens=200, temperature=0
    )
    (call,) = answer.choices[0].message.tool_calls
    assert call.function.name == "get_weather" and json.loads(call.function.arguments)["city"]
