"""Many connections at once: what they cost, and that all answers are right. `make load` has more of them."""

import os
import pathlib
import subprocess
import sys

from server_process import DEADLINE, model_path

LOAD = pathlib.Path(__file__).parents[1] / "load/load.py"


def test_many_connections_cost_little_and_all_answers_are_right():
    command = [sys.executable, LOAD, "--binary", os.environ["TRELLIS_BIN"], "--model", model_path()]
    done = subprocess.run([*command, "--connections", "1000", "--streams", "200"], capture_output=True, text=True, timeout=4 * DEADLINE)
    assert done.returncode == 0, done.stdout + done.stderr
