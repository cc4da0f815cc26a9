#!/usr/bin/env python3
"""OpenVINO GenAI's side of each workload: `openvino_peer.py JOB`, a JSON object; the last line of the output is the
answer. Runs with the Python that has openvino-genai (bench/openvino.requirements.txt).

ContinuousBatchingPipeline with its prefix cache, driven step by step in one process: no HTTP, no tokenizing while it
is timed. Options of a job: kv (u8, f16), batch (tokens per step), group (activations that share a scale), save (write
the converted model, and read it where it is).
"""

import json
import os
import pathlib
import random
import sys
import time

import numpy
import openvino
import openvino_genai

from known_blocks import KnownBlocks
from servers import peak_mib, wall_of
from stats import median
from texts import Prompts, sample_text

KV_GIB = 2  # room for every workload; what is not used is not resident


class Request:
    """One that runs, or has run."""

    def __init__(self, handle, prompt, num_out, computed):
        self.handle, self.prompt, self.num_out, self.computed = handle, prompt, num_out, computed
        self.sent, self.ids, self.arrivals = time.monotonic(), [], []

    @property
    def first(self):
        return self.arrivals[0] - self.sent


class Peer:
    def __init__(self, model, threads, options, folder=None):
        self.known, self.num_added, self.running = KnownBlocks(), 0, []
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.enable_prefix_caching = True
        scheduler.cache_size = KV_GIB
        scheduler.max_num_batched_tokens = options.get("batch", scheduler.max_num_batched_tokens)
        properties = {"INFERENCE_NUM_THREADS": threads}
        if "kv" in options:
            properties["KV_CACHE_PRECISION"] = options["kv"]
        if "group" in options:
            properties["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = options["group"]
        if options.get("save"):
            # It writes beside the file that it reads.
            link = pathlib.Path(folder) / "model.gguf"
            if link.exists():
                tokenizer = openvino_genai.Tokenizer(link)
                self.pipeline = openvino_genai.ContinuousBatchingPipeline(
                    folder, tokenizer, scheduler, "CPU", **properties
                )
                return
            link.symlink_to(model)
            model, properties["enable_save_ov_model"] = link, True
        self.pipeline = openvino_genai.ContinuousBatchingPipeline(model, scheduler, "CPU", properties)

    def encode(self, text):
        """In stretches of lines: its tokenizer cuts a text to the model's context without a word."""
        tokenizer, lines = self.pipeline.get_tokenizer(), text.splitlines(keepends=True)
        stretches = ("".join(lines[i : i + 100]) for i in range(0, len(lines), 100))
        return [token for part in stretches for token in tokenizer.encode(part).input_ids.data[0].tolist()]

    def add(self, prompt, num_out):
        config = openvino_genai.GenerationConfig(max_new_tokens=num_out, ignore_eos=True, do_sample=False)
        tensor = openvino.Tensor(numpy.array([prompt], dtype=numpy.int64))
        computed = len(prompt) - self.known.count(prompt)
        # The time begins here: what is counted for the report is none of the pipeline's work.
        request = Request(None, prompt, num_out, computed)
        request.handle = self.pipeline.add_request(self.num_added, tensor, config)
        self.num_added += 1
        self.running.append(request)
        return request

    def step(self):
        """Those that are done now."""
        self.pipeline.step()
        now, done = time.monotonic(), []
        for request in self.running:
            while request.handle.can_read():
                for output in request.handle.read().values():
                    request.ids.extend(output.generated_ids)
                    request.arrivals.extend([now] * len(output.generated_ids))
            if len(request.ids) >= request.num_out:
                done.append(request)
                self.known.add(request.prompt + request.ids[:-1])
        self.running = [request for request in self.running if request not in done]
        if self.running and not self.pipeline.has_non_finished_requests():
            sys.exit(f"{self.running[0].num_out} tokens were asked for, {len(self.running[0].ids)} came")
        return done

    def run(self, prompts, num_out):
        """All at once."""
        requests = [self.add(prompt, num_out) for prompt in prompts]
        while self.running:
            self.step()
        return requests

    def kv_mib(self):
        """The most of the cache that was in use."""
        metrics = self.pipeline.get_metrics()
        return metrics.max_cache_usage / 100 * metrics.kv_cache_size_in_bytes / 2**20


def computed(requests):
    return sum(request.computed for request in requests)


def speed(peer, job):
    draw = random.Random(1).random

    def tokens(count):
        return [1000 + int(draw() * 20000) for _ in range(count)]

    result, depth = {}, tokens(job["depth"])
    if depth:
        peer.run([depth], 1)
    if job["prefill"]:
        for _ in range(2):  # the first is to warm up
            [done] = peer.run([depth + tokens(job["prefill"])], 1)
        # A block that the depth does not fill is computed again, and counts.
        result["prefill"] = done.computed / done.first
    if job["decode"]:
        for count in (4, job["decode"]):
            [done] = peer.run([depth or tokens(1)], count + 1)
        result["decode"] = count / (done.arrivals[-1] - done.arrivals[0])
    return result


def warm(peer, job):
    prompt = Prompts(peer.encode(sample_text())).cut(job["warm"] + job["own"])
    peer.run([prompt[: job["warm"]]], 1)
    [done] = peer.run([prompt], job["out"])
    return {"ttft_s": done.first, "wall_s": wall_of([done]), "computed": done.computed}


def branches(peer, job):
    prompts, result = Prompts(peer.encode(sample_text())), {}
    trunk = prompts.cut(job["trunk"])
    for name in ("cold", "more"):
        done = peer.run([trunk + prompts.cut(job["own"]) for _ in range(job["branches"])], job["out"])
        result[f"{name}_wall_s"] = wall_of(done)
        result[f"{name}_ttft_s"] = max(request.first for request in done)
        result[f"{name}_computed"] = computed(done)
    return result | {"peak_mib": peak_mib(os.getpid())}


def streams(peer, job):
    prompts = Prompts(peer.encode(sample_text()))
    trunk = prompts.cut(job["trunk"])
    if trunk:
        peer.run([trunk], 1)
    all_prompts = [trunk + prompts.cut(job["own"]) for _ in range(job["streams"])]
    peer.run(all_prompts, 1)
    return {"streams": [[len(done.ids), done.arrivals] for done in peer.run(all_prompts, job["out"])]}


def at_once(peer, job):
    prompts = Prompts(peer.encode(sample_text())).grouped(**job["shape"])
    if job.get("warm"):
        peer.run([prompts[0][: job["shape"]["shared"]]], 1)
    done = peer.run(prompts, job["out"])
    return {
        "wall_s": wall_of(done),
        "ttft_s": median([request.first for request in done]),
        "computed": computed(done),
        "kv_mib": peer.kv_mib(),
        "peak_mib": peak_mib(os.getpid()),
    }


def agents(peer, job):
    size = (job[key] for key in ("agents", "turns", "harness", "task", "result"))
    results, turns = {}, []
    for prompt, between in Prompts(peer.encode(sample_text())).agents(*size):
        turns.append(peer.add(prompt, job["out"]))
        results[turns[-1]] = between
    while peer.running:
        for done in peer.step():
            between = results.pop(done)
            if between:
                turns.append(peer.add(done.prompt + done.ids + between[0], job["out"]))
                results[turns[-1]] = between[1:]
    ttft_s = median([turn.first for turn in turns])
    return {"wall_s": wall_of(turns), "ttft_s": ttft_s, "computed": computed(turns)}


def load(peer, job):
    [done] = peer.run([peer.encode(job["prompt"])], 1)
    return {"took_s": done.arrivals[0] - job["started"], "peak_mib": peak_mib(os.getpid())}


WORK = {work.__name__: work for work in (speed, warm, branches, streams, at_once, agents, load)}


def main():
    job = json.loads(sys.argv[1])
    peer = Peer(job["model"], job["threads"], job["options"], job.get("folder"))
    print(json.dumps(WORK[job["workload"]](peer, job)))


if __name__ == "__main__":
    main()
