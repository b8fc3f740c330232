"""A local file server for the page, with the headers that browsers require for memory shared between threads."""

import errno
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class PageHandler(SimpleHTTPRequestHandler):
    """Serves GET and HEAD of files, without directory listings."""

    protocol_version = "HTTP/1.1"
    extensions_map = SimpleHTTPRequestHandler.extensions_map | {
        ".mjs": "text/javascript", ".js": "text/javascript", ".wasm": "application/wasm",
        ".onnx": "application/octet-stream", ".npz": "application/octet-stream",
    }  # fmt: skip

    def handle(self) -> None:
        """Handle a connection. A browser may close it during a download, which is not an error."""
        with suppress(ConnectionError):
            super().handle()

    def end_headers(self) -> None:
        """Add the headers for cross-origin isolation, and for revalidation of cached files."""
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def list_directory(self, path: Any) -> None:  # the base class may return a file to send
        """Refuse directory listings."""
        self.send_error(HTTPStatus.NOT_FOUND)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing, so that the address stays visible in the terminal."""


def open_server(folder: Path, host: str, port: int) -> ThreadingHTTPServer:
    """A server that is bound to its port but does not serve yet. Port 0: any free port.

    Raises:
        OSError: the port is in use or not allowed, or the host is invalid.
    """
    try:
        return ThreadingHTTPServer((host, port), partial(PageHandler, directory=str(folder)))
    except UnicodeError:
        raise OSError(f"--host: found {host!r}, expected an address or host name of this machine") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise OSError(f"--port: {port} is in use on {host}; stop the other server, or use another port: "
                          "make web PORT=8001") from None  # fmt: skip
        raise OSError(f"--host {host} --port {port}: cannot listen there ({error.strerror})") from None
