"""The real program on real models; TRELLIS_BIN and TRELLIS_MODELS_DIR say where they are."""

import atexit
import contextlib
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request

# The one of most tests.
MODEL = "SmolLM2-135M-Instruct.Q4_1"
# Packed weights of these tests stay among themselves.
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="trellis-tests-")
atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)
# Seconds after which something hangs, rather than being slow: no test asserts on less.
DEADLINE = 300


def model_path(name=MODEL):
    model = pathlib.Path(os.environ["TRELLIS_MODELS_DIR"]) / f"{name}.gguf"
    assert model.exists(), f"{model} is missing: `make test` fetches it"
    return str(model)


@contextlib.contextmanager
def program(*args, **more):
    """A Popen of trellis with its output as text; killed when the block ends, or at the deadline."""
    command = [os.environ["TRELLIS_BIN"], *args]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **more) as process:
        deadline = threading.Timer(DEADLINE, process.kill)
        deadline.start()
        try:
            yield process
        finally:
            deadline.cancel()
            process.kill()


def read_until(connection, pattern):
    """Reads a socket until a match of `pattern` has come."""
    got = b""
    while not (found := re.search(pattern, got)):
        more = connection.recv(4096)
        assert more, f"the connection ended without {pattern}: {got[-500:]}"
        got += more
    return found


class Server:
    """`trellis serve` with these flags, listening; a context manager that leaves no process behind.

    Whatever it is waited for fails with the end of its log, at once where it has ended.
    """

    def __init__(self, *flags, model=MODEL):
        self.url, self.log = None, []
        named = ["-m", model_path(model)] if model else []
        self.process = subprocess.Popen(
            [os.environ["TRELLIS_BIN"], "serve", *named, "--port", "0", *flags],
            stderr=subprocess.PIPE,
            text=True,
        )
        # Its log is read all the time: a full pipe would stop it.
        self.reader = threading.Thread(target=self.read_log, daemon=True)
        self.reader.start()

    def __enter__(self):
        try:
            self.wait_until("it listens", lambda: self.url)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.reader.join()
        self.process.stderr.close()

    def read_log(self):
        for line in self.process.stderr:
            self.log.append(line)
            if found := re.match(r'listening on (\S+)|.*"event":"listening","url":"([^"]+)"', line):
                self.url = found[1] or found[2]

    def fail(self, what):
        if self.process.poll() is not None:
            what += f" (it ended with status {self.process.returncode})"
            self.reader.join()
        raise AssertionError(f"{what}; the server's log:\n{''.join(self.log[-40:])}")

    def wait_until(self, what, condition):
        """Returns what `condition` does, when that is true."""
        start = time.monotonic()
        while not (result := condition()):
            if self.process.poll() is not None or time.monotonic() - start > DEADLINE:
                self.fail(f"waited in vain until {what}")
            time.sleep(0.01)
        return result

    def open(self, path, *more):
        """(status, body)"""
        request = urllib.request.Request(self.url + path, *more)
        try:
            with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()
        except OSError as error:
            self.fail(f"{path}: {error}")

    def get(self, path):
        status, body = self.open(path)
        assert status == 200, body
        return json.loads(body)

    def post(self, path, body):
        """(status, parsed body); `body` may be bytes."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        status, answer = self.open(path, data, {"Content-Type": "application/json"})
        return status, json.loads(answer)

    @property
    def address(self):
        host, port = self.url.removeprefix("http://").split(":")
        return host, int(port)

    def send(self, path, body):
        """A connection on which this was sent and nothing read."""
        text = json.dumps(body)
        connection = socket.create_connection(self.address, timeout=DEADLINE)
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(text)}\r\n\r\n"
        connection.sendall((head + text).encode())
        return connection

    def metrics(self):
        _, body = self.open("/metrics")
        lines = [line.split() for line in body.decode().splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in lines}

    def pages(self):
        return self.get("/v1/cache")["pages"]

    def wait_for_a_lease(self):
        self.wait_until("a request runs", lambda: self.get("/v1/cache")["leases"] > 0)

    def settle(self):
        """Waits until no request runs."""
        self.wait_until("no request runs", lambda: self.get("/v1/cache")["leases"] == 0)

    def stop(self):
        """Its exit status after SIGTERM."""
        self.process.terminate()
        try:
            return self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self.fail("it goes on after SIGTERM")
