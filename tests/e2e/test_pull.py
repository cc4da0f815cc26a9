"""trellis pull, -hf, list and rm, against a hub on this machine."""

import json
import os
import pathlib
import re
import resource
import signal
import subprocess

import pytest
from server_process import DEADLINE, MODEL, Server, model_path, program
from hub import Hub, files_below, gguf, secure_redirects

BIN = os.environ["TRELLIS_BIN"]
REPO = "maker/Some-Model-GGUF"
FILES = {
    "README.md": b"# A model",
    "some-Q2_K.gguf": gguf(2),
    "some-Q4_K_M.gguf": gguf(4),
    "mmproj-some-Q4_K_M.gguf": gguf(5),
    "some-UD-Q8_K_XL.gguf": gguf(8),
    "BF16/some-BF16-00001-of-00002.gguf": gguf(16),
    "BF16/some-BF16-00002-of-00002.gguf": gguf(17),
}
FILE = "some-Q4_K_M.gguf"


@pytest.fixture
def hub():
    with Hub() as hub:
        hub.repos[REPO] = dict(FILES)
        yield hub


@pytest.fixture
def home(hub, tmp_path):
    """The environment of somebody who has no models yet."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return {**environment, "HOME": str(tmp_path), "TRELLIS_MODELS_DIR": str(tmp_path / "models"), "TRELLIS_HUB": hub.url}


def trellis(home, *args, **more):
    return subprocess.run([BIN, *args], capture_output=True, text=True, timeout=DEADLINE, env=home, **more)


def pull(home, what=REPO, **more):
    return trellis(home, "pull", what, **more)


def models(home):
    return files_below(home["TRELLIS_MODELS_DIR"])


def content(home, path=f"{REPO}/{FILE}"):
    return (pathlib.Path(home["TRELLIS_MODELS_DIR"]) / path).read_bytes()


@pytest.mark.parametrize(
    "quant, expected",
    [
        ("", ["some-Q4_K_M.gguf"]),
        (":q2_k", ["some-Q2_K.gguf"]),
        (":UD-Q8_K_XL", ["some-UD-Q8_K_XL.gguf"]),
        (":BF16", ["BF16/some-BF16-00001-of-00002.gguf", "BF16/some-BF16-00002-of-00002.gguf"]),
    ],
)
def test_pull_fetches_the_files_of_a_quantisation(hub, home, quant, expected):
    done = pull(home, REPO + quant)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert models(home) == [f"{REPO}/{path}" for path in expected]
    assert all(content(home, f"{REPO}/{path}") == FILES[path] for path in expected)
    assert len(hub.asked("store", "GET")) == len(expected)
    done = pull(home, REPO + quant)
    assert done.returncode == 0 and done.stderr.count("already there: ") == len(expected)
    assert len(hub.asked("store", "GET")) == len(expected), "nothing was fetched twice"


@pytest.mark.parametrize(
    "what, status, words",
    [
        (f"{REPO}:Q3_K", 2, ["no Q3_K, but BF16, Q2_K, Q4_K_M, Q8_K_XL"]),
        ("maker/none", 2, ["maker/none", "404", "Repository not found"]),
        ("maker/docs", 2, ["no GGUF file"]),
        ("maker/half", 2, ["2 parts, of which 1"]),
        ("maker", 2, ["USER/REPO"]),
        ("../../etc", 2, ["USER/REPO"]),
        ("maker/evil", 2, ["../../../x-Q4_K_M.gguf"]),
    ],
)
def test_what_a_hub_does_not_have_is_one_line(hub, home, what, status, words):
    hub.repos["maker/docs"] = {"README.md": b"x"}
    hub.repos["maker/half"] = {"a-Q4_K_M-00001-of-00002.gguf": gguf(1)}
    hub.repos["maker/evil"] = {"../../../x-Q4_K_M.gguf": gguf(1)}
    done = pull(home, what)
    assert done.returncode == status and done.stderr.count("\n") == 1, done.stderr
    assert all(word in done.stderr for word in words), done.stderr
    assert models(home) == [] and not (pathlib.Path(home["HOME"]) / "x-Q4_K_M.gguf").exists()


def test_a_connection_that_breaks_off_goes_on_where_it_was(hub, home):
    hub.cut_after = 120_000
    done = pull(home)
    assert done.returncode == 0 and "trying again" in done.stderr, done.stderr
    assert content(home) == FILES[FILE] and models(home) == [f"{REPO}/{FILE}"]
    ranges = [headers.get("Range") for _, _, _, headers in hub.asked("store", "GET")]
    assert ranges == [None, "bytes=120000-", "bytes=240000-"]


def test_a_store_that_knows_no_ranges_begins_again(hub, home):
    with_partial = stop_a_pull(hub, home)
    hub.ranges = False
    assert with_partial and pull(home).returncode == 0
    assert content(home) == FILES[FILE] and models(home) == [f"{REPO}/{FILE}"]


def wait_for_bytes(home, process, count):
    """Until so many are in the partial file."""
    while sum(path.stat().st_size for path in pathlib.Path(home["TRELLIS_MODELS_DIR"]).rglob("*.partial")) < count:
        assert process.poll() is None


def stop_a_pull(hub, home, after=100_000, what=REPO):
    """Ctrl-C when so many bytes have come; the partial file's path."""
    hub.stall_after = after
    with program("pull", what, env=home) as process:
        assert hub.stalled.wait(DEADLINE)
        wait_for_bytes(home, process, after)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
    assert process.returncode == 130 and "what came is kept" in err, err
    hub.stall_after = None
    hub.go_on.set()
    (partial,) = models(home)
    assert re.fullmatch(r".*\.gguf\.[0-9a-f]{12}\.partial", partial)
    assert what != REPO or partial.startswith(f"{REPO}/{FILE}.")
    return partial


def test_ctrl_c_keeps_what_came(hub, home):
    stop_a_pull(hub, home)
    listed = trellis(home, "list").stdout.splitlines()[1]
    assert f"{REPO}:Q4_K_M" in listed and "not whole" in listed
    assert pull(home).returncode == 0
    assert hub.asked("store", "GET")[-1][3]["Range"] == "bytes=100000-"
    assert content(home) == FILES[FILE] and models(home) == [f"{REPO}/{FILE}"]


def test_bytes_from_elsewhere_are_not_put_there(hub, home):
    stop_a_pull(hub, home)
    hub.wrong_ranges = 1
    done = pull(home)
    assert done.returncode == 0 and "asked for byte 100000" in done.stderr, done.stderr
    assert content(home) == FILES[FILE] and models(home) == [f"{REPO}/{FILE}"]
    assert [headers.get("Range") for _, _, _, headers in hub.asked("store", "GET")] == [None, "bytes=100000-", None]


def test_a_url_goes_on_with_the_same_file_only(hub, home):
    url, path = hub.store_url + "/x.gguf", "/x.gguf"
    hub.plain[path] = gguf(1)
    stop_a_pull(hub, home, what=url)
    assert pull(home, url).returncode == 0 and content(home, "127.0.0.1/x.gguf") == gguf(1)
    last = hub.asked("store", "GET")[-1][3]
    assert last["Range"] == "bytes=100000-" and last["If-Range"].startswith('"')
    # It changes just after it was described: all of it comes, not the rest.
    hub.plain["/y.gguf"] = gguf(2)
    hub.go_on.clear()
    hub.stalled.clear()
    hub.plain.pop(path)
    (pathlib.Path(home["TRELLIS_MODELS_DIR"]) / "127.0.0.1/x.gguf").unlink()
    stop_a_pull(hub, home, what=hub.store_url + "/y.gguf")
    hub.after_head["/y.gguf"] = gguf(3)
    assert pull(home, hub.store_url + "/y.gguf").returncode == 0
    assert content(home, "127.0.0.1/y.gguf") == gguf(3)


def test_two_versions_are_never_mixed(hub, home):
    """As mirrors behind one name may have them: described is one, what comes is of the other."""
    path, url = "/x.gguf", hub.store_url + "/x.gguf"
    hub.plain[path], hub.after_head[path] = gguf(1), gguf(2)
    stop_a_pull(hub, home, what=url)
    hub.plain[path] = gguf(1)
    assert pull(home, url).returncode == 0 and content(home, "127.0.0.1/x.gguf") == gguf(1)


def test_a_file_may_come_by_the_byte(hub, home):
    hub.stall_after = 2
    with program("pull", REPO, env=home) as process:
        assert hub.stalled.wait(DEADLINE)
        wait_for_bytes(home, process, 2)
        hub.go_on.set()
        _, err = process.communicate()
    assert process.returncode == 0 and content(home) == FILES[FILE], err
    hub.stall_after = None
    hub.plain["/short.gguf"] = b"GG"
    done = pull(home, hub.store_url + "/short.gguf")
    assert done.returncode == 2 and "no GGUF file" in done.stderr and models(home) == [f"{REPO}/{FILE}"]


def test_nobody_is_led_from_https_to_http(hub, home, tmp_path):
    """A stand-in with a certificate of its own."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-days", "2"]
    subprocess.run([*made, *subject], check=True, capture_output=True)
    hub.plain["/x.gguf"] = gguf(1)
    with secure_redirects(key, certificate, hub.store_url) as url:
        trusting = {**home, "SSL_CERT_FILE": str(certificate)}
        done = pull(trusting, url + "/x.gguf")
        assert done.returncode == 1 and f"redirects from https to {hub.store_url}/x.gguf" in done.stderr, done.stderr
        assert hub.asked("store") == [] and models(home) == []
        done = pull(home, url + "/x.gguf")
        assert done.returncode == 1 and "ertificate" in done.stderr, done.stderr


def test_what_came_of_another_version_is_not_gone_on_with(hub, home):
    stop_a_pull(hub, home)
    hub.repos[REPO][FILE] = gguf("new")
    assert pull(home).returncode == 0
    assert "Range" not in hub.asked("store", "GET")[-1][3]
    assert content(home) == gguf("new") and models(home) == [f"{REPO}/{FILE}"]
    hub.repos[REPO][FILE] = gguf("newer")
    assert pull(home).returncode == 0 and content(home) == gguf("newer"), "a whole file is replaced too"


def test_a_wrong_byte_is_noticed(hub, home):
    hub.wrong_byte = True
    done = pull(home)
    assert done.returncode == 1 and "SHA-256" in done.stderr and models(home) == []
    hub.wrong_byte = False
    assert pull(home).returncode == 0
    path = pathlib.Path(home["TRELLIS_MODELS_DIR"]) / REPO / FILE
    path.write_bytes(FILES[FILE][:-1] + b"!")
    assert pull(home).returncode == 0 and content(home) == FILES[FILE], "a broken file is mended"


def test_the_token_goes_to_the_hub_alone(hub, home, tmp_path):
    hub.token = "hf_secret"
    done = pull(home)
    assert done.returncode == 1 and "401" in done.stderr and "HF_TOKEN" in done.stderr
    (tmp_path / "token").write_text("hf_secret\n")
    settings = [{"HF_TOKEN": "hf_secret"}, {"HF_TOKEN_PATH": str(tmp_path / "token")}, {"HF_HOME": str(tmp_path)}]
    for number, setting in enumerate(settings):
        done = pull({**home, **setting, "TRELLIS_MODELS_DIR": str(tmp_path / f"models{number}")})
        assert done.returncode == 0 and "hf_secret" not in done.stderr, done.stderr
    assert len(hub.asked("store")) == len(settings)
    assert not any("Authorization" in headers for _, _, _, headers in hub.asked("store"))
    # A URL elsewhere is no reason to send it either.
    hub.plain["/x.gguf"] = gguf(1)
    assert pull({**home, "HF_TOKEN": "hf_secret"}, hub.store_url + "/x.gguf").returncode == 0
    assert not any("Authorization" in headers for _, _, _, headers in hub.asked("store"))
    done = pull({**home, "HF_TOKEN": "hf_wrong"})
    assert done.returncode == 1 and "hf_wrong" not in done.stderr and "may not read it" in done.stderr


def test_a_busy_hub_is_asked_again(hub, home):
    hub.busy = 3
    done = pull(home)
    assert done.returncode == 0 and done.stderr.count("503; trying again in 0 s") == 3, done.stderr
    hub.busy = 1000
    done = pull(home, f"{REPO}:Q2_K")
    assert done.returncode == 1 and done.stderr.count("trying again") == 4
    assert done.stderr.splitlines()[-1].startswith("trellis: ")


def test_nobody_there_is_said_at_once(hub, home):
    done = pull({**home, "TRELLIS_HUB": "http://127.0.0.1:1"})
    assert done.returncode == 1 and "127.0.0.1:1" in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_a_full_disk_is_said(hub, home):
    hub.sizes[FILE] = 1 << 60
    done = pull(home)
    assert done.returncode == 1 and "are needed" in done.stderr and models(home) == [], done.stderr
    hub.sizes.clear()

    def no_large_files():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))

    done = pull(home, preexec_fn=no_large_files, restore_signals=False)
    assert done.returncode == 1 and "cannot write" in done.stderr and "File too large" in done.stderr, done.stderr
    assert pull(home).returncode == 0 and content(home) == FILES[FILE]


def test_two_pulls_fetch_once(hub, home):
    hub.stall_after = 100_000
    with program("pull", REPO, env=home) as first:
        assert hub.stalled.wait(DEADLINE)
        with program("pull", REPO, env=home) as second:
            assert second.stderr.readline() == "another pull into this folder is running: waiting for it\n"
            hub.go_on.set()
            said = [process.communicate()[1] for process in (first, second)]
            assert [first.returncode, second.returncode] == [0, 0]
    assert said[0].startswith("pulled ") and said[1].startswith("already there: ")
    assert content(home) == FILES[FILE] and len(hub.asked("store", "GET")) == 1


def test_a_hub_that_redirects_is_followed(hub, home):
    hub.moved["maker/old"] = REPO
    assert pull(home, "maker/old").returncode == 0
    assert models(home) == [f"maker/old/{FILE}"]


def test_a_url_of_a_file(hub, home):
    hub.plain["/some/where/plain-Q8_0.gguf"] = gguf(1)
    url = hub.store_url + "/some/where/plain-Q8_0.gguf"
    hub.cut_after = 200_000
    assert pull(home, url + "?key=1").returncode == 0
    assert models(home) == ["127.0.0.1/plain-Q8_0.gguf"] and content(home, models(home)[0]) == gguf(1)
    assert "already there" in pull(home, url).stderr
    hub.plain["/page.gguf"] = b"<html>Please log in</html>"
    done = pull(home, hub.store_url + "/page.gguf")
    assert done.returncode == 2 and "no GGUF file" in done.stderr
    done = pull(home, hub.store_url + "/none.gguf")
    assert done.returncode == 2 and "404" in done.stderr
    assert pull(home, hub.store_url + "/x.zip").returncode == 2
    assert models(home) == ["127.0.0.1/plain-Q8_0.gguf"]


def test_which_hub_is_asked(hub, home):
    nowhere = "http://127.0.0.1:1"
    assert trellis({**home, "TRELLIS_HUB": nowhere}, "pull", REPO, "--hub", hub.url + "/").returncode == 0
    assert trellis({**home, "HF_ENDPOINT": nowhere}, "pull", REPO).returncode == 0
    home.pop("TRELLIS_HUB")
    assert trellis({**home, "HF_ENDPOINT": hub.url}, "pull", REPO).returncode == 0
    assert "127.0.0.1:1" in trellis({**home, "HF_ENDPOINT": nowhere}, "pull", REPO).stderr
    done = trellis(home, "pull", REPO, "--hub", "hub.example")
    assert done.returncode == 2 and "hub.example" in done.stderr


@pytest.fixture
def smollm2(hub):
    """The model of most tests, at the hub."""
    hub.repos["smol/SmolLM2-GGUF"] = {f"{MODEL}.gguf": pathlib.Path(model_path()).read_bytes()}
    return "smol/SmolLM2-GGUF"


def test_hf_pulls_once_and_then_needs_no_hub(hub, home, smollm2):
    flags = ["--kv-cache", "64MiB", "-n", "8", "--temp", "0"]
    expected = trellis(home, "run", "-m", model_path(), *flags, "Once upon").stdout
    for name in (["-hf", smollm2], ["-hf", f"{smollm2}:Q4_1"], ["--hf-repo", f"{smollm2}:q4_1"]):
        done = trellis(home, "run", *name, *flags, "Once upon")
        assert (done.returncode, done.stdout) == (0, expected), done.stderr
        hub.busy = 1_000_000  # it would not be answered
    for name in (f"{smollm2}:Q4_1", smollm2, MODEL, f"{MODEL}.gguf", f"{smollm2}/{MODEL}"):
        done = trellis(home, "run", "-m", name, *flags, "Once upon")
        assert (done.returncode, done.stdout) == (0, expected), done.stderr
    assert "8192 tokens" in trellis(home, "inspect", smollm2).stdout
    assert len(hub.asked("store", "GET")) == 1
    done = trellis(home, "run", "-hf", smollm2, "-m", MODEL, "x")
    assert done.returncode == 2 and "xcludes" in done.stderr
    assert "USER/REPO" in trellis(home, "serve", "-hf", "smol").stderr


def test_serve_hf(hub, home, smollm2):
    command = [BIN, "serve", "-hf", smollm2, "--port", "0", "--kv-cache", "64MiB"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=home)
    try:
        lines = []
        while not lines or not lines[-1].startswith("listening on "):
            lines.append(process.stderr.readline())
            assert lines[-1], lines
        url = lines[-1].split()[2]
        ps = json.loads(trellis(home, "ps", "--url", url, "--json").stdout)
        assert [model["id"] for model in ps["models"]] == [MODEL]
    finally:
        process.terminate()
        assert process.wait(DEADLINE) == 0
        process.stderr.close()


def test_list_and_rm(hub, home, smollm2):
    empty = trellis(home, "list")
    assert empty.returncode == 0 and empty.stdout.split() == ["NAME", "SIZE", "QUANTISATION", "CONTEXT", "PULLED"]
    for what in (f"{REPO}:Q2_K", f"{REPO}:BF16", smollm2):
        assert pull(home, what).returncode == 0
    names = [f"{REPO}:BF16", f"{REPO}:Q2_K", f"{smollm2}:Q4_1"]
    assert trellis(home, "list", "--quiet").stdout.split() == names
    rows = json.loads(trellis(home, "list", "--json").stdout)
    assert [row["name"] for row in rows] == names and all(row["whole"] for row in rows)
    assert rows[0]["size"] == 600_000 and len(rows[0]["files"]) == 2 and rows[0]["context_length"] is None
    assert rows[2]["context_length"] == 8192 and rows[2]["quantization"] == "Q4_1"
    line = trellis(home, "list").stdout.splitlines()[3]
    assert re.fullmatch(rf"{smollm2}:Q4_1 +93.8 MiB +Q4_1 +8192 +\d{{4}}-\d\d-\d\d \d\d:\d\d", line), line
    done = trellis(home, "rm", REPO)
    assert done.returncode == 2 and f"may be {names[0]}, {names[1]}" in done.stderr
    done = trellis(home, "rm", f"{REPO}:BF16", smollm2)
    assert done.returncode == 0 and f"removed {names[2]}" in done.stderr
    assert models(home) == [f"{REPO}/some-Q2_K.gguf"]
    done = trellis(home, "rm", "none")
    assert done.returncode == 2 and "'none'" in done.stderr


def test_ps_says_what_a_server_does(fresh, home):
    fresh.post("/v1/completions", {"prompt": [300] * 40, "max_tokens": 2})
    text = trellis(home, "ps", "--url", fresh.url).stdout
    for words in (f"{fresh.url} (trellis ", f"{MODEL}: context 8192", "0 running, 0 waiting", "1.5 MiB of 1023.8 MiB used", " committed"):
        assert words in text, text
    report = json.loads(trellis(home, "ps", "--url", fresh.url + "/", "--json").stdout)
    model = report["models"][0]
    assert report["status"] == "ok" and model["cache"]["pages"]["committed"] > 0
    assert model["prompt_tokens"] >= 40 and model["requests"]["running"] == 0
    done = trellis(home, "ps", "--url", "http://127.0.0.1:1")
    assert done.returncode == 1 and "127.0.0.1:1" in done.stderr


def test_ps_with_keys(home, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("sk-one\n")
    with Server("--kv-cache", "64MiB", "--api-key-file", str(keys)) as server:
        done = trellis(home, "ps", "--url", server.url)
        assert done.returncode == 1 and "401" in done.stderr and "HF_TOKEN" not in done.stderr
        assert trellis(home, "ps", "--url", server.url, "--api-key", "sk-one").returncode == 0
        assert trellis({**home, "TRELLIS_API_KEY": "sk-one"}, "ps", "--url", server.url).returncode == 0
        assert server.stop() == 0
