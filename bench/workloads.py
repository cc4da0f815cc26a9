"""Prefill, decode and requests beside the peers; with those of the cache (cache_workloads.py), all that is measured."""

import json
import os
import tempfile
import time

import stats
from cache_workloads import CACHE_WORKLOADS
from servers import BenchError, wall_of
from tools import LLAMA, OPENVINO, OURS, Setting, call, evict
from workload import ALL_SIDES, LLAMA_DEFAULT, Figure, Workload
from workload import copy_to_slots, llama_at_once, llama_grid, rounded, slot_args


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
    sides = ALL_SIDES

    def figures(self, variant, sizes):
        what = f"{sizes.own} behind {sizes.warm:,} warm"
        return [
            Figure("ttft_s", f"{what}, first token", "s"),
            Figure("wall_s", f"{what}, {sizes.warm_out} out, all done", "s"),
            Figure("computed", f"{what}, prompt tokens computed", "tokens", beside="ttft_s"),
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
    sides = ALL_SIDES

    def figures(self, variant, sizes):
        n = sizes.branches
        cold, more = f"{n} at once behind {sizes.trunk:,} cold", f"{n} more"
        return [
            Figure("cold_wall_s", f"{cold}, all done", "s"),
            Figure("cold_ttft_s", f"{cold}, slowest first token", "s"),
            Figure("more_wall_s", f"{more}, all done", "s"),
            Figure("more_ttft_s", f"{more}, slowest first token", "s"),
            Figure("peak_mib", "peak resident memory after that", "MiB"),
            Figure("cold_computed", f"{cold}, prompt tokens computed", "tokens", beside="cold_wall_s"),
            Figure("more_computed", f"{more}, prompt tokens computed", "tokens", beside="more_wall_s"),
        ]

    def llama_settings(self, variant):
        return llama_at_once(8)

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
                result[f"{name}_wall_s"] = wall_of(done)
                result[f"{name}_ttft_s"] = max(d.first for d in done)
                result[f"{name}_computed"] = sum(d.computed for d in done)
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
                    setting = setting.plus(*slot_args(folder))
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
            copy_to_slots(server, shared, count)  # computing it is not what is timed here
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


WORKLOADS = {
    workload.name: workload for workload in (Speed(), Warm(), Branches(), Streams(), Load(), *CACHE_WORKLOADS)
}
