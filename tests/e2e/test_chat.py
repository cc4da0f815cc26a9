"""trellis chat: on a pipe, on a terminal, with a model of its own and with a server's."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import time

import pytest
from server_process import DEADLINE, MODEL, Server, model_path

BIN = os.environ["TRELLIS_BIN"]
LOCAL = ["-m", model_path(), "--kv-cache", "64MiB"]


def chat(*lines, flags=LOCAL, **more):
    text = "".join(line + "\n" for line in lines)
    return subprocess.run(
        [BIN, "chat", *flags, "-n", "16", "--temp", "0"], input=text, capture_output=True, text=True, timeout=DEADLINE, **more
    )


def answers_of(server, *turns, system=None, **more):
    """What the server answers to each user's turn, as chat sends them."""
    messages, answers = [{"role": "system", "content": system}] if system else [], []
    for turn in turns:
        messages.append({"role": "user", "content": turn})
        body = {"messages": messages, "max_tokens": 16, "temperature": 0, **more}
        answers.append(server.post("/v1/chat/completions", body)[1]["choices"][0]["message"]["content"])
        messages.append({"role": "assistant", "content": answers[-1]})
    return answers


def cached(done):
    """(cached, prompt) of each answer."""
    return [tuple(map(int, found)) for found in re.findall(r"(\d+) of (\d+) prompt tokens cached", done.stderr)]


@pytest.fixture(params=["model", "server"])
def flags(request):
    """Both things to talk with."""
    if request.param == "model":
        return LOCAL
    return ["--url", request.getfixturevalue("fresh").url]


def test_a_conversation_goes_on_from_what_is_cached(flags, fresh):
    done = chat("What is the capital of France?", "And of Italy?", flags=flags)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "".join(f"{a}\n" for a in answers_of(fresh, "What is the capital of France?", "And of Italy?"))
    (_, first), (found, second) = cached(done)
    assert first + 10 <= found < second, "the second turn computes what is new"
    assert "\033" not in done.stdout + done.stderr and ">>>" not in done.stdout


def test_commands(flags, fresh, tmp_path):
    saved = tmp_path / "saved.json"
    done = chat("/system You are terse.", "Hi", f"/save {saved}", "/regenerate", "/clear", "Hi", flags=flags)
    (answer,) = answers_of(fresh, "Hi", system="You are terse.")
    assert (done.returncode, done.stdout) == (0, f"{answer}\n" * 3), done.stderr
    assert json.loads(saved.read_text())["messages"] == [
        {"role": "system", "content": "You are terse."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": answer},
    ]
    done = chat(f"/load {saved}", "More", flags=[*flags, "--system", "Replaced."])
    assert done.stdout == answers_of(fresh, "Hi", "More", system="You are terse.")[1] + "\n"
    done = chat("/set temperature 1", "/set seed 7", "/set max-tokens 5", "Hi", "/exit", "never said", flags=flags)
    assert done.stdout == answers_of(fresh, "Hi", temperature=1, seed=7, max_tokens=5)[0] + "\n"


def test_help_and_show(flags):
    done = chat("/help", flags=flags)
    for word in "/help /clear /system /set /show /regenerate /save /load /exit".split():
        assert word in done.stdout
    text = chat("/system Be kind.", "/set top-k 40", "/show", flags=flags).stdout
    for line in (r"system +Be kind\.", r"messages +0", r"top-k +40", r"temperature +0", r"max-tokens +16", r"seed +-1"):
        assert re.search(f"^  {line}$", text, re.M), text


def test_several_lines_are_one_message(flags, fresh):
    expected = answers_of(fresh, "one\ntwo")[0] + "\n"
    for lines in (['"""one', 'two"""'], ["one\\", "two"], ['"""one', "two"]):
        assert chat(*lines, flags=flags).stdout == expected, lines
    assert chat('"""one line"""', flags=flags).stdout == answers_of(fresh, "one line")[0] + "\n"
    done = chat(" /help me", flags=flags)
    assert done.stdout == answers_of(fresh, " /help me")[0] + "\n"


@pytest.mark.parametrize(
    "line, said",
    [
        ("/sav x", "no command /sav; did you mean save?"),
        ("/set temprature 1", "no parameter 'temprature'; did you mean temperature?"),
        ("/set", "no parameter ''"),
        ("/set top-k many", "many is not a number"),
        ("/set temperature -1", "temperature"),
        ("/regenerate", "no answer yet"),
        ("/load /nowhere/x.json", "/nowhere/x.json"),
        ("/save /nowhere/x.json", "/nowhere/x.json"),
        ("word " * 9000, "context"),
    ],
)
def test_what_fails_is_said_and_the_chat_goes_on(line, said, fresh):
    flags = ["--url", fresh.url]
    done = chat("/system Be kind.", line, "Hi", flags=flags)
    assert said in done.stderr and done.returncode == 1, done.stderr
    assert done.stdout == answers_of(fresh, "Hi", system="Be kind.")[0] + "\n"


@pytest.mark.parametrize("text", ["", "[]", '{"messages": 3}', '{"messages": [{"role": "user"}]}',
                                  '{"messages": [{"role": "assistant", "content": "x"}]}',
                                  '{"messages": [{"role": "user", "content": "x"}]}'])  # fmt: skip
def test_what_is_no_saved_chat_is_not_loaded(text, tmp_path, fresh):
    (tmp_path / "x.json").write_text(text)
    done = chat(f"/load {tmp_path / 'x.json'}", "/show", flags=["--url", fresh.url])
    assert done.returncode == 1 and "x.json" in done.stderr
    assert re.search(r"messages +0", done.stdout)


def test_mistakes_in_flags():
    for flags, words in [
        ([], "--model is required"),
        (["-m", "nowhere.gguf"], "No such file"),
        (["--url", "http://127.0.0.1:1"], "127.0.0.1:1"),
        (["--url", "nonsense"], "nonsense"),
        ([*LOCAL, "--top-p", "7"], "top_p"),
    ]:
        done = chat("Hi", flags=flags)
        assert done.returncode in (1, 2) and words in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_a_server_with_keys(tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("sk-one\n")
    with Server("--kv-cache", "64MiB", "--api-key-file", str(keys)) as server:
        done = chat("Hi", flags=["--url", server.url])
        assert done.returncode == 1 and "401" in done.stderr
        flags = ["--url", server.url + "/v1", "--api-key", "sk-one"]
        assert chat("Hi", flags=flags).returncode == 0
        done = chat("Hi", flags=[*flags, "-m", "another"])
        assert done.returncode == 1 and "another" in done.stderr
        assert server.stop() == 0


class Terminal:
    """trellis on a terminal of its own."""

    def __init__(self, *args, **environment):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(BIN, [BIN, *args], {**os.environ, "TERM": "xterm", **environment})
        self.screen = ""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        except ProcessLookupError:
            pass
        os.close(self.fd)

    def type(self, keys):
        os.write(self.fd, keys.encode())

    def wait_for(self, pattern):
        """Until what came since the last time matches; returns the match."""
        deadline = time.monotonic() + DEADLINE
        while not (found := re.search(pattern, self.screen, re.S)):
            assert time.monotonic() < deadline, self.screen
            if select.select([self.fd], [], [], 1)[0]:
                try:
                    self.screen += os.read(self.fd, 65536).decode(errors="replace")
                except OSError:
                    raise AssertionError(f"it ended without {pattern}: {self.screen}") from None
        self.screen = self.screen[found.end() :]
        return found

    def end(self):
        """Its exit status; reads what it still says."""
        while True:
            try:
                if not (more := os.read(self.fd, 65536)):
                    break
                self.screen += more.decode(errors="replace")
            except OSError:
                break
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status)


def test_on_a_terminal_ctrl_c_stops_the_answer_only(tmp_path):
    state = {"XDG_STATE_HOME": str(tmp_path / "state")}
    flags = ["chat", *LOCAL, "--temp", "0"]
    history = tmp_path / "state" / "trellis" / "history"
    with Terminal(*flags, **state) as terminal:
        terminal.wait_for(r">>> ")
        terminal.type("List a thousand names of bears, called Bär.\n")  # it would go on for thousands of tokens
        terminal.wait_for(r"Bär\.\s*\n")
        terminal.wait_for(r"\w+ \w+ \w+")
        terminal.type("\x03")
        terminal.wait_for(r"stopped: \d+ tokens.*>>> ")
        terminal.type("half a line\x03")
        terminal.wait_for(r"\^C.*>>> ")
        terminal.type("/show\n")
        terminal.wait_for(r"messages +2\b.*>>> ")
        terminal.type(" not kept\x15/set max-tokens 3\n")
        terminal.wait_for(r">>> ")
        terminal.type('"""one\n')
        terminal.wait_for(r"\.\.\. ")
        terminal.type('two"""\n')
        terminal.wait_for(r"(\d+) of (\d+) prompt tokens cached.*>>> ")
        terminal.type("\x04")
        assert terminal.end() == 0
    assert history.read_text().splitlines() == [
        "List a thousand names of bears, called Bär.",
        "/show",
        "/set max-tokens 3",
        '"""one',
        'two"""',
    ]
    assert history.stat().st_mode & 0o777 == 0o600 and history.parent.stat().st_mode & 0o777 == 0o700
    with Terminal(*flags, **state) as terminal:
        terminal.wait_for(r">>> ")
        terminal.type("\x1b[A\x1b[A\x1b[A")  # up, to /set
        terminal.wait_for(r"/set max-tokens 3")
        terminal.type("\x7f7\n")
        terminal.wait_for(r">>> ")
        terminal.type("/show\n")
        terminal.wait_for(r"max-tokens +7.*>>> ")
        terminal.type("/exit\n")
        assert terminal.end() == 0


def test_the_history_stays_short(tmp_path):
    history = tmp_path / "trellis" / "history"
    history.parent.mkdir()
    history.write_text("".join(f"line {i}\n" for i in range(2500)))
    with Terminal("chat", *LOCAL, XDG_STATE_HOME=str(tmp_path)) as terminal:
        terminal.wait_for(r">>> ")
        terminal.type("\x1b[A")
        terminal.wait_for(r"line 2499")
        terminal.type("\x15/exit\n")
        assert terminal.end() == 0
    lines = history.read_text().splitlines()
    assert lines[0] == "line 1500" and lines[-2:] == ["line 2499", "/exit"]


def test_the_model_is_named_on_a_terminal(fresh):
    with Terminal("chat", "--url", fresh.url, HOME="/nonexistent") as terminal:
        terminal.wait_for(rf"{re.escape(MODEL)}: /help lists")
        terminal.wait_for(r">>> ")
        terminal.type("Hi\n")
        terminal.wait_for(r"prompt tokens cached.*>>> ")
        terminal.type("\x04")
        assert terminal.end() == 0
