"""Several models in one server, each loaded when a request names it."""

import json
import os
import pathlib
import re
import subprocess
import threading

import pytest
from server_process import DEADLINE, MODEL, Server, model_path

OTHER = "gemma-3-270m-q4_k_m"
# One of the two fits: their weights are 94 and 241 MiB.
FLAGS = ["--kv-cache", "64MiB", "--models-memory", "400MiB"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for name in (MODEL, OTHER):
        (folder / f"{name}.gguf").symlink_to(model_path(name))
    return folder


def serve(folder, *flags, model=None):
    return Server("--models-dir", str(folder), *flags, model=model)


def chat(server, model, **more):
    messages = [{"role": "user", "content": "Name three colours."}]
    body = {"messages": messages, "max_tokens": 12, "temperature": 0, **more}
    if model:
        body["model"] = model
    return server.post("/v1/chat/completions", body)


def ollama_chat(server, model):
    body = {"model": model, "messages": [{"role": "user", "content": "Name three colours."}], "stream": False}
    return server.post("/api/chat", {**body, "options": {"temperature": 0, "num_predict": 12}})


def loaded(server):
    return [model["name"] for model in server.get("/api/ps")["models"]]


def resident_mib(server):
    status = pathlib.Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1024


def test_a_budget_that_holds_one_of_two(folder):
    with serve(folder, *FLAGS) as server:
        assert server.get("/health") == {"status": "ok"}
        models = {model["id"]: model for model in server.get("/v1/models")["data"]}
        assert {name: model["status"]["value"] for name, model in models.items()} == {MODEL: "unloaded", OTHER: "unloaded"}
        assert models[MODEL]["meta"]["n_ctx"] == 8192 and models[OTHER]["meta"]["n_ctx"] == 32768
        assert loaded(server) == []

        status, first = chat(server, MODEL)
        assert status == 200 and first["model"] == MODEL, first
        assert loaded(server) == [MODEL]
        used_at_first = resident_mib(server)
        _, again = chat(server, f"{MODEL}.gguf")
        assert again["usage"]["prompt_tokens_details"]["cached_tokens"] > 0

        for _ in range(3):
            status, other = ollama_chat(server, f"{OTHER}:latest")
            assert status == 200 and other["model"] == OTHER and other["message"]["content"], other
            assert loaded(server) == [OTHER]
            _, back = chat(server, MODEL)
            assert loaded(server) == [MODEL]
            # The cache went with the model; what it says did not.
            assert back["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
            assert back["choices"][0]["message"] == first["choices"][0]["message"]
        assert resident_mib(server) < used_at_first + 64, "unloading frees the memory"

        status, answer = chat(server, "nobody")
        assert status == 404 and answer["error"]["code"] == "model_not_found"
        assert MODEL in answer["error"]["message"] and OTHER in answer["error"]["message"]
        assert ollama_chat(server, "nobody")[0] == 404
        status, answer = chat(server, None)
        assert status == 400 and answer["error"]["param"] == "model"
        assert server.stop() == 0


def test_an_answer_in_progress_keeps_its_model(folder):
    with serve(folder, *FLAGS) as server:
        chat(server, MODEL)
        body = {"model": MODEL, "prompt": "Once upon a time", "max_tokens": 300, "temperature": 0, "stream": True}
        with server.send("/v1/completions", {**body, "ignore_eos": True}) as connection:
            stream = connection.makefile("rb")
            while not stream.readline().startswith(b"data: "):
                pass
            waiting = {}
            other = threading.Thread(target=lambda: waiting.update(answer=chat(server, OTHER)))
            other.start()
            events = [json.loads(line[6:]) for line in iter(stream.readline, b"data: [DONE]\n") if line.startswith(b"data: ")]
        assert events[-1]["timings"]["predicted_n"] == 300
        other.join()
        assert waiting["answer"][0] == 200 and waiting["answer"][1]["model"] == OTHER
        assert loaded(server) == [OTHER]
        assert server.stop() == 0


def test_a_model_of_its_own_is_the_default(folder):
    with serve(folder, "--kv-cache", "64MiB", "--alias", "mine", model=MODEL) as server:
        assert loaded(server) == ["mine"]
        assert [model["id"] for model in server.get("/v1/models")["data"]] == ["mine", OTHER]
        assert chat(server, None)[1]["model"] == "mine"
        assert chat(server, MODEL)[1]["model"] == "mine", "the file's name is another name of it"
        assert chat(server, OTHER)[1]["model"] == OTHER
        assert loaded(server) == [OTHER, "mine"]
        assert server.get("/v1/cache")["lookups"] == 2
        assert server.get(f"/v1/cache?model={OTHER}")["lookups"] == 1
        metrics = server.metrics()
        assert metrics['trellis_requests_total{model="mine"}'] == 2
        assert metrics[f'trellis_requests_total{{model="{OTHER}"}}'] == 1
        ps = [os.environ["TRELLIS_BIN"], "ps", "--url", server.url]
        text = subprocess.run(ps, capture_output=True, text=True, check=True, timeout=DEADLINE).stdout
        assert "mine: context 8192" in text and f"{OTHER}: context 32768" in text and "2 since it was loaded" in text
        assert server.stop() == 0


def test_files_that_come_and_files_that_are_none(tmp_path):
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + bytes(100))
    with serve(tmp_path, *FLAGS) as server:
        assert server.get("/v1/models")["data"] == []
        status, answer = chat(server, "broken")
        assert status == 500 and "broken.gguf" in answer["error"]["message"], answer
        assert str(tmp_path) not in answer["error"]["message"], answer
        (tmp_path / "new.gguf").symlink_to(model_path())
        assert chat(server, None)[1]["model"] == "new", "it is the only one"
        show = server.post("/api/show", {"model": "new"})[1]
        assert show["details"]["family"] == "llama" and "im_start" in show["template"]
        assert server.stop() == 0


def test_without_a_model_the_pulled_ones_are_served(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("TRELLIS_MODELS_DIR", str(folder))
    with Server(*FLAGS, model=None) as server:
        assert chat(server, MODEL)[0] == 200
        # Told to stop while one is loaded, it does not wait for that.
        server.send("/v1/completions", {"model": OTHER, "prompt": "a"}).close()
        assert server.stop() == 0
    monkeypatch.setenv("TRELLIS_MODELS_DIR", str(tmp_path))
    done = subprocess.run(
        [os.environ["TRELLIS_BIN"], "serve", "--port", "0"], capture_output=True, text=True, timeout=DEADLINE
    )
    assert done.returncode == 2 and "trellis pull" in done.stderr and str(tmp_path) in done.stderr


def test_a_model_larger_than_the_budget_is_refused(folder):
    with serve(folder, "--kv-cache", "64MiB", "--models-memory", "200MiB") as server:
        assert chat(server, MODEL)[0] == 200
        status, answer = chat(server, OTHER)
        assert status == 400 and "--models-memory" in answer["error"]["message"]
        assert loaded(server) == [MODEL]
        assert server.stop() == 0
