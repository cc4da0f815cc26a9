"""The programs that are compared, and the models they read."""

import dataclasses
import functools
import json
import os
import pathlib
import subprocess

from servers import BenchError, Server

ROOT = pathlib.Path(__file__).resolve().parent.parent
OURS, LLAMA, OPENVINO = "Trellis", "llama.cpp", "OpenVINO GenAI"
UNCACHED = "Trellis, no cache"


@dataclasses.dataclass(frozen=True)
class Setting:
    """One way to run a side."""

    name: str
    args: tuple = ()  # of the program
    plain: bool = False  # llama.cpp built without GGML_CPU_REPACK
    options: tuple = ()  # of OpenVINO: pairs
    in_turns: bool = False  # measured like the best one, even if it is not

    def plus(self, *args):
        return dataclasses.replace(self, args=(*self.args, *args))


@dataclasses.dataclass(frozen=True)
class Model:
    title: str
    source: str  # as scripts/fetch.py names it
    file: str  # of the source
    quant: str = ""  # requantised to this


SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"
QWEN = "qwen2.5-coder-{}-instruct-q4_k_m.gguf"
MODELS = {"smollm2": Model("SmolLM2-135M Q4_1", "smollm2", SMOLLM2)}
for size in ("0.5b", "1.5b"):
    source = f"qwen2.5-coder-{size}"
    title = f"Qwen2.5-Coder-{size.upper()}"
    MODELS[f"qwen-{size}"] = Model(f"{title} Q4_K_M", source, QWEN.format(size))
    for quant in ("Q4_0", "Q8_0"):
        # From Q4_K_M: it is the speed of the type that is measured.
        MODELS[f"qwen-{size}-{quant.lower()}"] = Model(f"{title} {quant}", source, QWEN.format(size), quant)


@dataclasses.dataclass(frozen=True)
class Tools:
    trellis: pathlib.Path
    llama: pathlib.Path  # a prefix of scripts/build_llama
    llama_plain: pathlib.Path
    openvino: pathlib.Path | None  # the Python that has it
    threads: int
    models: pathlib.Path  # where fetched files lie
    made: pathlib.Path  # where requantised ones are kept
    limit_s: float | None = None  # a program that runs longer is stopped: BenchError

    def sides(self):
        return [OURS, UNCACHED, LLAMA] + ([OPENVINO] if self.openvino else [])

    def llama_program(self, name, setting):
        return (self.llama_plain if setting.plain else self.llama) / "bin" / name

    def model_path(self, name):
        """The file, fetched and requantised if it has to be."""
        model = MODELS[name]
        path = self.models / model.file
        if not path.exists():
            subprocess.run([ROOT / "scripts/fetch.py", "model", model.source], check=True)
        if not model.quant:
            return path
        made = self.made / f"{name}.gguf"
        if not made.exists():
            made.parent.mkdir(parents=True, exist_ok=True)
            partial = made.with_suffix(".partial")
            program = self.llama / "bin/llama-quantize"
            call([program, "--allow-requantize", path, partial, model.quant, self.threads])
            partial.rename(made)
        return made

    def serve(self, side, setting, model, context, environment=None):
        """`context`: tokens that llama.cpp's slots need together; Trellis needs no such number."""
        if side in (OURS, UNCACHED):
            command = [self.trellis, "serve", "-m", model, "--threads", self.threads, *setting.args]
            command += ["--no-prefix-cache"] if side == UNCACHED else []
        else:
            program = self.llama_program("llama-server", setting)
            command = [program, "-m", model, "-t", self.threads, "-c", context, *setting.args]
        return Server(command, environment, self.limit_s)

    def ask_openvino(self, setting, model, job, environment=None):
        """What bench/openvino_peer.py answers to a job."""
        job = job | {"model": str(model), "threads": self.threads, "options": dict(setting.options)}
        peer = ROOT / "bench/openvino_peer.py"
        answer = call([self.openvino, peer, json.dumps(job)], environment, self.limit_s)
        return json.loads(answer.splitlines()[-1])

    @functools.cache
    def openvino_version(self):
        if not self.openvino:
            return ""
        return call([self.openvino, "-c", "import openvino_genai as g; print(g.__version__)"]).strip()


def call(command, environment=None, limit_s=None):
    """Standard output of a program that has to succeed."""
    command = [str(part) for part in command]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=limit_s)
    except subprocess.TimeoutExpired:
        raise BenchError(f"{' '.join(command)} was stopped after {limit_s:.0f} s") from None
    if done.returncode != 0:
        raise BenchError(f"{' '.join(command)} failed ({done.returncode}): {done.stderr.strip()[-1500:]}")
    return done.stdout


def evict(path):
    """Asks the kernel to forget what it has of a file, so that it is read from the disk."""
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
