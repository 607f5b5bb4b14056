"""Servers on loopback: plain HTTP with and without ranges, one that fails, and an object store that speaks S3."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class PlainHandler(http.server.SimpleHTTPRequestHandler):
    """Python's own server: whole files only, folders as lists of links."""

    failures: dict[str, int]  # path -> how many answers are refused first, or for ever below zero
    cut_after: dict[str, list[int]]  # path -> how many bytes of each of the first answers come before the line is cut
    requests: list[tuple[str, str]]

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        path = self.path.partition("?")[0]
        if self.failures.get(path):
            self.failures[path] -= 1
            self.send_error(503)
            return
        super().do_HEAD()

    def do_GET(self) -> None:
        self.requests.append((self.path, self.headers.get("Range", "")))
        path = self.path.partition("?")[0]
        if self.failures.get(path):
            self.failures[path] -= 1
            self.send_error(503)
            return
        cuts = self.cut_after.get(path)
        if cuts:
            self._cut(Path(self.translate_path(self.path)).read_bytes(), cuts.pop(0))
            return
        self.answer()

    def answer(self) -> None:
        super().do_GET()

    def _cut(self, data: bytes, size: int) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[:size])
        self.wfile.flush()
        self.close_connection = True
        self.connection.close()


class RangeHandler(PlainHandler):
    """Also answers a range of one file."""

    def answer(self) -> None:
        asked = self.headers.get("Range", "")
        path = Path(self.translate_path(self.path))
        if not asked.startswith("bytes=") or not path.is_file():
            super().answer()
            return
        data = path.read_bytes()
        first, _, last = asked.removeprefix("bytes=").partition("-")
        start, stop = int(first), min(int(last or len(data)) + 1, len(data))
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        self.wfile.write(data[start:stop])


class Server:
    """A running server. ``url`` has no slash at its end."""

    def __init__(self, folder: Path, handler: type[PlainHandler]) -> None:
        self.failures: dict[str, int] = {}
        self.cut_after: dict[str, list[int]] = {}
        self.requests: list[tuple[str, str]] = []
        state: dict[str, Any] = {"failures": self.failures, "cut_after": self.cut_after, "requests": self.requests}
        made = type("Handler", (handler,), state)
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(made, directory=str(folder)))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Server:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def object_store() -> Iterator[str]:
    """The address of an S3 server."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()
