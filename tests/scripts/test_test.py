"""scripts/test: which stages run, what they build first, and what Ctrl-C does. Everything it calls is a stand-in."""

import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).parents[2]
# Notes how it was called; what $FAIL or $HANG names fails, or goes on until it is interrupted.
STAND_IN = """#!/bin/sh
call="$(basename "$0") $*"
echo "$call" >>"$CALLS"
[ "$call" != "$FAIL" ] || exit 1
if [ "$call" = "$HANG" ]; then
  # As ninja and ctest do: they end by themselves, so that no shell sees a death by signal.
  trap 'exit 1' INT
  echo hanging
  while :; do sleep 0.01; done
fi
case $call in venv*) echo "$STAND_INS/venv" ;; esac
"""


class TestTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        scripts, tools = self.root / "scripts", self.root / "tools"
        self.calls = self.root / "calls"
        self.calls.touch()
        (tools / "venv/bin").mkdir(parents=True)
        scripts.mkdir()
        for name in ("test", "env.sh"):
            shutil.copy(ROOT / "scripts" / name, scripts / name)
        own = ("setup", "build", "build_llama", "build_page", "fetch.py", "venv")
        for path in [*(scripts / n for n in own), tools / "ctest", tools / "venv/bin/python"]:
            path.write_text(STAND_IN)
            path.chmod(0o755)
        self.environment = os.environ | {
            "CALLS": str(self.calls),
            "STAND_INS": str(tools),
            "FAIL": "",
            "HANG": "",
            "PATH": f"{tools}:{os.environ['PATH']}",
            "TRELLIS_CACHE": str(self.root / "cache"),
        }

    def start(self, *stages, **environment):
        # A session of its own: the signal is for everything in it, as a terminal's is.
        return subprocess.Popen(
            [self.root / "scripts/test", *stages],
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # Who starts tests in the background ignores it, and a shell cannot undo that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def run_test(self, *stages, **environment):
        """Exit status, standard output, standard error."""
        process = self.start(*stages, **environment)
        out, err = process.communicate()
        return process.returncode, out, err

    def called(self):
        return self.calls.read_text().splitlines()

    def test_an_unknown_stage_runs_nothing_and_names_what_there_is(self):
        status, out, err = self.run_test("ci", "format")
        self.assertEqual((status, out), (1, ""))
        self.assertIn("'format'", err)
        for stage in ("style", "oracle", "dev", "e2e", "web", "long"):
            self.assertIn(stage, err)
        self.assertEqual(self.called(), [])

    def test_a_failure_stops_its_stage_only(self):
        status, out, _ = self.run_test("ci", "equality", FAIL="build ci")
        self.assertEqual(status, 1)
        self.assertRegex(out, r"ci +FAILED .*\nequality +ok ")
        self.assertIn("1 passed, 1 failed\n", out)
        self.assertEqual(sum(call.startswith("ctest") for call in self.called()), 1)

    def test_e2e_builds_the_program_that_it_tests(self):
        status, _, _ = self.run_test("e2e")
        self.assertEqual(status, 0)
        calls = self.called()
        self.assertLess(calls.index("build ci trellis"), calls.index("python -m pytest -q tests/e2e"))

    def test_the_page_is_built_anew_before_it_is_tested(self):
        status, _, _ = self.run_test("web")
        self.assertEqual(status, 0)
        calls = self.called()
        self.assertLess(calls.index("build_page --check"), calls.index("build ci trellis"))
        self.assertEqual(calls[-1], "python -m pytest -q tests/web")

    def test_an_interrupt_ends_the_whole_run_with_a_report(self):
        process = self.start("ci", "equality", HANG="build ci")
        self.assertEqual(process.stdout.readline(), "hanging\n")
        os.killpg(process.pid, signal.SIGINT)
        out, _ = process.communicate()
        self.assertEqual(process.returncode, 130)
        self.assertRegex(out, r"\nci +STOPPED ")
        self.assertIn("0 passed, 0 failed, interrupted\n", out)
        self.assertNotIn("equality", out)
        self.assertNotIn("build ci equality_test", self.called())


if __name__ == "__main__":
    unittest.main()
