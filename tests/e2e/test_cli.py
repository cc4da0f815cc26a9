"""The command line: what it prints, what it says about mistakes, and its exit status."""

import contextlib
import json
import os
import pathlib
import platform
import re
import signal
import socket
import subprocess
import time
import urllib.request

import pytest
from server_process import DEADLINE, MODEL, Server, model_path, program

# Whether --kv-type auto is i16 here.
INTEGERS = platform.machine() == "x86_64" and os.environ.get("TRELLIS_ISA") != "scalar"

BIN = os.environ["TRELLIS_BIN"]


def trellis(*args, **more):
    return subprocess.run([BIN, *args], capture_output=True, text=True, timeout=DEADLINE, **more)


def run(*args, **more):
    return trellis("run", "-m", model_path(), "--kv-cache", "64MiB", *args, **more)


@pytest.mark.parametrize(
    "args, words",
    [
        (["srve"], ["srve", "did you mean serve?"]),
        ([], ["a command is missing: serve, chat, run, pull, list, rm, ps, bench"]),
        (["serve", "--prot", "80"], ["--prot", "did you mean --port?"]),
        (["serve", "-m", "x", "--kvcache=1G"], ["did you mean --kv-cache?"]),
        (["run", "-m", "x", "--topk", "3", "hi"], ["did you mean --top-k?"]),
        (["serve", "--models-dir", "nowhere"], ["--models-dir nowhere", "no such folder"]),
        (["serve", "--models-dir", ".", "--alias", "x"], ["--alias x", "--model"]),
        (["serve", "-m", "x", "--port", "70000"], ["--port", "70000", "65535"]),
        (["serve", "-m", "x", "--kv-cache", "2 pounds"], ["--kv-cache", "2 pounds", "2GiB"]),
        (["serve", "-m", "x", "--threads", "0"], ["--threads"]),
        (["run", "-m", "x", "--temp", "-3", "hi"], ["temperature"]),
        (["run", "-m", "x", "--temp", "abc", "hi"], ["--temp", "abc is not a number"]),
        (["run", "-m", "nowhere.gguf", ""], ["the prompt is empty"]),
        (["bench", "-m", "nowhere.gguf", "-p", "0", "-n", "0"], ["nothing to measure", "-p or -n"]),
        (["run", "-m", "nowhere.gguf", "hi"], ["nowhere.gguf", "No such file"]),
        (["inspect", "nowhere.gguf"], ["nowhere.gguf", "No such file"]),
        (["bench", "-m", "nowhere.gguf"], ["nowhere.gguf", "No such file"]),
        (["serve", "-m", "nowhere.gguf", "--port", "0"], ["nowhere.gguf", "No such file"]),
        (["serve", "-m", "x", "--host", "no host", "--port", "0"], ["--host", "no host"]),
        (["serve", "-m", "x", "--allowed-hosts", "a,*"], ["--allowed-hosts", '"*"', "chat.example"]),
        (["serve", "-m", "x", "--allowed-hosts", "http://a:80"], ["--allowed-hosts", '"http://a:80"']),
        (["bench", "-m", "x", "-o", "xml"], ["xml", "md"]),
    ],
)
def test_a_mistake_is_one_line_and_status_2(args, words):
    done = trellis(*args)
    assert done.returncode == 2
    assert done.stdout == "" and done.stderr.count("\n") == 1, done.stderr
    for word in words:
        assert word in done.stderr


@pytest.mark.parametrize("size", [0, 3, 1000, 2_000_000])
def test_a_truncated_model_is_one_line_and_status_2(tmp_path, size):
    broken = tmp_path / "broken.gguf"
    with open(model_path(), "rb") as whole:
        broken.write_bytes(whole.read(size))
    for command in (["inspect", str(broken)], ["run", "-m", str(broken), "hi"]):
        done = trellis(*command)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1 and "broken.gguf" in done.stderr, done.stderr


def test_sizes():
    for size, told in (("1.5g", "1.50 GiB"), ("64M", "64.0 MiB"), ("67108864", "64.0 MiB"), ("64MiB", "64.0 MiB")):
        done = trellis("run", "-m", model_path(), "-n", "1", "--kv-cache", size, "x")
        assert done.returncode == 0 and f"KV cache {told}" in done.stderr
    done = trellis("run", "-m", model_path(), "-n", "1", "--kv-cache", "4TiB", "x")
    assert done.returncode == 0 and "4096.00 GiB is more than" in done.stderr and "MiB would fit" in done.stderr, done.stderr
    for size in ("10", "0", "-5", "nan", "1e30", "GiB"):
        assert trellis("run", "-m", model_path(), "--kv-cache", size, "x").returncode == 2


def test_types_of_keys_and_values():
    told = {kv: run("-n", "8", "--temp", "0", "--kv-type", kv, "Once upon a time")
            for kv in ("auto", "f16", "bf16", "i16", "q8_0")}
    assert all(done.returncode == 0 and len(done.stdout) > 8 for done in told.values())
    auto = "i16" if INTEGERS else "f16"
    assert told["auto"].stdout == told[auto].stdout
    tokens = {kv: int(re.search(r"= (\d+) tokens", done.stderr)[1]) for kv, done in told.items()}
    assert tokens["f16"] * 1.8 < tokens["q8_0"] <= tokens["f16"] * 2
    wrong = trellis("run", "-m", model_path(), "--kv-type", "f8", "x")
    assert wrong.returncode == 2 and "bf16" in wrong.stderr


def test_help_names_every_flag_and_version():
    flags = {
        "serve": "--model --models-dir --models-memory --hf-repo --hub --no-pack-cache --host --port --threads --ctx-size --kv-cache --kv-type --alias --allowed-hosts "
        "--no-prefix-cache --eviction-policy --max-queue --drain-timeout",
        "chat": "--model --hf-repo --url --api-key --system --max-tokens --temperature --seed --kv-cache",
        "pull": "model --hub",
        "list": "--json --quiet",
        "rm": "name",
        "ps": "--url --api-key --json",
        "completions": "shell",
        "run": "--model --hf-repo --hub --no-pack-cache --prompt --file --chat --system --max-tokens --temperature --top-k --top-p --min-p --typical-p "
        "--repeat-penalty --presence-penalty --frequency-penalty --repeat-last-n --seed --threads --ctx-size --kv-cache "
        "--kv-type",
        "bench": "--model --no-pack-cache --n-prompt --n-gen --n-depth --threads --kv-type --repetitions --output --profile",
        "explain": "--model first second",
        "replay": "trace --budgets --strategies --token-bytes --concurrency --own-harness --output --svg",
        "inspect": "file",
    }
    top = trellis("--help").stdout
    for command, wanted in flags.items():
        assert command in top
        text = trellis(command, "--help").stdout
        assert len(text.splitlines()) < 45
        for flag in wanted.split():
            assert flag in text, flag
    assert re.fullmatch(r"trellis \d+\.\d+\.\d+\n", trellis("--version").stdout)


def test_run_gives_the_servers_text_from_an_argument_and_from_stdin(fresh):
    prompt = "The capital of France is"
    _, answer = fresh.post("/v1/completions", {"prompt": prompt, "max_tokens": 12, "temperature": 0})
    text = answer["choices"][0]["text"] + "\n"
    assert run("-n", "12", "--temp", "0", prompt).stdout == text
    assert run("-n", "12", "--temp", "0", input=prompt).stdout == text
    assert run("-n", "12", "--temp", "0", "-", input=prompt).stdout == text
    _, answer = fresh.post("/v1/completions", {"prompt": prompt, "max_tokens": 12, "seed": 7})
    assert run("-n", "12", "--seed", "7", prompt).stdout == answer["choices"][0]["text"] + "\n"
    messages = [{"role": "user", "content": prompt}]
    _, answer = fresh.post("/v1/chat/completions", {"messages": messages, "max_tokens": 12, "temperature": 0})
    assert run("--chat", "-n", "12", "--temp", "0", prompt).stdout == answer["choices"][0]["message"]["content"] + "\n"


def test_a_second_start_finds_the_weights_packed(tmp_path):
    def answer(*flags, cache=tmp_path):
        done = run("-n", "8", "--temp", "0", *flags, "Once upon", env={**os.environ, "XDG_CACHE_HOME": str(cache)})
        assert done.returncode == 0, done.stderr
        return done.stdout, " packed before," in done.stderr, "weights are not kept" in done.stderr

    folder = tmp_path / "trellis" / "packed"
    text, before, _ = answer("--no-pack-cache")
    assert not before and not folder.exists()
    assert answer() == (text, False, False)
    assert answer() == (text, True, False)
    assert answer("--no-pack-cache") == (text, False, False)
    (packed,) = folder.iterdir()
    with open(packed, "r+b") as file:
        file.seek(packed.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    assert answer() == (text, False, False)
    assert answer() == (text, True, False)
    # A file is where the folder would be.
    assert answer(cache=packed) == (text, False, True)


def test_starts_at_once_do_not_disturb_each_other(tmp_path):
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    flags = ["run", "-m", model_path(), "--kv-cache", "64MiB", "-n", "8", "--temp", "0", "Once upon"]
    with contextlib.ExitStack() as stack:
        starts = [stack.enter_context(program(*flags, stdout=subprocess.PIPE, env=environment)) for _ in range(3)]
        answers = {process.communicate()[0] for process in starts}
        assert len(answers) == 1 and all(process.returncode == 0 for process in starts)
    assert [path.suffix for path in (tmp_path / "trellis" / "packed").iterdir()] == [".packed"]
    assert " packed before," in trellis(*flags, env=environment).stderr


def test_run_ends_cleanly_when_interrupted():
    flags = ["run", "-m", model_path(), "--kv-cache", "64MiB"]
    with program(*flags, "Count to a million: one,", stdout=subprocess.PIPE) as process:
        assert process.stdout.read(20)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert process.returncode == 130
    assert out.endswith("\n") and "answer:" in err


def test_bench_has_llama_benchs_rows():
    flags = ["bench", "-m", model_path(), "-p", "8,16", "-n", "2", "-d", "0,40", "-r", "2", "-t", "1", "--kv-type", "bf16"]
    rows = json.loads(trellis(*flags, "-o", "json").stdout)
    assert [(r["n_prompt"], r["n_gen"], r["n_depth"]) for r in rows] == [
        (8, 0, 0), (16, 0, 0), (0, 2, 0), (8, 0, 40), (16, 0, 40), (0, 2, 40)
    ]  # fmt: skip
    assert all(r["avg_ts"] > 0 and len(r["samples_ts"]) == 2 and r["n_threads"] == 1 for r in rows)
    assert all(r["type_k"] == r["type_v"] == "bf16" for r in rows)
    table = trellis(*flags, "-o", "md").stdout.splitlines()
    assert [tuple(cell.strip() for cell in line.split("|")[6:8]) for line in table[2:]] == [
        ("bf16", test) for test in ("pp8", "pp16", "tg2", "pp8 @ d40", "pp16 @ d40", "tg2 @ d40")
    ]


def test_the_profile_accounts_for_the_whole_step():
    flags = ["bench", "-m", model_path(), "-p", "24", "-n", "3", "-d", "40", "-r", "2", "-t", "2", "--profile"]
    prefill, decode = (row["profile"] for row in json.loads(trellis(*flags, "-o", "json").stdout))
    layers, width, hidden = 30, 576, 1536
    matmuls = {
        "qkv 576x960 q4_1": width * 960,
        "attn_output 576x576 q4_1": width * width,
        "gate_up 576x3072 q4_1": width * 2 * hidden,
        "down 1536x576 q4_1": hidden * width,
    }
    for profile, rows in ((prefill, 24), (decode, 1)):
        parts = {part["name"]: part for part in profile["parts"]}
        for name, macs in matmuls.items():
            whole_layers = layers if name.startswith("qkv") else layers - 1  # the last one ends at one row
            calls, rest = parts[name]["calls"], (layers - whole_layers) * macs
            assert (calls, parts[name]["macs"]) == (layers, whole_layers * rows * macs + rest), name
            assert parts[name]["ceiling"] in ("int8", "read") and 0 < parts[name]["of_ceiling"]
        # 32 weights: 16 bytes of 4 bits each, and an f16 scale and min
        assert parts["qkv 576x960 q4_1"]["bytes"] == layers * width * 960 * 20 / 32
        assert parts["attention"]["calls"] == parts["rope + write"]["calls"] == layers
        assert parts["head 576x49152 q8_0"]["macs"] == width * 49152
        for name in ("embed", "add + norm + quantise", "activation + quantise", "sampling", "tree: commit"):
            assert parts[name]["calls"] > 0 and parts[name]["ms"] > 0, name
        # Nothing is left out, nothing is counted twice.
        everything = sum(part["ms"] for part in parts.values())
        everything += profile["fork_join_ms"] + profile["idle_ms"] + profile["other_ms"]
        assert everything == pytest.approx(profile["ms"], rel=1e-9) and profile["other_ms"] >= 0
        assert profile["fork_join_ms"] == pytest.approx(sum(part["fork_join_ms"] for part in parts.values()))
        assert all(limit["one"] > 0 and limit["all"] > 0 for limit in profile["ceilings"].values())
        assert {"int8", "f32", "read"} <= profile["ceilings"].keys()
    table = trellis(*flags).stdout
    for words in ("pp24 @ d40: ", "tg3 @ d40: ", "Ceilings, one thread and 2: int8 ", "| gate_up 576x3072 q4_1 | 30 |"):
        assert words in table


def test_inspect_says_what_is_in_the_file():
    text = trellis("inspect", model_path()).stdout
    for word in ("llama, 30 layers", "9 heads over 3 kv heads of 64", "8192 tokens, vocabulary 49152", "q4_1"):
        assert word in text
    # 30 layers x 3 heads x (K and V) x (64 of 2 bytes, and maybe a scale of 4, or of 1 and a scale) x 1,000 tokens
    expected = "22.7 MiB per 1,000 tokens as i16" if INTEGERS else "22.0 MiB per 1,000 tokens as f16"
    assert expected + ", 11.7 MiB as q8_0" in text
    assert re.search(r"this machine .* free: weights and \d+ tokens of KV cache fit", text)


def test_threads_keep_to_what_the_process_may_use():
    one = min(os.sched_getaffinity(0))
    done = run("-n", "1", "x", preexec_fn=lambda: os.sched_setaffinity(0, {one}))
    assert ", 1 threads," in done.stderr


def test_a_port_in_use_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = trellis("serve", "-m", model_path(), "--port", str(port))
        assert done.returncode == 1
        assert str(port) in done.stderr and "in use" in done.stderr and done.stderr.count("\n") == 1


def status_for(server, **headers):
    """Of a request with these headers; and its error's code and message."""
    status, body = server.open("/v1/models", None, headers)
    error = {} if status == 200 else json.loads(body)["error"]
    return status, error.get("code"), error.get("message", "")


def test_names_that_a_page_points_here_are_refused_without_keys():
    # As the container starts it: what is written behind the image's name is added.
    text = (pathlib.Path(__file__).parents[2] / "contrib/container/Containerfile").read_text()
    _, _, *flags = json.loads(re.search(r"^ENTRYPOINT (.*)$", text, re.MULTILINE)[1])
    with Server(*flags, "--allowed-hosts", "trellis,Chat.example") as server:
        port = server.address[1]
        for host in ("127.0.0.1", f"localhost:{port}", f"trellis:{port}", "chat.example"):
            assert status_for(server, Host=host)[0] == 200, host
        evil = f"evil.example:{port}"
        status, code, message = status_for(server, Host=evil, Origin=f"http://{evil}")
        assert (status, code) == (403, "host_not_allowed")
        assert "--allowed-hosts" in message and "evil.example" in message
        assert status_for(server, Host="evil")[0] == 403
    with Server("--host", "0.0.0.0", "--no-auth") as server:
        assert status_for(server, Host="any.example")[0] == 200


def test_the_alias_is_the_models_name():
    with Server("--kv-cache", "64MiB", "--alias", 'my "model"') as server:
        assert server.get("/v1/models")["data"][0]["id"] == 'my "model"'
        body = {"prompt": "x", "max_tokens": 1}
        assert server.post("/v1/completions", {**body, "model": 'my "model"'})[0] == 200
        assert server.post("/v1/completions", {**body, "model": MODEL})[0] == 404
        assert server.stop() == 0


def test_without_the_prefix_cache_nothing_is_found_again():
    with Server("--kv-cache", "64MiB", "--no-prefix-cache") as server:
        for _ in range(2):
            _, answer = server.post("/v1/completions", {"prompt": [300] * 40, "max_tokens": 2})
            assert answer["timings"]["cache_n"] == 0
        assert server.pages()["free"] == server.pages()["capacity"]
        assert server.stop() == 0


@pytest.mark.parametrize("policy, stays", [("lru", False), ("slru", True)])
def test_the_eviction_policy_decides_what_stays(policy, stays):
    with Server("--kv-cache", "64MiB", "--eviction-policy", policy) as server:

        def found(token):
            _, answer = server.post("/v1/completions", {"prompt": [token] * 100, "max_tokens": 1})
            return answer["timings"]["cache_n"]

        assert [found(300), found(300)] == [0, 99]
        for token in range(1000, 1030):
            assert found(token) == 0
        assert server.pages()["free"] == 0, "more came than there is room for"
        assert (found(300) > 0) == stays
        assert server.stop() == 0


def chat(*messages, **more):
    roles = ["system", *["user", "assistant"] * len(messages)]
    return {"messages": [{"role": r, "content": c} for r, c in zip(roles, messages)], **more}


def tool(name):
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}


QWEN = "qwen2.5-coder-0.5b-instruct-q4_k_m"  # whose template has a place for tools
CLOCK = "You are a clock. It is {}. Say what people ask for, and nothing else."


@pytest.mark.parametrize(
    "model, first, second, said",
    [
        (MODEL, chat(CLOCK.format("10:15"), "Hi"), chat(CLOCK.format("11:30"), "Hi"), ["messages[0] (system)", "a time or a date"]),
        (MODEL, chat("Be brief.", "Hi"), chat("Be brief.", "Hi", "Hello.", "More"), ["nothing to gain"]),
        (MODEL, chat("Be brief.", "Hi"), chat("Be brief.", "Hi"), ["All of it is there"]),
        (MODEL, chat("Be brief.", "Hi", cache_salt="a"), chat("Be brief.", "Hi"), ["0 would be found", "cache_salt"]),
        (MODEL, chat("Be brief.", "Hi"), chat("Be brief.", "Hi", cache_prompt=False), ["0 would be found", "cache_prompt"]),
        (MODEL, {"prompt": "one two"}, {"prompt": "one two", "cache_salt": "a"}, ["0 would be found", "cache_salt"]),
        (MODEL, {"messages": [{"role": "user", "content": "hi"}]}, chat("Be kind.", "hi", tools=[tool("a")]), ["one of them has a system"]),
        (MODEL, {"prompt": "<|im_start|>system\nYou are kind"}, chat("You are helpful", "hi", tools=[tool("a")]), ["They part"]),
        (MODEL, chat("S one", "Hi", tools=[tool("a"), tool("b")]), chat("S two", "Hi", tools=[tool("b"), tool("a")]), ["messages[0] (system) differs"]),
        (MODEL, chat("x", "Hi"), {"messages": [*chat("x", "Hi")["messages"], {"role": "user", "content": "More"}]}, ["goes on with messages[2] (user)"]),
        (MODEL, chat("Be brief.", "Hi there"), chat("Be brief.", "What else"), ["messages[1] (user) differs"]),
        (MODEL, {"prompt": "one two three"}, {"prompt": "one two four"}, ["They part at token 2"]),
        (QWEN, chat("x", "Hi", tools=[tool("a"), tool("b")]), chat("x", "Hi", tools=[tool("b"), tool("a")]), ["another order"]),
        (QWEN, chat("x", "Hi", tools=[tool("a")]), chat("x", "Hi", tools=[tool("a"), tool("b")]), ["tools differ"]),
    ],
)
def test_explain_says_where_prompts_part_and_why(tmp_path, model, first, second, said):
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for path, body in zip(paths, (first, second)):
        path.write_text(json.dumps(body))
    done = trellis("explain", "-m", pathlib.Path(model_path()).with_name(f"{model}.gguf"), *paths)
    assert done.returncode == 0, done.stderr
    assert all(words in done.stdout for words in said), done.stdout


def test_explain_agrees_with_the_server(server, tmp_path):
    server.settle()
    server.post("/v1/cache/reset", {})
    bodies = [chat(CLOCK.format(time), "What time is it?", max_tokens=1) for time in ("10:15", "11:30")]
    for path, body in zip(("a.json", "b.json"), bodies):
        (tmp_path / path).write_text(json.dumps(body))
        _, answer = server.post("/v1/chat/completions", body)
    done = trellis("explain", "-m", model_path(), tmp_path / "a.json", tmp_path / "b.json")
    timings = answer["timings"]
    assert f"{timings['cache_n']} would be found" in done.stdout and f"{timings['prompt_n']} computed" in done.stdout


def test_explain_refuses_what_the_server_would(tmp_path):
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text(json.dumps(chat("x", "Hi")))
    for text, said in [("{", "JSON"), ('{"messages": 3}', "messages"), ('{"prompt": [-1]}', "prompt"), ('{"prompt": [9999999]}', "9999999"), ('{"prompt": ""}', "empty"), ('{"prompt": ["a", "b"]}', "2 prompts")]:
        bad.write_text(text)
        done = trellis("explain", "-m", model_path(), good, bad)
        assert done.returncode == 2 and "bad.json" in done.stderr and said in done.stderr, done.stderr
    assert "none.json" in trellis("explain", "-m", model_path(), good, tmp_path / "none.json").stderr


def test_replay_counts_what_each_strategy_finds(tmp_path):
    trace = tmp_path / "trace.jsonl"
    prompts = [[1] * 64 + [branch] * 36 for branch in range(2, 6)]
    trace.write_text("".join(json.dumps({"tokens": prompt}) + "\n" for prompt in prompts))
    done = trellis("replay", trace, "-b", "100%,64KiB", "--token-bytes", "1024", "-o", "json", "--svg", tmp_path / "a.svg")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["prompt_tokens"] == 400 and report["unique_tokens"] == 64 + 4 * 36
    hits = {(r["budget"], r["strategy"]): r["hit_tokens"] for r in report["results"]}
    assert hits["100%", "optimum"] == hits["100%", "copies"] == 3 * 64
    assert hits["100%", "none"] == hits["100%", "blocks-256"] == 0
    assert hits["100%", "radix-lru"] == 3 * 64 and hits["64KiB", "radix-lru"] == 0, "none fits"
    assert all(r["hit_tokens"] + r["computed_tokens"] == 400 for r in report["results"])
    svg = (tmp_path / "a.svg").read_text()
    assert svg.startswith("<svg") and svg.count("<polyline") == len(report["results"]) / 2
    table = trellis("replay", trace, "-s", "radix-lru,slots-2").stdout
    assert "| radix-lru |" in table and "| slots-2 |" in table and "| copies |" not in table


def test_replay_says_what_is_wrong(tmp_path):
    trace = tmp_path / "trace.jsonl"
    trace.write_text('{"tokens": [1]}\n{"tokens": 1}\n')
    done = trellis("replay", trace)
    assert done.returncode == 2 and "trace.jsonl:2: tokens is not an array" in done.stderr
    trace.write_text("")
    assert "there is no request in it\n" in trellis("replay", trace).stderr
    trace.write_text(json.dumps({"tokens": [1, 2]}))
    assert trellis("replay", trace).returncode == 0, "shares of it are less than a token"
    trace.write_text(json.dumps({"tokens": [1] * 100}))
    for args, said in [
        (["-b", "0%"], "0%"),
        (["-b", "x"], "not a size"),
        (["-s", "fifo"], "radix-lru"),
        (["--svg", tmp_path / "none" / "a.svg"], "a.svg"),
    ]:
        done = trellis("replay", trace, *args)
        assert done.returncode != 0 and said in done.stderr.splitlines()[-1], done.stderr
    assert trellis("replay", tmp_path / "none").returncode == 2


def test_a_second_signal_stops_at_once():
    def refuses():
        try:
            socket.create_connection(server.address, timeout=DEADLINE).close()
        except OSError:
            return True

    with Server("--kv-cache", "256MiB", "--drain-timeout", "600") as server:
        with server.send("/v1/completions", {"prompt": "x", "max_tokens": 8000, "ignore_eos": True}):
            server.wait_for_a_lease()
            server.process.terminate()
            server.wait_until("it no longer listens: the first signal has been taken", refuses)
            assert server.stop() == -signal.SIGTERM


def test_the_context_is_checked_before_the_weights_are_read():
    done = trellis("serve", "-m", model_path(), "--port", "0", "--ctx-size", "9000")
    assert done.returncode == 2
    assert done.stderr == "trellis: --ctx-size 9000: the model was made for 8192 tokens\n"


def test_the_default_cache_holds_at_most_16_contexts():
    with Server("--ctx-size", "256") as server:
        cache = server.get("/v1/cache")
        assert cache["pages"]["capacity"] * cache["page_tokens"] == 16 * 256
        assert server.stop() == 0


def test_an_answer_that_cannot_be_written_is_an_error():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [BIN, "run", "-m", model_path(), "--kv-cache", "64MiB", "-n", "400", "Once"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
        )
    assert done.returncode == 1
    assert "standard output: No space left on device" in done.stderr


def test_it_serves_on_when_nobody_can_read_its_log():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with open("/dev/full", "w") as full:
        process = subprocess.Popen(
            [BIN, "serve", "-m", model_path(), "--port", str(port), "--kv-cache", "64MiB"], stderr=full
        )
    try:
        wait_until_healthy(port, process)
        body = json.dumps({"prompt": "x", "max_tokens": 1}).encode()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/completions", body, timeout=60) as answer:
            assert answer.status == 200
        process.terminate()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


def wait_until_healthy(port, process):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.05)
    raise AssertionError(f"not healthy; status {process.poll()}")
