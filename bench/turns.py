"""All sides in turns, kept run by run: an interrupted piece goes on where it stopped."""

import dataclasses
import json
import math
import os
import pathlib
import time

from servers import BenchError
from tools import MODELS, OURS
from workloads import WORKLOADS


GIVEN_UP_AFTER = 3  # times what the fastest setting of the same side took


@dataclasses.dataclass(frozen=True)
class Piece:
    """The smallest thing that is measured and kept by itself: a workload's variant on a model."""

    workload: str
    model: str
    variant: str = ""

    @property
    def name(self):
        return "/".join(part for part in (self.workload, self.model, self.variant) if part)

    def figures(self, sizes):
        return WORKLOADS[self.workload].figures(self.variant, sizes)


def all_pieces():
    return [
        Piece(workload.name, model, variant)
        for workload in WORKLOADS.values()
        for model in MODELS
        for variant in workload.variants
    ]


class Record:
    """One piece's results in a file. Written after every run, whole or not at all."""

    def __init__(self, path, piece, facts, sizes):
        self.path, self.sizes = pathlib.Path(path), sizes
        figures = [figure.record() for figure in piece.figures(sizes)]
        self.data = {
            "piece": dataclasses.asdict(piece),
            "model": MODELS[piece.model].title,
            "sizes": dataclasses.asdict(sizes),
            "facts": facts,
            "figures": figures,
            "trials": {},  # side -> setting -> {figure: value} or {"error": what it said}
            "runs": [],  # {"turn", "side", "setting", "values"}
            "wanted": {},  # side -> runs of each setting, as last asked for
        }

    def resume(self):
        """Takes over what the file holds; returns what differs, if that makes it the result of something else."""
        if not self.path.exists():
            return []
        old = json.loads(self.path.read_text())
        differs = [key for key in ("piece", "sizes", "figures") if old[key] != self.data[key]]
        before, now = old["facts"], self.data["facts"]
        # Another commit with the same program is no other Trellis.
        differs += [key for key in now if key != "commit" and before.get(key) != now[key]]
        if not differs:
            self.data = old
        return differs

    def save(self):
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(self.data, indent=1) + "\n")
        os.replace(partial, self.path)

    def done(self, turn, side, setting):
        return any(
            (run["turn"], run["side"], run["setting"]) == (turn, side, setting) for run in self.data["runs"]
        )


def best_settings(trials, figures):
    """{figure key: name of the setting that did best} of one side, among those that worked. A figure beside another
    has that one's."""
    worked = {name: values for name, values in trials.items() if "error" not in values}
    best = {}
    for figure in figures if worked else []:
        if beside := figure.get("beside"):
            best[figure["key"]] = best[beside]
            continue
        pick = max if figure["unit"] == "tok/s" else min
        best[figure["key"]] = pick(worked, key=lambda name: worked[name][figure["key"]])
    return best


def plan_of(best):
    """{setting: its figures}."""
    plan = {}
    for key, setting in best.items():
        plan.setdefault(setting, []).append(key)
    return plan


class Runner:
    """Runs one piece. `measure(side, setting, sizes, keys, limit_s)` returns values, or raises BenchError, at the latest
    after `limit_s`, unless that is None."""

    def __init__(self, record, sides, settings, measure, say):
        self.record, self.sides, self.settings = record, sides, settings
        self.measure, self.say = measure, say

    def try_settings(self):
        """Each setting of a side that has several once; the best one for each figure is what will count."""
        data = self.record.data
        sizes = self.record.sizes.trial()
        keys = [figure["key"] for figure in data["figures"]]
        for side in self.sides:
            settings, tried = self.settings[side], data["trials"].setdefault(side, {})
            limit_s = None
            for i, setting in enumerate(settings):
                if len(settings) == 1 or setting.name in tried:
                    continue
                self.say(f"{side}, trying setting {i + 1} of {len(settings)}: {setting.name}")
                start = time.monotonic()
                try:
                    tried[setting.name] = self.measure(side, setting, sizes, keys, limit_s)
                    # One that takes so much longer than another is not the best, whatever it does meanwhile.
                    limit_s = min(limit_s or math.inf, GIVEN_UP_AFTER * (time.monotonic() - start) + 10)
                except BenchError as error:
                    self.say(f"{side} with {setting.name}: {str(error).splitlines()[-1]}")
                    tried[setting.name] = {"error": str(error)}
                self.record.save()

    def plan(self, side):
        settings = self.settings[side]
        if len(settings) == 1:
            return {settings[0].name: [figure["key"] for figure in self.record.data["figures"]]}
        trials = self.record.data["trials"][side]
        best = best_settings(trials, self.record.data["figures"])
        plan = plan_of(best)
        for setting in settings:
            if setting.in_turns and "error" not in trials[setting.name]:
                plan[setting.name] = list(best)
        return plan

    def run(self, repetitions):
        """`repetitions`: {side: number}. True if every side has all of its runs in the end."""
        self.record.data["wanted"] = repetitions
        self.try_settings()
        sizes = self.record.sizes
        plans = {side: self.plan(side) for side in self.sides}
        broken = {side for side in self.sides if not plans[side]}
        for turn in range(max(repetitions.values())):
            # Who goes first changes each turn: the second one starts on a warmer machine.
            for side in self.sides if turn % 2 == 0 else self.sides[::-1]:
                if turn < repetitions[side] and side not in broken:
                    try:
                        self.take_turn(turn, side, plans[side], sizes)
                    except BenchError as error:
                        self.say(f"{side}: {error}")
                        broken.add(side)
        self.record.save()
        return OURS not in broken and all(not plans[side] for side in broken)

    def take_turn(self, turn, side, plan, sizes):
        for setting in self.settings[side]:
            if setting.name not in plan or self.record.done(turn, side, setting.name):
                continue
            self.say(f"turn {turn + 1}, {side}, {setting.name}")
            start = time.monotonic()
            values = self.measure(side, setting, sizes, plan[setting.name], None)
            run = {"turn": turn, "side": side, "setting": setting.name, "values": values}
            self.record.data["runs"].append(run | {"took_s": time.monotonic() - start})
            self.record.save()
