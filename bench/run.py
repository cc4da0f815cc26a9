#!/usr/bin/env python3
"""Trellis beside llama.cpp and OpenVINO GenAI: same files, same threads, in turns. With --set cache: prompts that
share their beginnings, also beside a Trellis that keeps nothing.

Results are kept piece by piece under OUT/full (or OUT/quick), and a piece that is there is not measured again, so a
run can be stopped at any time and started again. The report is made of whatever is there.
"""

import argparse
import dataclasses
import fnmatch
import pathlib
import signal
import sys
import time

import machine
import report
from servers import BenchError
from tools import LLAMA, MODELS, OPENVINO, OURS, UNCACHED, Tools
from turns import Record, Runner, all_pieces
from workloads import WORKLOADS



@dataclasses.dataclass(frozen=True)
class Set:
    """What is measured unless --only says otherwise; the rest of what there is comes by --only."""

    pieces: list
    quick: list
    repetitions: dict  # side -> runs


# OpenVINO takes long to load, in every run, and llama.cpp to compute what it does not find. 5 against 3 still tell a
# difference from noise (stats.MAX_LUCK).
SETS = {
    "speed": Set(
        ["speed/*", "load/*"]
        + [
            f"{workload}/{model}"
            for model in ("smollm2", "qwen-1.5b")
            for workload in ("warm", "branches", "streams")
        ],
        [
            "speed/smollm2/0", "speed/smollm2/2048", "speed/qwen-1.5b/0", "warm/smollm2", "branches/smollm2",
            "streams/smollm2/shared-8", "load/smollm2",
        ],
        {OURS: 5, UNCACHED: 5, LLAMA: 5, OPENVINO: 3},
    ),
    "cache": Set(
        [
            f"{workload}/smollm2"
            for workload in ("branches", "agents", "curve", "shared-prefix", "no-reuse", "memory", "warm")
        ],
        [
            "branches/smollm2", "agents/smollm2", "curve/smollm2/0", "curve/smollm2/50", "curve/smollm2/95",
            "shared-prefix/smollm2", "no-reuse/smollm2", "memory/smollm2/1", "memory/smollm2/8", "warm/smollm2",
        ],
        {OURS: 5, UNCACHED: 5, LLAMA: 3, OPENVINO: 3},
    ),
}  # fmt: skip
QUICK_REPETITIONS = {OURS: 4, UNCACHED: 4, LLAMA: 4, OPENVINO: 4}


def patterns_of(of_set, quick, models):
    """Of a set's pieces: those of `models` instead of its own, if any are named."""
    patterns = of_set.quick if quick else of_set.pieces
    if not models:
        return patterns
    parts = [pattern.split("/") for pattern in patterns]
    return ["/".join([part[0], model, *part[2:]]) for model in models for part in parts]


def chosen(pieces, patterns):
    """The pieces that a pattern names, or a part of a name before a slash, in the order of `pieces`."""
    return [
        piece
        for piece in pieces
        if any(fnmatch.fnmatch(piece.name, p) or fnmatch.fnmatch(piece.name, f"{p}/*") for p in patterns)
    ]


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=SETS, help="what is measured: speed, unless told")
    parser.add_argument("--model", action="append", choices=MODELS, help="that set's pieces, of this model")
    parser.add_argument("--quick", action="store_true", help="a small model, small sizes: some 10 minutes")
    parser.add_argument("--only", action="append", metavar="WORKLOAD[/MODEL[/VARIANT]]", help="pieces; * matches")
    parser.add_argument("--list", action="store_true", help="the pieces there are, and no more")
    parser.add_argument("--again", action="store_true", help="measure the chosen pieces anew")
    parser.add_argument("-r", dest="repetitions", type=int, help="runs of every side")
    parser.add_argument("-t", dest="threads", type=int, default=2)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("build/bench"))
    parser.add_argument("--trellis", type=pathlib.Path, help="the program")
    parser.add_argument("--llama", type=pathlib.Path, help="prefix of llama.cpp's tools")
    parser.add_argument("--llama-plain", type=pathlib.Path, help="the same, built without GGML_CPU_REPACK")
    parser.add_argument("--openvino", type=pathlib.Path, help="a Python that has openvino-genai; none: not measured")
    parser.add_argument("--models", type=pathlib.Path, help="folder of fetched models")
    parser.add_argument("--made", type=pathlib.Path, help="folder for requantised models")
    args = parser.parse_args()
    is_chosen = args.only or args.model or args.quick or args.set
    args.set = SETS[args.set or "speed"]
    args.pieces = chosen(all_pieces(), args.only or patterns_of(args.set, args.quick, args.model))
    if not args.pieces:
        parser.error(f"--only {' '.join(args.only)} names nothing; --list lists what there is")
    if args.list:
        print("\n".join(piece.name for piece in (args.pieces if is_chosen else all_pieces())))
        sys.exit()
    missing = [name for name in ("trellis", "llama", "llama_plain", "models", "made") if not getattr(args, name)]
    if missing:
        parser.error(f"scripts/bench gives --{', --'.join(missing).replace('_', '-')}")
    return args


def run_piece(piece, tools, facts, folder, args, say):
    workload, model = WORKLOADS[piece.workload], tools.model_path(piece.model)
    sizes = workload.quick if args.quick else workload.full
    record = Record(folder / f"{piece.name.replace('/', '-')}.json", piece, facts, sizes)
    if args.again:
        record.path.unlink(missing_ok=True)
    if differs := record.resume():
        say(f"begins anew: {', '.join(differs)} changed")
    sides = [side for side in tools.sides() if side in workload.sides]
    runner = Runner(
        record,
        sides,
        {side: workload.settings(side, piece.variant) for side in sides},
        lambda side, setting, sizes, keys, limit_s: workload.measure(
            dataclasses.replace(tools, limit_s=limit_s), side, setting, model, piece.variant, sizes, keys
        ),
        say,
    )
    usual = QUICK_REPETITIONS if args.quick else args.set.repetitions
    return runner.run({side: args.repetitions or usual[side] for side in sides})


def main():
    args = parse()
    folder = args.out / ("quick" if args.quick else "full")
    tools = Tools(
        args.trellis, args.llama, args.llama_plain, args.openvino, args.threads, args.models, args.made
    )
    facts = machine.facts(tools)
    # However it is stopped, the program that is being measured is stopped too, and Ctrl-C works in a background job.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    start, incomplete = time.monotonic(), []
    for i, piece in enumerate(args.pieces):

        def say(text):
            minutes = (time.monotonic() - start) / 60
            where = f"[{i + 1}/{len(args.pieces)}, {minutes:.0f} min] {piece.name}"
            print(f"{where}: {text}", file=sys.stderr, flush=True)

        try:
            if not run_piece(piece, tools, facts, folder, args, say):
                incomplete.append(piece.name)
        except KeyboardInterrupt:
            sys.exit("\nStopped. The same command goes on from here; bench/report.py reports what is there.")
        except BenchError as error:
            say(str(error))
            incomplete.append(piece.name)
    report.write(folder)
    if incomplete:
        sys.exit(f"not complete: {', '.join(incomplete)}")


if __name__ == "__main__":
    main()
