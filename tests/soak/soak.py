#!/usr/bin/env python3
"""Hundreds of clients on a cache that is far too small, for minutes; then every account has to balance.

Exits with 1 if anything was wrong: an answer, a counter, a pin or a lease that stayed, memory that grew, or text
that differs from what a fresh server without a cache says to the same request alone.
"""

import argparse
import asyncio
import os
import pathlib
import re
import statistics
import sys
import tempfile
import time

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from traffic import Problems, Sample, Traffic

# Rows of six sessions of average length; a row of the default model is 23,040 bytes, or a little more.
KV_CACHE = "160MiB"
# Memory that may come after the first quarter: allocators keep what they had, and the queue breathes.
GROWTH, GROWTH_BYTES = 0.05, 16 << 20


class Server:
    """`trellis serve` with these flags; its log goes to a file."""

    def __init__(self, arguments, *flags):
        self.command = [arguments.binary, "serve", "-m", arguments.model, "--port", "0", *flags]
        self.log = tempfile.NamedTemporaryFile(prefix="soak-server-", suffix=".log", delete=False)

    async def __aenter__(self):
        environment = {"ASAN_OPTIONS": "quarantine_size_mb=16"} | os.environ
        self.process = await asyncio.create_subprocess_exec(*self.command, stderr=self.log, env=environment)
        while not (found := re.search(r"^listening on (\S+)", self.log_text(), re.M)):
            if self.process.returncode is not None:
                sys.exit(f"soak: the server does not start:\n{self.log_text()}")
            await asyncio.sleep(0.05)
        self.url = found[1]
        self.http = aiohttp.ClientSession(self.url, timeout=aiohttp.ClientTimeout(total=None))
        while (await self.http.get("/health")).status != 200:
            await asyncio.sleep(0.05)
        return self

    async def __aexit__(self, *_):
        await self.http.close()
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    def log_text(self):
        return pathlib.Path(self.log.name).read_text(errors="replace")

    def rss(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) << 10

    async def metrics(self):
        """{name or name{value of the label}: value}, histograms' buckets left out."""
        found = {}
        async with self.http.get("/metrics") as response:
            for family in text_string_to_metric_families(await response.text()):
                for sample in family.samples:
                    if "le" not in sample.labels:
                        label = "".join(f"{{{value}}}" for value in sample.labels.values())
                        found[sample.name.removeprefix("trellis_") + label] = sample.value
        return found

    async def json(self, path):
        async with self.http.get(path) as response:
            return await response.json()

    async def stop(self, problems):
        """It ends in order, and its log has no complaint."""
        await self.http.close()
        self.process.terminate()
        try:
            await asyncio.wait_for(self.process.wait(), 120)
        except TimeoutError:
            problems.note("the server goes on after SIGTERM")
            return
        if self.process.returncode != 0:
            problems.note(f"the server ended with {self.process.returncode}; its log is {self.log.name}")
        complaints = [line for line in self.log_text().splitlines() if re.search(r"\[(error|critical)\]|Sanitizer|runtime error", line)]
        if complaints:
            problems.note(f"the server's log, {self.log.name}, has {len(complaints)} complaints, the first: {complaints[0]}")


def ended(metrics):
    return sum(value for name, value in metrics.items() if name.startswith("request_success_total"))


def check_always(metrics, cache, problems):
    """What holds at any moment."""
    pages = cache["pages"]
    if cache["pins"]["pages"] > cache["pins"]["max_pages"]:
        problems.note(f"pins hold more than their share: {cache['pins']}")
    if pages["free"] + pages["private"] + pages["committed"] != pages["capacity"] or pages["pinned"] > pages["committed"]:
        problems.note(f"free + private + committed is not the capacity: {pages}")
    if not 0 <= metrics["kv_cache_usage_perc"] <= 1:
        problems.note(f"usage of {metrics['kv_cache_usage_perc']}")
    if metrics["prefix_cache_hits_total"] > metrics["prefix_cache_queries_total"]:
        problems.note("more hits than queries")
    if ended(metrics) > metrics["requests_total"]:
        problems.note("more answers ended than were accepted")


async def watch(server, traffic, memory, problems, seconds):
    """Looks at the server every second until its time is up, says how it goes, and forgets the cache now and then."""
    start, before, turn = time.monotonic(), await server.metrics(), 0
    while (passed := time.monotonic() - start) < seconds and not traffic.end.is_set():
        if server.process.returncode is not None:
            problems.note(f"the server is gone: {server.process.returncode}; its log is {server.log.name}")
            break
        memory.append((passed / seconds, server.rss()))
        metrics = await server.metrics()
        check_always(metrics, await server.json("/v1/cache"), problems)
        # What is evicted is counted anew after a reset of the cache.
        for name, value in metrics.items():
            if name.endswith(("_total", "_count")) and "evicted" not in name and value < before[name]:
                problems.note(f"{name} fell from {before[name]} to {value}")
        if turn % 10 == 0:
            hits = metrics["prefix_cache_hits_total"] / max(1, metrics["prefix_cache_queries_total"])
            counts = " ".join(f"{name} {count}" for name, count in sorted(traffic.counts.items()))
            print(
                f"soak: {passed:5.0f} s: {counts}; running {metrics['num_requests_running']:.0f} waiting {metrics['num_requests_waiting']:.0f} "
                f"preempted {metrics['num_preemptions_total']:.0f} hits {hits:.0%} {memory[-1][1] >> 20} MiB",
                flush=True,
            )
        if turn % 45 == 44:
            (await server.http.post("/v1/cache/reset")).release()
        before, turn = metrics, turn + 1
        await asyncio.sleep(1)
    traffic.end.set()


async def settle(server, problems):
    """The counters once nothing runs any more."""
    start = time.monotonic()
    while True:
        metrics = await server.metrics()
        if metrics["num_requests_running"] == metrics["num_requests_waiting"] == 0 and metrics["cache_leases"] == metrics["cache_pins"]:
            return metrics
        if time.monotonic() - start > 600:
            problems.note(f"nobody asks for anything any more, and something still runs: {metrics}")
            return metrics
        await asyncio.sleep(0.2)


async def check_balance(server, metrics, traffic, problems):
    def equal(what, left, right):
        if left != right:
            problems.note(f"{what}: {left:.0f} is not {right:.0f}")

    finished = metrics["request_success_total{stop}"] + metrics["request_success_total{length}"]
    equal("accepted = stop + length + abort + error", metrics["requests_total"], ended(metrics))
    equal("failed answers", metrics["request_success_total{error}"], 0)
    if not traffic.complete_choices <= finished <= traffic.complete_choices + traffic.given_up_choices:
        problems.note(
            f"{finished:.0f} answers finished; clients have {traffic.complete_choices} and gave up {traffic.given_up_choices}"
        )
    parts = [metrics[name] for name in ("prompt_tokens_cached_total", "computed_tokens_total", "abandoned_tokens_total")]
    equal("prompt = cached + computed + abandoned", metrics["prompt_tokens_total"], sum(parts))
    missed = sum(value for name, value in metrics.items() if name.startswith("missed_tokens_total"))
    equal("computed = missed by all causes", metrics["computed_tokens_total"], missed)
    equal("histogram of end-to-end latency", metrics["e2e_request_latency_seconds_count"], finished)
    equal("histogram of queue time", metrics["request_queue_time_seconds_count"], finished)
    (await server.http.post("/v1/cache/unpin", json={"all": True})).release()
    cache = await server.json("/v1/cache")
    check_always(metrics, cache, problems)
    equal("leases left", cache["leases"], 0)
    equal("pages pinned", cache["pages"]["pinned"], 0)
    equal("private pages", cache["pages"]["private"], 0)
    tree = await server.json("/v1/cache/tree?limit=5000")
    equal("leases in the tree", sum(node["leases"] for node in tree["nodes"]), 0)
    equal("pages in the tree", sum(node["pages"] for node in tree["nodes"]) + tree["hidden"]["pages"], cache["pages"]["committed"])


def check_memory(memory, problems):
    def median(low, high):
        return statistics.median([rss for passed, rss in memory if low <= passed <= high] or [0])

    early, late = median(0.25, 0.4), median(0.85, 1)
    print(f"soak: memory after the first quarter {early / 2**20:.0f} MiB, at the end {late / 2**20:.0f} MiB")
    if late > early * (1 + GROWTH) + GROWTH_BYTES:
        problems.note(f"memory grew by {(late - early) / 2**20:.0f} MiB")


async def replay(arguments, sample, problems):
    """Each request alone on a fresh server with room for everything, where nothing is found in a cache."""
    async with Server(arguments, "--kv-cache", "1GiB", "--no-prefix-cache") as server:
        for i, (path, body, choices) in enumerate(sample.kept):
            if i % 50 == 0:
                print(f"soak: {i} of {len(sample.kept)} answers compared (of {sample.seen})", flush=True)
            async with server.http.post(path, json=body) as response:
                answer = await response.json()
            if response.status != 200:
                problems.note(f"alone: {response.status} {answer}")
                continue
            alone = sorted(answer["choices"], key=lambda choice: choice["index"])
            texts = [(choice.get("text", choice.get("message", {}).get("content")), choice["finish_reason"]) for choice in alone]
            if texts != list(choices):
                problems.note(f"another answer than alone: {path} {body}: {list(choices)} instead of {texts}")
        await server.stop(problems)


async def soak(arguments):
    problems, memory = Problems(), []
    sample = Sample(arguments.replays, arguments.seed)
    print(f"soak: seed {arguments.seed}, {arguments.clients} clients, {arguments.minutes} minutes, KV cache of {KV_CACHE}", flush=True)
    max_queue = max(10, arguments.clients * 4 // 5)  # some are refused
    async with Server(arguments, "--kv-cache", KV_CACHE, "--max-queue", str(max_queue)) as server:
        traffic = Traffic(server.url, arguments.seed, sample, problems)
        watching = asyncio.create_task(watch(server, traffic, memory, problems, 60 * arguments.minutes))
        watching.add_done_callback(lambda _: traffic.end.set())
        await traffic.run(arguments.clients)
        await watching
        if server.process.returncode is None:
            await check_balance(server, await settle(server, problems), traffic, problems)
            await server.stop(problems)
    check_memory(memory, problems)
    if traffic.counts["complete"] < arguments.clients / 2:
        problems.note(f"only {traffic.counts['complete']} answers were complete: too few to say anything; take fewer clients, or more minutes")
    await replay(arguments, sample, problems)
    print(f"soak: {'FAILED: ' + str(len(problems)) + ' things are wrong, the first: ' + problems[0] if problems else 'ok'}")
    return 1 if problems else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--clients", type=int, default=300)
    parser.add_argument("--replays", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    sys.exit(asyncio.run(soak(parser.parse_args())))


if __name__ == "__main__":
    main()
