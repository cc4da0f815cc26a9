"""What the comparisons share: medians, verdicts that respect noise, tables, facts about the machine."""

import json
import pathlib
import platform
import statistics
import subprocess

# Fewer runs of each prove nothing. Of 5 and 5 samples of the same thing, all of one side lie above all of the other
# once in 126 times.
MIN_RUNS = 5


def median(values):
    return statistics.median(values)


def compare(ours, theirs, higher_is_better):
    """Compares samples of two programs that ran in turns.

    Returns the ratio of the medians (above 1: we are better), the range of the ratios of runs side by side, and a
    verdict: better or worse only if every run of one is better than every run of the other.
    """
    if not higher_is_better:
        ours, theirs = [1 / x for x in ours], [1 / x for x in theirs]
    ratios = [a / b for a, b in zip(ours, theirs)]
    if min(len(ours), len(theirs)) < MIN_RUNS:
        verdict = "too few runs"
    elif min(ours) > max(theirs):
        verdict = "better"
    elif max(ours) < min(theirs):
        verdict = "worse"
    else:
        verdict = "within noise"
    ratio = median(ours) / median(theirs)
    return {"ratio": ratio, "low": min(ratios), "high": max(ratios), "verdict": verdict}


def ratio_text(result):
    return f"{result['ratio']:.2f} ({result['low']:.2f} to {result['high']:.2f})"


def table(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def machine():
    cpu = platform.processor() or platform.machine()
    flags = ""
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            cpu = value.strip()
        elif key.strip() in ("flags", "Features"):
            flags = value
    wanted = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "asimddp", "i8mm")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return {
        "cpu": cpu,
        "isa": [flag for flag in wanted if flag in flags.split()],
        "commit": commit.stdout.strip(),
    }


def machine_text(facts):
    return f"{facts['cpu']} ({' '.join(facts['isa'])}), commit {facts['commit'] or 'unknown'}"


def save(path, text, data):
    """Writes PATH.md and PATH.json, and shows the text."""
    print(text)
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".md").write_text(text + "\n")
    path.with_suffix(".json").write_text(json.dumps(data, indent=1) + "\n")
