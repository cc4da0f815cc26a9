"""The page around the two views: keys, loading, themes, narrow windows, the keyboard, accessibility."""

import json
import pathlib
import re

import pytest
from chat import SHORT, answers, ask, mock_answer, with_settings
from playwright.sync_api import expect
from server_process import Server

AXE = pathlib.Path(__file__).parents[2] / "web/node_modules/axe-core/axe.min.js"


def test_a_server_with_keys_is_asked_with_one(tmp_path, visit):
    keys = tmp_path / "keys"
    keys.write_text("sk-page\n")
    with Server("--kv-cache", "256MiB", "--api-key-file", str(keys)) as server:
        page = visit(url=server.url)
        dialog = page.get_by_role("dialog", name="Key")
        expect(dialog).to_contain_text("wants a key")
        dialog.get_by_label("Key", exact=True).fill("sk-wrong")
        dialog.get_by_role("button", name="Use this key").click()
        expect(dialog).to_contain_text("does not know this key")
        dialog.get_by_label("Key", exact=True).fill("sk-page")
        dialog.get_by_role("button", name="Use this key").click()
        expect(dialog).to_be_hidden()
        with_settings(page, **SHORT)  # reloads: the tab keeps the key
        ask(page, "Hello?")
        assert page.evaluate("Object.values(localStorage).join().includes('sk-page')") is False
        # One's own texts are shown.
        page.get_by_role("link", name="Tree").click()
        page.locator(".node .bar").last.click()
        expect(page.locator(".snippet")).to_be_visible()


def test_it_says_how_far_the_model_has_loaded(visit):
    page = visit()
    state = {"status": 503, "body": json.dumps({"status": "loading", "progress": 0.4})}
    page.route("**/health", lambda route: route.fulfill(**state))
    page.reload()
    expect(page.get_by_role("status").filter(has_text="loading")).to_contain_text("40 %")
    page.get_by_role("textbox", name="Message").fill("Too early")
    expect(page.get_by_role("button", name="Send", exact=True)).to_be_disabled()
    page.unroute("**/health")
    expect(page.get_by_role("button", name="Send", exact=True)).to_be_enabled()


def test_a_server_that_is_away_is_waited_for(visit):
    page = visit()
    page.route("**/health", lambda route: route.abort())
    page.reload()
    expect(page.get_by_text("The server does not answer.")).to_be_visible()
    page.unroute("**/health")
    expect(page.get_by_text("The server does not answer.")).to_be_hidden()


def background(page):
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


def test_dark_and_light_follow_the_system_or_the_button(visit):
    page = visit(color_scheme="dark")
    dark = background(page)
    page.emulate_media(color_scheme="light")
    light = background(page)
    assert dark != light
    page.get_by_role("button", name="Change to light").click()
    page.emulate_media(color_scheme="dark")
    assert background(page) == light
    page.get_by_role("button", name="Change to dark").click()
    page.emulate_media(color_scheme="light")
    page.reload()
    assert background(page) == dark


@pytest.mark.parametrize("hash", ["#chat", "#tree"])
def test_a_phone_needs_no_sideways_scrolling(fresh, visit, hash):
    page = visit(viewport={"width": 360, "height": 640}, has_touch=True)
    mock_answer(page, {"content": f"```\n{'long ' * 60}\n```\n{'unbroken' * 40}\n\n|{' cell |' * 12}\n|{'--|' * 12}\n"})
    ask(page, "word" * 60)
    fresh.post("/v1/completions", {"prompt": "some words to keep", "max_tokens": 1})
    page.evaluate("hash => location.hash = hash", hash)
    expect(page.locator("main.tree .node" if hash == "#tree" else ".message.assistant").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    if hash == "#chat":
        page.get_by_role("button", name=re.compile("^word")).click()
        expect(page.get_by_role("dialog", name="Conversations")).to_be_visible()
        page.get_by_role("button", name="New conversation").click()
        expect(page.get_by_role("dialog")).to_be_hidden()


def test_everything_can_be_done_with_the_keyboard(fresh, visit):
    page = visit()
    with_settings(page, **SHORT)

    def tab_to(name):
        for _ in range(40):
            page.keyboard.press("Tab")
            focused = page.evaluate("document.activeElement.getAttribute('aria-label') || document.activeElement.innerText")
            if focused == name:
                return
        raise AssertionError(f"the keyboard does not get to {name}")

    tab_to("Message")
    page.keyboard.type("Say red.")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("Now.")
    page.keyboard.press("Enter")
    expect(answers(page).locator(".stats")).to_be_visible()
    expect(page.get_by_role("textbox", name="Message")).to_be_focused()
    page.get_by_role("textbox", name="Message").evaluate("element => element.blur()")
    tab_to("Edit")
    page.keyboard.press("Enter")
    expect(page.get_by_role("textbox", name="Edit the message")).to_be_focused()
    page.keyboard.press("Escape")
    tab_to("Settings")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog", name="Settings")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Settings")).to_be_focused()
    tab_to("Tree")
    page.keyboard.press("Enter")
    expect(page.locator("main.tree .node").first).to_be_visible()


def violations(page):
    """What axe-core finds that is serious."""
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run()")["violations"]
    return [(one["id"], [node["html"] for node in one["nodes"]]) for one in found if one["impact"] in ("serious", "critical")]


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(fresh, visit, color_scheme):
    page = visit(color_scheme=color_scheme)
    mock_answer(page, {"reasoning_content": "So."}, {"content": "# One\n\n`a` [b](/c)\n\n```python\nx = 'y'  # z\n```\n"})
    ask(page, "Show everything.")
    page.get_by_role("button", name="Answer again").click()
    expect(answers(page).locator(".branches")).to_be_visible()
    assert violations(page) == []
    page.get_by_role("button", name="Settings").click()
    assert violations(page) == []
    page.keyboard.press("Escape")
    page.get_by_role("button", name=re.compile("^Delete ")).click()
    assert violations(page) == []
    page.keyboard.press("Escape")

    fresh.post("/v1/completions", {"prompt": "some words to keep", "max_tokens": 1})
    page.get_by_role("link", name="Tree").click()
    page.locator(".node .bar").last.click()
    expect(page.locator(".request").first).to_be_visible()
    assert violations(page) == []
    page.get_by_role("button", name="Outline").click()
    assert violations(page) == []
