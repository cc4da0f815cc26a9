#!/usr/bin/env python3
"""Tables, one JSON file and plots from the pieces in a folder; says what is missing.

    report.py [FOLDER]          writes report.md, report.json and *.svg into it (build/bench/full)
    report.py --docs [FOLDER]   also rewrites this machine's part of docs/benchmarks.md
"""

import argparse
import dataclasses
import json
import pathlib
import re
import sys

import machine
import stats
from goals import GOALS
from tools import LLAMA, OPENVINO, OURS, ROOT
from turns import best_settings
from workloads import FULL, WORKLOADS

PEERS = (LLAMA, OPENVINO)
DOCS = ROOT / "docs/benchmarks.md"


def piece_name(data):
    return "/".join(part for part in data["piece"].values() if part)


def load(folder):
    """The pieces in a folder, in the order in which they are measured."""
    records = []
    for path in sorted(pathlib.Path(folder).glob("*.json")):
        data = json.loads(path.read_text())
        if "piece" in data:
            records.append(data)
    workloads = list(WORKLOADS)

    def order(data):
        piece = data["piece"]
        place = workloads.index(piece["workload"]) if piece["workload"] in workloads else len(workloads)
        kind, _, number = piece["variant"].rpartition("-")
        return place, data["model"], kind, int(number) if number.isdigit() else 0

    return sorted(records, key=order)


def samples(data, side, key):
    """(setting, values in the order of turns): of the setting that has this figure."""
    runs = sorted((run for run in data["runs"] if run["side"] == side), key=lambda run: run["turn"])
    found = [(run["setting"], run["values"][key]) for run in runs if key in run["values"]]
    if len({setting for setting, _ in found}) > 1:
        # Another figure's best setting was run too and gave this figure beside its own.
        best = best_settings(data["trials"].get(side, {}), data["figures"]).get(key)
        found = [(setting, value) for setting, value in found if setting == best]
    return (found[0][0] if found else ""), [value for _, value in found]


def spread(values):
    return {"median": stats.median(values), "min": min(values), "max": max(values), "runs": len(values)}


def why_missing(data, side):
    errors = [values["error"] for values in data["trials"].get(side, {}).values() if "error" in values]
    if errors and len(errors) == len(data["trials"][side]):
        return errors[0].strip().splitlines()[-1]
    if side not in data["wanted"]:
        return "not asked for"
    return "not run yet"


def summarise(data):
    """One row for each figure of a piece."""
    rows = []
    for figure in data["figures"]:
        key, higher = figure["key"], figure["unit"] == "tok/s"
        row = {"piece": piece_name(data), "model": data["model"], **figure, "sides": {}, "missing": {}}
        _, ours = samples(data, OURS, key)
        if ours:
            row["sides"][OURS] = spread(ours)
        else:
            row["missing"][OURS] = why_missing(data, OURS)
        for side in PEERS:
            setting, theirs = samples(data, side, key)
            if not theirs:
                row["missing"][side] = why_missing(data, side)
                continue
            row["sides"][side] = spread(theirs) | {"setting": setting}
            if ours:
                row["sides"][side] |= stats.compare(ours, theirs, higher)
            default = data["trials"].get(side, {}).get("defaults", {})
            if key in default and ours:
                ratio = stats.median(ours) / default[key]
                row["sides"][side]["over_defaults"] = ratio if higher else 1 / ratio
        rows.append(row)
    return rows


def table(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def value_cell(row, side):
    if side in row["missing"]:
        return "–"
    got = row["sides"][side]
    spread = f"{number(got['min'])} to {number(got['max'])}, " if got["runs"] > 1 else ""
    return f"{number(got['median'])} ({spread}n={got['runs']})"


def ratio_cell(row, side):
    got = row["sides"].get(side, {})
    if "ratio" not in got:
        return "–"
    return f"{got['ratio']:.2f} ({got['low']:.2f} to {got['high']:.2f}), {got['verdict']}"


def workload_table(rows):
    header = ["model", "", "unit", OURS]
    for side in PEERS:
        header += [side, "its best setting", "ratio"]
    body = []
    for row in rows:
        line = [row["model"], row["label"], row["unit"], value_cell(row, OURS)]
        for side in PEERS:
            line += [value_cell(row, side), row["sides"].get(side, {}).get("setting", "–"), ratio_cell(row, side)]
        body.append(line)
    return table(header, body)


def reached(ratio, goal, verdict):
    text = "yes" if ratio >= goal else "no"
    return f"{text} ({verdict})" if verdict in (stats.NOISE, stats.TOO_FEW) else text


def goals_table(rows):
    by_name = {(row["piece"], row["key"]): row for row in rows}
    body = []
    for goal in GOALS:
        row = by_name.get((goal.piece, goal.figure))
        for side, least in goal.ratios.items():
            got = row["sides"].get(side, {}) if row else {}
            line = [goal.label, side, f">= {least:.3g}"]
            if "ratio" not in got:
                body.append([*line, "–", "not measured" if not row else row["missing"].get(side, "not run yet")])
                continue
            beside = f"; {got['over_defaults']:.1f} of its defaults, one run" if "over_defaults" in got else ""
            line.append(f"{got['ratio']:.2f} ({got['low']:.2f} to {got['high']:.2f}){beside}")
            body.append([*line, reached(got["ratio"], least, got["verdict"])])
    return table(["measure", "against", "goal", "ratio", "reached"], body)


def facts_text(records):
    """What all pieces have in common, and what they have not."""
    facts = records[-1]["facts"]
    commits = sorted({data["facts"]["commit"] for data in records})
    return (
        f"{machine.name_of(facts)}; {facts['cores']} cores, {facts['memory_gib']} GiB; Linux {facts['kernel']}; "
        f"{facts['compiler']}; {facts['llama.cpp']}; "
        f"openvino-genai {facts['openvino'] or 'not installed'}; Trellis {', '.join(commits)}."
    )


def missing_list(rows):
    lines = {}
    for row in rows:
        for side, why in row["missing"].items():
            lines[f"- {row['piece']}, {side}: {why}"] = None
    return "\n".join(lines)


def markdown(records, with_goals):
    rows = [row for data in records for row in summarise(data)]
    parts = [facts_text(records)]
    if with_goals:
        parts += ["**Goals**", goals_table(rows)]
    for name, workload in WORKLOADS.items():
        own = [row for row in rows if row["piece"].split("/")[0] == name]
        if own:
            parts += [f"**{name}**: {' '.join(workload.__doc__.split())}", workload_table(own)]
    if lines := missing_list(rows):
        parts += ["**Missing**", lines]
    return "\n\n".join(parts)


def is_full(data):
    return data["sizes"] == dataclasses.asdict(FULL)


def write(folder):
    """Everything but the docs; shows the text."""
    records = load(folder)
    if not records:
        sys.exit(f"no results in {folder}")
    text = markdown(records, with_goals=all(map(is_full, records)))
    rows = [row for data in records for row in summarise(data)]
    print(text)
    (folder / "report.md").write_text(text + "\n")
    (folder / "report.json").write_text(json.dumps({"rows": rows, "facts": records[-1]["facts"]}, indent=1) + "\n")
    try:
        import plots
    except ImportError as error:
        print(f"no plots: {error}", file=sys.stderr)
        return
    for path in plots.draw(rows, folder):
        print(f"drawn: {path}", file=sys.stderr)


def with_machine(docs, name, text):
    """The docs' text with one machine's part of the results put in place of its old one, or behind the others."""
    begin, end = "<!-- results -->", "<!-- end of results -->"
    match = re.search(f"{re.escape(begin)}\n(.*){re.escape(end)}", docs, re.DOTALL)
    if not match:
        raise ValueError(f"the docs have no {begin} ... {end}")
    parts = re.split(r"^(?=### )", match[1].strip() + "\n", flags=re.MULTILINE)
    parts = [part.strip() for part in parts if part.startswith("### ")]
    mine = f"### {name}\n\n{text}"
    same = [i for i, part in enumerate(parts) if part.splitlines()[0] == f"### {name}"]
    if same:
        parts[same[0]] = mine
    else:
        parts.append(mine)
    inside = "\n\n".join(parts)
    return f"{docs[: match.start()]}{begin}\n{inside}\n{end}{docs[match.end() :]}"


def write_docs(folder):
    records = load(folder)
    if not records or not all(map(is_full, records)):
        sys.exit(f"{folder} does not hold results of a full run, and only such go into the docs")
    names = {machine.name_of(data["facts"]) for data in records}
    if len(names) > 1:
        sys.exit(f"{folder} has results of several machines: {'; '.join(sorted(names))}")
    DOCS.write_text(with_machine(DOCS.read_text(), names.pop(), markdown(records, with_goals=True)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=pathlib.Path, default=pathlib.Path("build/bench/full"))
    parser.add_argument("--docs", action="store_true")
    args = parser.parse_args()
    write(args.folder)
    if args.docs:
        write_docs(args.folder)


if __name__ == "__main__":
    main()
