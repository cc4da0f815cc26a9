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


def take(page, path, scheme, width, height):
    page.set_viewport_size({"width": width, "height": height})
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.wait_for_timeout(1000)
    page.screenshot(path=path)


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    with Server("--kv-cache", "256MiB") as server, chromium() as browser:
        page = browser.new_page()
        page.goto(server.url)
        talk(page)
        take(page, folder / "chat.png", "light", 1120, 720)
        take(page, folder / "phone.png", "light", 360, 640)
        # A request on its way.
        send(page, "Tell me a long story about a lighthouse.")
        page.get_by_role("link", name="Tree").click()
        expect(page.locator(".walker.generating")).to_have_count(1)
        page.locator(".node .bar").nth(1).click()
        take(page, folder / "tree.png", "dark", 1120, 720)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
