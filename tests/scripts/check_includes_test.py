"""scripts/check_includes.py says yes to a tree that keeps the rules, and names each way to break them."""

import pathlib
import subprocess
import sys
import tempfile
import unittest

SCRIPT = pathlib.Path(__file__).parents[2] / "scripts" / "check_includes.py"
GOOD = {
    "base/CMakeLists.txt": "trellis_module(base)",
    "base/status.h": "",
    "kernels/CMakeLists.txt": "trellis_module(kernels LINK fmt::fmt)",
    "kernels/ops.h": '#include "base/status.h"\n',
    "model/CMakeLists.txt": "trellis_module(model DEPS kernels os base LINK trellis::llama)",
    "model/model.cc": '#include "kernels/ops.h"\n#include <gguf.h>\n#include "model/model.h"\n',
}


class CheckIncludesTest(unittest.TestCase):
    def check(self, changes):
        """(exit status, output) for GOOD with `changes` made to it."""
        with tempfile.TemporaryDirectory() as folder:
            for name, text in {**GOOD, **changes}.items():
                path = pathlib.Path(folder) / name
                path.parent.mkdir(exist_ok=True)
                path.write_text(text)
            run = subprocess.run(
                [sys.executable, SCRIPT, folder], capture_output=True, text=True, check=False
            )
            return run.returncode, run.stdout

    def refused(self, changes, words):
        status, output = self.check(changes)
        self.assertEqual(status, 1, output)
        self.assertEqual(output.count("\n"), 1, output)
        self.assertIn(words, output)

    def test_good(self):
        self.assertEqual(self.check({}), (0, "includes: 3 folders keep their direction\n"))

    def test_an_include_against_the_direction(self):
        self.refused({"kernels/ops.cc": '#include "model/model.h"\n'}, "model is not in its DEPS")

    def test_a_dependency_against_the_direction(self):
        self.refused(
            {
                "kernels/CMakeLists.txt": "trellis_module(kernels DEPS model)",
                "kernels/ops.cc": '#include "model/model.h"\n',
            },
            "DEPS model is against the direction",
        )

    def test_an_include_that_is_not_declared(self):
        self.refused({"model/x.cc": '#  include "kv/page_cache.h"\n'}, "kv is not in its DEPS")

    def test_a_dependency_that_is_not_used(self):
        self.refused({"model/model.cc": ""}, "DEPS kernels is declared but never included")

    def test_headers_that_stop_at_a_border(self):
        self.refused({"kernels/x.h": "#include <ggml.h>\n"}, "which stays in")
        self.refused({"model/x.cc": "#include <nlohmann/json.hpp>\n"}, "which stays in")

    def test_a_folder_that_is_not_in_the_design(self):
        self.refused({"util/CMakeLists.txt": "trellis_module(util)"}, "no such folder")

    def test_a_folder_without_a_module(self):
        self.refused({"kernels/CMakeLists.txt": "add_library(kernels ops.cc)"}, "has no trellis_module")


if __name__ == "__main__":
    unittest.main()
