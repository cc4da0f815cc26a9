"""scripts/setup asks for what is missing, waits for another apt-get, and touches nothing when told so."""

import os
import pathlib
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).parents[2]
# Refuses as apt-get does while another one holds a lock, as often as $LOCKED says.
APT_GET = """#!/bin/sh
echo "$*" >>"$CALLS"
if [ "$(wc -l <"$CALLS")" -le "$LOCKED" ]; then
  echo "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 7 (apt-get)"
  exit 100
fi
[ -z "$COMPLAINT" ] || { echo "E: $COMPLAINT"; exit 100; }
"""


class SetupTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.tools = pathlib.Path(folder.name)
        self.calls = self.tools / "calls"
        self.calls.touch()
        self.stand_in("apt-get", APT_GET)
        self.stand_in("dpkg-query", "#!/bin/sh\nexit 1\n")  # nothing is installed
        self.stand_in("sudo", '#!/bin/sh\nexec "$@"\n')
        self.stand_in("sleep", "#!/bin/sh\n")

    def stand_in(self, name, text):
        (self.tools / name).write_text(text)
        (self.tools / name).chmod(0o755)

    def setup_run(self, **environment):
        """Exit status, standard error, and apt-get's arguments."""
        done = subprocess.run(
            [ROOT / "scripts/setup", "run"],
            env=os.environ
            | {
                "CALLS": str(self.calls),
                "LOCKED": "0",
                "COMPLAINT": "",
                "PATH": f"{self.tools}:{os.environ['PATH']}",
                "TRELLIS_CACHE": str(self.tools / "cache"),
                "TRELLIS_SKIP_SETUP": "",
            }
            | environment,
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stderr, self.calls.read_text().splitlines()

    def test_what_is_missing_is_installed_at_once_and_without_an_update(self):
        status, _, calls = self.setup_run()
        self.assertEqual((status, len(calls)), (0, 1))
        self.assertRegex(calls[0], r"Lock::Timeout=\d+ install .*--no-remove.* g\+\+ .* ninja-build ")

    def test_another_apt_get_is_waited_for(self):
        status, err, calls = self.setup_run(LOCKED="2")
        self.assertEqual(status, 0)
        self.assertEqual(["update" in call.split() for call in calls], [False] * 3)
        self.assertEqual(err.count("waiting for it"), 2)

    def test_a_failure_is_tried_once_more_with_new_lists_and_named(self):
        status, err, calls = self.setup_run(COMPLAINT="Unable to locate package")
        self.assertEqual((status, len(calls)), (1, 2))
        self.assertIn("apt-get update failed: E: Unable to locate package", err)

    def test_told_to_skip_it_asks_nobody(self):
        self.assertEqual(self.setup_run(TRELLIS_SKIP_SETUP="1"), (0, "", []))


if __name__ == "__main__":
    unittest.main()
