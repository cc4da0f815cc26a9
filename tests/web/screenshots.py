"""screenshots.py FOLDER: takes the pictures of the page that the documentation shows."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "e2e"))
from browser import chromium  # noqa: E402
from chat import answers, ask, send, with_settings  # noqa: E402
from playwright.sync_api import expect  # noqa: E402
from server_process import Server  # noqa: E402

SYSTEM = """You are the assistant of a small library. You know its shelves, its rules and its readers.
Answer in a few short sentences, be friendly, and say when you do not know something. Books may be
kept for four weeks; children's books for six. The library is closed on Mondays and on holidays."""
QUESTIONS = [
    "How long may I keep a novel?",
    "When is the library closed?",
    "Write a Python function that says whether a book is late.",
]


def talk(page):
    with_settings(page, system=SYSTEM, cacheSalt="docs", temperature=0, maxTokens=160)
    for question in QUESTIONS:
        page.get_by_role("button", name="New conversation").click()
        ask(page, question)
    ask(page, "And for a children's book?")
    page.locator(".message.user").last.get_by_role("button", name="Edit").click()
    page.get_by_role("textbox", name="Edit the message").fill("Now with the date of today as an argument.")
    page.get_by_role("button", name="Send as a branch").click()
    expect(answers(page).last.locator(".stats")).to_be_visible()


def take(page, folder, name, scheme):
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.wait_for_timeout(1000)
    page.screenshot(path=folder / f"{name}-{scheme}.png")


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    with Server("--kv-cache", "256MiB") as server, chromium() as browser:
        context = browser.new_context(viewport={"width": 1120, "height": 720})
        page = context.new_page()
        page.goto(server.url)
        talk(page)
        for scheme in ("light", "dark"):
            take(page, folder, "chat", scheme)
        page.set_viewport_size({"width": 360, "height": 700})
        take(page, folder, "phone", "light")
        page.set_viewport_size({"width": 1120, "height": 720})
        # A request on its way, in another tab's eyes.
        send(page, "Tell me a long story about a lighthouse.")
        page.get_by_role("link", name="Tree").click()
        expect(page.locator(".walker.generating")).to_have_count(1)
        page.locator(".node .bar").nth(1).click()
        for scheme in ("light", "dark"):
            take(page, folder, "tree", scheme)
        page.set_viewport_size({"width": 360, "height": 700})
        take(page, folder, "phone-tree", "dark")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
