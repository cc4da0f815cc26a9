"""Plots of a report's rows, as SVG."""

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as pyplot  # noqa: E402 (the backend is chosen first)

from stats import NOISE, TOO_FEW  # noqa: E402
from tools import LLAMA, OPENVINO, OURS  # noqa: E402

COLOURS = {OURS: "#1b7837", LLAMA: "#c2662d", OPENVINO: "#4a6fb0"}


def line(axes, points, side):
    """Medians, with bars from the lowest to the highest run. `points`: [(x, spread)]."""
    if not points:
        return
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
    """{model: {panel: {side: [(x, spread)]}}}; `choose(row)` is (panel, x)."""
    models = {}
    for row in rows:
        if row["piece"].split("/")[0] != workload:
            continue
        panel, x = choose(row)
        sides = models.setdefault(row["model"], {}).setdefault(panel, {})
        for side, got in row["sides"].items():
            sides.setdefault(side, []).append((x, got))
    return models


def curves(rows, folder, workload, choose, x_label):
    paths = []
    for model, by_panel in panels(rows, workload, choose).items():
        figure, all_axes = pyplot.subplots(1, len(by_panel), figsize=(5 * len(by_panel), 3.6), squeeze=False)
        for axes, (panel, sides) in zip(all_axes[0], by_panel.items()):
            for side in COLOURS:
                line(axes, sorted(sides.get(side, []), key=lambda point: point[0]), side)
            axes.set(title=f"{model}: {panel}", xlabel=x_label, ylabel="tokens per second")
            axes.set_ylim(bottom=0)
            axes.grid(alpha=0.3)
            axes.legend()
        name = model.lower().replace(" ", "-")
        paths.append(finish(figure, folder / f"{workload}-{name}.svg"))
    return paths


def ratios(rows, folder):
    """All ratios on one page; hollow where they are within the noise or of too few runs."""
    found = [(row, side) for row in rows for side in (LLAMA, OPENVINO) if "ratio" in row["sides"].get(side, {})]
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


def draw(rows, folder):
    """Writes the plots; their paths."""

    def depth(row):
        return row["key"], int(row["piece"].split("/")[2])

    def streams(row):
        kind, count = row["piece"].split("/")[2].split("-")
        return ("one shared trunk" if kind == "shared" else "nothing shared"), int(count)

    return [
        *curves(rows, folder, "speed", depth, "tokens before"),
        *curves(rows, folder, "streams", streams, "streams"),
        *ratios(rows, folder),
    ]
