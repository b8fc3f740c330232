"""`python -m export.to_onnx RUN`: a fine-tuned run as an ONNX artifact, fp32 or int8, checked against PyTorch."""

import dataclasses
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import onnx
import torch
import tyro

from benchmarks.accuracy import predict_all, score_depth, score_segmentation
from benchmarks.runtimes import OnnxModel
from export.prepare import (
    FromPixels,
    Prepared,
    describe,
    output_names,
    prepare,
    relative_error,
    sample_images,
)
from export.quantize import quantize_to_int8
from mobileclip_dense.command import run_with_settings
from mobileclip_dense.contract.artifact import Artifact, save_artifact
from mobileclip_dense.contract.files import refuse_existing, staged_folder
from mobileclip_dense.data.folders import SPLITS, list_pairs, read_class_labels, read_depth_m

OPSET = 20  # the first with a Gelu node; below it a GELU is five nodes, and int8 slower than fp32
FP32_TOLERANCE = 1e-4
NUM_CALIBRATION = 32
MAX_EVALUATED = 200
_LIBRARIES = ("onnx", "onnxscript", "onnxruntime")


Precision = Literal["fp32", "int8"]


@dataclass(frozen=True, kw_only=True)
class ToOnnxConfig:
    """Export a fine-tuned run to ONNX: fused, preprocessing inside, checked against PyTorch."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a complete `mobileclip-dense finetune` run."""
    precision: tuple[Precision, ...] = ("fp32",)
    """One artifact for each. int8: static, per channel, on the pointwise convolutions, calibrated on the run's own
    training images."""
    size_px: tuple[int, int] | None = None
    """Height and width of the model's input, multiples of 32; None: the run's training crop."""
    out: Path = Path("artifacts")
    """Folder in which the artifacts' own folders are made."""
    force: bool = False
    """Replace artifacts that exist."""


def to_onnx(config: ToOnnxConfig) -> list[Path]:
    """Write the artifacts; their folders, in the order of `config.precision`.

    Raises:
        FileExistsError: one exists already. FileNotFoundError, ValueError: see `prepare`; or parity fails.
    """
    prepared = prepare(config.run, config.size_px)
    drafts = [
        describe(prepared, runtime="onnx", precision=precision, parity={}, libraries=_LIBRARIES)
        for precision in config.precision
    ]
    for draft in drafts:
        refuse_existing(config.out / draft.name, config.force)
    return [_write_artifact(prepared, draft, config) for draft in drafts]


def _write_artifact(prepared: Prepared, draft: Artifact, config: ToOnnxConfig) -> Path:
    folder = config.out / draft.name
    with staged_folder(folder, force=config.force) as staging:
        path = staging / draft.model_file
        export_graph(prepared, path)
        parity = draft.parity | verify_fp32(prepared, OnnxModel(path))
        if draft.precision == "int8":
            parity |= replace_by_int8(prepared, path)
        artifact = dataclasses.replace(draft, parity=parity)
        _write_metadata(path, artifact.summary())
        np.savez_compressed(staging / "golden.npz", allow_pickle=False, **prepared.golden)
        save_artifact(artifact, staging)
    figures = ", ".join(f"{name} {value:.3g}" for name, value in parity.items())
    print(f"{folder}: {(folder / artifact.model_file).stat().st_size / 1e6:.2f} MB; {figures}")
    return folder


def export_graph(prepared: Prepared, path: Path) -> None:
    """Trace the fused predictor with its preprocessing into an ONNX file with fixed shapes, and check it."""
    example = torch.from_numpy(prepared.golden["input"][:1].copy())
    names = output_names(prepared.config)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            FromPixels(prepared.predictor).eval(), (example,), dynamo=True, opset_version=OPSET,
            input_names=["image"], output_names=list(names), verbose=False,
        )  # fmt: skip
    assert program is not None
    program.save(str(path), external_data=False)
    onnx.checker.check_model(onnx.load(path), full_check=True)


def verify_fp32(prepared: Prepared, model: OnnxModel) -> dict[str, float]:
    """Compare with PyTorch on the golden inputs.

    Raises:
        ValueError: the relative error of the first output is above FP32_TOLERANCE.
    """
    name = output_names(prepared.config)[0]
    found = np.concatenate([model(image[None])[name] for image in prepared.golden["input"]])
    error = relative_error(found, prepared.golden[name])
    if not error <= FP32_TOLERANCE:
        raise ValueError(f"{prepared.run.folder}: ONNX: {name}: relative error {error:.1e}, expected at most "
                         f"{FP32_TOLERANCE:.0e}; the export is wrong, nothing was written")  # fmt: skip
    return {"onnx_fp32_relative_error": error}


def replace_by_int8(prepared: Prepared, path: Path) -> dict[str, float]:
    """Quantize the float model in place; what it cost, measured on the run's held-out images."""
    config = prepared.config
    quantized = path.with_suffix(".int8.onnx")
    calibration = sample_images(config, "train", NUM_CALIBRATION, prepared.size_px)
    num_nodes = quantize_to_int8(path, quantized, "image", calibration)
    pairs = list_pairs(config.data, SPLITS[config.task][1])[:MAX_EVALUATED]
    output = output_names(config)[-1]
    before, after = (
        predict_all(OnnxModel(model), output, [image for image, _ in pairs], prepared.size_px, label)
        for model, label in ((path, "fp32"), (quantized, "int8"))
    )
    quantized.replace(path)
    record = {"int8_nodes": num_nodes, "num_evaluated_images": len(pairs)}
    if config.task == "segment":
        names = prepared.run.record["class_names"]
        truths = [read_class_labels(label, prepared.run.record["reduce_zero_label"]) for _, label in pairs]
        fp32, int8 = (score_segmentation(maps, truths, len(names)) for maps in (before, after))
        agreement = float(np.mean([(a == b).mean() for a, b in zip(before, after, strict=True)]) * 100)
        return record | {"fp32_miou_percent": fp32, "int8_miou_percent": int8, "miou_drop_points": fp32 - int8,
                         "class_map_agreement_percent": agreement}  # fmt: skip
    depths = [read_depth_m(label, config.depth_units_per_m) for _, label in pairs]
    fp32_errors, int8_errors = (score_depth(maps, depths, config.max_depth_m) for maps in (before, after))
    return record | {"fp32_rmse_m": fp32_errors["rmse_m"], "int8_rmse_m": int8_errors["rmse_m"]}


def _write_metadata(path: Path, summary: dict[str, str]) -> None:
    model = onnx.load(path)
    onnx.helper.set_model_props(model, summary)
    onnx.save(model, path)


if __name__ == "__main__":
    run_with_settings(ToOnnxConfig, to_onnx, "python -m export.to_onnx")
