"""Every output of an artifact is compared with PyTorch: by export and verify, in ONNX and in Core ML."""

import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch

import mobileclip_dense.deploy.coreml.mil.operators
from mobileclip_dense.artifact.artifact import Artifact, TensorSpec, load_artifact, save_artifact
from mobileclip_dense.artifact.precision import PRECISIONS
from mobileclip_dense.config.export import ToCoreMLConfig, ToOnnxConfig, VerifyConfig
from mobileclip_dense.deploy.coreml.exporter import to_coreml
from mobileclip_dense.deploy.networks import FromPixels
from mobileclip_dense.deploy.onnx.exporter import to_onnx
from mobileclip_dense.deploy.prepare import prepare
from mobileclip_dense.deploy.verify import verify
from mobileclip_dense.runtime.parity import compare_with_golden, judge_outputs, logits_agreement_percent
from tests.conftest import Line

HERE = Path("here")


def artifact_of(precision: str, *outputs: tuple[str, npt.NDArray[np.generic]], runtime: str = "onnx") -> Artifact:
    specs = tuple(TensorSpec(name=name, shape=(1, *v.shape[1:]), dtype=str(v.dtype), meaning="") for name, v in outputs)
    return Artifact(
        name="a", runtime=runtime, precision=precision, task="segment", outputs=specs, preprocessing="",
        input=TensorSpec(name="image", shape=(1, 8, 8, 3), dtype="uint8", meaning=""), class_names=("a", "b", "c"),
        palette=(), architecture="nano-semantic_fpn", max_depth_m=None, logit_scale=None, num_parameters=1,
        parity={}, parent={}, versions={}, licence="",
    )  # fmt: skip


def segmentation(seed: int = 0) -> dict[str, npt.NDArray[np.generic]]:
    """Clear logits of 5 classes for two examples, and their class map."""
    logits = torch.randn(2, 5, 8, 8, generator=torch.Generator().manual_seed(seed))
    full = torch.nn.functional.interpolate(logits, (32, 32), mode="bilinear", align_corners=False)
    return {"logits": logits.numpy(), "class_map": full.argmax(1).to(torch.int32).numpy()}


def segmenter(precision: str) -> Artifact:
    runtime = "onnx" if ("onnx", precision) in PRECISIONS else "coreml"
    return artifact_of(precision, *segmentation().items(), runtime=runtime)


def with_wrong_pixels(class_map: npt.NDArray[np.generic], share: float) -> npt.NDArray[np.generic]:
    wrong = class_map.copy()
    wrong.reshape(-1)[: round(share * wrong.size)] = (wrong.reshape(-1)[: round(share * wrong.size)] + 1) % 5
    return wrong


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "w8", "p4"])
def test_what_pytorch_gave_passes_in_every_precision(precision: str) -> None:
    figures = judge_outputs(HERE, segmenter(precision), segmentation(), segmentation())
    assert figures[f"{precision}_relative_error"] == 0
    assert figures["golden_agreement_percent"] == figures["logits_agreement_percent"] == 100


@pytest.mark.parametrize(
    ("precision", "share", "words"),
    [
        ("fp32", 0.002, "class_map: found PyTorch's class in 99.80 % of the pixels, expected at least 99.9 %"),
        ("fp16", 0.02, "class_map: found PyTorch's class in 98.00 % of the pixels, expected at least 99 %"),
        # int8 may change the class map, but here its logits did not change.
        ("fp16", 0.005, r"class_map: found the best class of its logits in 99\.5. % of the pixels"),
        ("int8", 0.02, r"class_map: found the best class of its logits in 98\.0. % of the pixels, expected at least"),
        ("w8a8", 0.3, "class_map: found the best class of its logits in 70"),
        ("int8", 0.5625, "class_map: found PyTorch's class in 43.75 % of the pixels, expected at least 50 %"),
    ],
)
def test_too_many_wrong_classes_are_refused(precision: str, share: float, words: str) -> None:
    golden = segmentation()
    found = golden | {"class_map": with_wrong_pixels(golden["class_map"], share)}
    with pytest.raises(ValueError, match=f"here: (onnx|coreml) {precision}: {words}"):
        judge_outputs(HERE, segmenter(precision), golden, found)


@pytest.mark.parametrize("change", ["argmin", "shifted", "turned", "off by one", "nearest", "out of range", "negative"])
def test_a_class_map_that_is_not_what_its_logits_say_does_not_agree(change: str) -> None:
    golden = segmentation()
    logits, classes = golden["logits"], golden["class_map"]
    full = torch.nn.functional.interpolate(torch.from_numpy(logits), (32, 32), mode="bilinear", align_corners=False)
    wrong = {
        "argmin": full.argmin(1).numpy(), "shifted": np.roll(classes, 4, 2), "turned": classes.transpose(0, 2, 1),
        "off by one": (classes + 1) % 5, "nearest": logits.argmax(1).repeat(4, 1).repeat(4, 2),
        "out of range": np.where(classes == 4, 5, classes), "negative": np.where(classes == 0, -1, classes),
    }  # fmt: skip
    assert logits_agreement_percent(logits, wrong[change]) < 99.9
    assert logits_agreement_percent(logits, classes) == 100


def test_near_ties_may_go_either_way() -> None:
    """An fp16 graph rounds both scores to the same number, and takes the first."""
    logits = np.zeros((1, 2, 4, 4), np.float32)
    logits[:, 0], logits[:, 1] = 8.0, 8.003
    assert logits_agreement_percent(logits, np.zeros((1, 16, 16), np.int32)) == 100
    logits[:, 1] = 8.3
    assert logits_agreement_percent(logits, np.zeros((1, 16, 16), np.int32)) == 0


def test_a_second_output_of_floats_is_judged_as_the_first() -> None:
    golden = {"depth_m": np.ones((2, 4, 4), np.float32), "confidence": np.ones((2, 4, 4), np.float32)}
    artifact = artifact_of("fp32", *golden.items())
    assert judge_outputs(HERE, artifact, golden, golden) == {"fp32_relative_error": 0, "confidence_relative_error": 0}
    for wrong in (1.001, np.nan, np.inf):
        found = golden | {"confidence": np.full((2, 4, 4), wrong, np.float32)}
        with pytest.raises(ValueError, match=r"here: onnx fp32: confidence: relative error .* at most 1e-04"):
            judge_outputs(HERE, artifact, golden, found)


def test_missing_outputs_other_shapes_and_no_examples_are_named() -> None:
    golden, artifact = segmentation(), segmenter("fp32")
    logits = {"logits": golden["logits"]}
    with pytest.raises(ValueError, match=r"class_map: found no such output in the model, expected it"):
        judge_outputs(HERE, artifact, golden, logits)
    with pytest.raises(ValueError, match=r"class_map: found no such output in golden\.npz, expected it"):
        judge_outputs(HERE, artifact, logits, golden)
    with pytest.raises(ValueError, match=r"logits: found float32 \[1, 5, 8, 8\], expected float32 \[2, 5, 8, 8\]"):
        judge_outputs(HERE, artifact, golden, golden | {"logits": golden["logits"][:1]})
    with pytest.raises(ValueError, match=r"class_map: found float32 .*, expected int32"):
        judge_outputs(HERE, artifact, golden, golden | {"class_map": golden["class_map"].astype(np.float32)})
    for empty in ({}, {"input": np.zeros((0, 8, 8, 3), np.uint8)}):
        with pytest.raises(ValueError, match=r"golden\.npz: input: found no example, expected at least one"):
            compare_with_golden(HERE, artifact, golden | empty, lambda _: golden)


def altered(line: Line, kind: str, folder: Path) -> Path:
    """A copy of a segmentation artifact with ArgMin instead of ArgMax, with valid hashes and correct logits."""
    shutil.copytree(line.artifact("segment", kind), folder)
    model = onnx.load(folder / "model.onnx")
    (node,) = (node for node in model.graph.node if node.op_type == "ArgMax")
    node.op_type = "ArgMin"
    onnx.save(model, folder / "model.onnx")
    save_artifact(load_artifact(line.artifact("segment", kind)), folder)
    return folder


@pytest.mark.parametrize("kind", ["fp32.onnx", "int8.onnx"])
def test_verify_refuses_a_wrong_class_map_of_right_logits(line: Line, tmp_path: Path, kind: str) -> None:
    with pytest.raises(ValueError, match=r"class_map: found PyTorch's class in \d+\.\d\d % of the pixels, expected"):
        verify(VerifyConfig(artifact=altered(line, kind, tmp_path / "wrong")))


def test_verify_refuses_a_wrong_class_map_of_a_core_ml_program(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    right = mobileclip_dense.deploy.coreml.mil.operators.OPERATORS["reduce_argmax"]

    def wrong(*, x: torch.Tensor, **settings: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = right(x=-x, **settings)
        return answer

    wrong.__signature__ = __import__("inspect").signature(right)  # type: ignore[attr-defined]
    monkeypatch.setitem(mobileclip_dense.deploy.coreml.mil.operators.OPERATORS, "reduce_argmax", wrong)
    with pytest.raises(ValueError, match="coreml fp16: class_map: found PyTorch's class in"):
        verify(VerifyConfig(artifact=line.artifact("segment", "fp16.coreml")))
    assert not list(line.root.glob("other*"))
    with pytest.raises(ValueError, match="coreml fp32: class_map: found PyTorch's class in"):
        to_coreml(ToCoreMLConfig(run=line.run("segment"), out=line.root / "other"))
    assert not (line.root / "other").exists()


class OtherClasses(FromPixels):
    """Only the class map is wrong."""

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        logits, class_map = super().forward(image)
        return logits, class_map + 1


class OtherClassesWhereLarger(FromPixels):
    """Only the class map is wrong, and only for images higher than the traced one."""

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        logits, class_map = super().forward(image)
        return logits, class_map + image.shape[1] // 96


@pytest.mark.parametrize(
    ("network", "flexible", "words"),
    [
        (OtherClasses, "none", "class_map: found"),
        (OtherClassesWhereLarger, "size", "class_map at another shape: found"),
    ],
)
def test_an_export_with_a_wrong_class_map_is_not_written(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: type, flexible: str, words: str
) -> None:
    prepared = prepare(line.run("segment"), None)
    monkeypatch.setattr("mobileclip_dense.deploy.onnx.graph.FromPixels", network)
    monkeypatch.setattr("mobileclip_dense.deploy.driver.prepare", lambda *_: prepared)
    with pytest.raises(ValueError, match=f"onnx fp32: {words} PyTorch's class in"):
        to_onnx(ToOnnxConfig(run=line.run("segment"), out=tmp_path, flexible=flexible))  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
