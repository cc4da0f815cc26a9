"""The page of one real server on a real model, in a real browser."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "e2e"))
from browser import DEADLINE, chromium  # noqa: E402
from server_process import Server  # noqa: E402


@pytest.fixture(scope="session")
def browser():
    with chromium() as running:
        yield running


@pytest.fixture(scope="session")
def server():
    with Server("--kv-cache", "512MiB") as running:
        yield running


@pytest.fixture
def fresh(server):
    server.settle()
    server.post("/v1/cache/reset", {})
    return server


class Visitor:
    """A browser that has never been here before, and what its console said."""

    def __init__(self, browser, url, **options):
        self.context = browser.new_context(**options)
        self.context.set_default_timeout(DEADLINE)
        self.url, self.complaints = url, []
        self.page = self.context.new_page()
        self.page.on("console", self.note)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def note(self, message):
        # A request that was refused on purpose is in the console too.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.complaints.append(message.text)


@pytest.fixture
def visit(browser, server):
    """visit(hash, **options of the browser): the page, opened by somebody new. Its console must stay clean."""
    visitors = []

    def open_page(hash="", url=None, **options):
        visitor = Visitor(browser, url or server.url, **options)
        visitors.append(visitor)
        visitor.page.goto(f"{visitor.url}/{hash}")
        return visitor.page

    yield open_page
    for visitor in visitors:
        visitor.context.close()
        assert visitor.complaints == []
