"""A real Chromium: the system's, where it has one, else the one that Playwright brings."""

import contextlib
import shutil

from playwright.sync_api import expect, sync_playwright

# Milliseconds after which something hangs, rather than being slow.
DEADLINE = 180_000  # a machine may have much else to do
expect.set_options(timeout=DEADLINE)


@contextlib.contextmanager
def chromium():
    names = ("chromium", "google-chrome", "google-chrome-stable")
    installed = next((path for path in map(shutil.which, names) if path), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=installed)
        yield browser
        browser.close()
