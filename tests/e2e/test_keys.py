"""Keys, by the official client: whose cache is whose, whose turn it is, and what stays cached."""

import signal

import openai
import pytest
from server_process import MODEL, Server

# A cache of about 3,000 tokens.
FLAGS = ("--kv-cache", "64MiB")


@pytest.fixture(scope="module")
def keyed(tmp_path_factory):
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text("sk-anna\nsk-ben  # not of the team\nsk-left scope=team\nsk-right scope=team\nsk-root admin\n")
    with Server(*FLAGS, "--api-key-file", str(keys)) as server:
        yield server
        assert server.stop() == 0
        assert "sk-" not in "".join(server.log)


def client_of(server, key):
    return openai.OpenAI(base_url=server.url + "/v1", api_key=key, max_retries=0)


def ask(server, key, text, **more):
    """(answer, cached tokens) of a chat behind a long system prompt."""
    messages = [{"role": "system", "content": "You are terse. " + text}, {"role": "user", "content": "Say hello."}]
    answer = client_of(server, key).chat.completions.create(
        model=MODEL, messages=messages, max_tokens=8, temperature=0, extra_body=more
    )
    return answer.choices[0].message.content, answer.usage.prompt_tokens_details.cached_tokens


def words(seed, count):
    return " ".join(f"{seed}{i}" for i in range(count))


def flood(server, key="sk-ben"):
    for i in range(12):
        ask(server, key, words(f"flood{i}x", 90))


def test_who_has_no_key_gets_nothing(keyed):
    for key in ("none", "sk-ann", "sk-anna2"):
        with pytest.raises(openai.AuthenticationError) as error:
            client_of(keyed, key).models.list()
        assert error.value.code == "invalid_api_key"
    assert keyed.get("/health") == {"status": "ok"}


def test_one_keys_prompt_is_never_a_hit_for_another(keyed):
    text = words("a", 100)
    answer, cached = ask(keyed, "sk-anna", text)
    assert cached == 0
    assert ask(keyed, "sk-ben", text) == (answer, 0)
    again, cached = ask(keyed, "sk-anna", text)
    assert again == answer and cached > 200
    assert ask(keyed, "sk-ben", text, cache_salt="sk-anna")[1] == 0
    assert ask(keyed, "sk-left", text)[1] == 0
    assert ask(keyed, "sk-right", text)[1] > 200


def test_what_is_marked_stays_and_what_is_not_goes(keyed):
    kept, gone = words("k", 100), words("g", 100)
    mark = {"type": "ephemeral", "ttl": "1h"}
    answer, _ = ask(keyed, "sk-anna", kept, cache_control=mark)
    ask(keyed, "sk-anna", gone)
    flood(keyed)
    assert ask(keyed, "sk-anna", gone)[1] < 100
    flood(keyed)
    again, cached = ask(keyed, "sk-anna", kept)
    assert again == answer and cached > 200


def test_the_cache_of_all_is_an_admins(keyed):
    for key, status in (("sk-anna", 403), ("sk-root", 200)):
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        assert keyed.open("/v1/cache/reset", b"{}", headers)[0] == status


def test_a_file_of_keys_that_is_wrong_is_said(tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("sk-anna\nsk-secret admim\n")
    with pytest.raises(AssertionError, match="line 2") as error, Server("--api-key-file", str(keys)):
        pass
    assert "status 2" in str(error.value) and "secret" not in str(error.value)


def test_sighup_reads_the_file_again_while_answers_go_on(tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("sk-anna\nsk-gone\n")
    text = words("r", 100)
    with Server(*FLAGS, "--api-key-file", str(keys)) as server:
        _, cached = ask(server, "sk-anna", text)
        assert cached == 0
        stream = client_of(server, "sk-gone").completions.create(
            model=MODEL, prompt="Once", max_tokens=150, stream=True, extra_body={"ignore_eos": True}
        )
        chunks = [next(iter(stream))]
        keys.write_text("sk-anna\nsk-new admim\n")
        server.process.send_signal(signal.SIGHUP)
        server.wait_until("it says what is wrong", lambda: any("keys_kept" in line for line in server.log))
        assert "line 2" in "".join(server.log)
        ask(server, "sk-gone", "x")
        keys.write_text("sk-new\nsk-anna\n")
        server.process.send_signal(signal.SIGHUP)
        server.wait_until("it has read them", lambda: any("keys_reloaded keys=2" in line for line in server.log))
        with pytest.raises(openai.AuthenticationError):
            ask(server, "sk-gone", "x")
        ask(server, "sk-new", "x")
        assert ask(server, "sk-anna", text)[1] > 200
        chunks += list(stream)
        assert chunks[-1].choices[0].finish_reason == "length"
        assert server.stop() == 0
        assert "sk-" not in "".join(server.log)
