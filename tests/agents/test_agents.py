"""Coding agents as their makers publish them, with a small model, in a scratch folder and a home of their own.

What is checked is the protocol: a call was parsed and run, its result came back in the next request, and that found in
the cache all that was sent before. The wit is not the model's: 1.5B do not call tools on their own behind such
prompts, so the task spells out the call, in the form that the chat template asks for. Harness and tools are the
agents'; Qwen Code's system prompt is replaced (agents.py).
"""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "e2e"))
from agents import AGENTS, BIN  # noqa: E402
from server_process import Server  # noqa: E402

MODEL = "qwen2.5-coder-1.5b-instruct-q4_k_m"
SECRET = "tangerine"  # in the file only
# The temperature is 1, where even a call that is spelled out can fail.
ATTEMPTS = 6
# When an agent is ended, in seconds: a hang, or a model that does not come to an end.
LIMIT, LIMIT_AFTER_RESULT = 900, 120
MOST_TURNS = 4


@dataclass
class Turn:
    """A request as the server's log has it; `finish` is none while it runs."""

    text: str
    finish: str | None = None
    prompt: int = 0
    cached: int = 0


def turns_of(log):
    turns = {}
    for line in log:
        if found := re.search(r"\[info\] prompt id=(\S+) text=(\".*\")$", line):
            turns[found[1]] = Turn(json.loads(found[2]))
        elif found := re.search(r"\[info\] answer id=(\S+) .*finish_reason=(\S+) prompt_tokens=(\d+) cached_tokens=(\d+) ", line):
            turns[found[1]].finish = found[2]
            turns[found[1]].prompt, turns[found[1]].cached = int(found[3]), int(found[4])
    return list(turns.values())


@pytest.fixture(scope="module")
def server():
    with Server("--kv-cache", "2GiB", "--log-prompts", model=MODEL) as running:
        yield running


def task(agent, path):
    call = {"name": agent.tool, "arguments": agent.arguments(str(path))}
    return f"Answer with exactly this call and nothing else:\n<tool_call>\n{json.dumps(call)}\n</tool_call>"


def has_result(turn):
    return SECRET in turn.text.split("<tool_response>", 1)[-1] and "<tool_response>" in turn.text


def run_agent(agent, server, folder):
    """(turns, what it wrote, its exit status; none if it was ended)"""
    shutil.rmtree(folder, ignore_errors=True)
    home, work = folder / "home", folder / "work"
    work.mkdir(parents=True)
    (work / "notes.txt").write_text(f"The word is {SECRET}.\n")
    for path, text in agent.files(server.url, MODEL).items():
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        (home / path).write_text(text)
    home.mkdir(exist_ok=True)
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), **agent.environment(server.url, MODEL)}
    program, *arguments = agent.command(task(agent, work / "notes.txt"))
    begin = len(server.log)
    output = folder / "output"
    with open(output, "wb") as out:
        process = subprocess.Popen(
            [BIN / program, *arguments],
            cwd=work,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # it has children
        )
        try:
            was_ended = not wait_for(process, lambda: turns_of(server.log[begin:]))
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    server.wait_until("all turns are logged", lambda: all(turn.finish for turn in turns_of(server.log[begin:])))
    return turns_of(server.log[begin:]), output.read_text(errors="replace"), None if was_ended else process.returncode


def wait_for(process, turns):
    """False if it has to be ended."""
    end = time.monotonic() + LIMIT
    saw_result = False
    while process.poll() is None:
        so_far = turns()
        if not saw_result and any(has_result(turn) for turn in so_far):
            saw_result, end = True, time.monotonic() + LIMIT_AFTER_RESULT
        if time.monotonic() > end or len(so_far) > MOST_TURNS:
            return False
        time.sleep(0.2)
    return True


@pytest.mark.parametrize("agent", AGENTS, ids=lambda agent: agent.name)
def test_a_call_is_run_and_its_result_found_behind_what_is_cached(agent, server):
    server.post("/v1/cache/reset", {})
    with tempfile.TemporaryDirectory(prefix="agent-") as folder:  # a short name, for a small model to copy
        for _ in range(ATTEMPTS):
            turns, output, status = run_agent(agent, server, pathlib.Path(folder) / "run")
            if len(turns) > 1:
                break
    told = [(turn.finish, turn.prompt, turn.cached) for turn in turns]
    said = f"{agent.name}: {told}, status {status}\n{output[-3000:]}"
    print(said)
    assert len(turns) > 1, f"no call in {ATTEMPTS} attempts. {said}"
    assert turns[0].finish == "tool_calls" and not has_result(turns[0]), said
    assert has_result(turns[1]), said
    for before, turn in zip(turns, turns[1:]):
        # What the model made of its call may be other tokens than what the template makes of it, and an answer that
        # says nothing is left out, with the "assistant" and the line end that the prompt ended in.
        assert before.cached < turn.cached < turn.prompt and before.prompt - 2 <= turn.cached, said
    assert status in (0, None), said
