"""One real server, and what it says its API is."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "e2e"))
from server_process import Server  # noqa: E402


@pytest.fixture(scope="session")
def server():
    with Server("-c", "1024", "--kv-cache", "256MiB") as running:
        yield running
        assert running.stop() == 0


@pytest.fixture(scope="session")
def document(server):
    return server.get("/openapi.json")
