"""`python -m benchmarks.demo_throughput ARTIFACT`: the share of a demo's time that the model takes, on photographs.

The demo runs as for a user: it decodes, resizes, overlays and writes PNG files while the model runs.
"""

import io
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import tyro
from PIL import Image

from benchmarks.harness import ResultSettings, save_result
from mobileclip_dense.apps.depth import DepthConfig, depth
from mobileclip_dense.apps.segment import SegmentConfig, segment
from mobileclip_dense.artifact.artifact import load_golden
from mobileclip_dense.artifact.files import refuse_existing
from mobileclip_dense.command import run_with_settings
from mobileclip_dense.config.check import MAX_PARALLEL, require_numbers
from mobileclip_dense.runtime.onnx_model import load_onnx_artifact
from mobileclip_dense.runtime.timing import NUM_WARMUP, summarize, time_in_turn

_HEIGHT_PX, _WIDTH_PX = 480, 640
_FALLOFF = 1.6  # of amplitude with frequency; a JPEG then has about 60 kB, like a photograph of that size


@dataclass(frozen=True, kw_only=True)
class ThroughputConfig(ResultSettings):
    """Run a demo on a folder of photographs, and compare its time per photograph with the latency of the model."""

    artifact: Annotated[Path, tyro.conf.Positional]
    """ONNX artifact of a segmentation or depth model."""
    folder: Path | None = None
    """Folder of photographs. None: generated 640x480 JPEG files."""
    images: int = 500
    """Number of generated photographs."""
    threads: int | None = None
    """Threads of ONNX Runtime. None: one per core."""
    runs: int = 50
    """Timed runs of the model alone."""
    out: Path = Path("results/demo-throughput.json")

    def __post_init__(self) -> None:
        require_numbers(self, "images", "runs", at_least=1)
        require_numbers(self, "threads", at_least=1, at_most=MAX_PARALLEL)


def measure_throughput(config: ThroughputConfig) -> dict[str, Any]:
    """Write and return the result: the demo's summary without its inputs, and the latency of the model alone.

    Raises:
        FileNotFoundError, ValueError: the artifact or the folder cannot be used.
        FileExistsError: the result exists and --force was not given.
    """
    refuse_existing(config.out, config.force)
    artifact, model = load_onnx_artifact(config.artifact, config.threads)
    demos: dict[str, Callable[..., dict[str, Any]]] = {
        "segment": lambda **given: segment(SegmentConfig(**given)),
        "depth": lambda **given: depth(DepthConfig(**given)),
    }
    if artifact.task not in demos:
        raise ValueError(f"{config.artifact}: task: found {artifact.task}, expected one of {', '.join(demos)}")
    run_model = partial(model, load_golden(config.artifact)["input"][:1])
    (alone,) = time_in_turn([run_model], config.runs, progress="model alone")
    with TemporaryDirectory() as scratch:
        folder = config.folder or write_photographs(Path(scratch) / "photographs", config.images)
        with redirect_stdout(io.StringIO()):
            record = demos[artifact.task](
                artifact=config.artifact, inputs=(str(folder),), threads=config.threads, out=Path(scratch) / "pictures"
            )
    latency_alone = summarize(alone)
    result = {
        **{name: value for name, value in record.items() if name not in ("inputs", "failures")},
        "artifact": artifact.name,  # the demo's summary has the name of the folder, which may be "."
        "photographs": "generated, 640x480 JPEG" if config.folder is None else config.folder.name,
        "num_warmup": NUM_WARMUP,
        "model_alone_ms": latency_alone,
        # In the demo, the model is slower because reading and drawing use the cores too, so this share is stricter.
        "model_alone_share_percent": latency_alone["mean"] / record["wall_ms_per_frame"] * 100,
    }
    shares = record["model_share_percent"], result["model_alone_share_percent"]
    return save_result(
        config.out,
        result,
        f"{record['num_frames']} photographs, {record['wall_ms_per_frame']:.1f} ms each, "
        f"{record['latency_ms']['model']['mean']:.1f} ms in the model ({shares[0]:.1f} %); the model alone takes "
        f"{latency_alone['mean']:.1f} ms ({shares[1]:.1f} %)",
    )


def write_photographs(folder: Path, count: int) -> Path:
    """Write images with the spectrum of photographs, so that decoding and encoding take as long as for photographs."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(count):
        Image.fromarray(_photograph(rng)).save(folder / f"{index:04d}.jpg", quality=90)
    return folder


def _photograph(rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Mostly grey noise with an amplitude that falls with frequency, as in photographs; uint8 [H,W,3]."""
    rows, columns = np.fft.fftfreq(_HEIGHT_PX)[:, None], np.fft.rfftfreq(_WIDTH_PX)[None]
    envelope = 1 / np.maximum(np.hypot(rows, columns), 1 / _WIDTH_PX) ** _FALLOFF
    spectrum = np.fft.rfft2(rng.standard_normal((3, _HEIGHT_PX, _WIDTH_PX))) * envelope
    fields = np.fft.irfft2(spectrum, s=(_HEIGHT_PX, _WIDTH_PX))
    fields /= fields.std(axis=(1, 2), keepdims=True)
    pixels = 128 + 50 * (fields[:1] + 0.3 * fields).transpose(1, 2, 0)
    return np.clip(pixels, 0, 255).astype(np.uint8)


if __name__ == "__main__":
    run_with_settings(ThroughputConfig, measure_throughput, "python -m benchmarks.demo_throughput")
