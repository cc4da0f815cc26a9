"""Plots of a report's rows, as SVG."""

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as pyplot  # noqa: E402 (the backend is chosen first)

from goals import CURVE, OF_IDEAL  # noqa: E402
from stats import NOISE, TOO_FEW, ideal_speedup  # noqa: E402
from tools import LLAMA, OPENVINO, OURS, UNCACHED  # noqa: E402

COLOURS = {OURS: "#1b7837", UNCACHED: "#7fbf7b", LLAMA: "#c2662d", OPENVINO: "#4a6fb0"}
UNITS = {"tok/s": "tokens per second"}


def line(axes, points, side):
    """Medians, with bars from the lowest to the highest run. `points`: [(x, spread)]."""
    if not points:
        return
    points = sorted(points, key=lambda point: point[0])
    xs = [x for x, _ in points]
    medians = [got["median"] for _, got in points]
    low = [got["median"] - got["min"] for _, got in points]
    high = [got["max"] - got["median"] for _, got in points]
    axes.errorbar(xs, medians, yerr=[low, high], label=side, color=COLOURS[side], marker="o", capsize=3)


def finish(figure, path):
    figure.tight_layout()
    figure.savefig(path, bbox_inches="tight")
    pyplot.close(figure)
    return path


def panels(rows, workload, choose):
    """{model: {panel: {side: [(x, spread)]}}}; `choose(row)` is ((title, unit), x), or None for a row left out."""
    models = {}
    for row in rows:
        chosen = choose(row) if row["piece"].split("/")[0] == workload else None
        if not chosen:
            continue
        panel, x = chosen
        sides = models.setdefault(row["model"], {}).setdefault(panel, {})
        for side, got in row["sides"].items():
            sides.setdefault(side, []).append((x, got))
    return models


def curves(rows, folder, workload, choose, x_label, decorate=lambda axes, unit: None):
    paths = []
    for model, by_panel in panels(rows, workload, choose).items():
        figure, all_axes = pyplot.subplots(1, len(by_panel), figsize=(5 * len(by_panel), 3.6), squeeze=False)
        for axes, ((title, unit), sides) in zip(all_axes[0], by_panel.items()):
            for side in COLOURS:
                line(axes, sides.get(side, []), side)
            axes.set(title=f"{model}: {title}", xlabel=x_label, ylabel=UNITS.get(unit, unit))
            decorate(axes, unit)
            if axes.get_yscale() == "linear":
                axes.set_ylim(bottom=0)
            axes.grid(alpha=0.3)
            axes.legend()
        name = model.lower().replace(" ", "-")
        paths.append(finish(figure, folder / f"{workload}-{name}.svg"))
    return paths


def ratios(rows, folder):
    """All ratios on one page, but of figures beside others; hollow where they are within the noise or of too few runs."""
    others = [side for side in COLOURS if side != OURS]
    rows = [row for row in rows if not row.get("beside")]
    found = [(row, side) for row in rows for side in others if "ratio" in row["sides"].get(side, {})]
    if not found:
        return []
    figure, axes = pyplot.subplots(figsize=(9, 1 + 0.24 * len(found)))
    for y, (row, side) in enumerate(found):
        got = row["sides"][side]
        open_mark = got["verdict"] in (NOISE, TOO_FEW)
        axes.plot([got["low"], got["high"]], [y, y], color=COLOURS[side], linewidth=1)
        face = "white" if open_mark else COLOURS[side]
        axes.plot(got["ratio"], y, marker="o", color=COLOURS[side], markerfacecolor=face)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    ticks = [0.25, 0.5, 1, 2, 4, 8, 16]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_yticks(range(len(found)), [f"{r['model']}, {r['label']} / {s}" for r, s in found], fontsize=7)
    axes.margins(y=0.01)
    axes.invert_yaxis()
    axes.set_xlabel("ratio: above 1 Trellis is better; hollow: no verdict")
    axes.grid(axis="x", alpha=0.3)
    return [finish(figure, folder / "ratios.svg")]


SPEEDUP = "times as fast as without the cache"


def rows_with_speedup(rows):
    """The curve's rows, and what they come to: Trellis beside itself."""
    more = []
    for row in rows:
        got = row["sides"].get(UNCACHED, {})
        if row["piece"].startswith("curve/") and row["key"] == "rate" and "ratio" in got:
            ratio = {"median": got["ratio"], "min": got["low"], "max": got["high"]}
            more.append(row | {"key": "speedup", "unit": SPEEDUP, "sides": {OURS: ratio}})
    return rows + more


def with_ideal(axes, unit):
    if unit != SPEEDUP:
        return
    percents = range(0, 96)
    ideal = [ideal_speedup(CURVE.full.curve_requests, percent) for percent in percents]
    axes.plot(percents, ideal, color="black", linewidth=0.8, label="ideal")
    goal = [OF_IDEAL * speedup for speedup in ideal]
    axes.plot(percents, goal, color="black", linewidth=0.8, linestyle=":", label=f"{OF_IDEAL:.0%} of it")


def logarithmic(axes, unit):
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")


def draw(rows, folder):
    """Writes the plots; their paths."""

    def shared(row):
        titles = {"rate": "all at once", "speedup": "all at once", "kv_mib": "keys and values"}
        return row["key"] in titles and ((titles[row["key"]], row["unit"]), int(row["piece"].split("/")[2]))

    def sessions(row):
        titles = {"kv_mib": "keys and values", "peak_mib": "peak resident memory"}
        return row["key"] in titles and ((titles[row["key"]], row["unit"]), int(row["piece"].split("/")[2]))

    def depth(row):
        return (row["key"], row["unit"]), int(row["piece"].split("/")[2])

    def streams(row):
        kind, count = row["piece"].split("/")[2].split("-")
        return ("one shared trunk" if kind == "shared" else "nothing shared", row["unit"]), int(count)

    return [
        *curves(rows, folder, "speed", depth, "tokens before"),
        *curves(rows, folder, "streams", streams, "streams"),
        *curves(rows_with_speedup(rows), folder, "curve", shared, "% of each prompt that is shared", with_ideal),
        *curves(rows, folder, "memory", sessions, "sessions behind one prefix", logarithmic),
        *ratios(rows, folder),
    ]
