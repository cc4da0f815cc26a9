#!/usr/bin/env python3
"""Shared prefixes over HTTP, `trellis serve` beside llama-server: same file, same threads, same token ids.

    load    start of the process to a healthy server; peak resident memory after everything below
    cold    8 requests at once: a trunk of 2,048 tokens nobody has seen, 32 own tokens each, 16 tokens out
    more    8 more on the same trunk
    warm    6,000 tokens are cached, 32 more come, 32 tokens out

Each server runs alone, in turns. llama-server is tried once with each of its settings that matter here; its best one
for each figure is what counts.
"""

import argparse
import concurrent.futures
import http.client
import json
import pathlib
import random
import re
import socket
import subprocess
import sys
import tempfile
import time

import common

SHARED = ["-np", "8", "-kvu"]  # a slot for each branch, one pool of KV for all
PEER_SETTINGS = [
    ["-fa", flash, repack, *slots]
    for slots in ([], SHARED)
    for flash, repack in (("on", "--repack"), ("on", "--no-repack"), ("off", "--no-repack"))
]
TRUNK, OWN, WARM, BRANCHES = 2048, 32, 6000, 8
FIGURES = [  # (key, what it is, unit)
    ("load_s", "load", "s"),
    ("cold_wall_s", "8 cold branches, wall", "s"),
    ("cold_ttft_s", "8 cold branches, slowest first token", "s"),
    ("more_wall_s", "8 more, trunk warm, wall", "s"),
    ("more_ttft_s", "8 more, slowest first token", "s"),
    ("warm_ttft_s", "6,000 warm + 32, first token", "s"),
    ("warm_wall_s", "6,000 warm + 32, 32 out, wall", "s"),
    ("peak_mib", "peak resident memory", "MiB"),
]


class Server:
    """One server process on a port of its own; a context manager that stops it."""

    def __init__(self, command):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.command = [*command, "--host", "127.0.0.1", "--port", str(self.port)]
        self.log = tempfile.TemporaryFile()

    def __enter__(self):
        self.start = time.monotonic()
        self.process = subprocess.Popen(self.command, stdout=self.log, stderr=self.log)
        while not self.healthy():
            if self.process.poll() is not None or time.monotonic() - self.start > 300:
                self.__exit__()
                self.log.seek(0)
                tail = self.log.read().decode(errors="replace")[-2000:]
                sys.exit(f"{' '.join(self.command)} did not come up:\n{tail}")
            time.sleep(0.01)
        self.load_s = time.monotonic() - self.start
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def healthy(self):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except OSError:
            return False

    def post(self, path, body):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=1200)
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        if answer.status != 200:
            sys.exit(f"{self.command[0]} {path}: {answer.status} {answer.read()[:500]}")
        return answer

    def peak_mib(self):
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
        return 0

    def tokenize(self, text):
        return json.load(self.post("/tokenize", {"content": text}))["tokens"]

    def complete(self, tokens, num_out):
        """Streams one completion; (seconds to the first token, to the end, prompt tokens computed)."""
        body = {
            "prompt": tokens,
            "max_tokens": num_out,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        start, first, computed = time.monotonic(), None, None
        for line in self.post("/v1/completions", body):
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            if first is None and any(choice.get("text") for choice in event.get("choices", [])):
                first = time.monotonic() - start
            computed = (event.get("timings") or {}).get("prompt_n", computed)
        if first is None:
            sys.exit(f"{self.command[0]}: a completion without text")
        return first, time.monotonic() - start, computed


def branches(server, trunk, owns):
    """All at once; (slowest first token, wall, prompt tokens computed)."""
    start = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(len(owns)) as pool:
        done = list(pool.map(lambda own: server.complete(trunk + own, 16), owns))
    wall = time.monotonic() - start
    return max(d[0] for d in done), wall, sum(d[2] or 0 for d in done)


def run_once(command, text):
    """All figures of one server, from its start to its end."""
    with Server(command) as server:
        tokens = server.tokenize(text)
        need = TRUNK + WARM + OWN * (2 * BRANCHES + 1)
        if len(tokens) < need:
            sys.exit(f"the text has {len(tokens)} tokens, {need} are needed")
        # Different text for the two workloads, so that neither warms the other.
        trunk, rest = tokens[:TRUNK], tokens[TRUNK:]
        owns = [rest[i * OWN : (i + 1) * OWN] for i in range(2 * BRANCHES)]
        long = rest[2 * BRANCHES * OWN :]
        result = {"load_s": server.load_s}
        for name, own in (("cold", owns[:BRANCHES]), ("more", owns[BRANCHES:])):
            ttft, wall, computed = branches(server, trunk, own)
            result |= {f"{name}_ttft_s": ttft, f"{name}_wall_s": wall, f"{name}_computed": computed}
        server.complete(long[:WARM], 1)
        ttft, wall, computed = server.complete(long[: WARM + OWN], 32)
        result |= {"warm_ttft_s": ttft, "warm_wall_s": wall, "warm_computed": computed}
        result["peak_mib"] = server.peak_mib()
    return result


def sample_text():
    """The license's sentences, numbered, in an order of our own: natural text, long enough for everything above, and
    the same in every commit. Figures of two commits could not be compared otherwise."""
    whole = (pathlib.Path(__file__).resolve().parent.parent / "LICENSE").read_text()
    sentences = [" ".join(part.split()) for part in re.split(r"(?<=[.;:])\s", whole)]
    # random() gives the same numbers in every version of Python; shuffle() need not.
    draw = random.Random(1).random
    return "\n".join(f"({i}) {sentences[int(draw() * len(sentences))]}" for i in range(500))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("-m", "--model", required=True)
    parser.add_argument("--trellis", required=True, help="the program trellis")
    parser.add_argument("--peer", required=True, help="the program llama-server")
    parser.add_argument("-t", dest="threads", type=int, default=2)
    parser.add_argument("-r", dest="repetitions", type=int, default=common.MIN_RUNS)
    parser.add_argument("--out", default="build/bench/branches", help="writes OUT.md and OUT.json")
    args = parser.parse_args()

    text = sample_text()
    ours = [args.trellis, "serve", "-m", args.model, "--threads", str(args.threads)]
    # Its contexts are given room for everything above at once.
    base = [args.peer, "-m", args.model, "-t", str(args.threads), "-c", "32768"]
    sweep = []
    for settings in PEER_SETTINGS:
        print(f"trying llama-server {' '.join(settings)}", file=sys.stderr)
        sweep.append(run_once([*base, *settings], text))
    best = {key: min(range(len(sweep)), key=lambda i: sweep[i][key]) for key, _, _ in FIGURES}

    mine, theirs = [], {i: [] for i in sorted(set(best.values()))}
    sides = [(mine, ours), *((runs, [*base, *PEER_SETTINGS[i]]) for i, runs in theirs.items())]
    for turn in range(args.repetitions):
        print(f"turn {turn + 1} of {args.repetitions}", file=sys.stderr)
        # Who goes first changes each turn: the second one starts on a warmer machine.
        for runs, command in sides if turn % 2 == 0 else sides[::-1]:
            runs.append(run_once(command, text))

    rows, data = [], {"machine": common.machine(), "model": args.model, "figures": {}}
    for key, what, unit in FIGURES:
        a = [run[key] for run in mine]
        b = [run[key] for run in theirs[best[key]]]
        result = common.compare(a, b, higher_is_better=False)
        settings = " ".join(PEER_SETTINGS[best[key]])
        data["figures"][key] = {"ours": a, "theirs": b, "settings": settings, **result}
        computed = key.split("_")[0] + "_computed"
        notes = ""
        if computed in mine[0]:
            notes = " / ".join(
                f"{common.median([run[computed] for run in runs]):,.0f}" for runs in (mine, theirs[best[key]])
            )
        rows.append(
            [what, f"{common.median(a):.3g} {unit}", f"{common.median(b):.3g} {unit}", settings, notes]
            + [common.ratio_text(result), result["verdict"]]
        )
    data["runs"] = {"trellis": mine, "sweep": sweep}
    header = ["", "trellis", "llama-server", "its best settings", "prompt tokens computed (medians)", "ratio", "verdict"]
    text = (
        f"{pathlib.Path(args.model).name}, {common.machine_text(data['machine'])}, {args.threads} threads, "
        f"medians of {args.repetitions} runs in turns\n\n{common.table(header, rows)}"
    )
    common.save(args.out, text, data)


if __name__ == "__main__":
    main()
