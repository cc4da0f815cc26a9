"""One real server on the real model for all tests, and the requests that many of them make."""

import random

import pytest
from server_process import Server


def some_tokens(seed, count):
    return [random.Random(f"{seed}:{i}").randrange(300, 40000) for i in range(count)]


def complete(server, tokens, **more):
    body = {"prompt": tokens, "max_tokens": 8, "temperature": 0, "ignore_eos": True, **more}
    status, answer = server.post("/v1/completions", body)
    assert status == 200, answer
    return answer


@pytest.fixture(scope="session")
def server():
    with Server("--kv-cache", "1GiB") as server:
        yield server
        assert server.stop() == 0


@pytest.fixture
def fresh(server):
    server.settle()
    server.post("/v1/cache/reset", {})
    return server
