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

from servers import peak_mib
from texts import Prompts, sample_text

BLOCK = 32  # tokens; the prefix cache keeps whole ones
KV_GIB = 2  # room for every workload; what is not used is not resident


class Peer:
    def __init__(self, model, threads, options, folder=None):
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
        return self.pipeline.get_tokenizer().encode(text).input_ids.data[0].tolist()

    def run(self, prompts, num_out):
        """All at once; (when they were sent, [arrivals of the tokens of each])."""
        config = openvino_genai.GenerationConfig(max_new_tokens=num_out, ignore_eos=True, do_sample=False)
        tensors = [openvino.Tensor(numpy.array([prompt], dtype=numpy.int64)) for prompt in prompts]
        sent = time.monotonic()
        handles = [self.pipeline.add_request(i, tensor, config) for i, tensor in enumerate(tensors)]
        arrivals = [[] for _ in handles]
        while self.pipeline.has_non_finished_requests():
            self.pipeline.step()
            now = time.monotonic()
            for handle, times in zip(handles, arrivals):
                while handle.can_read():
                    for output in handle.read().values():
                        times.extend([now] * len(output.generated_ids))
        if any(len(times) != num_out for times in arrivals):
            sys.exit(f"{num_out} tokens were asked for, {[len(times) for times in arrivals]} came")
        return sent, arrivals


def speed(peer, job):
    draw = random.Random(1).random

    def tokens(count):
        return [1000 + int(draw() * 20000) for _ in range(count)]

    result, depth = {}, tokens(job["depth"])
    if depth:
        peer.run([depth], 1)
    if job["prefill"]:
        for _ in range(2):  # the first is to warm up
            prompt = depth + tokens(job["prefill"])
            sent, [times] = peer.run([prompt], 1)
        # A block that the depth does not fill is computed again.
        computed = len(prompt) - len(depth) // BLOCK * BLOCK
        result["prefill"] = computed / (times[0] - sent)
    if job["decode"]:
        for count in (4, job["decode"]):
            _, [times] = peer.run([depth or tokens(1)], count + 1)
        result["decode"] = count / (times[-1] - times[0])
    return result


def warm(peer, job):
    prompt = Prompts(peer.encode(sample_text())).cut(job["warm"] + job["own"])
    peer.run([prompt[: job["warm"]]], 1)
    sent, [times] = peer.run([prompt], job["out"])
    return {"ttft_s": times[0] - sent, "wall_s": times[-1] - sent}


def branches(peer, job):
    prompts, result = Prompts(peer.encode(sample_text())), {}
    trunk = prompts.cut(job["trunk"])
    for name in ("cold", "more"):
        sent, arrivals = peer.run([trunk + prompts.cut(job["own"]) for _ in range(job["branches"])], job["out"])
        result[f"{name}_wall_s"] = max(times[-1] for times in arrivals) - sent
        result[f"{name}_ttft_s"] = max(times[0] for times in arrivals) - sent
    return result | {"peak_mib": peak_mib(os.getpid())}


def streams(peer, job):
    prompts = Prompts(peer.encode(sample_text()))
    trunk = prompts.cut(job["trunk"])
    if trunk:
        peer.run([trunk], 1)
    all_prompts = [trunk + prompts.cut(job["own"]) for _ in range(job["streams"])]
    peer.run(all_prompts, 1)
    _, arrivals = peer.run(all_prompts, job["out"])
    return {"streams": [[len(times), times] for times in arrivals]}


def load(peer, job):
    _, [times] = peer.run([peer.encode(job["prompt"])], 1)
    return {"took_s": times[0] - job["started"], "peak_mib": peak_mib(os.getpid())}


def main():
    job = json.loads(sys.argv[1])
    peer = Peer(job["model"], job["threads"], job["options"], job.get("folder"))
    work = {"speed": speed, "warm": warm, "branches": branches, "streams": streams, "load": load}
    print(json.dumps(work[job["workload"]](peer, job)))


if __name__ == "__main__":
    main()
