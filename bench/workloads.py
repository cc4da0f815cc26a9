"""What is measured: workloads, their figures, and the settings of each side that are tried.

A workload knows nothing of repetitions. `measure` runs one side once, from the start of its process to its end, and
returns {figure: value}, and whatever else is worth keeping.
"""

import dataclasses
import json
import os
import tempfile
import time

import stats
from servers import BenchError
from texts import Prompts, sample_text
from tools import LLAMA, OPENVINO, OURS, Setting, call, evict


@dataclasses.dataclass(frozen=True)
class Sizes:
    """In tokens, but for `branches`."""

    prefill: int = 512
    decode: int = 64
    trunk: int = 2048  # shared by branches and streams
    own: int = 32  # behind the trunk, and behind what is warm
    branches: int = 8
    branch_out: int = 16
    warm: int = 6000
    warm_out: int = 32
    stream_own: int = 8  # behind the shared trunk
    alone: int = 256  # prompt of a stream that shares nothing
    stream_out: int = 64

    def trial(self):
        """Enough to tell settings apart."""
        return dataclasses.replace(self, decode=min(self.decode, 16), stream_out=min(self.stream_out, 24))


FULL = Sizes()
QUICK = Sizes(decode=32, trunk=512, warm=2000, alone=64, stream_out=32)


@dataclasses.dataclass(frozen=True)
class Figure:
    key: str
    label: str
    unit: str

    @property
    def higher_is_better(self):
        return self.unit == "tok/s"


# Repacking weights at load and flash attention each help on some machines, types and depths, and hurt on others.
def llama_grid(*args):
    return [
        Setting(
            " ".join((f"-fa {flash}", "plain build" if plain else "repack build", *args)),
            ("-fa", flash, *args),
            plain=plain,
        )
        for plain in (False, True)
        for flash in ("on", "off")
    ]


LLAMA_DEFAULT = Setting("defaults")
# Keys and values in 8 bits are OpenVINO's default. Prompts go through it in pieces of 256 tokens unless told, and where
# the machine has VNNI its activations are quantised in groups of 32.
OPENVINO_GRID = [
    Setting(f"kv {kv}, batch {batch}", options=(("kv", kv), ("batch", batch)))
    for kv in ("u8", "f16")
    for batch in (256, 2048)
]
OPENVINO_GRID.append(
    Setting("kv f16, batch 2048, group 128", options=(("kv", "f16"), ("batch", 2048), ("group", 128)))
)
OURS_GRID = [Setting("defaults")]


class Workload:
    name = ""
    variants = ("",)

    def settings(self, side, variant):
        if side == LLAMA:
            return self.llama_settings(variant)
        return OPENVINO_GRID if side == OPENVINO else OURS_GRID

    def prompts(self, server):
        return Prompts(server.tokenize(sample_text()))


class Speed(Workload):
    """Prefill and decode of one sequence, by each side's own bench; random tokens."""

    name = "speed"
    variants = ("0", "2048", "4096", "6000")

    def figures(self, variant, sizes):
        at = f" behind {int(variant):,}" if variant != "0" else ""
        return [
            Figure("prefill", f"prefill of {sizes.prefill}{at}", "tok/s"),
            Figure("decode", f"decode{at}", "tok/s"),
        ]

    def llama_settings(self, variant):
        return llama_grid()

    def measure(self, tools, side, setting, model, variant, sizes, keys):
        prefill = sizes.prefill if "prefill" in keys else 0
        decode = sizes.decode if "decode" in keys else 0
        if side == OPENVINO:
            job = {"workload": "speed", "depth": int(variant), "prefill": prefill, "decode": decode}
            return tools.ask_openvino(setting, model, job)
        program = [tools.trellis, "bench"] if side == OURS else [tools.llama_program("llama-bench", setting)]
        size = ["-p", prefill, "-n", decode, "-d", variant, "-t", tools.threads, "-r", "1", "-o", "json"]
        rows = json.loads(call([*program, "-m", model, *size, *setting.args]))
        return {"prefill" if row["n_prompt"] else "decode": row["avg_ts"] for row in rows}


class Warm(Workload):
    """A long prompt is cached; a few tokens more come."""

    name = "warm"

    def figures(self, variant, sizes):
        what = f"{sizes.own} behind {sizes.warm:,} warm"
        return [
            Figure("ttft_s", f"{what}, first token", "s"),
            Figure("wall_s", f"{what}, {sizes.warm_out} out, all done", "s"),
        ]

    def llama_settings(self, variant):
        return [LLAMA_DEFAULT, *llama_grid("-np", "1")]

    def measure(self, tools, side, setting, model, variant, sizes, keys):
        if side == OPENVINO:
            job = {"workload": "warm", "warm": sizes.warm, "own": sizes.own, "out": sizes.warm_out}
            return tools.ask_openvino(setting, model, job)
        with tools.serve(side, setting, model, rounded(sizes.warm + sizes.own + sizes.warm_out)) as server:
            prompt = self.prompts(server).cut(sizes.warm + sizes.own)
            server.complete(prompt[: sizes.warm], 1)
            done = server.complete(prompt, sizes.warm_out)
        return {"ttft_s": done.first, "wall_s": done.wall, "computed": done.computed}


class Branches(Workload):
    """Several requests at once behind a trunk that nobody has seen, then as many more."""

    name = "branches"

    def figures(self, variant, sizes):
        n = sizes.branches
        cold, more = f"{n} at once behind {sizes.trunk:,} cold", f"{n} more"
        return [
            Figure("cold_wall_s", f"{cold}, all done", "s"),
            Figure("cold_ttft_s", f"{cold}, slowest first token", "s"),
            Figure("more_wall_s", f"{more}, all done", "s"),
            Figure("more_ttft_s", f"{more}, slowest first token", "s"),
            Figure("peak_mib", "peak resident memory after that", "MiB"),
        ]

    def llama_settings(self, variant):
        # A slot for each branch and one pool of keys and values for all, or as many slots as it sees fit.
        fitted = Setting("-fa off, plain build", ("-fa", "off"), plain=True)
        return [LLAMA_DEFAULT, fitted, *llama_grid("-np", "8", "-kvu")]

    def measure(self, tools, side, setting, model, variant, sizes, keys):
        if side == OPENVINO:
            job = {"workload": "branches", "trunk": sizes.trunk, "own": sizes.own}
            job |= {"branches": sizes.branches, "out": sizes.branch_out}
            return tools.ask_openvino(setting, model, job)
        # Twice what the branches hold, so that nothing has to go.
        context = rounded(2 * sizes.branches * (sizes.trunk + sizes.own + sizes.branch_out))
        result = {}
        with tools.serve(side, setting, model, context) as server:
            prompts = self.prompts(server)
            trunk = prompts.cut(sizes.trunk)
            for name in ("cold", "more"):
                branches = [trunk + prompts.cut(sizes.own) for _ in range(sizes.branches)]
                done = server.complete_all(branches, sizes.branch_out)
                result[f"{name}_wall_s"] = max(d.arrivals[-1] for d in done) - min(d.sent for d in done)
                result[f"{name}_ttft_s"] = max(d.first for d in done)
                result[f"{name}_computed"] = sum(d.computed or 0 for d in done)
            result["peak_mib"] = server.peak_mib()
        return result


class Streams(Workload):
    """Tokens per second of streams that decode together, on one shared trunk or with nothing in common."""

    name = "streams"
    variants = tuple(f"{kind}-{n}" for kind in ("shared", "alone") for n in (1, 4, 8, 16))

    def figures(self, variant, sizes):
        kind, n = variant.split("-")
        behind = f"one trunk of {sizes.trunk:,}" if kind == "shared" else f"{sizes.alone} each of their own"
        return [Figure("decode", f"{n} streams behind {behind}", "tok/s")]

    def llama_settings(self, variant):
        n = variant.split("-")[1]
        return llama_grid("-np", n, "-kvu") + (llama_grid("-np", n) if n != "1" else [])

    def measure(self, tools, side, setting, model, variant, sizes, keys):
        kind, count = variant.split("-")
        count = int(count)
        own, trunk = (sizes.stream_own, sizes.trunk) if kind == "shared" else (sizes.alone, 0)
        if side == OPENVINO:
            job = {"workload": "streams", "trunk": trunk, "own": own, "streams": count}
            streams = tools.ask_openvino(setting, model, job | {"out": sizes.stream_out})["streams"]
        else:
            context = count * rounded(trunk + own + sizes.stream_out)
            with tempfile.TemporaryDirectory() as folder:
                if side == LLAMA:
                    # An idle slot is to keep what was copied to it.
                    more = ("--slot-save-path", folder, "--no-cache-idle-slots")
                    setting = dataclasses.replace(setting, args=(*setting.args, *more))
                with tools.serve(side, setting, model, context) as server:
                    done = self.decode(server, side, trunk, own, count, sizes.stream_out)
            streams = [(d.count, d.arrivals) for d in done]
        rate = stats.decode_rate(streams)
        if rate is None:
            raise BenchError("the streams hardly decoded at the same time")
        return {"decode": rate}

    def decode(self, server, side, trunk, own, count, num_out):
        prompts = self.prompts(server)
        shared = prompts.cut(trunk)
        if trunk and side == LLAMA:
            # What each slot would compute for itself is copied to it: that is not what is timed here.
            server.complete(shared, 1, id_slot=0)
            server.post("/slots/0?action=save", {"filename": "trunk"}).read()
            for slot in range(1, count):
                server.post(f"/slots/{slot}?action=restore", {"filename": "trunk"}).read()
        elif trunk:
            server.complete(shared, 1)
        all_prompts = [shared + prompts.cut(own) for _ in range(count)]
        server.complete_all(all_prompts, 1)
        return server.complete_all(all_prompts, num_out)


class Load(Workload):
    """From the start of the process to the first token of a short prompt: with nothing of the file in memory and
    nothing kept from an earlier start, and once more."""

    name = "load"
    prompt = "The capital of France is"

    def figures(self, variant, sizes):
        return [
            Figure("first_s", "first start to first token", "s"),
            Figure("second_s", "second start to first token", "s"),
            Figure("peak_mib", "peak resident memory after that", "MiB"),
        ]

    def settings(self, side, variant):
        if side == OPENVINO:
            # It can write what it made of the file beside it, and read that the next time.
            return [Setting("defaults"), Setting("saved model", options=(("save", True),))]
        return super().settings(side, variant)

    def llama_settings(self, variant):
        return [
            Setting(
                f"{'plain' if plain else 'repack'} build{' ' if args else ''}{' '.join(args)}",
                args,
                plain=plain,
            )
            for plain in (False, True)
            for args in ((), ("--no-warmup",))
        ]

    def measure(self, tools, side, setting, model, variant, sizes, keys):
        # What a program keeps for its next start goes into a folder of its own.
        with tempfile.TemporaryDirectory() as folder:
            environment = os.environ | {"XDG_CACHE_HOME": folder}
            evict(model)
            result = {}
            for key in ("first_s", "second_s"):
                took, result["peak_mib"] = self.start(tools, side, setting, model, environment, folder)
                result[key] = took
        return result

    def start(self, tools, side, setting, model, environment, folder):
        if side == OPENVINO:
            job = {"workload": "load", "prompt": self.prompt, "folder": folder, "started": time.monotonic()}
            answer = tools.ask_openvino(setting, model, job, environment)
            return answer["took_s"], answer["peak_mib"]
        with tools.serve(side, setting, model, 4096, environment) as server:
            done = server.complete(self.prompt, 1)
            return done.arrivals[0] - server.start, server.peak_mib()


def rounded(tokens):
    return -(-tokens // 256) * 256


WORKLOADS = {workload.name: workload for workload in (Speed(), Warm(), Branches(), Streams(), Load())}
