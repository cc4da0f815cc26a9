#!/usr/bin/env python3
"""Prefill and decode, `trellis bench` beside llama-bench: same file, same threads, same run.

llama-bench is tried once with each of its settings that matter on a CPU; its best one for each row is what counts.
Then both run in turns, so that whatever else the machine does hits both.
"""

import argparse
import json
import pathlib
import subprocess
import sys

import common

# Repacking weights at load and flash attention each help on some machines and depths, and hurt on others.
PEER_SETTINGS = [
    ["--repack", repack, "-fa", flash] for repack in ("1", "0") for flash in ("1", "0")
]


def rows_of(command):
    """Runs a bench once; {(prompt, gen, depth): tokens per second}."""
    done = subprocess.run([*command, "-r", "1", "-o", "json"], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed ({done.returncode}): {done.stderr.strip()[-2000:]}")
    rows = {}
    for row in json.loads(done.stdout):
        rows[(row["n_prompt"], row["n_gen"], row["n_depth"])] = row["avg_ts"]
    return rows


def name_of(test):
    prompt, gen, depth = test
    return (f"prefill {prompt}" if prompt else f"decode {gen}") + f" at {depth}"


def measure(model, args):
    depths = args.depths.split(",")
    wanted = {
        test
        for depth in map(int, depths)
        for test in [(args.prompt, 0, depth), (0, args.gen, depth)]
        if test[0] or test[1]
    }

    def command(program, extra, tests):
        """One command for all `tests`, which share their depths or are all there are."""
        prompt = max(test[0] for test in tests)
        gen = max(test[1] for test in tests)
        depth = ",".join(str(d) for d in sorted({test[2] for test in tests}))
        size = ["-p", str(prompt), "-n", str(gen), "-d", depth, "-t", str(args.threads)]
        return [*program, "-m", model, *size, *extra]

    print(f"{pathlib.Path(model).name}: trying llama-bench's settings", file=sys.stderr)
    sweep = [rows_of(command(args.peer, extra, wanted)) for extra in PEER_SETTINGS]
    best = {test: max(range(len(sweep)), key=lambda i: sweep[i][test]) for test in wanted}

    samples = {test: {"ours": [], "theirs": []} for test in wanted}
    for turn in range(args.repetitions):
        print(f"{pathlib.Path(model).name}: turn {turn + 1} of {args.repetitions}", file=sys.stderr)
        for test in sorted(wanted):
            sides = [
                ("ours", command(args.trellis, [], {test})),
                ("theirs", command(args.peer, PEER_SETTINGS[best[test]], {test})),
            ]
            # Who goes first changes each turn: the second one starts on a warmer machine.
            for side, line in sides if turn % 2 == 0 else sides[::-1]:
                samples[test][side].append(rows_of(line)[test])
    results = []
    for test in sorted(wanted, key=lambda t: (t[2], -t[0])):
        pair = samples[test]
        results.append(
            {
                "test": name_of(test),
                "settings": " ".join(PEER_SETTINGS[best[test]]),
                **pair,
                **common.compare(pair["ours"], pair["theirs"], higher_is_better=True),
            }
        )
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("-m", "--model", action="append", required=True, help="GGUF file; repeatable")
    parser.add_argument("--trellis", required=True, help="the program trellis")
    parser.add_argument("--peer", required=True, help="the program llama-bench")
    parser.add_argument("-p", dest="prompt", type=int, default=512)
    parser.add_argument("-n", dest="gen", type=int, default=64)
    parser.add_argument("-d", dest="depths", default="0,4096")
    parser.add_argument("-t", dest="threads", type=int, default=2)
    parser.add_argument("-r", dest="repetitions", type=int, default=common.MIN_RUNS)
    parser.add_argument("--out", default="build/bench/speed", help="writes OUT.md and OUT.json")
    args = parser.parse_args()
    args.trellis, args.peer = [args.trellis, "bench"], [args.peer]

    facts = common.machine()
    data = {"machine": facts, "threads": args.threads, "models": {}}
    lines = []
    for model in args.model:
        name = pathlib.Path(model).name
        data["models"][name] = results = measure(model, args)
        for row in results:
            lines.append(
                [
                    name.removesuffix(".gguf"),
                    row["test"],
                    f"{common.median(row['ours']):.1f}",
                    f"{common.median(row['theirs']):.1f}",
                    row["settings"],
                    common.ratio_text(row),
                    row["verdict"],
                ]
            )
    header = ["model", "test", "trellis tok/s", "llama.cpp tok/s", "its best settings", "ratio", "verdict"]
    text = (
        f"{common.machine_text(facts)}, {args.threads} threads, medians of {args.repetitions} runs in turns\n\n"
        + common.table(header, lines)
    )
    common.save(args.out, text, data)


if __name__ == "__main__":
    main()
