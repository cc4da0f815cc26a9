"""Starts the real server on the real model once; TRELLIS_BIN and TRELLIS_MODELS_DIR say where they are."""

import json
import os
import pathlib
import re
import subprocess
import threading
import time
import urllib.error
import urllib.request

import pytest

MODEL = "SmolLM2-135M-Instruct.Q4_1"


def model_path():
    model = pathlib.Path(os.environ["TRELLIS_MODELS_DIR"]) / f"{MODEL}.gguf"
    assert model.exists(), f"{model} is missing: `make test` fetches it"
    return str(model)


class Server:
    def __init__(self, *flags):
        self.process = subprocess.Popen(
            [os.environ["TRELLIS_BIN"], "serve", "-m", model_path(), "--port", "0", *flags],
            stderr=subprocess.PIPE,
            text=True,
        )
        self.url = None
        for line in self.process.stderr:
            if found := re.match(r"listening on (\S+)", line):
                self.url = found[1]
                break
        assert self.url, "the server did not start"
        # Its log is read all the time: a full pipe would stop it.
        self.log = []
        threading.Thread(target=lambda: self.log.extend(self.process.stderr), daemon=True).start()

    def get(self, path):
        with urllib.request.urlopen(self.url + path) as answer:
            return json.load(answer)

    def post(self, path, body):
        """(status, parsed body); `body` may be bytes."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def pages(self):
        return self.get("/v1/cache")["pages"]

    def settle(self):
        """Waits until no request runs."""
        while self.get("/v1/cache")["leases"] > 0:
            time.sleep(0.01)

    def stop(self):
        self.process.terminate()
        return self.process.wait()


@pytest.fixture(scope="session")
def server():
    server = Server("--kv-cache", "1GiB")
    yield server
    assert server.stop() == 0


@pytest.fixture
def fresh(server):
    server.settle()
    server.post("/v1/cache/reset", {})
    return server
