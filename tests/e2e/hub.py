"""A stand-in for the Hugging Face hub: the API and the redirects at one address, the files at another."""

import contextlib
import hashlib
import http.server
import json
import pathlib
import random
import ssl
import threading
import urllib.parse

PAGE = 3  # entries of a tree in one answer


def gguf(seed, size=300_000):
    """No model, but a file that begins like one."""
    return b"GGUF" + random.Random(seed).randbytes(size - 4)


class Hub:
    """A context manager. What it has, how it fails and what it was asked are plain attributes."""

    def __init__(self):
        self.repos = {}  # "user/repo": {path: bytes}
        self.plain = {}  # path below the store: bytes, with an ETag that is no digest
        self.moved = {}  # "user/old": "user/new"
        self.token = None  # what the hub wants to see
        self.busy = 0  # so many requests get a 503
        self.sizes = {}  # path: the size that is told instead
        self.cut_after = None  # bytes of a body after which the store closes the connection
        self.stall_after = None  # bytes of a body after which the store waits for `go_on`
        self.go_on = threading.Event()
        self.stalled = threading.Event()
        self.wrong_byte = False
        self.ranges = True  # whether the store knows of them
        self.wrong_ranges = 0  # so many answers to a Range begin elsewhere
        self.after_head = {}  # path below the store: what it has once it was described
        self.requests = []  # of both: (who, method, path, headers)
        self.servers = [self.listen("hub"), self.listen("store")]
        self.url, self.store_url = (f"http://127.0.0.1:{server.server_address[1]}" for server in self.servers)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.go_on.set()
        for server in self.servers:
            server.shutdown()
            server.server_close()

    def asked(self, who, method=None):
        return [r for r in self.requests if r[0] == who and method in (None, r[1])]

    def listen(self, who):
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                hub.requests.append((who, self.command, self.path, dict(self.headers)))
                if hub.busy > 0:
                    hub.busy -= 1
                    return self.answer(503, {"Retry-After": "0"})
                getattr(self, who)()

            do_HEAD = do_GET

            def answer(self, status, headers, body=b""):
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if "Content-Length" not in headers:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.send_body(body)

            def send_body(self, body):
                with contextlib.suppress(OSError):
                    if hub.stall_after is not None and who == "store":
                        self.wfile.write(body[: hub.stall_after])
                        self.wfile.flush()
                        body = body[hub.stall_after :]
                        hub.stalled.set()
                        hub.go_on.wait()
                    if hub.cut_after is not None and who == "store" and len(body) > hub.cut_after:
                        body = body[: hub.cut_after]
                        self.close_connection = True
                    self.wfile.write(body)

            def refuse(self, status, words):
                self.answer(status, {"X-Error-Message": words}, json.dumps({"error": words}).encode())

            def hub(self):
                if hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
                    return self.refuse(401, "Invalid username or password.")
                path, _, query = self.path.partition("?")
                api = path.startswith("/api/models/")
                parts = path.removeprefix("/api/models").strip("/").split("/")
                repo = "/".join(parts[:2])
                if repo in hub.moved:
                    return self.answer(307, {"Location": self.path.replace(repo, hub.moved[repo])})
                if repo not in hub.repos:
                    return self.refuse(404, "Repository not found")
                if api:
                    return self.tree(repo, urllib.parse.parse_qs(query))
                self.resolve(repo, urllib.parse.unquote("/".join(parts[4:])))

            def tree(self, repo, query):
                assert query["recursive"] == ["true"]
                entries = [{"type": "directory", "path": "folder", "size": 0, "oid": "0"}]
                for path, body in hub.repos[repo].items():
                    lfs = {"oid": hashlib.sha256(body).hexdigest(), "size": len(body), "pointerSize": 130}
                    entries.append({"type": "file", "path": path, "size": len(body), "oid": "0", "lfs": lfs})
                begin = int(query.get("cursor", ["0"])[0])
                headers = {"Content-Type": "application/json"}
                if begin + PAGE < len(entries):
                    next_page = f"{hub.url}/api/models/{repo}/tree/main?recursive=true&cursor={begin + PAGE}"
                    headers["Link"] = f'<{next_page}>; rel="next"'
                self.answer(200, headers, json.dumps(entries[begin : begin + PAGE]).encode())

            def resolve(self, repo, path):
                body = hub.repos[repo].get(path)
                if body is None:
                    return self.refuse(404, "Entry not found")
                digest = hashlib.sha256(body).hexdigest()
                self.answer(
                    302,
                    {
                        "Location": f"{hub.store_url}/blob/{digest}?signature=secret",
                        "X-Linked-ETag": f'"{digest}"',
                        "X-Linked-Size": str(hub.sizes.get(path, len(body))),
                        "X-Repo-Commit": "0" * 40,
                    },
                )

            def store(self):
                path = self.path.partition("?")[0]
                if path.startswith("/blob/"):
                    if self.command == "HEAD":
                        return self.answer(403, {})  # the signature is one for GET
                    bodies = [body for files in hub.repos.values() for body in files.values()]
                    body = next(b for b in bodies if hashlib.sha256(b).hexdigest() == path[6:])
                else:
                    body = hub.plain.get(path)
                    if body is None:
                        return self.answer(404, {})
                headers = {"ETag": f'"{hashlib.md5(body).hexdigest()}"'}
                if hub.wrong_byte:
                    body = body[:-1] + bytes([body[-1] ^ 1])
                begin, status = 0, 200
                is_same = self.headers.get("If-Range") in (None, headers["ETag"])
                if hub.ranges and is_same and (wanted := self.headers.get("Range")):
                    begin, status = int(wanted.removeprefix("bytes=").removesuffix("-")), 206
                    if hub.wrong_ranges > 0:
                        hub.wrong_ranges -= 1
                        begin -= 1000
                    headers["Content-Range"] = f"bytes {begin}-{len(body) - 1}/{len(body)}"
                headers["Content-Length"] = str(len(body) - begin)
                self.answer(status, headers, body[begin:])
                if self.command == "HEAD" and path in hub.after_head:
                    hub.plain[path] = hub.after_head.pop(path)

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server


@contextlib.contextmanager
def secure_redirects(key, certificate, target):
    """The address of an https server that sends everybody to the same path at `target`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            self.send_response(302)
            self.send_header("Location", target + self.path)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"https://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def files_below(folder):
    """Paths of all files but locks, relative, sorted."""
    folder = pathlib.Path(folder)
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and p.name != ".lock")
