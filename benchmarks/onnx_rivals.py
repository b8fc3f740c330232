"""`python -m benchmarks.onnx_rivals RUN`: our ONNX exports of an image tower against other ways to export it.

All exports have the same weights and the same size. They run in ONNX Runtime in turn, round after round:

    timm          timm.utils.onnx_export of the trained model, as in timm's script
    fused         torch.onnx.export of timm's reparameterize_model, opset 18
    tutorial      quantize_static of Conv, MatMul and Gemm in `fused`, with default settings
    preprocessed  the same after quant_pre_process, weights per channel
"""

import copy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
import tyro
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from timm.utils import reparameterize_model
from timm.utils.onnx import onnx_export
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.harness import ResultSettings, provenance, save_result
from mobileclip_dense.artifact.artifact import artifact_sha256, load_golden
from mobileclip_dense.artifact.files import refuse_existing
from mobileclip_dense.artifact.preprocess import unit_planes
from mobileclip_dense.command import run_with_settings
from mobileclip_dense.config import PretrainConfig
from mobileclip_dense.config.check import MAX_PARALLEL, require_numbers
from mobileclip_dense.deploy.onnx.quantize import NUM_CALIBRATION, ImageReader
from mobileclip_dense.deploy.samples import sample_images
from mobileclip_dense.models.clip import build_clip
from mobileclip_dense.pages.text_table import print_table
from mobileclip_dense.run.folder import fill_model, load_run
from mobileclip_dense.runtime.device import device_name
from mobileclip_dense.runtime.onnx_model import OnnxModel, load_onnx_artifact
from mobileclip_dense.runtime.timing import NUM_WARMUP, summarize, time_in_turn

_OLD_OPSET = 18
_GEMM_SIDE = 2048


@dataclass(frozen=True, kw_only=True)
class RivalsConfig(ResultSettings):
    """Measure our fp32 and int8 exports of an image tower against timm's export, torch's export of timm's fused model,
    and int8 quantization of the latter as in tutorials. All have the same weights and size, and run in turn."""

    run: Annotated[Path, tyro.conf.Positional]
    """Pretraining run that was exported."""
    artifacts: Path = Path("artifacts")
    """Folder with its fp32 and int8 embed-image artifacts."""
    threads: int = 2
    """Threads of ONNX Runtime."""
    runs: int = 50
    """Timed runs of each model."""
    out: Path = Path("results/onnx-rivals.json")

    def __post_init__(self) -> None:
        require_numbers(self, "threads", at_least=1, at_most=MAX_PARALLEL)
        require_numbers(self, "runs", at_least=1)


def measure_rivals(config: RivalsConfig) -> dict[str, Any]:
    """Write and return the result.

    Raises:
        FileNotFoundError, ValueError: the run or one of its artifacts cannot be read.
        FileExistsError: the result exists and --force was not given.
    """
    refuse_existing(config.out, config.force)
    run = load_run(config.run)
    if not isinstance(run.config, PretrainConfig):
        raise ValueError(f"{config.run}: run: found a fine-tuning run, expected a pretraining run")
    ours = {p: _find(config.artifacts, run.record["weights_sha256"], p) for p in ("fp32", "int8")}
    size_px = load_onnx_artifact(ours["fp32"])[0].input_size_px
    clip, _, _ = build_clip(run.config.model, run.config.image_size_px)
    fill_model(clip, run)
    trunk = clip.visual.trunk.eval()
    calibration = sample_images(run.config, "train", NUM_CALIBRATION, size_px)
    with TemporaryDirectory() as scratch:
        paths = _export_rivals(trunk, unit_planes(calibration), Path(scratch))
        models = {name: OnnxModel(path, config.threads) for name, path in paths.items()}
        bytes_of = {name: path.stat().st_size for name, path in paths.items()}
    for precision, folder in ours.items():
        models[f"ours {precision}"] = load_onnx_artifact(folder, config.threads)[1]
        bytes_of[f"ours {precision}"] = (folder / "model.onnx").stat().st_size
    image = load_golden(ours["fp32"])["input"][:1]
    times = time_in_turn([partial(model, image) for model in models.values()], config.runs, progress="rivals")
    latencies = {name: summarize(times_ms) for name, times_ms in zip(models, times, strict=True)}
    result = _record(run.config.model, size_px, config, latencies, bytes_of, trunk)
    result["artifact_sha256"] = {precision: artifact_sha256(folder) for precision, folder in ours.items()}
    _print(result)
    return save_result(config.out, result, _summary(result))


def _find(folder: Path, weights_sha256: str, precision: str) -> Path:
    for path in sorted(folder.glob(f"*-embed-image-*-{precision}.onnx")):
        if load_onnx_artifact(path)[0].parent["weights_sha256"] == weights_sha256:
            return path
    raise FileNotFoundError(
        f"{folder}: found no {precision} embed-image artifact of the run, expected one; export it with "
        f"`mobileclip-dense export onnx RUN --precision fp32 int8`"
    )


def _export_rivals(trunk: nn.Module, planes: npt.NDArray[np.float32], folder: Path) -> dict[str, Path]:
    example = torch.from_numpy(planes[:1])
    timm_path, fused_path, tutorial_path = (folder / f"{name}.onnx" for name in ("timm", "fused", "tutorial"))
    onnx_export(copy.deepcopy(trunk), str(timm_path), example, check=False, batch_size=1)
    fused = reparameterize_model(trunk)
    program = torch.onnx.export(fused, (example,), dynamo=True, opset_version=_OLD_OPSET, verbose=False)
    assert program is not None
    program.save(str(fused_path), external_data=False)
    prepared, preprocessed_path = folder / "prepared.onnx", folder / "preprocessed.onnx"
    quant_pre_process(fused_path, prepared, skip_symbolic_shape=True)
    for source, out, per_channel in ((fused_path, tutorial_path, False), (prepared, preprocessed_path, True)):
        quantize_static(
            source,
            out,
            ImageReader(OnnxModel(source).input_name, planes),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "MatMul", "Gemm"],
            per_channel=per_channel,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    return {
        "timm": timm_path,
        "fused": fused_path,
        "tutorial int8": tutorial_path,
        "preprocessed int8": preprocessed_path,
    }


def _record(
    encoder: str,
    size_px: tuple[int, int],
    config: RivalsConfig,
    latencies: dict[str, dict[str, float]],
    bytes_of: dict[str, int],
    trunk: nn.Module,
) -> dict[str, Any]:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        reparameterize_model(trunk)(torch.zeros(1, 3, *size_px))
    p50 = {name: latency["p50"] for name, latency in latencies.items()}
    flops_per_s = counter.get_total_flops() / (p50["ours fp32"] / 1e3)
    gemm = _measure_gemm_flops_per_s(config.threads)
    return {
        "encoder": encoder,
        "size_px": list(size_px),
        **provenance(device_name(), "onnxruntime", "onnx", "torch", "timm"),
        "threads": config.threads,
        "num_warmup": NUM_WARMUP,
        "latency_ms": latencies,
        "size_bytes": bytes_of,
        "fp32_against_best_rival": min(p50["timm"], p50["fused"]) / p50["ours fp32"],
        "int8_against_our_fp32": p50["ours fp32"] / p50["ours int8"],
        "int8_against_tutorial": p50["tutorial int8"] / p50["ours int8"],
        "int8_against_preprocessed": p50["preprocessed int8"] / p50["ours int8"],
        "int8_size_percent": bytes_of["ours int8"] / bytes_of["ours fp32"] * 100,
        "fp32_gflop_per_s": flops_per_s / 1e9,
        "gemm_gflop_per_s": gemm / 1e9,
        "fp32_share_of_gemm_percent": flops_per_s / gemm * 100,
    }


def _measure_gemm_flops_per_s(threads: int) -> float:
    """FLOP/s of a large fp32 matrix product in PyTorch, an upper bound for this machine."""
    torch.set_num_threads(threads)
    a, b = torch.rand(_GEMM_SIDE, _GEMM_SIDE), torch.rand(_GEMM_SIDE, _GEMM_SIDE)
    (times,) = time_in_turn([lambda: a @ b], 10)
    return 2 * _GEMM_SIDE**3 / (summarize(times)["p50"] / 1e3)


def _print(result: dict[str, Any]) -> None:
    print_table(
        f"{result['encoder']} at {result['size_px'][0]}x{result['size_px'][1]}, {result['device']}, "
        f"{result['threads']} threads",
        ["export", "p50 ms", "p90 ms", "MB"],
        [
            [name, f"{latency['p50']:.1f}", f"{latency['p90']:.1f}", f"{result['size_bytes'][name] / 1e6:.1f}"]
            for name, latency in result["latency_ms"].items()
        ],
    )


def _summary(result: dict[str, Any]) -> str:
    return (
        f"fp32: {result['fp32_against_best_rival']:.2f}x the best rival, "
        f"{result['fp32_share_of_gemm_percent']:.0f} % of a GEMM's rate; int8: "
        f"{result['int8_against_our_fp32']:.2f}x our fp32, {result['int8_against_tutorial']:.2f}x the tutorial "
        f"({result['int8_against_preprocessed']:.2f}x preprocessed), {result['int8_size_percent']:.0f} % of the size"
    )


if __name__ == "__main__":
    run_with_settings(RivalsConfig, measure_rivals, "python -m benchmarks.onnx_rivals")
