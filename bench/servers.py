"""One HTTP server at a time, and a client that takes down when each token arrives."""

import concurrent.futures
import dataclasses
import http.client
import json
import pathlib
import socket
import subprocess
import tempfile
import threading
import time


class BenchError(Exception):
    """A side could not do what it was asked; the message says what it said."""


@dataclasses.dataclass
class Completion:
    sent: float
    arrivals: list  # when text arrived
    count: int  # of tokens
    computed: int  # prompt tokens that the cache did not have
    text: str = ""

    @property
    def first(self):
        return self.arrivals[0] - self.sent

    @property
    def wall(self):
        return self.arrivals[-1] - self.sent


def parse(sent, lines):
    """A Completion from [(time, line)] of a stream of server-sent events."""
    arrivals, count, computed, text = [], 0, 0, ""
    for when, line in lines:
        event = json.loads(line[6:])
        if "error" in event:
            raise BenchError(f"the stream says {event['error']}")
        choices = event.get("choices", [])
        new = "".join(choice.get("text") or "" for choice in choices)
        # A single token may have no text of its own; then its end is what is seen of it.
        if new or not arrivals and any(choice.get("finish_reason") for choice in choices):
            arrivals.append(when)
        text += new
        count = (event.get("usage") or {}).get("completion_tokens", count)
        computed = (event.get("timings") or {}).get("prompt_n", computed)
    if not arrivals:
        raise BenchError("a completion without a token")
    return Completion(sent, arrivals, count or len(arrivals), computed, text)


def wall_of(completions):
    """From the first request to the last token of all."""
    return max(done.arrivals[-1] for done in completions) - min(done.sent for done in completions)


def peak_mib(pid):
    """The most memory that a process has had resident."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise BenchError(f"process {pid} has no VmHWM")


class Server:
    """One server process on a port of its own; a context manager that stops it. One that is still needed after
    `limit_s` is stopped then, which is a BenchError."""

    def __init__(self, command, environment=None, limit_s=None):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.command = [str(part) for part in (*command, "--host", "127.0.0.1", "--port", self.port)]
        self.environment = environment
        self.limit_s, self.reached_limit = limit_s, False

    def __enter__(self):
        self.log = tempfile.TemporaryFile()
        self.start = time.monotonic()
        self.process = subprocess.Popen(
            self.command, stdout=self.log, stderr=self.log, env=self.environment
        )
        if self.limit_s is not None:
            self.timer = threading.Timer(self.limit_s, self.stop_at_limit)
            self.timer.start()
        try:
            while not self.healthy():
                if self.process.poll() is not None or time.monotonic() - self.start > 300:
                    raise BenchError(f"{' '.join(self.command)} did not come up:\n{self.said()}")
                time.sleep(0.01)
        except BaseException:
            self.__exit__()
            raise
        return self

    def stop_at_limit(self):
        self.reached_limit = True
        self.process.kill()

    def __exit__(self, *_):
        if self.limit_s is not None:
            self.timer.cancel()
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()
        if self.reached_limit:
            raise BenchError(f"{' '.join(self.command)} was stopped after {self.limit_s:.0f} s")

    def log_text(self):
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def said(self):
        return self.log_text()[-2000:]

    def healthy(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def post(self, path, body):
        return self.request("POST", path, json.dumps(body))

    def get(self, path):
        return json.load(self.request("GET", path))

    def request(self, method, path, text=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=3600)
        try:
            connection.request(method, path, text, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            if answer.status != 200:
                raise BenchError(f"{path}: {answer.status} {answer.read()[:500]}")
        except (OSError, http.client.HTTPException) as error:
            raise BenchError(f"{' '.join(self.command)}: {path}: {error}\n{self.said()}") from None
        return answer

    def tokenize(self, text):
        return json.load(self.post("/tokenize", {"content": text}))["tokens"]

    def complete(self, prompt, num_out, **fields):
        """Streams one greedy completion of exactly `num_out` tokens."""
        body = {
            "prompt": prompt,
            "max_tokens": num_out,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
            **fields,
        }
        sent, lines = time.monotonic(), []
        # Nothing is parsed while it runs: the client has the server's own cores.
        for line in self.post("/v1/completions", body):
            if line.startswith(b"data: {"):
                lines.append((time.monotonic(), line))
        return parse(sent, lines)

    def complete_all(self, prompts, num_out):
        """All at once."""
        return self.at_once(lambda prompt: self.complete(prompt, num_out), prompts)

    def at_once(self, client, inputs):
        """What `client` returns for each input, a thread for each."""
        with concurrent.futures.ThreadPoolExecutor(len(inputs)) as pool:
            try:
                return list(pool.map(client, inputs))
            except KeyboardInterrupt:
                # The pool waits for its threads, and they for a server that may take minutes.
                self.process.kill()
                raise

    def peak_mib(self):
        return peak_mib(self.process.pid)


class KvWatch:
    """The most keys and values that a Trellis has in use meanwhile, asked ten times a second; a context manager."""

    def __init__(self, server):
        self.server, self.used_bytes, self.page_bytes = server, 0, 0

    def __enter__(self):
        self.done, self.failed = threading.Event(), None
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()

    def watch(self):
        try:
            self.look()
            while not self.done.wait(0.1):
                self.look()
            self.look()  # what stays afterwards
        except BenchError as error:
            self.failed = error

    def look(self):
        cache = self.server.get("/v1/cache")
        self.used_bytes = max(self.used_bytes, cache["used_bytes"])
        self.page_bytes = cache["page_bytes"]

    def most(self):
        """Bytes. To be asked when all is done."""
        if self.failed:
            raise self.failed
        return self.used_bytes
