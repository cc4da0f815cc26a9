"""A server that says what is in tests/transcripts, whatever it is asked; for the SDKs that read it."""

import contextlib
import http.server
import pathlib
import threading

TRANSCRIPTS = pathlib.Path(__file__).parents[1] / "transcripts"
TYPES = {".sse": "text/event-stream", ".ndjson": "application/x-ndjson"}


@contextlib.contextmanager
def replaying(name):
    """Its address."""
    transcript = TRANSCRIPTS / name

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-type", TYPES[transcript.suffix])
            self.end_headers()
            # In pieces that end anywhere.
            text = transcript.read_bytes()
            for at in range(0, len(text), 37):
                self.wfile.write(text[at : at + 37])

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
