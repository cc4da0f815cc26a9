"""The clients of the soak: sessions over shared harness prompts, and everybody who does not behave.

Whatever a client does follows from the seed and its number; what comes of it depends on the server's speed.
"""

import asyncio
import collections
import json
import random

import aiohttp

HARNESSES, SALTS = 5, (None, None, "blue", "green")
WORDS = (
    "river stone lamp north seven paper window engine quiet copper garden signal winter orange ladder market "
    "bridge candle forest hammer island jacket kettle lemon mirror needle ocean pencil rabbit silver tunnel violet"
).split()
VOCABULARY = range(300, 40000)


class Problems(list):
    """What was wrong, up to a number that a person reads."""

    def note(self, text):
        if len(self) < 40:
            print(f"soak: WRONG: {text}", flush=True)
            self.append(text)


class Sample:
    """`size` of the answers that follow from their request alone, each as likely as any other."""

    def __init__(self, size, seed):
        self.size, self.random, self.seen, self.kept = size, random.Random(seed), 0, []

    def offer(self, path, body, choices):
        self.seen += 1
        entry = (path, body, choices)
        if len(self.kept) < self.size:
            self.kept.append(entry)
        elif (at := self.random.randrange(self.seen)) < self.size:
            self.kept[at] = entry


def words(choose, count):
    return " ".join(choose.choice(WORDS) for _ in range(count))


def harness(seed, number):
    """A system prompt that sessions share: a head that is the same for all, then its own rules."""
    choose = random.Random(f"{seed}:harness:{number}")
    return f"You are an assistant. {words(random.Random(seed), 60)}. " + words(choose, choose.randrange(80, 400))


MALFORMED_BODIES = (
    ("/v1/completions", b"{", 400),
    ("/v1/completions", b'{"prompt":' + b"[" * 5000 + b"]" * 5000 + b"}", 400),
    ("/v1/completions", b'{"prompt": "x", "temperature": "hot"}', 400),
    ("/v1/completions", b'{"prompt": [99999999]}', 400),
    ("/v1/completions", b'{"prompt": [' + b"300," * 9000 + b"300]}", 400),
    ("/v1/completions", b'{"prompt": ""}', 400),
    ("/v1/completions", b'{"prompt": "\xff\xfe"}', 400),
    ("/v1/completions", b'{"prompt": "x", "n": 100000}', 400),
    ("/v1/completions", b'{"prompt": "x", "model": "other"}', 404),
    ("/v1/completions", b'{"prompt": "x", "cache_salt": "' + b"s" * 300 + b'"}', 400),
    ("/v1/chat/completions", b'{"messages": "x"}', 400),
    ("/v1/chat/completions", b'{"messages": []}', 400),
    ("/v1/chat/completions", b'{"messages": [{"role": "user"}], "grammar": "x"}', 400),
    ("/tokenize", b'{"content": 7}', 400),
    ("/nothing", b"{}", 404),
    ("/metrics", b"{}", 405),
)
STORY = b'{"prompt": "Once upon", "max_tokens": 400, "ignore_eos": true}'
COMPLETION = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(STORY)
# Bytes, and the status they get; None: the client leaves without reading.
MALFORMED_BYTES = (
    (b"GET / HTTP/9.9\r\n\r\n", 400),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    (b"GET /health HTTP/1.1\r\n\r\n", 400),
    (b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 20000 + b"\r\n\r\n", 431),
    (b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n", 413),
    (b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    (COMPLETION + STORY[:30], None),
    (COMPLETION + STORY, None),
    (b"POST /v1/chat/comp", None),
)


class GivenUp(Exception):
    """The client left before its answer was complete."""


class Traffic:
    """All clients. `end` stops them from asking for more."""

    def __init__(self, url, seed, sample, problems):
        self.url, self.seed, self.sample, self.problems = url, seed, sample, problems
        self.harnesses = [harness(seed, i) for i in range(HARNESSES)]
        self.counts = collections.Counter()
        # Choices of answers: complete, and of requests that were given up, which the server may or may not finish.
        self.complete_choices = self.given_up_choices = 0
        self.end = asyncio.Event()

    async def run(self, num_clients):
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(self.url, connector=connector, timeout=timeout) as http:
            tasks = [asyncio.create_task(self.client(http, i)) for i in range(num_clients)]
            await self.end.wait()
            _, late = await asyncio.wait(tasks, timeout=20)
            for task in late:  # the last of the cancels
                task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(result, Exception):
                    self.problems.note(f"a client ended with {result!r}")

    async def client(self, http, number):
        choose = random.Random(f"{self.seed}:client:{number}")
        await asyncio.sleep(choose.random() * 5)
        while not self.end.is_set():
            kind = choose.random()
            if kind < 0.08:
                await self.malformed(http, choose)
            elif kind < 0.12:
                await self.look(http, choose)
            elif kind < 0.25:
                await self.ask(http, choose, "/v1/completions", {"prompt": self.tokens(choose)})
            else:
                await self.session(http, choose)

    def tokens(self, choose):
        trunk = random.Random(f"{self.seed}:trunk:{choose.randrange(8)}")
        shared = [trunk.choice(VOCABULARY) for _ in range(choose.randrange(1, 500))]
        return shared + [choose.choice(VOCABULARY) for _ in range(choose.randrange(1, 80))]

    async def session(self, http, choose):
        salt = choose.choice(SALTS)
        messages = [{"role": "system", "content": choose.choice(self.harnesses)}]
        for _ in range(choose.choice((1, 1, 2, 3, 4, 6, 10))):
            if self.end.is_set():
                return
            messages.append({"role": "user", "content": words(choose, choose.randrange(1, 60))})
            body = {"messages": list(messages)} | ({"cache_salt": salt} if salt else {})
            choices = await self.ask(http, choose, "/v1/chat/completions", body)
            if choices is None:
                return
            messages.append({"role": "assistant", "content": choices[0][0]})
            await asyncio.sleep(choose.expovariate(2))

    def options(self, choose):
        def sometimes(share, **options):
            return options if choose.random() < share else {}

        greedy = {"temperature": 0}
        drawn = {"temperature": 0.9, "top_p": 0.95, "seed": choose.randrange(10**6)}
        return {
            "max_tokens": choose.randrange(1, 48),
            **(greedy if choose.random() < 0.7 else drawn),
            **sometimes(0.5, stream=True),
            **sometimes(0.1, n=choose.randrange(2, 4)),
            **sometimes(0.3, ignore_eos=True),
            **sometimes(0.1, stop=[choose.choice(WORDS)[:3]]),
            **sometimes(0.05, cache_prompt=False),
            **sometimes(0.3, cache_report=True),
            **sometimes(0.5, user=choose.choice(WORDS)),
            **sometimes(0.2, priority=choose.randrange(-2, 3)),
            **sometimes(0.2, cache_control={"type": "ephemeral", "ttl": choose.choice(("5m", "1h"))}),
        }

    async def ask(self, http, choose, path, body):
        """[(text, finish_reason)] of a complete answer; None of any other."""
        body |= self.options(choose)
        if body.get("stream"):
            body["stream_options"] = {"include_usage": True}
        fate, patience = choose.random(), None
        most_events = choose.randrange(1, 30) if fate < 0.15 and body.get("stream") else None
        if 0.15 <= fate < 0.3:
            patience = choose.expovariate(0.5)
        num_choices = body.get("n", 1)
        try:
            async with asyncio.timeout(patience):
                answer = await self.post(http, path, body, most_events)
        except (TimeoutError, GivenUp):
            self.counts["given up"] += 1
            self.given_up_choices += num_choices
            return None
        except asyncio.CancelledError:
            self.counts["given up"] += 1
            self.given_up_choices += num_choices
            raise
        except aiohttp.ClientError as error:
            self.problems.note(f"{path}: {error!r}")
            self.given_up_choices += num_choices
            return None
        if answer is None:
            self.counts["refused"] += 1
            await asyncio.sleep(choose.expovariate(1 / 3))
            return None
        self.counts["complete"] += 1
        self.complete_choices += num_choices
        self.check(body, *answer)
        request = {key: value for key, value in body.items() if key not in ("stream", "stream_options", "cache_report", "cache_control")}
        self.sample.offer(path, request, answer[0])
        return answer[0]

    async def post(self, http, path, body, most_events):
        """The choices, the usage and the timings; None: the queue was full."""
        async with http.post(path, json=body) as response:
            if response.status == 503:
                code = (await response.json())["error"]["code"]
                if code != "queue_full" or "Retry-After" not in response.headers:
                    self.problems.note(f"{path}: 503 {code}")
                return None
            if response.status != 200:
                self.problems.note(f"{path}: {response.status} {(await response.text())[:300]}")
                return [], None, None
            if body.get("stream"):
                return await self.read_stream(response, body.get("n", 1), most_events)
            whole = await response.json()
            choices = sorted(whole["choices"], key=lambda choice: choice["index"])
            texts = [(choice.get("text", choice.get("message", {}).get("content")), choice["finish_reason"]) for choice in choices]
            return texts, whole["usage"], whole["timings"]

    async def read_stream(self, response, num_choices, most_events):
        texts, reasons = [""] * num_choices, [None] * num_choices
        usage = timings = None
        num_events = 0
        async for line in response.content:
            line = line.strip()
            if not line:
                continue
            if not line.startswith(b"data: "):
                self.problems.note(f"a stream says {line[:200]!r}")
            if line == b"data: [DONE]":
                await response.read()
                return list(zip(texts, reasons)), usage, timings
            num_events += 1
            if most_events is not None and num_events > most_events:
                response.close()
                raise GivenUp
            event = json.loads(line[6:])
            if "error" in event:
                self.problems.note(f"an error in a stream: {event['error']}")
                continue
            usage, timings = event.get("usage") or usage, event.get("timings") or timings
            for choice in event["choices"]:
                texts[choice["index"]] += choice.get("text") or choice.get("delta", {}).get("content") or ""
                reasons[choice["index"]] = choice["finish_reason"] or reasons[choice["index"]]
        self.problems.note("a stream ended without [DONE]")
        return list(zip(texts, reasons)), usage, timings

    def check(self, body, choices, usage, timings):
        if usage is None or timings is None or any(reason not in ("stop", "length") for _, reason in choices):
            return self.problems.note(f"an answer without usage, timings or reasons: {choices} {usage} {timings}")
        cached = usage["prompt_tokens_details"]["cached_tokens"]
        if len(choices) == 1 and cached + timings["prompt_n"] != usage["prompt_tokens"]:
            self.problems.note(f"cached + computed is not the prompt: {usage} {timings}")
        if usage["completion_tokens"] > body["max_tokens"] * len(choices):
            self.problems.note(f"more than max_tokens: {usage}")
        if body.get("cache_report") and sum(timings["cache_report"]["missed"].values()) != timings["prompt_n"]:
            self.problems.note(f"the causes are not those of all computed tokens: {timings}")
        if not body.get("cache_prompt", True) and len(choices) == 1 and cached != 0:
            self.problems.note(f"an answer that declined the cache used it: {usage}")

    async def malformed(self, http, choose):
        self.counts["malformed"] += 1
        if choose.random() < 0.6:
            path, body, expected = choose.choice(MALFORMED_BODIES)
            async with http.post(path, data=body) as response:
                await response.read()
                if response.status != expected:
                    self.problems.note(f"{path} {body[:80]}: {response.status} instead of {expected}")
            return
        sent, expected = choose.choice(MALFORMED_BYTES)
        host, port = self.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(sent)
            await writer.drain()
            if expected is None:
                self.given_up_choices += 1
                await asyncio.sleep(choose.random())
                return
            status = await reader.readline()
            if not status.startswith(b"HTTP/1.1 %d " % expected):
                self.problems.note(f"{sent[:60]}: {status} instead of {expected}")
        finally:
            writer.close()

    async def look(self, http, choose):
        self.counts["look"] += 1
        paths = ("/metrics", "/health", "/v1/cache", "/v1/models", "/v1/cache/tree", "/v1/cache/tree?limit=5000&cache_salt=blue")
        path = choose.choice(paths)
        async with http.get(path) as response:
            await response.read()
            if response.status != 200:
                self.problems.note(f"{path}: {response.status}")
