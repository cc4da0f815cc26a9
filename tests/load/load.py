#!/usr/bin/env python3
"""A thousand connections at once, idle and waiting for their streams: what they cost, and whether all answers are right.

Some read slowly, some cut their connection in the middle. Exits with 1 if an answer was wrong, a connection cost a
thread, all of them together more than 100 MB, or something was left behind.
"""

import argparse
import asyncio
import json
import pathlib
import re
import resource
import socket
import subprocess
import sys
import tempfile
import time

MOST_BYTES = 100_000_000
KV_CACHE = "64MiB"  # about 3,000 tokens: most streams have to wait
PROMPTS = [f"{name} had a small shop near the harbour, and every morning" for name in ("Ada", "Ben", "Cleo", "Dan", "Eve", "Finn", "Gil", "Hana")]
TOKENS = 24
DEADLINE = 900  # seconds after which something hangs


class Server:
    def __init__(self, binary, model, connections):
        self.log = tempfile.NamedTemporaryFile(prefix="load-server-", suffix=".log")
        flags = ["--port", "0", "--kv-cache", KV_CACHE, "--max-queue", str(2 * connections), "--max-connections", str(2 * connections)]
        self.process = subprocess.Popen([binary, "serve", "-m", model, *flags], stderr=self.log)
        start = time.monotonic()
        while not (found := re.search(r"^listening on http://(\S+):(\d+)", self.log_text(), re.M)):
            if self.process.poll() is not None or time.monotonic() - start > DEADLINE:
                sys.exit(f"load: the server does not start:\n{self.log_text()}")
            time.sleep(0.05)
        self.host, self.port = found[1], int(found[2])

    def log_text(self):
        return pathlib.Path(self.log.name).read_text(errors="replace")

    def status(self, name):
        """A number of /proc/PID/status: VmRSS in bytes, or Threads."""
        line = re.search(rf"^{name}:\s+(\d+)( kB)?", pathlib.Path(f"/proc/{self.process.pid}/status").read_text(), re.M)
        return int(line[1]) * (1024 if line[2] else 1)

    async def connect(self, receive_bytes=None):
        connection = socket.socket()
        connection.setblocking(False)
        if receive_bytes:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        await asyncio.get_running_loop().sock_connect(connection, (self.host, self.port))
        # A small limit, so that what is not read stays with the server.
        return await asyncio.open_connection(sock=connection, limit=4096)

    async def get(self, path):
        reader, writer = await self.connect()
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
        writer.close()
        assert head.startswith(b"HTTP/1.1 200"), head
        return body.decode()

    async def cache(self):
        return json.loads(await self.get("/v1/cache"))

    def stop(self):
        self.process.terminate()
        return self.process.wait(DEADLINE)


def post(path, body):
    text = json.dumps(body)
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode()


def request(prompt, **more):
    return {"prompt": prompt, "max_tokens": TOKENS, "temperature": 0, "ignore_eos": True, "stream": True, **more}


class Stream:
    """One streamed answer as it is read."""

    def __init__(self, reader):
        self.reader, self.text, self.comments, self.is_whole = reader, "", 0, False

    async def read_head(self):
        head = await self.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200") and b"chunked" in head, head

    async def read(self, pause=0):
        """To its end; with a pause behind each event."""
        rest = b""
        while size := int(await self.reader.readline(), 16):
            rest += await self.reader.readexactly(size)
            await self.reader.readexactly(2)
            *events, rest = rest.split(b"\n\n")
            for event in events:
                self.take(event.decode())
            await asyncio.sleep(pause)
        assert rest == b"", rest
        await self.reader.readexactly(2)

    def take(self, event):
        if event.startswith(":"):
            self.comments += 1
        elif event == "data: [DONE]":
            self.is_whole = True
        else:
            answer = json.loads(event.removeprefix("data: "))
            assert "error" not in answer, answer
            self.text += "".join(choice["text"] for choice in answer["choices"])


async def whole(server, prompt, **more):
    reader, writer = await server.connect()
    writer.write(post("/v1/completions", request(prompt, **more)))
    stream = Stream(reader)
    await stream.read_head()
    await stream.read()
    writer.close()
    return stream.text


async def warm_up(server):
    """Everything that is there once and for all: the cache's pages, the threads' stacks, room for a full batch."""
    for i in range(8):
        await whole(server, [300 + (7 * i + j) % 4000 for j in range(1000)])
    await asyncio.gather(*(whole(server, prompt, cache_prompt=False) for prompt in PROMPTS * 8))


class Figures:
    def __init__(self, server):
        self.server, self.problems = server, []
        self.rss, self.threads = server.status("VmRSS"), server.status("Threads")

    def note(self, what):
        print(f"load: WRONG: {what}", flush=True)
        self.problems.append(what)

    def measure(self, what, count):
        grown, threads = self.server.status("VmRSS") - self.rss, self.server.status("Threads")
        print(f"load: {count} {what}: {grown / 1e6:+.1f} MB, {grown / count / 1e3:.1f} kB each; {threads} threads", flush=True)
        if grown > MOST_BYTES:
            self.note(f"{count} {what} cost {grown / 1e6:.0f} MB")
        if threads > self.threads:
            self.note(f"{count} {what} cost {threads - self.threads} threads")


async def check_idle(server, figures, count):
    """Connections that have asked something, and stay."""
    connections = await asyncio.gather(*(server.connect() for _ in range(count)))
    ask = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"

    async def use(reader, writer):
        writer.write(ask)
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(re.search(rb"Content-Length: (\d+)", head)[1]))
        return head.startswith(b"HTTP/1.1 200")

    for _ in range(2):
        if not all(await asyncio.gather(*(use(*connection) for connection in connections))):
            figures.note("an idle connection was not answered")
        figures.measure("idle connections", count)
    for _, writer in connections:
        writer.transport.abort()


async def check_streams(server, figures, count, expected):
    """Of ten streams seven wait and read, two read slowly, one is cut when it has begun."""
    all_wait = asyncio.Event()
    streams, num_begun = [], 0

    async def client(i):
        nonlocal num_begun
        prompt, is_slow, is_cut = PROMPTS[i % len(PROMPTS)], i % 10 in (3, 6), i % 10 == 9
        reader, writer = await server.connect(receive_bytes=4096 if is_slow else None)
        writer.write(post("/v1/completions", request(prompt)))
        stream = Stream(reader)
        await stream.read_head()
        num_begun += 1
        if num_begun == count:
            all_wait.set()
        await all_wait.wait()
        if is_cut:
            await reader.read(1)
            return writer.transport.abort()
        await stream.read(pause=0.05 if is_slow else 0)
        writer.close()
        streams.append(stream)
        if not stream.is_whole or stream.text != expected[prompt]:
            figures.note(f"a stream said {stream.text!r} instead of {expected[prompt]!r}")

    running = asyncio.gather(*(client(i) for i in range(count)))
    await asyncio.wait([asyncio.ensure_future(all_wait.wait()), running], return_when=asyncio.FIRST_COMPLETED)
    figures.measure("streams, nearly all of them waiting", count)
    for prompt in PROMPTS:
        if await whole(server, prompt, priority=-1) != expected[prompt]:
            figures.note("somebody else's answer is wrong")
    figures.measure("streams a while later", count)
    await running
    comments = sum(stream.comments for stream in streams)
    print(f"load: {len(streams)} streams were read to their end; {comments} comments kept them alive", flush=True)


async def settle(server, figures):
    start = time.monotonic()
    while (cache := await server.cache())["leases"] > 0:
        if time.monotonic() - start > DEADLINE:
            return figures.note(f"something still runs: {cache}")
        await asyncio.sleep(0.1)
    if cache["pages"]["private"] > 0:
        figures.note(f"pages are left: {cache}")


async def load(server, arguments):
    try:
        expected = {prompt: await whole(server, prompt) for prompt in PROMPTS}
        await warm_up(server)
        await settle(server, Figures(server))
        figures = Figures(server)
        print(f"load: at rest {figures.rss / 1e6:.0f} MB, {figures.threads} threads", flush=True)
        await check_idle(server, figures, arguments.connections)
        await check_streams(server, figures, arguments.streams, expected)
        await settle(server, figures)
        if server.stop() != 0:
            figures.note(f"the server ended with {server.process.returncode}")
    finally:
        server.process.kill()
        server.process.wait()
    print(f"load: {'FAILED' if figures.problems else 'ok'}")
    return 1 if figures.problems else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--connections", type=int, default=1000, help="that are idle")
    parser.add_argument("--streams", type=int, default=1000, help="at once")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    arguments = parser.parse_args()
    server = Server(arguments.binary, arguments.model, max(arguments.connections, arguments.streams))
    sys.exit(asyncio.run(asyncio.wait_for(load(server, arguments), DEADLINE * 2)))


if __name__ == "__main__":
    main()
