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
from tools import OURS, ROOT, UNCACHED
from turns import best_settings
from workload import WITH_PEERS
from workloads import WORKLOADS

NOT_MEASURED = "not measured"
DEFAULTS = "defaults"  # the setting of that name
DOCS = ROOT / "docs/benchmarks.md"


def piece_name(data):
    return "/".join(part for part in data["piece"].values() if part)


def others(workload):
    """The sides that Trellis is compared with."""
    sides = WORKLOADS[workload].sides if workload in WORKLOADS else WITH_PEERS
    return [side for side in sides if side != OURS]


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
    """(setting, values in the order of turns): of the setting that is best for this figure. Others were run too, for
    other figures or as the defaults, and gave this one beside."""
    found = runs_of(data, side, key)
    best = best_settings(data["trials"].get(side, {}), data["figures"]).get(key)
    if best:
        found = [(setting, value) for setting, value in found if setting == best]
    return (found[0][0] if found else ""), [value for _, value in found]


def runs_of(data, side, key):
    """[(setting, value)]"""
    runs = sorted((run for run in data["runs"] if run["side"] == side), key=lambda run: run["turn"])
    return [(run["setting"], run["values"][key]) for run in runs if key in run["values"]]


def defaults_of(data, side, key):
    """What a side's defaults give: their runs in turns, or else what was tried of them, once."""
    values = [value for setting, value in runs_of(data, side, key) if setting == DEFAULTS]
    tried = data["trials"].get(side, {}).get(DEFAULTS, {})
    return values or ([tried[key]] if key in tried else [])


def spread(values):
    return {"median": stats.median(values), "min": min(values), "max": max(values), "runs": len(values)}


def why_missing(data, side, key):
    trials = data["trials"].get(side, {})
    errors = [values["error"] for values in trials.values() if "error" in values]
    if errors and len(errors) == len(trials):
        return errors[0].strip().splitlines()[-1]
    if side not in data["wanted"]:
        return "not asked for"
    if any(run["side"] == side for run in data["runs"]) and not any(key in tried for tried in trials.values()):
        return ""  # it does not say this
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
            row["missing"][OURS] = why_missing(data, OURS, key)
        for side in others(data["piece"]["workload"]):
            setting, theirs = samples(data, side, key)
            if not theirs:
                row["missing"][side] = why_missing(data, side, key)
                continue
            row["sides"][side] = spread(theirs) | {"setting": setting}
            if ours:
                row["sides"][side] |= stats.compare(ours, theirs, higher)
            defaults = defaults_of(data, side, key)
            if ours and defaults and setting != DEFAULTS:
                row["sides"][side]["over_defaults"] = stats.compare(ours, defaults, higher)["ratio"]
                row["sides"][side]["defaults_runs"] = len(defaults)
        rows.append(row)
    return rows


def table(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def value_cell(row, side):
    if side not in row["sides"]:
        return "–"
    got = row["sides"][side]
    spread = f"{number(got['min'])} to {number(got['max'])}, " if got["runs"] > 1 else ""
    return f"{number(got['median'])} ({spread}n={got['runs']})"


def ratio_cell(row, side):
    got = row["sides"].get(side, {})
    if "ratio" not in got:
        return "–"
    return f"{ratio_text(got)}, {got['verdict']}{defaults_text(got)}"


def ratio_text(got):
    return f"{got['ratio']:.2f} ({got['low']:.2f} to {got['high']:.2f})"


def defaults_text(got):
    if "over_defaults" not in got:
        return ""
    return f"; {got['over_defaults']:.1f} of its defaults{', one run' if got['defaults_runs'] == 1 else ''}"


def workload_table(rows, sides):
    header = ["model", "", "unit", OURS]
    for side in sides:
        header += [side, "ratio"] if side == UNCACHED else [side, "its best setting", "ratio"]
    body = []
    for row in rows:
        line = [row["model"], row["label"], row["unit"], value_cell(row, OURS)]
        for side in sides:
            line.append(value_cell(row, side))
            if side != UNCACHED:
                line.append(row["sides"].get(side, {}).get("setting", "–"))
            line.append(ratio_cell(row, side))
        body.append(line)
    return table(header, body)


def reached(is_reached, verdict):
    text = "yes" if is_reached else "no"
    return f"{text} ({verdict})" if verdict in (stats.NOISE, stats.TOO_FEW) else text


def goal_lines(goal, row):
    """One for each side it is a goal against, or one for what Trellis is to reach by itself. `row`: None if there is
    none."""
    lines, sides = [], row["sides"] if row else {}
    if goal.most is not None:
        line = [goal.label, "–", f"<= {number(goal.most)}"]
        if OURS in sides:
            lines.append([*line, value_cell(row, OURS), reached(sides[OURS]["median"] <= goal.most, "")])
        else:
            lines.append([*line, "–", row["missing"][OURS] if row else NOT_MEASURED])
    for side, least in goal.ratios.items():
        line, got = [goal.label, side, f">= {least:.3g}"], sides.get(side, {})
        if "ratio" in got:
            measured = ratio_text(got) + defaults_text(got)
            lines.append([*line, measured, reached(got["ratio"] >= least, got["verdict"])])
        else:
            lines.append([*line, "–", row["missing"].get(side, "not run yet") if row else NOT_MEASURED])
    return lines


def goals_table(goals, rows):
    by_name = {(row["piece"], row["key"]): row for row in rows}
    body = [line for goal in goals for line in goal_lines(goal, by_name.get((goal.piece, goal.figure)))]
    return table(["measure", "against", "goal", "ratio or value", "reached"], body)


def goals_parts(rows):
    """The goals of which anything is measured."""
    pieces, parts = {row["piece"] for row in rows}, []
    for title, goals in GOALS.items():
        if any(goal.piece in pieces for goal in goals):
            parts += [f"**{title}**", goals_table(goals, rows)]
    return parts


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
            if why:
                lines[f"- {row['piece']}, {side}: {why}"] = None
    return "\n".join(lines)


def markdown(records, with_goals):
    rows = [row for data in records for row in summarise(data)]
    parts = [facts_text(records)]
    if with_goals:
        parts += goals_parts(rows)
    for name, workload in WORKLOADS.items():
        own = [row for row in rows if row["piece"].split("/")[0] == name]
        if own:
            parts += [f"**{name}**: {' '.join(workload.__doc__.split())}", workload_table(own, others(name))]
    if lines := missing_list(rows):
        parts += ["**Missing**", lines]
    return "\n\n".join(parts)


def is_full(data):
    workload = WORKLOADS.get(data["piece"]["workload"])
    return workload is not None and data["sizes"] == dataclasses.asdict(workload.full)


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
