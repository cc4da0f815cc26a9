"""scripts/build_llama: what it makes of an interrupted build, of another one in progress, and of a failure."""

import fcntl
import os
import pathlib
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).parents[2]
# Stands in for cmake: notes what it was asked for and what the build directory held, and installs nothing.
CMAKE = """#!/bin/sh
[ -z "$COMPLAINT" ] || { echo "$COMPLAINT"; exit 1; }
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
    def start(self, cache, complaint=""):
        source = cache / "source"
        if not source.exists():  # a changed time would make it another source
            (source / "include").mkdir(parents=True)
            (source / "include/llama.h").touch()
        tools = cache / "tools"
        tools.mkdir(exist_ok=True)
        (tools / "cmake").write_text(CMAKE)
        (tools / "cmake").chmod(0o755)
        (cache / "seen").write_text("")
        return subprocess.Popen(
            [ROOT / "scripts/build_llama", "slim"],
            env=os.environ
            | {
                "TRELLIS_CACHE": str(cache),
                "LLAMA_SOURCE_DIR": str(source),
                "PATH": f"{tools}:{os.environ['PATH']}",
                "COMPLAINT": complaint,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def build(self, cache):
        process = self.start(cache)
        out, err = process.communicate()
        self.assertEqual(process.returncode, 0, err)
        return pathlib.Path(out.strip()), (cache / "seen").read_text().split()

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

    def test_it_says_that_it_waits_for_another_build(self):
        with tempfile.TemporaryDirectory() as folder:
            cache = pathlib.Path(folder)
            (cache / "llama").mkdir()
            with open(cache / "llama/slim.lock", "w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                process = self.start(cache)
                self.assertIn("Waiting for another build of llama.cpp (slim)", process.stderr.readline())
                self.assertEqual((cache / "seen").read_text(), "")
            out, _ = process.communicate()
            self.assertEqual(process.returncode, 0)
            self.assertTrue(pathlib.Path(out.strip()).is_dir())

    def test_what_cmake_complained_of_is_shown(self):
        with tempfile.TemporaryDirectory() as folder:
            process = self.start(pathlib.Path(folder), "No such compiler")
            out, err = process.communicate()
            self.assertEqual((process.returncode, out), (1, ""))
            self.assertIn("\nNo such compiler\n", err)
            self.assertIn("slim.log", err)


if __name__ == "__main__":
    unittest.main()
