"""A server for the page: files of one folder, with the headers that let a browser share memory between threads."""

import errno
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class PageHandler(SimpleHTTPRequestHandler):
    """GET and HEAD of files; no listings."""

    protocol_version = "HTTP/1.1"
    extensions_map = SimpleHTTPRequestHandler.extensions_map | {
        ".mjs": "text/javascript", ".js": "text/javascript", ".wasm": "application/wasm",
        ".onnx": "application/octet-stream", ".npz": "application/octet-stream",
    }  # fmt: skip

    def handle(self) -> None:
        """A browser that leaves in the middle of a download is nothing to report."""
        with suppress(ConnectionError):
            super().handle()

    def end_headers(self) -> None:
        """Cross-origin isolation, and no copy in a cache that is older than the file."""
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def list_directory(self, path: Any) -> None:  # the base class may return a file to send
        """Refused."""
        self.send_error(HTTPStatus.NOT_FOUND)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet: the terminal holds the address."""


def open_server(folder: Path, host: str, port: int) -> ThreadingHTTPServer:
    """A server that is bound but does not serve yet; port 0 takes a free one.

    Raises:
        OSError: the port is taken or may not be used, in words for a user.
    """
    try:
        return ThreadingHTTPServer((host, port), partial(PageHandler, directory=str(folder)))
    except UnicodeError:
        raise OSError(f"--host: found {host!r}, expected an address or a name of this machine") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise OSError(f"--port: {port} is in use on {host}; stop what uses it, or take another: make web PORT=8001"
                          ) from None  # fmt: skip
        raise OSError(f"--host {host} --port {port}: cannot listen there ({error.strerror})") from None
