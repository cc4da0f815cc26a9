"""The live tree: nodes, shared paths, requests on their way, and why tokens were computed."""

import re

import pytest
from chat import SHORT, ask, with_settings
from playwright.sync_api import expect

SYSTEM = "You are a careful clerk who keeps the books of a small shop by the sea and answers in short sentences."


def two_chats(page):
    """Two conversations behind one system prompt, in a scope of their own, so that texts are shown."""
    with_settings(page, **SHORT, system=SYSTEM, cacheSalt="of-the-test")
    ask(page, "What did we sell on Monday?")
    page.get_by_role("button", name="New conversation").click()
    ask(page, "Who owes us money?")


def nodes(server):
    return server.get("/v1/cache/tree?cache_salt=of-the-test")["nodes"]


def test_two_chats_share_a_path(fresh, visit):
    page = visit()
    two_chats(page)
    page.get_by_role("link", name="Tree").click()
    tree = nodes(fresh)
    trunk = next(node for node in tree if node["children"] == 2)
    assert "careful clerk" in trunk["text"]
    expect(page.locator(".picture .node")).to_have_count(len(tree))

    # What is shared is drawn once, thicker, and longer than what is not.
    page.get_by_role("button", name="Outline").click()
    items = page.get_by_role("treeitem")
    expect(items).to_have_count(len(tree))
    shared = items.filter(has_text="careful clerk")
    shared.click()
    details = page.locator(".details")
    expect(details.locator(".snippet")).to_contain_text("careful clerk")
    expect(details).to_contain_text(f"{trunk['tokens']}, from 0 to {trunk['tokens']}")
    expect(details).to_contain_text(re.compile(r"branches\s*2"))
    page.get_by_role("button", name="Drawing").click()
    expect(page.locator(".node.selected")).to_have_count(1)
    page.locator(".node:not(.selected) .bar").last.click()
    expect(details).not_to_contain_text("careful clerk")


def test_a_miss_shows_its_cause_and_where_it_left(fresh, visit):
    page = visit()
    two_chats(page)
    page.get_by_role("link", name="Tree").click()
    last, before = page.locator(".request").nth(0), page.locator(".request").nth(1)
    expect(before).to_contain_text(re.compile(r"0 of \d+ cached"))
    expect(before).to_contain_text(re.compile(r"\d+ cold"))
    expect(last).to_contain_text(re.compile(r"\d+ diverged"))
    expect(last).to_contain_text("Who owes")
    expect(last).to_contain_text("What did we")


def test_a_request_walks_down_while_it_runs(fresh, visit):
    page = visit("#tree")
    expect(page.get_by_text("Nothing is cached yet.")).to_be_visible()
    body = {"messages": [{"role": "user", "content": "Go on and on."}], "max_tokens": 8000, "ignore_eos": True}
    with fresh.send("/v1/chat/completions", body):
        fresh.wait_for_a_lease()
        expect(page.locator(".walker.generating")).to_have_count(1)
        expect(page.locator(".node.heat0.walked")).to_have_count(2)  # the scope, and its own node
        expect(page.locator(".request.generating")).to_contain_text("writing")
        expect(page.locator(".budget")).to_contain_text(re.compile(r"in use [\d.]+ MiB"))
    fresh.settle()
    expect(page.locator(".request").first).to_contain_text("stopped")
    expect(page.locator(".walker")).to_have_count(0)


def test_the_budget_is_what_the_server_says(fresh, visit):
    page = visit("#tree")
    meter = page.get_by_role("meter")
    expect(meter).to_have_attribute("aria-valuenow", "0")
    pages = fresh.pages()
    expect(meter).to_have_attribute("aria-valuemax", str(pages["capacity"]))
    fresh.post("/v1/completions", {"prompt": "word " * 200, "max_tokens": 1})
    expect(meter).to_have_attribute("aria-valuenow", str(fresh.pages()["committed"]))


def test_texts_of_everybodys_cache_are_not_shown(fresh, visit):
    fresh.post("/v1/completions", {"prompt": "a private matter " * 5, "max_tokens": 1})
    page = visit("#tree")
    page.locator(".node .bar").last.click()
    expect(page.locator(".details")).to_contain_text("shown to its owner only")
    assert "private" not in page.content()


@pytest.mark.parametrize("keys, level", [(["End"], "2"), (["End", "ArrowLeft"], "1")])
def test_the_outline_has_the_keys_of_a_tree(fresh, visit, keys, level):
    fresh.post("/v1/completions", {"prompt": "some words to keep", "max_tokens": 1})
    page = visit("#tree")
    page.get_by_role("button", name="Outline").click()
    page.get_by_role("treeitem").first.focus()
    for key in keys:
        page.keyboard.press(key)
    expect(page.locator("[role=treeitem]:focus")).to_have_attribute("aria-level", level)


def test_a_scope_can_be_folded(fresh, visit):
    fresh.post("/v1/completions", {"prompt": "some words to keep", "max_tokens": 1})
    page = visit("#tree")
    page.get_by_role("button", name="Outline").click()
    items = page.get_by_role("treeitem")
    expect(items).to_have_count(2)
    items.first.focus()
    page.keyboard.press("ArrowLeft")
    expect(items).to_have_count(1)
    expect(items.first).to_have_attribute("aria-expanded", "false")
    page.keyboard.press("ArrowRight")
    expect(items).to_have_count(2)
    items.first.locator(".fold").click()
    expect(items).to_have_count(1)
