"""scripts/env.sh: a relative path means what it means where the user stands."""

import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).parents[2]


class EnvTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.here = pathlib.Path(folder.name).resolve()
        self.checkout = self.here / "checkout"
        (self.checkout / "scripts").mkdir(parents=True)
        shutil.copy(ROOT / "scripts/env.sh", self.checkout / "scripts")

    def script(self, path, text):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/usr/bin/env bash\n{text}\n")
        path.chmod(0o755)

    def call(self, name, **environment):
        done = subprocess.run(
            [f"checkout/scripts/{name}"],
            cwd=self.here,
            env={k: v for k, v in os.environ.items() if k != "TRELLIS_MODELS_DIR"} | environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    def test_the_cache_and_what_is_below_it(self):
        names = "$TRELLIS_CACHE $TRELLIS_MODELS_DIR $PWD"
        self.script(self.checkout / "scripts/inner", f'source "$(dirname "$0")/env.sh"; echo "{names}"')
        self.script(self.checkout / "scripts/outer", 'source "$(dirname "$0")/env.sh"; scripts/inner')
        for name in ("inner", "outer"):
            cache = f"{self.here}/a cache"
            self.assertEqual(self.call(name, TRELLIS_CACHE="a cache"), f"{cache} {cache}/models {self.checkout}")
            self.assertTrue(os.path.isdir(cache))
        self.assertEqual(os.listdir(self.checkout), ["scripts"])

    def test_runs_model(self):
        shutil.copy(ROOT / "scripts/run", self.checkout / "scripts")
        for name in ("setup", "build"):
            self.script(self.checkout / "scripts" / name, "")
        self.script(self.checkout / "build/release/bin/trellis", 'echo "$@"')
        self.script(self.here / "tools/curl", "exit 7")  # nobody is there
        environment = {"TRELLIS_CACHE": "cache", "PATH": f"{self.here}/tools:{os.environ['PATH']}"}
        for given in ("models/m.gguf", f"{self.here}/models/m.gguf"):
            self.assertIn(f"-m {self.here}/models/m.gguf ", self.call("run", MODEL=given, **environment))


if __name__ == "__main__":
    unittest.main()
