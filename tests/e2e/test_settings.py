"""The config file, the environment, completions and the manual."""

import os
import pathlib
import re
import shutil
import subprocess

import pytest
from server_process import DEADLINE, MODEL, model_path

BIN = os.environ["TRELLIS_BIN"]
COMMANDS = "serve chat run pull list rm ps bench explain replay inspect completions man".split()


@pytest.fixture
def home(tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TRELLIS_", "XDG_", "HF_"))}
    return {**environment, "HOME": str(tmp_path), "TRELLIS_NO_PACK_CACHE": "true"}


def trellis(home, *args, **more):
    return subprocess.run([BIN, *args], capture_output=True, text=True, timeout=DEADLINE, env=home, **more)


def write_config(home, text, path=".config/trellis/config.toml"):
    file = pathlib.Path(home["HOME"]) / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return str(file)


def threads(done):
    assert done.returncode == 0, done.stderr
    return int(re.search(r"(\d+) threads,", done.stderr)[1])


def test_flags_go_before_the_environment_before_the_file(home):
    write_config(home, f'model = "{model_path()}"\nkv-cache = "64MiB"\nthreads = 2\n[bench]\nthreads = 4\n')
    run = ["run", "-n", "1", "x"]
    assert threads(trellis(home, *run)) == 2
    write_config(home, f'model = "{model_path()}"\nkv-cache = "64MiB"\nthreads = 2\n[run]\nthreads = 3\nmax-tokens = 2\n')
    assert threads(trellis(home, *run)) == 3
    assert "answer: 2 tokens" in trellis(home, "run", "x").stderr
    assert threads(trellis({**home, "TRELLIS_THREADS": "4"}, *run)) == 4
    assert threads(trellis({**home, "TRELLIS_THREADS": "4"}, *run, "--threads", "5")) == 5
    other = write_config(home, "threads = 6\n", "other.toml")
    flags = ["-m", model_path(), "--kv-cache", "64MiB", *run[1:]]
    assert threads(trellis(home, "--config", other, "run", *flags)) == 6
    assert threads(trellis(home, "run", *flags, f"--config={other}")) == 6
    assert threads(trellis({**home, "TRELLIS_CONFIG": other}, "run", *flags)) == 6
    write_config(home, "threads = 7\n", "xdg/trellis/config.toml")
    assert threads(trellis({**home, "XDG_CONFIG_HOME": home["HOME"] + "/xdg"}, "run", *flags)) == 7


def test_what_a_file_may_hold(home):
    config = """
        # a comment
        kv-cache = '64MiB'   # "another"
        repetitions = 0x1
        profile = false
        [run]
        temp = 0.0
        seed = -1
        chat = true
        system = \"\"\"Say "#1" = first.\"\"\"
        [bench]
        n-prompt = [4, 8,
          12]
        n-gen = 0
        output = "json"
        no-pack-cache = true
    """
    write_config(home, config)
    rows = trellis(home, "bench", "-m", model_path()).stdout
    assert re.findall(r'"test":"(\w+)"', rows) == ["pp4", "pp8", "pp12"]
    assert re.findall(r'"test":"(\w+)"', trellis(home, "bench", "-m", model_path(), "-p", "2").stdout) == ["pp2"]
    assert not (pathlib.Path(home["HOME"]) / ".cache/trellis/packed").exists()
    done = trellis(home, "run", "-m", model_path(), "-n", "8", "Hi")
    bare = {**home, "XDG_CONFIG_HOME": "/nonexistent"}
    same = trellis(bare, "run", "-m", model_path(), "--kv-cache", "64MiB", "-n", "8", "--temp", "0", "--system", 'Say "#1" = first.', "Hi")
    assert done.returncode == same.returncode == 0 and done.stdout == same.stdout


@pytest.mark.parametrize(
    "config, said",
    [
        ("port = 1\nprot = 8080\n", ":2: no command has a flag --prot; did you mean port?"),
        ("[serve]\nport = 1\n\nthread = 2\n", ":4: serve has no flag --thread; did you mean threads?"),
        ("[serv]\nport = 1\n", ":1: there is no command 'serv' with flags; did you mean serve?"),
        ("[serve]\ntemp = 1\n", ":2: serve has no flag --temp"),
        ("[man]\n", ":1: there is no command 'man' with flags"),
        ("threads = 0\n", ":1: "),
        ('threads = "many"\n', "many is not a number"),
        ("threads = true\n", ":1: threads takes a value"),
        ("threads = [1, 2]\n", ":1: threads is one string or number"),
        ("[serve]\nno-prefix-cache = 1\n", ":2: no-prefix-cache is true or false"),
        ("kv-cache = 1979-05-27\n", ":1: kv-cache is one string or number"),
        ("[serve.more]\nx = 1\n", "serve has no flag --more"),
        ("threads = \n", ":1: "),
        ('a = "\n', ":1: "),
        ("help = true\n", "no command has a flag --help"),
    ],
)
def test_a_mistake_in_the_file_is_named_with_its_line(home, config, said):
    path = write_config(home, config)
    done = trellis(home, "serve", "-m", "x")
    assert done.returncode == 2 and done.stderr.startswith(f"trellis: {path}:"), done.stderr
    assert said in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert trellis(home, "--help").returncode == trellis(home, "man").returncode == 0


def test_mistakes_in_the_environment_and_where_there_is_no_file(home):
    done = trellis({**home, "TRELLIS_PORT": "70000"}, "serve", "-m", "x")
    assert done.returncode == 2 and "$TRELLIS_PORT" in done.stderr and "70000" in done.stderr
    for asked in ({"TRELLIS_CONFIG": "/nowhere.toml"}, {}):
        flags = [] if asked else ["--config", "/nowhere.toml"]
        done = trellis({**home, **asked}, "serve", "-m", "x", *flags)
        assert done.returncode == 2 and "/nowhere.toml" in done.stderr, done.stderr


def test_a_flag_for_one_model_goes_before_settings_for_another(home):
    write_config(home, 'hf-repo = "nobody/nothing"\nhub = "http://127.0.0.1:1"\nkv-cache = "64MiB"\n')
    assert trellis(home, "run", "-m", model_path(), "-n", "1", "x").returncode == 0
    done = trellis({**home, "TRELLIS_MODEL": "other.gguf"}, "run", "-hf", "some/model", "x")
    assert "http://127.0.0.1:1/api/models/some/model" in done.stderr
    done = trellis({**home, "TRELLIS_HF_REPO": "", "TRELLIS_MODEL": model_path()}, "inspect", model_path())
    assert done.returncode == 0


def test_the_help_shows_what_is_set(home):
    write_config(home, "[serve]\nport = 9123\n")
    assert "9123" in trellis(home, "serve", "--help").stdout
    assert "TRELLIS_KV_CACHE" in trellis(home, "serve", "--help").stdout


def flags_of(home, command):
    """The long flags that --help has."""
    return set(re.findall(r"--[\w-]+", trellis(home, command, "--help").stdout.split("\n\n")[-2]))


def test_the_manual_has_every_command_and_flag(home):
    page = trellis(home, "man").stdout
    plain = page.replace("\\-", "-").replace("\\fB", "").replace("\\fR", "")
    for command in COMMANDS:
        assert f".SS trellis {command}\n" in page
        for flag in flags_of(home, command):
            assert flag in plain, flag
    for tool in (["groff", "-man", "-ww", "-z"], ["mandoc", "-T", "lint", "-W", "warning"]):
        if shutil.which(tool[0]):
            checked = subprocess.run(tool, input=page, capture_output=True, text=True)
            said = [line for line in checked.stdout.splitlines() if "missing date" not in line]  # it has none
            assert (said, checked.stderr) == ([], ""), checked
    if shutil.which("man"):
        shown = subprocess.run(["man", "-l", "-"], input=page, capture_output=True, text=True, env={**home, "MANWIDTH": "100"})
        assert shown.returncode == 0 and "trellis serve" in shown.stdout


def test_the_reference_is_the_committed_one_and_its_keys_are_settings(home):
    reference = trellis(home, "man", "--format", "markdown").stdout
    committed = pathlib.Path(__file__).parents[2] / "docs" / "configuration.md"
    assert reference == committed.read_text(), f"write it anew: trellis man --format markdown > {committed}"
    for section in reference.split("\n## ")[1:]:
        command = section.split("\n")[0]
        rows = re.findall(r"^\| `(.*)` \| .* \| (?:`(.*)`)? \| (?:`(.*)`)? \| .* \|$", section, re.MULTILINE)
        in_rows = {flag for names, _, _ in rows for flag in re.findall(r"--[\w-]+", names)}
        assert flags_of(home, command) - {"--help", "--config"} == in_rows
        for names, key, variable in rows:
            assert (key != "") == ("--" in names and command != "man"), names
            # TRELLIS_MODELS_DIR is the folder of pulled models.
            assert (variable != "") == (key != "" and key != "models-dir"), names
            if key:
                done = trellis(home, command, "--config", write_config(home, f"[{command}]\n{key} = 1979-05-27\n"))
                assert done.returncode == 2 and f":2: {key} " in done.stderr, done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completions_have_every_command_and_flag(home, shell, tmp_path):
    text = trellis(home, "completions", shell).stdout
    for command in COMMANDS:
        assert re.search(rf"\b{command}\b", text), command
        for flag in flags_of(home, command):
            assert (flag if shell != "fish" else f"-l {flag[2:]}") in text, flag
    if not shutil.which(shell):
        pytest.skip(f"there is no {shell} to read them")
    script = tmp_path / "script"
    script.write_text(text)
    read = subprocess.run([shell, "-n", script], capture_output=True, text=True)
    assert (read.returncode, read.stdout, read.stderr) == (0, "", "")


def bash_offers(home, script, *words):
    """What bash offers for the last of these words."""
    line = f"""
        source "$1"; shift
        COMP_WORDS=(trellis "$@"); COMP_CWORD=$#
        _trellis; printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    path = f"{pathlib.Path(BIN).resolve().parent}:{home['PATH']}"
    done = subprocess.run(["bash", "-c", line, "-", script, *words], capture_output=True, text=True, env={**home, "PATH": path})
    assert done.stderr == ""
    return done.stdout.split()


def test_what_bash_offers(home, tmp_path):
    script = tmp_path / "script"
    script.write_text(trellis(home, "completions", "bash").stdout)
    home["TRELLIS_MODELS_DIR"] = str(tmp_path / "models")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / f"{MODEL}.gguf").symlink_to(model_path())
    assert bash_offers(home, script, "se") == ["serve"]
    assert bash_offers(home, script, "serve", "--kv-t") == ["--kv-type"]
    assert bash_offers(home, script, "serve", "--kv-type", "b") == ["bf16"]
    assert bash_offers(home, script, "completions", "") == ["bash", "zsh", "fish"]
    assert bash_offers(home, script, "run", "-m", MODEL[:5]) == [MODEL]
    assert bash_offers(home, script, "rm", MODEL[:5]) == [MODEL]
    assert bash_offers(home, script, "--config", f"{tmp_path}/scr") == [str(script)]
    assert bash_offers(home, script, "serve", "--port", "") == []
    assert set(COMMANDS) < set(bash_offers(home, script, ""))
