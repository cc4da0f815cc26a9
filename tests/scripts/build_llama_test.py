"""scripts/build_llama goes on after a build that was interrupted, in this checkout or in another one."""

import os
import pathlib
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).parents[2]
# Stands in for cmake: notes what it was asked for and what the build directory held, and installs nothing.
CMAKE = """#!/bin/sh
if [ "$1" = -S ]; then
  while [ $# -gt 0 ]; do
    case $1 in
      -B) build=$2 ;;
      -DCMAKE_INSTALL_PREFIX=*) prefix=${1#*=} ;;
    esac
    shift
  done
  ls "$build" 2>/dev/null >>"$TRELLIS_CACHE/seen"
  mkdir -p "$build" && echo "$prefix" >"$build/prefix"
else
  mkdir -p "$(cat "$2/prefix")"
fi
"""


class BuildLlamaTest(unittest.TestCase):
    def build(self, cache):
        source = cache / "source"
        if not source.exists():  # a changed time would make it another source
            (source / "include").mkdir(parents=True)
            (source / "include/llama.h").touch()
        tools = cache / "tools"
        tools.mkdir(exist_ok=True)
        (tools / "cmake").write_text(CMAKE)
        (tools / "cmake").chmod(0o755)
        (cache / "seen").write_text("")
        done = subprocess.run(
            [ROOT / "scripts/build_llama", "slim"],
            env=os.environ
            | {
                "TRELLIS_CACHE": str(cache),
                "LLAMA_SOURCE_DIR": str(source),
                "PATH": f"{tools}:{os.environ['PATH']}",
            },
            capture_output=True,
            text=True,
            check=True,
        )
        return pathlib.Path(done.stdout.strip()), (cache / "seen").read_text().split()

    def interrupted(self, home):
        """What the next build finds of a build of `home` that was interrupted."""
        with tempfile.TemporaryDirectory() as folder:
            cache = pathlib.Path(folder)
            prefix, _ = self.build(cache)
            prefix.rmdir()
            left = prefix.with_name(prefix.name + ".build")
            left.mkdir()
            (left / "CMakeCache.txt").write_text(f"CMAKE_HOME_DIRECTORY:INTERNAL={home}\n")
            again, seen = self.build(cache)
            self.assertEqual(again, prefix)
            self.assertTrue(prefix.is_dir())
            self.assertFalse(left.exists())
            return seen

    def test_this_checkouts_is_gone_on_with(self):
        self.assertEqual(self.interrupted(ROOT / "third_party/llama"), ["CMakeCache.txt"])

    def test_another_checkouts_is_thrown_away(self):
        self.assertEqual(self.interrupted("/elsewhere/third_party/llama"), [])


if __name__ == "__main__":
    unittest.main()
