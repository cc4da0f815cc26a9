"""bench/: verdicts, the grid of settings, turns that can be interrupted, and reports of what is there."""

import json
import pathlib
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "bench"))

import cache_workloads  # noqa: E402
import goals  # noqa: E402
import report  # noqa: E402
import run  # noqa: E402
import servers  # noqa: E402
import stats  # noqa: E402
from known_blocks import BLOCK_TOKENS, KnownBlocks  # noqa: E402
from texts import Prompts, sample_text  # noqa: E402
from tools import LLAMA, OPENVINO, OURS, UNCACHED, Setting, call  # noqa: E402
from turns import Piece, Record, Runner, all_pieces, best_settings  # noqa: E402
from workload import FULL, QUICK  # noqa: E402
from workloads import WORKLOADS  # noqa: E402

FACTS = {
    "cpu": "A CPU",
    "cores": 2,
    "isa": ["avx2"],
    "memory_gib": 8,
    "kernel": "6.1",
    "compiler": "c++ 12",
    "threads": 2,
    "commit": "abc",
    "trellis": "123",
    "llama.cpp": "llama.cpp-b1",
    "openvino": "2026.4.1",
}


class StatsTest(unittest.TestCase):
    def test_better_only_if_every_run_is(self):
        ours = [10, 11, 12, 13, 14]
        self.assertEqual(stats.compare(ours, [5, 6, 7, 8, 9], True)["verdict"], stats.BETTER)
        self.assertEqual(stats.compare(ours, [5, 6, 7, 8, 10], True)["verdict"], stats.NOISE)
        self.assertEqual(stats.compare(ours, [15, 16, 17, 18, 19], True)["verdict"], stats.WORSE)

    def test_less_time_is_better(self):
        result = stats.compare([1, 1, 1, 1, 2], [4, 4, 4, 4, 3], False)
        self.assertEqual(result["verdict"], stats.BETTER)
        self.assertEqual((result["ratio"], result["low"], result["high"]), (4, 1.5, 4))

    def test_what_luck_can_do_is_no_verdict(self):
        for ours, theirs, enough in ((5, 5, True), (5, 3, True), (4, 4, True), (5, 2, False), (3, 3, False)):
            verdict = stats.compare([2] * ours, [1] * theirs, True)["verdict"]
            self.assertEqual(verdict, stats.BETTER if enough else stats.TOO_FEW, (ours, theirs))

    def test_the_rate_of_streams_is_of_the_time_they_share(self):
        # One begins a second late: only the two seconds after its first token count, two tokens a second each.
        early = (7, [0, 0.5, 1, 1.5, 2, 2.5, 3])
        late = (5, [1, 1.5, 2, 2.5, 3])
        self.assertEqual(stats.decode_rate([early, late]), 4)
        # Tokens without text of their own arrive with a later one.
        self.assertEqual(stats.decode_rate([(10, [0, 1, 2, 3, 4])]), 2)

    def test_the_ideal_of_requests_that_share(self):
        for percent, ideal in ((0, 1), (50, 1.88), (85, 4.92), (100, 16)):
            self.assertAlmostEqual(stats.ideal_speedup(16, percent), ideal, 2)

    def test_quartiles(self):
        self.assertEqual(stats.quartiles([5, 1, 4, 2, 3]), [2, 3, 4])

    def test_streams_one_after_another_have_no_rate(self):
        self.assertIsNone(stats.decode_rate([(3, [0, 1, 2]), (3, [3, 4, 5])]))
        self.assertIsNone(stats.decode_rate([(9, [0, 1, 2, 3, 4, 5, 6, 7, 8]), (2, [7, 8])]))


class GridTest(unittest.TestCase):
    def test_names_tell_settings_and_figures_apart(self):
        for piece in all_pieces():
            workload = WORKLOADS[piece.workload]
            for side in workload.sides:
                names = [setting.name for setting in workload.settings(side, piece.variant)]
                self.assertEqual(len(names), len(set(names)), (piece, side))
            figures = piece.figures(workload.full)
            keys = [figure.key for figure in figures]
            self.assertEqual(len(keys), len(set(keys)))
            for i, figure in enumerate(figures):
                if figure.beside:
                    self.assertIn(figure.beside, [other.key for other in figures[:i] if not other.beside])

    def test_llama_is_tried_with_both_builds_and_flash_attention_on_and_off(self):
        for piece in all_pieces():
            if piece.workload == "load" or LLAMA not in WORKLOADS[piece.workload].sides:
                continue  # attention plays no part
            grid = WORKLOADS[piece.workload].settings(LLAMA, piece.variant)
            seen = {(s.plain, s.args[s.args.index("-fa") + 1]) for s in grid if "-fa" in s.args}
            self.assertEqual(seen, {(plain, flash) for plain in (False, True) for flash in ("on", "off")})

    def test_the_best_setting_is_chosen_for_each_figure(self):
        figures = [{"key": "speed", "unit": "tok/s"}, {"key": "time", "unit": "s"}]
        trials = {"a": {"speed": 2, "time": 2}, "b": {"speed": 1, "time": 1}, "c": {"error": "no"}}
        self.assertEqual(best_settings(trials, figures), {"speed": "a", "time": "b"})
        self.assertEqual(best_settings({"c": {"error": "no"}}, figures), {})

    def test_a_figure_beside_another_has_its_best_setting(self):
        figures = [{"key": "time", "unit": "s"}, {"key": "computed", "unit": "tokens", "beside": "time"}]
        trials = {"a": {"time": 2, "computed": 1}, "b": {"time": 1, "computed": 9}}
        self.assertEqual(best_settings(trials, figures), {"time": "b", "computed": "b"})

    def test_a_pattern_names_a_piece_or_all_below_it(self):
        names = lambda *patterns: [piece.name for piece in run.chosen(all_pieces(), patterns)]  # noqa: E731
        self.assertEqual(names("speed/smollm2/0"), ["speed/smollm2/0"])
        self.assertEqual(len(names("speed/smollm2")), 4)
        self.assertEqual(names("speed/qwen-1.5b")[0], "speed/qwen-1.5b/0")  # and not -q4_0's
        self.assertEqual(names("*/smollm2/shared-8"), ["streams/smollm2/shared-8"])
        self.assertEqual(names("nothing"), [])

    def test_each_set_has_every_goal_of_its_own(self):
        for of_set, of_goals in zip(run.SETS.values(), goals.GOALS.values(), strict=True):
            names = {piece.name: piece for piece in run.chosen(all_pieces(), of_set.pieces)}
            for goal in of_goals:
                self.assertIn(goal.piece, names)
                workload = WORKLOADS[names[goal.piece].workload]
                self.assertIn(goal.figure, [f.key for f in names[goal.piece].figures(workload.full)])
                self.assertLessEqual(set(goal.ratios), set(workload.sides) - {OURS})
                self.assertNotEqual(bool(goal.ratios), goal.most is not None)
            self.assertEqual(len(run.chosen(all_pieces(), of_set.quick)), len(of_set.quick))

    def test_a_set_can_be_of_another_model(self):
        patterns = run.patterns_of(run.SETS["cache"], False, ["qwen-1.5b"])
        names = [piece.name for piece in run.chosen(all_pieces(), patterns)]
        own = [piece.name for piece in run.chosen(all_pieces(), run.SETS["cache"].pieces)]
        self.assertEqual(names, [name.replace("smollm2", "qwen-1.5b") for name in own])
        self.assertIn("curve/qwen-0.5b/95", run.patterns_of(run.SETS["cache"], True, ["qwen-0.5b"]))


PIECE = Piece("speed", "smollm2", "0")
SETTINGS = {
    OURS: [Setting("defaults")],
    LLAMA: [Setting("fast prefill"), Setting("fast decode"), Setting("broken")],
    OPENVINO: [Setting("broken"), Setting("broken too")],
}


class TurnsTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.calls, self.limits = [], []
        self.stop_after = None
        self.fails = lambda side, setting: "broken" in setting.name

    def measure(self, side, setting, sizes, keys, limit_s):
        self.limits.append(limit_s)
        if self.stop_after is not None and len(self.calls) >= self.stop_after:
            raise KeyboardInterrupt
        self.calls.append((side, setting.name, tuple(keys), sizes.decode))
        if self.fails(side, setting):
            raise servers.BenchError("cannot\nread it")
        values = {"prefill": 2, "decode": 1} if setting.name == "fast prefill" else {"prefill": 1, "decode": 2}
        if side == OURS:
            values = {"prefill": 10 + len(self.calls), "decode": 1}
        return {key: values[key] for key in keys}

    def record(self, facts=FACTS, sizes=FULL):
        record = Record(self.folder / "piece.json", PIECE, facts, sizes)
        return record, record.resume()

    def run_piece(self, record, repetitions=4):
        runner = Runner(record, list(SETTINGS), SETTINGS, self.measure, lambda text: None)
        return runner.run({side: repetitions for side in SETTINGS})

    def test_each_setting_is_tried_once_then_the_best_ones_go_in_turns(self):
        record, _ = self.record()
        self.assertTrue(self.run_piece(record, 2))
        both, short, long = ("prefill", "decode"), FULL.trial().decode, FULL.decode
        tried = [(side, setting.name, both, short) for side in (LLAMA, OPENVINO) for setting in SETTINGS[side]]
        ours = [(OURS, "defaults", both, long)]
        theirs = [(LLAMA, "fast prefill", ("prefill",), long), (LLAMA, "fast decode", ("decode",), long)]
        self.assertEqual(self.calls, tried + ours + theirs + theirs + ours)

    def test_a_setting_that_takes_much_longer_than_another_is_given_up(self):
        self.run_piece(self.record()[0], 2)
        trials = self.limits[:5]
        self.assertIsNone(trials[0], "nothing is known yet")
        self.assertTrue(all(limit >= 10 for limit in trials[1:3]), trials)
        self.assertEqual(trials[3:], [None, None], "of that side nothing has worked")
        self.assertEqual(set(self.limits[5:]), {None}, "what counts has the time it takes")

    def test_a_server_that_takes_too_long_is_stopped(self):
        with self.assertRaisesRegex(servers.BenchError, "was stopped after 0 s"):
            with servers.Server([sys.executable, "-c", "import time; time.sleep(60)"], limit_s=0.2):
                pass
        with self.assertRaisesRegex(servers.BenchError, "was stopped after 0 s"):
            call([sys.executable, "-c", "import time; time.sleep(60)"], limit_s=0.2)

    def test_an_interrupted_piece_goes_on_and_repeats_nothing(self):
        record, _ = self.record()
        self.run_piece(record)
        whole, self.calls = self.calls, []
        for stop in range(len(whole)):
            with self.subTest(stop):
                record.path.unlink()
                self.calls, self.stop_after = [], stop
                with self.assertRaises(KeyboardInterrupt):
                    self.run_piece(self.record()[0])
                self.stop_after = None
                again, differs = self.record()
                self.assertEqual(differs, [])
                self.assertTrue(self.run_piece(again))
                self.assertEqual(self.calls, whole)

    def test_what_is_complete_is_not_measured_again_but_more_runs_can_be_added(self):
        self.run_piece(self.record()[0], 2)
        self.calls = []
        self.assertTrue(self.run_piece(self.record()[0], 2))
        self.assertEqual(self.calls, [])
        self.run_piece(self.record()[0], 3)
        self.assertEqual(len(self.calls), 3)

    def test_the_defaults_run_in_turns_although_another_setting_is_better(self):
        settings = {OURS: SETTINGS[OURS], LLAMA: [Setting("defaults", in_turns=True), Setting("fast prefill")]}
        record, _ = self.record()
        Runner(record, list(settings), settings, self.measure, lambda text: None).run({OURS: 2, LLAMA: 2})
        seen = [(run["setting"], sorted(run["values"])) for run in record.data["runs"] if run["side"] == LLAMA]
        self.assertEqual(seen, [("defaults", ["decode", "prefill"]), ("fast prefill", ["prefill"])] * 2)
        rows = {row["key"]: row["sides"][LLAMA] for row in report.summarise(record.data)}
        self.assertEqual((rows["prefill"]["setting"], rows["decode"]["setting"]), ("fast prefill", "defaults"))
        self.assertEqual(rows["prefill"]["over_defaults"], 2 * rows["prefill"]["ratio"])
        self.assertEqual(rows["prefill"]["defaults_runs"], 2)
        self.assertNotIn("over_defaults", rows["decode"])

    def test_another_program_or_size_begins_anew_another_commit_does_not(self):
        self.run_piece(self.record()[0])
        self.assertEqual(self.record(FACTS | {"commit": "def"})[1], [])
        self.assertEqual(self.record(FACTS | {"trellis": "456", "openvino": ""})[1], ["trellis", "openvino"])
        record, differs = self.record(sizes=QUICK)
        self.assertEqual(differs, ["sizes"])
        self.assertEqual(record.data["runs"], [])

    def test_a_side_that_breaks_leaves_the_others_their_turns(self):
        record, _ = self.record()
        self.run_piece(record, 1)
        self.fails = lambda side, setting: side == OURS or "broken" in setting.name
        self.assertFalse(self.run_piece(record, 3))
        count = lambda side: sum(run["side"] == side for run in record.data["runs"])  # noqa: E731
        self.assertEqual((count(OURS), count(LLAMA), count(OPENVINO)), (1, 6, 0))

    def test_the_report_says_what_was_found_and_what_is_missing(self):
        self.run_piece(self.record()[0])
        with open(self.folder / "report.json", "w") as file:
            json.dump({"rows": []}, file)  # an earlier report is no piece
        records = report.load(self.folder)
        rows = {row["key"]: row for row in report.summarise(records[0])}
        prefill = rows["prefill"]["sides"][LLAMA]
        self.assertEqual((prefill["setting"], prefill["verdict"]), ("fast prefill", stats.BETTER))
        self.assertEqual(rows["decode"]["sides"][LLAMA]["verdict"], stats.WORSE)
        self.assertEqual(rows["decode"]["missing"], {OPENVINO: "read it"})
        text = report.markdown(records, with_goals=True)
        self.assertIn("A CPU (avx2), 2 threads", text)
        self.assertRegex(text, r"prefill, SmolLM2 Q4_1 \| llama.cpp \| >= 5 \| .* \| yes")
        self.assertRegex(text, r"prefill, 1.5B Q8_0 \| llama.cpp \| >= 2 \| – \| not measured")
        self.assertIn("- speed/smollm2/0, OpenVINO GenAI: read it", text)

    def test_too_few_runs_reach_a_goal_only_with_that_said(self):
        self.run_piece(self.record()[0], 1)
        text = report.markdown(report.load(self.folder), with_goals=True)
        self.assertRegex(text, r"prefill, SmolLM2 Q4_1 \| llama.cpp .* yes \(too few runs\)")

    def test_a_figure_counts_with_its_own_best_setting(self):
        # A server's run yields all figures at once, of the other figures' settings too.
        record, _ = self.record()
        record.data["trials"][LLAMA] = {"a": {"prefill": 2, "decode": 1}, "b": {"prefill": 1, "decode": 2}}
        for setting, prefill, decode in (("a", 2, 1), ("b", 1, 2)):
            values = {"prefill": prefill, "decode": decode}
            record.data["runs"].append({"turn": 0, "side": LLAMA, "setting": setting, "values": values})
        self.assertEqual(report.samples(record.data, LLAMA, "prefill"), ("a", [2]))
        self.assertEqual(report.samples(record.data, LLAMA, "decode"), ("b", [2]))


class GoalsTest(unittest.TestCase):
    RATIO = {"low": 1, "high": 3, "verdict": stats.BETTER}

    def lines(self, goal, sides, missing=None):
        row = {"sides": sides, "missing": missing or {}}
        return [line[-1] for line in report.goal_lines(goal, row)]

    def test_a_ratio_is_reached_or_not(self):
        goal = goals.Goal("", "", "", {UNCACHED: 2, LLAMA: 2, OPENVINO: 2})
        sides = {UNCACHED: self.RATIO | {"ratio": 2}, LLAMA: self.RATIO | {"ratio": 1.9}}
        self.assertEqual(self.lines(goal, sides, {OPENVINO: "not asked for"}), ["yes", "no", "not asked for"])
        self.assertEqual([line[-1] for line in report.goal_lines(goal, None)], ["not measured"] * 3)

    def test_a_limit_is_one_of_our_own(self):
        goal = goals.Goal("", "", "", most=2560)
        value = {"min": 2300, "max": 2700, "runs": 5}
        self.assertEqual(self.lines(goal, {OURS: value | {"median": 2560}}), ["yes"])
        self.assertEqual(self.lines(goal, {OURS: value | {"median": 2561}}), ["no"])
        self.assertEqual(self.lines(goal, {}, {OURS: "not run yet"}), ["not run yet"])
        self.assertEqual(report.goal_lines(goal, None)[0][-1], "not measured")

    def test_the_curve_is_to_reach_nine_tenths_of_its_ideal(self):
        least = {goal.piece: goal.ratios[UNCACHED] for goal in goals.CACHE_GOALS if "curve/" in goal.piece}
        self.assertEqual(len(least), 7)
        self.assertAlmostEqual(least["curve/smollm2/85"], 0.9 * 4.92, 2)

    def test_only_goals_of_which_something_is_measured_are_shown(self):
        row = {"piece": "agents/smollm2", "key": "wall_s", "sides": {}, "missing": {LLAMA: "not run yet"}}
        self.assertEqual(report.goals_parts([row])[0], "**Goals of the cache**")
        self.assertEqual(len(report.goals_parts([row])), 2)
        self.assertEqual(report.goals_parts([row | {"piece": "streams/qwen-0.5b/alone-1"}]), [])


class CacheTest(unittest.TestCase):
    def test_a_page_of_each_branch_is_free(self):
        # A trunk of 31 pages and 8 rows; two pages of each of 8 branches hold 47 tokens, and the 8 rows copied.
        self.assertEqual(cache_workloads.over_unique(31 + 2 * 8, 8, 39 * 32), 1)
        self.assertEqual(cache_workloads.over_unique(31 + 3 * 8, 8, 47 * 32), 1)

    def test_what_llama_server_allocates_is_in_its_log(self):
        log = "x: CPU KV buffer size =    45.50 MiB\ny: CPU KV buffer size = 4.00 MiB\n"
        self.assertEqual(cache_workloads.kv_buffers_mib(log), 49.5)
        with self.assertRaises(servers.BenchError):
            cache_workloads.kv_buffers_mib("nothing")

    def test_what_the_curve_shares(self):
        curve, sizes = WORKLOADS["curve"], WORKLOADS["curve"].full
        for variant in curve.variants:
            shape, num_out = curve.shape(variant, sizes)
            self.assertEqual(shape["shared"] + shape["own"], sizes.curve_prompt)
            self.assertAlmostEqual(shape["shared"] / sizes.curve_prompt, int(variant) / 100, 3)
            self.assertEqual(num_out, 1)

    def test_groups_share_their_prefix_and_no_more(self):
        prompts = Prompts(list(range(100))).grouped(groups=2, count=3, shared=10, own=4)
        self.assertEqual(sorted(map(len, prompts)), [14] * 6)
        self.assertEqual(len({tuple(prompt[:10]) for prompt in prompts}), 2)
        own = sum((prompt[10:] for prompt in prompts), [])
        self.assertEqual(len(own), len(set(own)))
        self.assertNotEqual(prompts, sorted(prompts))
        self.assertEqual(prompts, Prompts(list(range(100))).grouped(groups=2, count=3, shared=10, own=4))

    def test_agents_share_their_harness_and_no_more(self):
        agents = Prompts(list(range(100))).agents(2, 3, harness=10, task=4, result=5)
        self.assertEqual([(len(prompt), list(map(len, results))) for prompt, results in agents], [(14, [5, 5])] * 2)
        (first, _), (second, results) = agents
        self.assertEqual((first[:10], set(first) & set(second)), (second[:10], set(first[:10])))
        self.assertFalse(set(sum(results, [])) & set(first + second))

    def test_whole_blocks_of_known_tokens_are_found(self):
        known, tokens = KnownBlocks(), list(range(4 * BLOCK_TOKENS))
        self.assertEqual(known.count(tokens), 0)
        known.add(tokens[: 2 * BLOCK_TOKENS + 5])
        self.assertEqual(known.count(tokens), 2 * BLOCK_TOKENS)
        self.assertEqual(known.count(tokens[: 2 * BLOCK_TOKENS]), 2 * BLOCK_TOKENS - 1)
        self.assertEqual(known.count(tokens[1:]), 0)
        self.assertEqual(known.count([-1] + tokens[1:]), 0)


class DocsTest(unittest.TestCase):
    EMPTY = "Before\n<!-- results -->\nnone yet\n<!-- end of results -->\nAfter\n"

    def test_a_machine_replaces_its_own_part_only(self):
        docs = report.with_machine(self.EMPTY, "A", "a1")
        docs = report.with_machine(docs, "B", "b1")
        docs = report.with_machine(docs, "A", "a2")
        inside = "### A\n\na2\n\n### B\n\nb1"
        self.assertEqual(docs, f"Before\n<!-- results -->\n{inside}\n<!-- end of results -->\nAfter\n")

    def test_docs_without_the_marks_are_left_alone(self):
        with self.assertRaises(ValueError):
            report.with_machine("nothing", "A", "a")

    def test_quick_results_do_not_go_into_the_docs(self):
        with tempfile.TemporaryDirectory() as folder:
            Record(pathlib.Path(folder) / "piece.json", PIECE, FACTS, QUICK).save()
            with self.assertRaisesRegex(SystemExit, "full run"):
                report.write_docs(pathlib.Path(folder))

    def test_the_docs_have_the_marks(self):
        self.assertIn("### A\n\na", report.with_machine(report.DOCS.read_text(), "A", "a"))


class ClientTest(unittest.TestCase):
    def event(self, text=None, **fields):
        choices = [] if text is None else [{"text": text}]
        return b"data: " + json.dumps({"choices": choices, **fields}).encode()

    def test_a_completion_is_timed_by_its_text(self):
        lines = [(1, self.event("")), (2, self.event("a")), (4, self.event("b"))]
        lines.append((5, self.event(usage={"completion_tokens": 3}, timings={"prompt_n": 7})))
        done = servers.parse(0.5, lines)
        self.assertEqual((done.first, done.wall, done.count, done.computed), (1.5, 3.5, 3, 7))

    def test_an_error_in_the_stream_is_one(self):
        with self.assertRaisesRegex(servers.BenchError, "too much"):
            servers.parse(0, [(1, self.event(error="too much"))])
        with self.assertRaisesRegex(servers.BenchError, "without a token"):
            servers.parse(0, [])

    def test_a_token_without_text_is_seen_by_its_end(self):
        end = b'data: {"choices": [{"text": "", "finish_reason": "length"}]}'
        self.assertEqual(servers.parse(0, [(1, end)]).first, 1)
        self.assertEqual(servers.parse(0, [(1, self.event("a")), (2, end)]).wall, 1)

    def test_requests_at_once_take_from_the_first_to_the_last(self):
        done = [servers.Completion(sent, arrivals, 1, 1) for sent, arrivals in ((2, [3, 4]), (1, [2]), (3, [9]))]
        self.assertEqual(servers.wall_of(done), 8)

    def test_prompts_share_nothing_and_the_text_suffices(self):
        prompts = Prompts(list(range(5)))
        self.assertEqual((prompts.cut(2), prompts.cut(3)), ([0, 1], [2, 3, 4]))
        with self.assertRaises(ValueError):
            prompts.cut(1)
        sizes, cache = FULL, WORKLOADS["curve"].full
        need = max(
            sizes.warm + sizes.own,
            sizes.trunk + 2 * sizes.branches * sizes.own,
            16 * sizes.alone,
            cache.curve_requests * cache.curve_prompt,
            cache.harness + cache.agents * (cache.task + cache.agent_turns * cache.tool_result),
            cache.groups * (cache.group_shared + cache.group_prompts * cache.group_own),
            cache.session_trunk + 128 * cache.session_own,
        )
        self.assertGreater(len(sample_text().split()), need)  # a word is a token at least


if __name__ == "__main__":
    unittest.main()
