"""What a user does in the chat."""

import json

from playwright.sync_api import expect

SHORT = {"temperature": 0, "maxTokens": 24}


def with_settings(page, **settings):
    """Settings as the page keeps them, from the next load on."""
    page.evaluate("settings => localStorage.setItem('trellis-settings', settings)", json.dumps(settings))
    page.reload()


def send(page, text):
    page.get_by_role("textbox", name="Message").fill(text)
    page.get_by_role("button", name="Send", exact=True).click()


def answers(page):
    return page.locator(".message.assistant")


def ask(page, text):
    """Sends, and waits for the end; returns the answer's element."""
    send(page, text)
    expect(page.get_by_role("status").filter(has_text="The answer is complete.")).to_be_attached()
    last = answers(page).last
    expect(last.locator(".stats")).to_be_visible()
    return last


def events(*chunks):
    """The body of a stream with these pieces of text, as the server writes it."""
    lines = [{"id": "chatcmpl-1", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in chunks]
    lines.append({"id": "chatcmpl-1", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    lines.append(
        {
            "id": "chatcmpl-1",
            "choices": [],
            "usage": {"prompt_tokens": 40, "completion_tokens": 9, "prompt_tokens_details": {"cached_tokens": 32}},
            "timings": {"prompt_n": 8, "predicted_n": 9, "predicted_ms": 100, "cache_report": {"missed": {"new_tokens": 8}}},
        }
    )
    return "".join(f"data: {json.dumps(line)}\n\n" for line in lines) + "data: [DONE]\n\n"


def answers_do_not_end(page):
    """Those of the server: the model's end is ignored."""
    page.route(
        "**/v1/chat/completions",
        lambda route: route.continue_(post_data={**route.request.post_data_json, "ignore_eos": True}),
    )


def mock_answer(page, *deltas):
    page.route(
        "**/v1/chat/completions",
        lambda route: route.fulfill(content_type="text/event-stream", body=events(*deltas)),
    )
