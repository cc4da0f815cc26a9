"""One real server on a model whose template has tools, for clients as their makers publish them."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "e2e"))
from server_process import Server  # noqa: E402

MODEL = "qwen2.5-coder-0.5b-instruct-q4_k_m"


@pytest.fixture(scope="session")
def server():
    with Server("-c", "8192", model=MODEL) as running:
        yield running


WEATHER = {
    "name": "get_weather",
    "description": "The weather of a city.",
    "schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "unit": {"enum": ["celsius", "fahrenheit"]}},
        "required": ["city"],
    },
}
# The same as most APIs have tools.
FUNCTIONS = [
    {
        "type": "function",
        "function": {
            "name": WEATHER["name"],
            "description": WEATHER["description"],
            "parameters": WEATHER["schema"],
        },
    }
]
