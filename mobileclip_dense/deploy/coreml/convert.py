"""`python -m export.to_coreml RUN`: a run as Core ML artifacts, each saved, read back, executed and compared."""

import dataclasses
import json
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

import coremltools as ct
import numpy as np
import torch
import tyro

from mobileclip_dense.artifact.artifact import TOKENIZER_FILE, Artifact, TensorSpec, save_artifact
from mobileclip_dense.artifact.files import write_json
from mobileclip_dense.artifact.outputs import ARTIFACT, claim_folder, staged_folder
from mobileclip_dense.config.check import MAX_SIDE_PX, require_numbers
from mobileclip_dense.deploy.coreml.compress import FIRST_TARGET, WITNESS, compress
from mobileclip_dense.deploy.coreml.mil.executor import run_program
from mobileclip_dense.deploy.coreml.mil.program import MilProgram, load_program
from mobileclip_dense.deploy.coreml.neural_engine import NeuralEngineReport, inspect_for_neural_engine
from mobileclip_dense.deploy.gate import cost_function, excess
from mobileclip_dense.deploy.parity import Golden, compare_with_golden
from mobileclip_dense.deploy.prepare import Prepared, describe, predict, prepare
from mobileclip_dense.deploy.profiles import COREML_PROFILES, CoreMLPrecision, CoreMLProfile, Target
from mobileclip_dense.deploy.samples import sample_images
from mobileclip_dense.deploy.tokenizer import save_tokenizer
from mobileclip_dense.runtime.accuracy import Predictor

TARGETS = {"ios15": ct.target.iOS15, "ios16": ct.target.iOS16, "ios17": ct.target.iOS17, "ios18": ct.target.iOS18}
NUM_CALIBRATION = 16
MAX_EVALUATED = 50
_LIBRARIES = ("coremltools",)
_NOT_FUSED = ("batch_norm", "instance_norm")


@dataclass(frozen=True, kw_only=True)
class ToCoreMLConfig:
    """Export a run to Core ML .mlpackages: fused, image input, fixed shape. Each is read back, run operator by operator
    without a Mac, and compared with PyTorch. A pretraining run gives its image tower and its text tower."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a complete `mobileclip-dense finetune` or `pretrain` run."""
    profile: Literal["iphone"] = "iphone"
    """iphone: fp16 for iOS 16 and later. The flags below override it."""
    precision: tuple[CoreMLPrecision, ...] | None = None
    """One artifact for each. fp16, fp32; fp16 with compressed weights: w8 (int8, per channel), p8, p6, p4 (palettes of
    256, 64, 16 values); w8a8: int8 weights and activations."""
    target: Target | None = None
    """The oldest system that can load it; compressed weights need ios16, w8a8 needs ios17."""
    size_px: tuple[int, int] | None = None
    """Height and width of the model's input, multiples of 32; None: what the run was trained with."""
    allow_accuracy_drop: bool = False
    """Write an artifact even if it costs more accuracy than is tolerated (0.5 points of mIoU, 2 % of RMSE)."""
    out: Path = Path("artifacts")
    """Folder in which the artifacts' own folders are made."""
    force: bool = False
    """Replace artifacts that exist."""

    def __post_init__(self) -> None:
        require_numbers(self, "size_px", at_least=32, at_most=MAX_SIDE_PX)

    def resolved(self) -> CoreMLProfile:
        """The profile with the flags that were given.

        Raises:
            ValueError: the target cannot store a precision, or `precision` is empty.
        """
        if self.precision == ():
            raise ValueError("--precision: found none, expected at least one, or no such flag")
        base = COREML_PROFILES[self.profile]
        profile = CoreMLProfile(precision=self.precision or base.precision, target=self.target or base.target)
        for precision in profile.precision:
            if profile.target < FIRST_TARGET[precision]:
                raise ValueError(f"--target: found {profile.target} with {precision}, expected "
                                 f"{FIRST_TARGET[precision]} or later")  # fmt: skip
        return profile


def to_coreml(config: ToCoreMLConfig) -> list[Path]:
    """Write the artifacts; their folders, precision by precision.

    Raises:
        FileExistsError: one exists already. FileNotFoundError, ValueError: see `prepare`; a combination that does not
            exist; the saved program is not what it should be, or too far from PyTorch. What was written before stays.
    """
    profile = config.resolved()
    drafts = [
        (prepared, describe(prepared, runtime="coreml", precision=precision, taken=_taken(prepared),
                            libraries=_LIBRARIES))
        for prepared in prepare(config.run, config.size_px)
        for precision in profile.precision
        if not (prepared.task == "embed-text" and precision == "w8a8")  # its calibration is on images
    ]  # fmt: skip
    for _, draft in drafts:
        claim_folder(config.out / draft.name, ARTIFACT, force=config.force, inputs={"the run": config.run})
    first = {draft.task: (prepared, draft) for prepared, draft in reversed(drafts)}
    errors = {task: _require_right_graph(*pair, profile.target) for task, pair in first.items()}
    return [_write_artifact(prepared, draft, profile.target, errors[draft.task], config) for prepared, draft in drafts]


def _taken(prepared: Prepared) -> TensorSpec:
    shape = (1, *prepared.golden["input"].shape[1:])
    if prepared.task == "embed-text":
        return TensorSpec(name="tokens", shape=shape, dtype="int32", meaning="CLIP tokens")
    return TensorSpec(name="image", shape=shape, dtype="uint8", meaning="RGB image, 0..255")


def _require_right_graph(prepared: Prepared, draft: Artifact, target: Target) -> float:
    """The relative error of the network converted and run in float32: what is wrong there is no rounding.

    An operator that is converted wrongly can hide within the tolerance of fp16.

    Raises:
        ValueError: above the tolerance of fp32.
    """
    full = dataclasses.replace(draft, precision="fp32")
    with TemporaryDirectory() as scratch:
        package = Path(scratch) / draft.model_file
        _convert(prepared, full, target).save(str(package))
        predictor = program_predictor(load_program(package), full)
        figures = compare_with_golden(prepared.run.folder, full, _golden(prepared, draft), predictor)
    return figures["fp32_relative_error"]


def _golden(prepared: Prepared, draft: Artifact) -> Golden:
    return {**prepared.golden, "input": prepared.golden["input"].astype(draft.input.dtype)}


def _write_artifact(
    prepared: Prepared, draft: Artifact, target: Target, graph_error: float, config: ToCoreMLConfig
) -> Path:
    folder = config.out / draft.name
    golden = _golden(prepared, draft)
    with staged_folder(folder, ARTIFACT, force=config.force, inputs={"the run": config.run}) as staging:
        package = staging / draft.model_file
        _build(prepared, draft, target).save(str(package))
        report = verify_program(package, draft)
        predictor = program_predictor(load_program(package), draft)
        parity = {**draft.parity, "fp32_relative_error": graph_error}
        parity |= compare_with_golden(config.run, draft, golden, predictor)
        if prepared.task != "embed-text" and draft.precision != "fp32":
            parity |= _measure_cost(prepared, draft, predictor, config.allow_accuracy_drop)
        write_json(staging / "neural_engine.json", dataclasses.asdict(report))
        np.savez_compressed(staging / "golden.npz", allow_pickle=False, **golden)
        if prepared.tokenizer is not None:
            save_tokenizer(prepared.tokenizer, staging / TOKENIZER_FILE)
        save_artifact(dataclasses.replace(draft, parity=parity), staging)
    size = sum(path.stat().st_size for path in (folder / draft.model_file).rglob("*"))
    figures = ", ".join(f"{name} {value:.3g}" for name, value in parity.items())
    print(f"{folder}: {size / 1e6:.2f} MB; {report.summary()}; {figures}")
    return folder


def _build(prepared: Prepared, artifact: Artifact, target: Target) -> ct.models.MLModel:
    """Convert and compress; metadata and the settings of Xcode's preview included."""
    model = _convert(prepared, artifact, target)
    images = np.zeros(0, np.uint8)
    if artifact.precision == "w8a8":
        images = sample_images(prepared.run.config, "train", NUM_CALIBRATION, prepared.size_px)
    model = compress(model, artifact.precision, images)  # type: ignore[arg-type]
    model.short_description = f"{artifact.task}: {artifact.name}"
    model.license, model.version = artifact.licence, artifact.parent["weights_sha256"][:12]
    model.input_description[artifact.input.name] = artifact.input.meaning
    for spec in artifact.outputs:
        model.output_description[spec.name] = spec.meaning
    model.user_defined_metadata.update(artifact.summary() | _preview(artifact))
    return model


def _convert(prepared: Prepared, artifact: Artifact, target: Target) -> ct.models.MLModel:
    shape = artifact.input.shape
    if artifact.input.dtype == "uint8":
        example = torch.zeros(1, 3, *shape[1:3])
        # The network takes RGB in 0..1; Core ML hands it pixels x scale.
        taken: Any = ct.ImageType(name="image", shape=example.shape, scale=1 / 255, color_layout=ct.colorlayout.RGB)
    else:
        example = torch.from_numpy(prepared.golden["input"][:1].astype(np.int32))
        taken = ct.TensorType(name=artifact.input.name, shape=shape, dtype=np.int32)
    precision = ct.precision.FLOAT32 if artifact.precision == "fp32" else ct.precision.FLOAT16
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("coremltools").setLevel(logging.ERROR)
        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)  # its fused operator is unknown to coremltools
        try:
            traced = torch.jit.trace(prepared.network, example)  # type: ignore[no-untyped-call]
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)
        return ct.convert(
            traced,
            inputs=[taken],
            outputs=[ct.TensorType(name=name) for name in prepared.outputs],
            minimum_deployment_target=TARGETS[target],
            compute_precision=precision,
            convert_to="mlprogram",
            skip_model_load=True,
        )


def _preview(artifact: Artifact) -> dict[str, str]:
    """What makes Xcode's preview tab draw the output."""
    if artifact.task == "depth":
        return {"com.apple.coreml.model.preview.type": "depthEstimation"}
    if artifact.task != "segment":
        return {}
    colours = [f"#{r:02X}{g:02X}{b:02X}" for r, g, b in artifact.palette]
    parameters = json.dumps({"labels": artifact.class_names, "colors": colours})
    return {
        "com.apple.coreml.model.preview.type": "imageSegmenter",
        "com.apple.coreml.model.preview.params": parameters,
    }


def verify_program(package: Path, artifact: Artifact) -> NeuralEngineReport:
    """Read a saved .mlpackage back; what it consists of.

    Raises:
        FileNotFoundError, ValueError: it cannot be read, or inputs, outputs, metadata or operations are not those of
            `artifact`.
    """
    report = inspect_for_neural_engine(load_program(package))
    spec = ct.models.MLModel(str(package), skip_model_load=True).get_spec()
    (taken,) = spec.description.input
    is_image = artifact.input.dtype == "uint8"
    kind = "imageType" if is_image else "multiArrayType"
    _expect(package, "input", (taken.name, taken.type.WhichOneof("Type")), (artifact.input.name, kind))
    if is_image:
        found = (taken.type.imageType.height, taken.type.imageType.width)
        _expect(package, "input size", found, artifact.input_size_px)
    outputs = [output.name for output in spec.description.output]
    _expect(package, "outputs", sorted(outputs), sorted(output.name for output in artifact.outputs))
    metadata = dict(spec.description.metadata.userDefined)
    for name, value in artifact.summary().items():
        _expect(package, f"metadata {name}", metadata.get(name), value)
    _expect(package, "normalisations", [name for name in _NOT_FUSED if name in report.operations], [])
    witnesses = WITNESS.get(artifact.precision, ())
    if witnesses and not any(name in report.operations for name in witnesses):
        raise ValueError(f"{package}: {artifact.precision}: found no {' or '.join(witnesses)}, expected at least one: "
                         f"nothing was compressed, the weights are too few; use fp16")  # fmt: skip
    return report


def program_predictor(program: MilProgram, artifact: Artifact) -> Predictor:
    """The program as a function from what it takes to its outputs by name, in fp32 or emulated fp16 as declared.

    w8a8 is run in fp32: coremltools scales its quantized additions for a backend that fuses them into one operation;
    between the operations of an emulation they overflow fp16.
    """
    precision: Literal["fp32", "fp16"] = "fp32" if artifact.precision in ("fp32", "w8a8") else "fp16"
    if artifact.input.dtype == "uint8":
        return lambda image: run_program(program, image, precision=precision)
    return lambda tokens: run_program(program, {artifact.input.name: tokens}, precision=precision)


def _measure_cost(prepared: Prepared, artifact: Artifact, predictor: Predictor, allow_drop: bool) -> dict[str, float]:
    """What the precision costs on held-out images.

    Raises:
        ValueError: more than is tolerated, and `allow_drop` is off.
    """
    cost = cost_function(prepared, lambda image: predict(prepared.network, image, prepared.outputs), MAX_EVALUATED)
    figures = cost(predictor)
    if (reason := excess(figures)) and not allow_drop:
        raise ValueError(f"{prepared.run.folder}: {artifact.precision}: {reason}; the artifact was not written. "
                         f"Choose more bits, or pass --allow-accuracy-drop")  # fmt: skip
    return figures


def _expect(package: Path, field: str, found: Any, expected: Any) -> None:
    if found != expected:
        raise ValueError(f"{package}: {field}: found {found}, expected {expected}; the conversion is wrong")
