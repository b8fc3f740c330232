"""`python -m export.to_onnx RUN`: a run as ONNX artifacts, fp32, fp16 or int8, each checked against PyTorch."""

import copy
import dataclasses
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
import torch
import tyro
from torch import nn
from torch.export import Dim

from mobileclip_dense.artifact.artifact import TOKENIZER_FILE, Artifact, TensorSpec, save_artifact
from mobileclip_dense.artifact.files import write_json
from mobileclip_dense.artifact.outputs import ARTIFACT, claim_folder, staged_folder
from mobileclip_dense.artifact.preprocess import unit_planes
from mobileclip_dense.config import FinetuneConfig
from mobileclip_dense.config.check import MAX_SIDE_PX, require_numbers
from mobileclip_dense.config.encoders import ENCODERS
from mobileclip_dense.deploy.gate import cost_function, excess
from mobileclip_dense.deploy.onnx.channels_last import upsample_channels_last
from mobileclip_dense.deploy.onnx.debug_info import strip_debug_info
from mobileclip_dense.deploy.onnx.quantize import NUM_CALIBRATION, quantize_by_measurement
from mobileclip_dense.deploy.parity import compare_with_golden, judge_outputs
from mobileclip_dense.deploy.prepare import FromPixels, Prepared, describe, predict, prepare
from mobileclip_dense.deploy.profiles import ONNX_PROFILES, Flexible, OnnxPrecision, OnnxProfile, Pixels
from mobileclip_dense.deploy.samples import sample_images
from mobileclip_dense.deploy.tokenizer import save_tokenizer
from mobileclip_dense.runtime.onnx_model import OnnxModel

MAX_EVALUATED = 200
LIBRARIES = ("onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True, kw_only=True)
class ToOnnxConfig:
    """Export a run to ONNX: fused, preprocessing inside, checked against PyTorch. A fine-tuning run gives one artifact
    for each precision, a pretraining run those of its image tower and of its text tower."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a complete `mobileclip-dense finetune` or `pretrain` run."""
    profile: Literal["web", "cpu-int8"] = "web"
    """web: fp32, uint8 pixels, fixed shape. cpu-int8: the same in int8. The flags below override it."""
    precision: tuple[OnnxPrecision, ...] | None = None
    """One artifact for each. int8: static, per channel, calibrated on the run's own training images, on the nodes where
    it is measured to pay."""
    pixels: Pixels | None = None
    """uint8: RGB [B,H,W,3], 0..255; float: RGB [B,3,H,W], 0..1."""
    flexible: Flexible | None = None
    """none: fixed shape; batch: any number of images; size: any height and width that are multiples of 32."""
    size_px: tuple[int, int] | None = None
    """Height and width of the model's input, multiples of 32; None: what the run was trained with."""
    allow_accuracy_drop: bool = False
    """Write an int8 artifact even if it costs more accuracy than is tolerated (0.5 points of mIoU, 2 % of RMSE)."""
    allow_slower: bool = False
    """Write an int8 artifact even if it is measured to be no faster than fp32 on this machine."""
    out: Path = Path("artifacts")
    """Folder in which the artifacts' own folders are made."""
    force: bool = False
    """Replace artifacts that exist."""

    def __post_init__(self) -> None:
        require_numbers(self, "size_px", at_least=32, at_most=MAX_SIDE_PX)

    def resolved(self) -> OnnxProfile:
        """The profile with the flags that were given.

        Raises:
            ValueError: the combination does not exist, or `precision` is empty.
        """
        if self.precision == ():
            raise ValueError("--precision: found none, expected at least one, or no such flag")
        base = ONNX_PROFILES[self.profile]
        profile = dataclasses.replace(
            base,
            precision=self.precision or base.precision,
            pixels=self.pixels or base.pixels,
            flexible=self.flexible or base.flexible,
        )
        if "int8" in profile.precision and profile.flexible != "none":
            raise ValueError(f"--flexible: found {profile.flexible} with int8, expected none: what pays in int8 is "
                             f"measured for one shape")  # fmt: skip
        return profile


def to_onnx(config: ToOnnxConfig) -> list[Path]:
    """Write the artifacts; their folders, precision by precision.

    Raises:
        FileExistsError: one exists already. FileNotFoundError, ValueError: see `prepare`; a combination that does not
            exist; or an artifact is too far from PyTorch. What was written before stays.
    """
    profile = config.resolved()
    drafts = [
        (prepared, describe(prepared, runtime="onnx", precision=precision, taken=describe_input(prepared, profile),
                            libraries=LIBRARIES))
        for prepared in prepare(config.run, config.size_px)
        for precision in profile.precision
        if not (prepared.task == "embed-text" and precision == "int8")  # its cost is in a table of embeddings
    ]  # fmt: skip
    for prepared, draft in drafts:
        if prepared.task == "embed-text" and draft.precision == "fp16" and draft.input.flexible:
            raise ValueError("--flexible: found batch with fp16, expected none for a text tower: ONNX Runtime 1.32 "
                             "crashes while it loads that model")  # fmt: skip
        claim_folder(config.out / draft.name, ARTIFACT, force=config.force, inputs={"the run": config.run})
    return [_write_artifact(prepared, draft, profile, config) for prepared, draft in drafts]


def describe_input(prepared: Prepared, profile: OnnxProfile) -> TensorSpec:
    """What the exported model takes.

    Raises:
        ValueError: any size is asked of an encoder whose graph is for one.
    """
    config = prepared.run.config
    if profile.flexible == "size" and isinstance(config, FinetuneConfig) and ENCODERS[config.encoder].one_size:
        raise ValueError(f"--flexible: found size with {config.encoder}, whose graph is for one size; expected none or "
                         "batch, and --size-px for the size")  # fmt: skip
    shape = prepared.golden["input"].shape[1:]
    batch = (0,) if profile.flexible == "batch" else ()
    if prepared.task == "embed-text":
        return TensorSpec(name="tokens", shape=(1, *shape), dtype="int64", meaning="CLIP tokens", flexible=batch)
    height, width, _ = shape
    uint8 = profile.pixels == "uint8"
    size = ((1, 2) if uint8 else (2, 3)) if profile.flexible == "size" else ()
    return TensorSpec(
        name="image",
        shape=(1, height, width, 3) if uint8 else (1, 3, height, width),
        dtype="uint8" if uint8 else "float32",
        meaning="RGB image, 0..255" if uint8 else "RGB image, 0..1",
        flexible=batch + size,
    )


def _write_artifact(prepared: Prepared, draft: Artifact, profile: OnnxProfile, config: ToOnnxConfig) -> Path:
    def to_int8(path: Path) -> dict[str, float]:
        return _replace_by_int8(prepared, draft, path, config)

    folder = config.out / draft.name
    artifact = write_artifact(prepared, draft, profile.opset, folder, to_int8, force=config.force)
    figures = ", ".join(f"{name} {value:.3g}" for name, value in artifact.parity.items())
    print(f"{folder}: {(folder / artifact.model_file).stat().st_size / 1e6:.2f} MB; {figures}")
    return folder


def write_artifact(
    prepared: Prepared, draft: Artifact, opset: int, folder: Path, to_int8: Callable[[Path], dict[str, float]],
    *, force: bool,
) -> Artifact:  # fmt: skip
    """Export, compare with PyTorch, and write the artifact folder.

    Args:
        to_int8: replaces a float .onnx file by its int8 version and gives the figures to record; called for int8 only.

    Raises:
        ValueError: the exported model is too far from PyTorch. FileExistsError: the folder exists and `force` is off.
    """
    golden = {**prepared.golden, "input": as_taken(prepared.golden["input"], draft.input)}
    source = prepared.run.folder
    with staged_folder(folder, ARTIFACT, force=force, inputs={"the run": source}) as staging:
        path = staging / draft.model_file
        export_graph(prepared, draft, opset, path)
        floats = dataclasses.replace(draft, precision="fp16" if draft.precision == "fp16" else "fp32")
        parity = draft.parity | verify_graph(source, prepared, floats, OnnxModel(path))
        if draft.precision == "int8":
            parity |= to_int8(path)
            parity |= compare_with_golden(source, draft, golden, OnnxModel(path))
        artifact = dataclasses.replace(draft, parity=parity)
        _write_metadata(path, artifact.summary())
        np.savez_compressed(staging / "golden.npz", allow_pickle=False, **golden)
        if prepared.tokenizer is not None:
            save_tokenizer(prepared.tokenizer, staging / TOKENIZER_FILE)
        save_artifact(artifact, staging)
    return artifact


def as_taken(golden: npt.NDArray[Any], taken: TensorSpec) -> npt.NDArray[Any]:
    """Golden inputs in the form in which a model takes them."""
    return unit_planes(golden) if taken.dtype == "float32" else golden


class _InHalf(nn.Module):
    """float32 or tokens in, float32 and class indices out, everything between in float16."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = copy.deepcopy(network).half()

    def forward(self, taken: torch.Tensor) -> tuple[torch.Tensor, ...]:
        outputs = self.network(taken.half() if taken.is_floating_point() else taken)
        return tuple(output.float() if output.is_floating_point() else output for output in outputs)


def export_graph(prepared: Prepared, artifact: Artifact, opset: int, path: Path) -> None:
    """Trace the fused network with its preprocessing into an ONNX file, and check it."""
    network = _InHalf(prepared.network) if artifact.precision == "fp16" else prepared.network
    network = FromPixels(network) if artifact.input.dtype == "uint8" else network
    flexible = set(artifact.input.flexible)
    # A batch of one would be taken for a constant.
    example = torch.from_numpy(as_taken(prepared.golden["input"][: 2 if 0 in flexible else 1].copy(), artifact.input))
    dimensions = {
        axis: Dim("batch") if axis == 0 else 32 * Dim(f"{name}_in_32", min=1, max=128)
        for axis, name in zip(sorted(flexible), ("height", "width") if 0 not in flexible else ("batch",), strict=True)
    } if flexible else None  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            network.eval(), (example,), dynamo=True, opset_version=opset,
            input_names=[artifact.input.name], output_names=list(prepared.outputs), verbose=False,
            dynamic_shapes=None if dimensions is None else (dimensions,),
        )  # fmt: skip
    assert program is not None
    program.save(str(path), external_data=False)
    graph = onnx.load(path)
    strip_debug_info(graph)
    upsample_channels_last(graph)
    onnx.checker.check_model(graph, full_check=True)
    onnx.save(graph, path)


def verify_graph(run: Path, prepared: Prepared, artifact: Artifact, model: OnnxModel) -> dict[str, float]:
    """Compare a float graph with PyTorch on the golden inputs and, where shapes are flexible, on another shape.

    Raises:
        ValueError: an output is further from PyTorch than the precision's tolerance.
    """
    golden = {**prepared.golden, "input": as_taken(prepared.golden["input"], artifact.input)}
    figures = compare_with_golden(run, artifact, golden, model)
    if artifact.input.flexible:
        other = np.concatenate([prepared.golden["input"]] * 2)
        if 0 not in artifact.input.flexible:
            other = np.pad(other[:1], ((0, 0), (0, 32), (0, 64), (0, 0)), mode="wrap")
        expected = predict(prepared.network, other, prepared.outputs)
        found = model(as_taken(other, artifact.input))
        judged = judge_outputs(run, artifact, expected, found, " at another shape")
        figures["other_shape_relative_error"] = judged[f"{artifact.precision}_relative_error"]
    return figures


def _replace_by_int8(prepared: Prepared, artifact: Artifact, path: Path, config: ToOnnxConfig) -> dict[str, float]:
    """Quantize the float model in place, as far as the tolerated accuracy allows; what it cost and gained.

    The whole report, node by node, goes beside the model as int8.json.

    Raises:
        ValueError: it costs more accuracy than is tolerated, or is no faster, and the flag that allows it is off.
    """
    cost = cost_function(prepared, OnnxModel(path), MAX_EVALUATED)
    images = sample_images(prepared.run.config, "train", NUM_CALIBRATION, prepared.size_px)
    report = quantize_by_measurement(path, as_taken(images, artifact.input), cost)
    report.print()
    if (reason := excess(report.cost)) and not config.allow_accuracy_drop:
        raise ValueError(f"{config.run}: int8: {reason}; the int8 artifact was not written. Train the run longer, or "
                         f"pass --allow-accuracy-drop")  # fmt: skip
    if (reason := report.slowness()) and not config.allow_slower:
        raise ValueError(f"{config.run}: int8: {reason}; the int8 artifact was not written. Use fp32 on this machine, "
                         f"or pass --allow-slower")  # fmt: skip
    write_json(path.with_name("int8.json"), dataclasses.asdict(report))
    return report.figures()


def _write_metadata(path: Path, summary: dict[str, str]) -> None:
    model = onnx.load(path)
    onnx.helper.set_model_props(model, summary)
    onnx.save(model, path)
