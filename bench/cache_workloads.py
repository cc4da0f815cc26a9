"""What the cache is for: prompts that share their beginnings, in the ways they do; and what it costs when none does."""

import dataclasses
import random
import re
import tempfile
import time

import stats
from servers import BenchError, KvWatch, wall_of
from tools import LLAMA, OPENVINO, OURS, UNCACHED, Setting
from workload import ALL_SIDES, Figure, Workload
from workload import copy_to_slots, llama_at_once, llama_grid, rounded, slot_args

PAGE_TOKENS = 32  # of Trellis
TOKENS_COMPUTED = "prompt tokens computed"


@dataclasses.dataclass(frozen=True)
class CacheSizes:
    """In tokens, but for counts."""

    agents: int = 8
    agent_turns: int = 6
    harness: int = 1024  # all agents' system prompt and tools
    task: int = 64  # an agent's own, behind it
    agent_out: int = 32
    tool_result: int = 128  # comes back between two turns
    curve_requests: int = 16
    curve_prompt: int = 1024
    groups: int = 4
    group_prompts: int = 8
    group_shared: int = 2048
    group_own: int = 128
    group_out: int = 64
    pairs: int = 200  # of a request with and without the cache
    pair_prompt: int = 256
    pair_out: int = 32
    session_trunk: int = 1000
    session_own: int = 32
    session_out: int = 16

    def trial(self):
        """Enough to tell settings apart."""
        return dataclasses.replace(
            self,
            agent_turns=min(self.agent_turns, 2),
            curve_prompt=min(self.curve_prompt, 256),
            group_shared=min(self.group_shared, 512),
        )


class CacheWorkload(Workload):
    sides = ALL_SIDES
    full = CacheSizes()
    quick = CacheSizes(
        agents=4, agent_turns=3, harness=512, curve_prompt=512, groups=2, group_prompts=4, group_shared=512,
        group_out=16, pairs=20, session_trunk=500,
    )  # fmt: skip


class Agents(CacheWorkload):
    """Agents at work at the same time behind one harness that nobody has seen: each sends its task, and with every
    further turn all that was said and a tool's result."""

    name = "agents"

    def figures(self, variant, sizes):
        what = f"{sizes.agents} agents, {sizes.agent_turns} turns behind {sizes.harness:,}"
        return [
            Figure("wall_s", f"{what}, all done", "s"),
            Figure("ttft_s", f"{what}, first token of a turn, median", "s", beside="wall_s"),
            Figure("computed", f"{what}, {TOKENS_COMPUTED}", "tokens", beside="wall_s"),
        ]

    def llama_settings(self, variant):
        return llama_at_once(self.full.agents)

    def measure(self, tools, side, setting, model, variant, sizes, keys):
        if side == OPENVINO:
            job = {"workload": "agents", "agents": sizes.agents, "turns": sizes.agent_turns}
            job |= {"harness": sizes.harness, "task": sizes.task, "result": sizes.tool_result}
            return tools.ask_openvino(setting, model, job | {"out": sizes.agent_out})
        last = sizes.harness + sizes.task + sizes.agent_turns * (sizes.agent_out + sizes.tool_result)
        with tools.serve(side, setting, model, sizes.agents * rounded(last)) as server:
            prompts = self.prompts(server)
            agents = prompts.agents(
                sizes.agents, sizes.agent_turns, sizes.harness, sizes.task, sizes.tool_result
            )
            turns = sum(server.at_once(lambda agent: self.work(server, *agent, sizes.agent_out), agents), [])
        return {
            "wall_s": wall_of(turns),
            "ttft_s": stats.median([turn.first for turn in turns]),
            "computed": sum(turn.computed for turn in turns),
        }

    @staticmethod
    def work(server, prompt, results, num_out):
        turns = [server.complete(prompt, num_out)]
        for result in results:
            # Text goes to an agent and comes back as text.
            prompt = prompt + server.tokenize(turns[-1].text) + result
            turns.append(server.complete(prompt, num_out))
        return turns


class AtOnce(CacheWorkload):
    """Requests that all come at once, in groups that share a prefix which nobody has seen."""

    def shape(self, variant, sizes):
        """What Prompts.grouped() wants, and how many tokens come out of each."""
        raise NotImplementedError

    def label(self, variant, sizes):
        raise NotImplementedError

    def figures(self, variant, sizes):
        what = self.label(variant, sizes)
        return [
            Figure("rate", f"{what}, tokens in and out", "tok/s"),
            Figure("wall_s", f"{what}, all done", "s", beside="rate"),
            Figure("ttft_s", f"{what}, first token, median", "s", beside="rate"),
            Figure("computed", f"{what}, {TOKENS_COMPUTED}", "tokens", beside="rate"),
            Figure("kv_mib", f"{what}, keys and values", "MiB", beside="rate"),
        ]

    def llama_settings(self, variant):
        shape, _ = self.shape(variant, self.full)
        return llama_at_once(shape["groups"] * shape["count"])

    def measure(self, tools, side, setting, model, variant, sizes, keys):
        shape, num_out = self.shape(variant, sizes)
        num_prompts, length = shape["groups"] * shape["count"], shape["shared"] + shape["own"]
        if side == OPENVINO:
            result = tools.ask_openvino(setting, model, {"workload": "at_once", "shape": shape, "out": num_out})
        else:
            with tools.serve(side, setting, model, num_prompts * rounded(length + num_out)) as server:
                result = self.send(server, side, self.prompts(server).grouped(**shape), num_out)
        return result | {"rate": num_prompts * (length + num_out) / result["wall_s"]}

    @staticmethod
    def send(server, side, prompts, num_out):
        if side == LLAMA:
            done, kv = server.complete_all(prompts, num_out), {}
        else:
            with KvWatch(server) as watch:
                done = server.complete_all(prompts, num_out)
            kv = {"kv_mib": watch.most() / 2**20}
        ttft_s = stats.median([d.first for d in done])
        return {"wall_s": wall_of(done), "ttft_s": ttft_s, "computed": sum(d.computed for d in done)} | kv


class Curve(AtOnce):
    """Requests at once of which a part of each prompt is the same; nobody has seen it. One token comes out of each.
    Keys and values: the most that is held meanwhile."""

    name = "curve"
    variants = ("0", "25", "50", "75", "85", "90", "95")  # per cent

    def shape(self, variant, sizes):
        shared = round(sizes.curve_prompt * int(variant) / 100)
        own = sizes.curve_prompt - shared
        return {"groups": 1, "count": sizes.curve_requests, "shared": shared, "own": own}, 1

    def label(self, variant, sizes):
        return f"{sizes.curve_requests} of {sizes.curve_prompt:,}, {variant} % shared"


class SharedPrefix(AtOnce):
    """Groups of requests, each with its own long prefix, all at once and mixed: the shape of SGLang's
    generated-shared-prefix, scaled down."""

    name = "shared-prefix"

    def shape(self, variant, sizes):
        shape = {"groups": sizes.groups, "count": sizes.group_prompts}
        return shape | {"shared": sizes.group_shared, "own": sizes.group_own}, sizes.group_out

    def label(self, variant, sizes):
        return f"{sizes.groups} x {sizes.group_prompts} of {sizes.group_shared:,} + {sizes.group_own}"


class NoReuse(CacheWorkload):
    """Requests one after another that share nothing, each sent to a server with the cache and to one without: how much
    longer the one with it takes, by the median of all pairs. There is room for some 20, then the tree evicts."""

    name = "no-reuse"
    sides = (OURS,)
    ours = [Setting("--kv-cache 128MiB", ("--kv-cache", "128MiB"))]

    def figures(self, variant, sizes):
        return [Figure("price", f"{sizes.pair_prompt} + {sizes.pair_out} new: time for the cache", "%")]

    def measure(self, tools, side, setting, model, variant, sizes, keys):
        ratios = []
        # Who starts first, and who is asked first, changes: neither is to have the better place in memory or time.
        for order in ((OURS, UNCACHED), (UNCACHED, OURS)):
            with (
                tools.serve(order[0], setting, model, 0) as first,
                tools.serve(order[1], setting, model, 0) as second,
            ):
                ratios += self.pairs(dict(zip(order, (first, second))), order, sizes)
        low, price, high = (100 * (ratio - 1) for ratio in stats.quartiles(ratios))
        return {"price": price, "quarter_below": low, "quarter_above": high, "pairs": len(ratios)}

    def pairs(self, servers, order, sizes):
        prompts = self.prompts(servers[OURS])
        draw, ratios = random.Random(order[0]).random, []
        for i in range(-2, sizes.pairs // 2):  # the first two warm up
            prompt, took = prompts.fresh(draw, sizes.pair_prompt), {}
            for side in order if i % 2 == 0 else order[::-1]:
                start = time.monotonic()
                servers[side].complete(prompt, sizes.pair_out)
                took[side] = time.monotonic() - start
            if i >= 0:
                ratios.append(took[OURS] / took[UNCACHED])
        return ratios


class Memory(CacheWorkload):
    """What sessions hold that go on behind one prefix at the same time. Keys and values: the most in use (Trellis,
    OpenVINO GenAI), or what the server has to be given (llama.cpp)."""

    name = "memory"
    variants = ("1", "8", "32", "128")
    # Room for 128 without sharing.
    ours = [Setting("--kv-cache 4GiB", ("--kv-cache", "4GiB"))]

    def figures(self, variant, sizes):
        what = f"{variant} behind {sizes.session_trunk:,}"
        return [
            Figure("kv_mib", f"{what}, keys and values", "MiB"),
            Figure("peak_mib", f"{what}, peak resident memory", "MiB"),
            Figure("kv_over_unique", f"{what}, pages but one each, of different tokens", "x", beside="kv_mib"),
        ]

    def llama_settings(self, variant):
        # One pool for all takes as much, and every token looks at all of it.
        return llama_grid("-np", variant)

    def measure(self, tools, side, setting, model, variant, sizes, keys):
        count = int(variant)
        shape = {"groups": 1, "count": count, "shared": sizes.session_trunk, "own": sizes.session_own}
        if side == OPENVINO:
            job = {"workload": "at_once", "shape": shape, "out": sizes.session_out, "warm": True}
            return tools.ask_openvino(setting, model, job)
        context = count * rounded(sizes.session_trunk + sizes.session_own + sizes.session_out)
        with tempfile.TemporaryDirectory() as folder:
            if side == LLAMA:
                setting = setting.plus(*slot_args(folder), "-lv", "4")  # at which it says what it allocates
            with tools.serve(side, setting, model, context) as server:
                prompts = self.prompts(server).grouped(**shape)
                measure = self.peer if side == LLAMA else self.trellis
                return measure(server, prompts, sizes) | {"peak_mib": server.peak_mib()}

    @staticmethod
    def peer(server, prompts, sizes):
        # Computed once and copied: the memory is the same, and the time is not what this is about.
        copy_to_slots(server, prompts[0][: sizes.session_trunk], len(prompts))
        server.complete_all(prompts, sizes.session_out)
        return {"kv_mib": kv_buffers_mib(server.log_text())}

    @staticmethod
    def trellis(server, prompts, sizes):
        with KvWatch(server) as watch:
            server.complete_all(prompts, sizes.session_out)
        count = len(prompts)
        # The last token that comes out is never computed.
        unique = sizes.session_trunk + count * (sizes.session_own + sizes.session_out - 1)
        pages = watch.most() / watch.page_bytes
        return {
            "kv_mib": watch.most() / 2**20,
            "kv_over_unique": over_unique(pages, count, unique),
        }


def over_unique(pages, branches, unique_tokens):
    """How many times the different tokens the pages hold, a page for each branch aside: that one may be filled in
    part only."""
    return (pages - branches) * PAGE_TOKENS / unique_tokens


def kv_buffers_mib(log):
    """What llama-server allocates for keys and values, by its log."""
    found = re.findall(r"KV buffer size = *([\d.]+) MiB", log)
    if not found:
        raise BenchError("the log has no KV buffer size")
    return sum(map(float, found))


CACHE_WORKLOADS = (Agents(), Curve(), SharedPrefix(), NoReuse(), Memory())
