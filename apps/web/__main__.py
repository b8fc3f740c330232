"""`python -m apps.web`: build the web page that runs artifacts in a browser, and serve it locally."""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from apps.web.build import HERE, build_page, read_artifacts
from apps.web.server import open_server
from mobileclip_dense.artifact.outputs import WEB_PAGE, staged_folder
from mobileclip_dense.command import run_with_settings
from mobileclip_dense.config.check import require_numbers
from mobileclip_dense.pages.terminal import printable

_MAX_PORT = 65_535


@dataclass(frozen=True, kw_only=True)
class WebConfig:
    """Build the web page with the artifacts of a folder and serve it on this machine until Ctrl-C."""

    artifacts: Path = Path("demo/artifacts")
    """Folder of artifacts. Its ONNX artifacts are bundled."""
    samples: Path = HERE / "samples"
    """Folder of sample pictures."""
    host: str = "127.0.0.1"
    """Address to listen on. Browsers allow camera, threads and cryptography only on localhost and over https."""
    port: int = 8000
    """Port to listen on. 0: any free port."""
    build_only: Path | None = None
    """Write the page to this folder instead of serving it, for any file host. The page runs in a single thread unless
    the host sends the headers Cross-Origin-Opener-Policy and Cross-Origin-Embedder-Policy of apps/web/server.py."""
    force: bool = False
    """Replace the folder of --build-only if it exists."""

    def __post_init__(self) -> None:
        require_numbers(self, "port", at_least=0, at_most=_MAX_PORT)


def web(config: WebConfig) -> None:
    """Build the page, and serve it unless `build_only` is set.

    Raises:
        FileNotFoundError, ValueError, OSError: artifacts, samples or Node.js are missing, the build failed, or the port
            is in use.
    """
    bundle = read_artifacts(config.artifacts)
    for name, problem in bundle.left_out.items():
        print(f"warning: {printable(name)}: left out: {printable(problem)}", file=sys.stderr)
    num = len(bundle.artifacts)
    if config.build_only is not None:
        inputs = {"--artifacts": config.artifacts, "--samples": config.samples}
        with staged_folder(config.build_only, WEB_PAGE, force=config.force, inputs=inputs) as staging:
            build_page(staging, bundle, config.samples)
        print(f"{config.build_only}: {num} artifacts; copy the folder to any file host")
        return
    with tempfile.TemporaryDirectory() as scratch:
        server = open_server(Path(scratch), config.host, config.port)  # before the build, to fail early if in use
        with server:
            build_page(Path(scratch), bundle, config.samples)
            print(f"http://{config.host}:{server.server_port}/  ({num} artifacts; Ctrl-C stops)", flush=True)
            server.serve_forever()


if __name__ == "__main__":
    run_with_settings(WebConfig, web, "python -m apps.web")
