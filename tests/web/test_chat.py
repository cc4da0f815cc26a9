"""The chat: streaming, stopping, branches, what stays, and what a model may not do to the page."""

import json
import re

from chat import SHORT, answers, answers_do_not_end, ask, mock_answer, send, with_settings
from playwright.sync_api import expect


def test_an_answer_comes_with_what_it_cost(fresh, visit):
    page = visit()
    with_settings(page, **SHORT)
    first = ask(page, "Name three rivers.")
    expect(first.locator(".markdown")).to_contain_text(re.compile(r"\w"))
    stats = first.locator(".stats")
    expect(stats).to_contain_text(re.compile(r"0 of \d+ prompt tokens from the cache"))
    expect(stats).to_contain_text(re.compile(r"\d+ cold"))
    expect(stats).to_contain_text(re.compile(r"first token after [\d.]+ m?s"))
    expect(stats).to_contain_text(re.compile(r"tokens? at [\d.]+ tok/s"))
    second = ask(page, "And three more.")
    found = re.search(r"(\d+) of (\d+) prompt tokens", second.locator(".stats").inner_text())
    assert 0 < int(found[1]) < int(found[2])


def test_text_appears_while_it_is_written_and_stopping_keeps_it(fresh, visit):
    page = visit()
    answers_do_not_end(page)
    send(page, "Count from one to a thousand, in words.")
    text = answers(page).locator(".markdown")
    expect(text).to_contain_text(re.compile(r"\w+\W+\w+"))
    fresh.wait_for_a_lease()
    page.get_by_role("button", name="Stop").click()
    expect(answers(page)).to_contain_text("Stopped.")
    expect(page.get_by_role("button", name="Send", exact=True)).to_be_visible()
    fresh.settle()
    # What it cost is known all the same.
    expect(answers(page).locator(".stats")).to_contain_text("prompt tokens from the cache")
    expect(text).to_contain_text(re.compile(r"\w"))


def test_editing_and_asking_again_make_branches(fresh, visit):
    page = visit()
    with_settings(page, **SHORT)
    ask(page, "Say red.")
    page.get_by_role("button", name="Edit").click()
    page.get_by_role("textbox", name="Edit the message").fill("Say blue.")
    page.get_by_role("button", name="Send as a branch").click()
    user = page.locator(".message.user")
    expect(user).to_contain_text("Say blue.")
    expect(answers(page).locator(".stats")).to_be_visible()
    expect(user.locator(".branches")).to_contain_text("2 / 2")
    page.get_by_role("button", name="Previous branch").click()
    expect(user).to_contain_text("Say red.")
    expect(user.locator(".branches")).to_contain_text("1 / 2")

    page.get_by_role("button", name="Answer again").click()
    expect(answers(page).locator(".branches")).to_contain_text("2 / 2")
    # The same prompt: all but its last token is cached.
    expect(answers(page).locator(".stats")).to_contain_text(re.compile(r"(\d+) of \d+ prompt tokens from the cache\s*1 new"))
    user.get_by_role("button", name="Next branch").click()
    expect(user).to_contain_text("Say blue.")


def test_conversations_stay_and_can_be_renamed_exported_and_deleted(fresh, visit):
    page = visit()
    with_settings(page, **SHORT)
    ask(page, "The first one.")
    page.get_by_role("button", name="New conversation").click()
    ask(page, "The second one.")
    page.reload()
    entries = page.locator(".entry")
    expect(entries).to_have_count(2)
    expect(page.locator(".message.user")).to_have_text(re.compile("The second one."))
    expect(answers(page).locator(".stats")).to_be_visible()
    entries.filter(has_text="The first one.").get_by_role("button", name="The first one.", exact=True).click()
    expect(page.locator(".message.user")).to_have_text(re.compile("The first one."))

    page.get_by_role("button", name="Rename The first one.").click()
    page.get_by_role("textbox", name="Name of the conversation").fill("Rivers")
    page.keyboard.press("Enter")
    expect(entries.filter(has_text="Rivers")).to_have_count(1)
    with page.expect_download() as download:
        page.get_by_role("button", name="Export Rivers as JSON").click()
    with open(download.value.path()) as file:
        exported = json.load(file)
    assert download.value.suggested_filename == "Rivers.json"
    assert [message["role"] for message in exported["messages"]] == ["user", "assistant"]
    page.get_by_role("button", name="Delete Rivers").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(entries).to_have_count(1)
    page.reload()
    expect(entries).to_have_count(1)


def test_an_answer_ends_with_its_conversation(fresh, visit):
    page = visit()
    answers_do_not_end(page)
    send(page, "Count from one to a thousand, in words.")
    expect(answers(page).locator(".markdown")).to_contain_text(re.compile(r"\w"))
    page.get_by_role("button", name=re.compile("^Delete Count")).click()
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.locator(".entry")).to_have_count(0)
    def how_it_ended():
        return fresh.get("/v1/requests")["requests"][-1]["finish_reason"]

    assert fresh.wait_until("the answer has ended", how_it_ended) == "abort"


def test_markdown_and_code_are_drawn(visit):
    page = visit()
    mock_answer(page, {"content": "# Head\n\n- **one**\n\n```py"}, {"content": "thon\ndef f(): return 'x'\n```\n| a | b |\n|--|--|\n| 1 | 2 |"})
    ask(page, "Show me.")
    text = answers(page).locator(".markdown")
    expect(text.locator("h3")).to_have_text("Head")
    expect(text.locator("li strong")).to_have_text("one")
    expect(text.locator(".code .hljs-keyword").first).to_have_text("def")
    expect(text.locator(".code")).to_contain_text("python")
    expect(text.locator("td")).to_have_count(2)
    expect(text.get_by_role("button", name="Copy the code")).to_be_visible()


def test_what_a_model_writes_cannot_act(visit):
    page = visit()
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    mock_answer(
        page,
        {"content": "<img src=x onerror=\"window.hit=1\"><script>window.hit=2</script>\n\n<b onclick=hit()>bold</b>\n\n"},
        {"content": "[a](javascript:window.hit=3) [b](https://example.com) ![i](https://example.com/i.png)\n\n"},
        {"content": "```html\n<img src=x onerror=window.hit=4>\n```\n\n<iframe src='//example.com'></iframe>"},
    )
    ask(page, "Attack me.")
    text = answers(page).locator(".markdown")
    expect(text).to_contain_text("<script>window.hit=2</script>")  # as text
    assert page.evaluate("window.hit") is None
    for tag in ("img", "script", "iframe", "[onclick]", "[onerror]", "a[href^='javascript']"):
        assert text.locator(tag).count() == 0, tag
    link = text.get_by_role("link", name="b", exact=True)
    assert link.get_attribute("rel") == "noopener noreferrer" and link.get_attribute("target") == "_blank"
    assert not [url for url in asked if "example.com" in url or url.endswith("/x")]


def test_thoughts_are_folded_away(visit):
    page = visit()
    mock_answer(page, {"reasoning_content": "Let me see."}, {"reasoning_content": " Yes."}, {"content": "It is 4."})
    ask(page, "2 + 2?")
    thoughts = answers(page).locator("details.thoughts")
    expect(thoughts.locator("summary")).to_have_text("Thoughts")
    expect(thoughts.get_by_text("Let me see. Yes.")).to_be_hidden()
    thoughts.locator("summary").click()
    expect(thoughts.get_by_text("Let me see. Yes.")).to_be_visible()
    expect(answers(page).locator("> .text > .markdown")).to_have_text("It is 4.")


def test_an_error_is_said_and_the_question_can_be_asked_again(fresh, visit):
    page = visit()
    with_settings(page, **SHORT)
    send(page, "word " * 9000)
    expect(answers(page).get_by_role("alert")).to_contain_text("context")
    page.get_by_role("button", name="Edit").click()
    page.get_by_role("textbox", name="Edit the message").fill("Less.")
    page.get_by_role("button", name="Send as a branch").click()
    expect(answers(page).locator(".stats")).to_be_visible()


def test_what_got_no_answer_is_asked_with_the_next_message(fresh, visit):
    page = visit()
    with_settings(page, **SHORT)
    refusal = {"error": {"message": "too many requests wait", "code": "queue_full"}}
    page.route("**/v1/chat/completions", lambda route: route.fulfill(status=503, json=refusal))
    send(page, "Name a river.")
    expect(answers(page).get_by_role("alert")).to_have_text("too many requests wait")
    page.unroute("**/v1/chat/completions")
    with page.expect_request("**/v1/chat/completions") as request:
        ask(page, "In Asia.")
    # No empty answer between them; and one turn, as many templates refuse two of the same role.
    assert request.value.post_data_json["messages"] == [{"role": "user", "content": "Name a river.\n\nIn Asia."}]
    with page.expect_request("**/v1/chat/completions") as request:
        ask(page, "Another.")
    assert [message["role"] for message in request.value.post_data_json["messages"]] == ["user", "assistant", "user"]


def test_settings_reach_the_server(visit):
    page = visit()
    mock_answer(page, {"content": "ok"})
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Temperature").fill("0.5")
    page.get_by_label("Longest answer").fill("7")
    page.get_by_label("System prompt").fill("You are a clock.")
    page.get_by_role("button", name="Make one").click()
    salt = page.get_by_label("Cache salt").input_value()
    page.keyboard.press("Escape")
    with page.expect_request("**/v1/chat/completions") as request:
        ask(page, "Noon?")
    body = request.value.post_data_json
    assert (body["temperature"], body["max_tokens"], body["cache_salt"]) == (0.5, 7, salt) and salt
    assert body["messages"] == [{"role": "system", "content": "You are a clock."}, {"role": "user", "content": "Noon?"}]
    assert body["cache_report"] is True and body["stream_options"] == {"include_usage": True}
    assert "top_p" not in body and "chat_template_kwargs" not in body


def test_thinking_can_be_switched_off(visit):
    page = visit()
    mock_answer(page, {"content": "ok"})
    page.get_by_role("button", name="Settings").click()
    thinking = page.get_by_label("Thinking")
    for setting, sent in (("off", {"enable_thinking": False}), ("on", None)):
        thinking.select_option(setting)
        page.keyboard.press("Escape")
        with page.expect_request("**/v1/chat/completions") as request:
            ask(page, "2 + 2?")
        assert request.value.post_data_json.get("chat_template_kwargs") == sent
        page.get_by_role("button", name="Settings").click()
        expect(thinking).to_have_value(setting)
