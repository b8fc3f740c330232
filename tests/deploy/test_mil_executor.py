"""Whole programs: against PyTorch, compressed, and deliberately broken."""

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import coremltools as ct
import coremltools.optimize.coreml as cto
import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder as mb
from coremltools.optimize.coreml import _post_training_quantization as post_training
from mmseg.registry import MODELS
from mmseg.utils import register_all_modules
from scipy.special import logit

from mobileclip_dense.config import FinetuneConfig
from mobileclip_dense.dense.model import model_config
from mobileclip_dense.deploy.coreml.mil.executor import _execute, first_divergence, run_program, value_ranges
from mobileclip_dense.deploy.coreml.mil.operators import OPERATORS
from mobileclip_dense.deploy.coreml.mil.program import load_program
from mobileclip_dense.deploy.networks import DensePredictor, FromPixels
from mobileclip_dense.models.clip import build_clip
from mobileclip_dense.models.reparam import fuse_model
from mobileclip_dense.runtime.parity import relative_error
from tests.deploy.test_mil_operators import build_program, numbers
from tests.models.test_reparam import randomize

IMAGE = np.random.default_rng(0).integers(0, 256, (1, 64, 96, 3), dtype=np.uint8)
TARGETS = {"iOS15": ct.target.iOS15, "iOS16": ct.target.iOS16, "iOS17": ct.target.iOS17, "iOS18": ct.target.iOS18}


class Models:
    """Untrained nano models with random norms, PyTorch's outputs for IMAGE, and their packages."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.predictors: dict[str, DensePredictor] = {}
        self.answers: dict[str, dict[str, Any]] = {}
        register_all_modules()
        for task in ("segment", "depth"):
            config = FinetuneConfig(
                data=folder, out=folder, task=task, encoder="nano", neck_channels=32, head_channels=16
            )
            torch.manual_seed(0)
            model = randomize(MODELS.build(model_config(config, 8)))
            self.predictors[task] = DensePredictor(fuse_model(model), model.backbone.encoder.normalization, task).eval()
            with torch.no_grad():
                outputs = FromPixels(self.predictors[task])(torch.from_numpy(IMAGE))
            names = ("logits", "class_map") if task == "segment" else ("depth_m",)
            self.answers[task] = {name: output.numpy() for name, output in zip(names, outputs, strict=True)}

    def package(self, task: str, precision: str, target: str) -> Path:
        path = self.folder / f"{task}-{precision}-{target}.mlpackage"
        if not path.exists():
            image = ct.ImageType(name="image", shape=(1, 3, *IMAGE.shape[1:3]), scale=1 / 255)
            outputs = [ct.TensorType(name=name) for name in self.answers[task]]
            convert(self.predictors[task], torch.zeros(image.shape.shape), [image], path, precision=precision,
                    target=target, outputs=outputs)  # fmt: skip
        return path


def convert(
    module: torch.nn.Module, example: torch.Tensor, inputs: list[Any], path: Path, *, precision: str = "fp32",
    target: str = "iOS16", outputs: list[Any] | None = None,
) -> None:  # fmt: skip
    traced = torch.jit.trace(module, example, check_trace=False)
    kind = ct.precision.FLOAT32 if precision == "fp32" else ct.precision.FLOAT16
    gc.freeze()  # as in build_program
    ct.convert(traced, inputs=inputs, outputs=outputs, minimum_deployment_target=TARGETS[target],
               compute_precision=kind, convert_to="mlprogram", skip_model_load=True).save(str(path))  # fmt: skip
    gc.unfreeze()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(tmp_path_factory.mktemp("mil"))


@pytest.mark.parametrize(
    ("task", "target"),
    [("segment", "iOS15"), ("segment", "iOS16"), ("segment", "iOS17"), ("segment", "iOS18"), ("depth", "iOS16")],
)
def test_a_float32_program_gives_what_pytorch_gives(task: str, target: str, models: Models) -> None:
    program = load_program(models.package(task, "fp32", target))
    found, expected = run_program(program, IMAGE, precision="fp32"), models.answers[task]
    assert {name: array.dtype for name, array in found.items()} == {n: a.dtype for n, a in expected.items()}
    first = next(iter(expected))
    assert relative_error(found[first], expected[first]) <= 1e-5
    if task == "segment":
        assert (found["class_map"] == expected["class_map"]).mean() >= 0.999
    kinds = {operation.op_type for operation in program.function.operations}
    assert {"matmul", "softmax"} <= kinds
    assert "scaled_dot_product_attention" not in kinds  # FusedAttention spells it out


@pytest.mark.parametrize(("task", "target"), [("segment", "iOS16"), ("segment", "iOS18"), ("depth", "iOS17")])
def test_a_float16_program_is_near_and_its_emulation_rounds(task: str, target: str, models: Models) -> None:
    program = load_program(models.package(task, "fp16", target))
    first, expected = next(iter(models.answers[task].items()))
    single, half = (run_program(program, IMAGE, precision=precision)[first] for precision in ("fp32", "fp16"))
    assert 1e-5 < relative_error(single, expected) < relative_error(half, expected) <= 2e-2
    assert np.array_equal(half, half.astype(np.float16))
    assert not np.array_equal(single, single.astype(np.float16))


COMPRESSIONS: dict[str, tuple[str, Callable[[Any], Any], Any, str]] = {
    **{f"palette of {bits} bits, {target}": (target, cto.palettize_weights, cto.OpPalettizerConfig(
        mode="uniform", nbits=bits, weight_threshold=2048), "constexpr_lut_to_dense")
       for bits, target in ((8, "iOS16"), (6, "iOS16"), (4, "iOS16"), (6, "iOS18"))},
    "palettes by group": ("iOS18", cto.palettize_weights, cto.OpPalettizerConfig(
        mode="uniform", nbits=4, granularity="per_grouped_channel", group_size=16, weight_threshold=2048),
        "constexpr_lut_to_dense"),
    "int8, iOS16": ("iOS16", cto.linear_quantize_weights, cto.OpLinearQuantizerConfig(
        mode="linear_symmetric", dtype="int8", weight_threshold=2048), "constexpr_affine_dequantize"),
    "int8, iOS18": ("iOS18", cto.linear_quantize_weights, cto.OpLinearQuantizerConfig(
        mode="linear_symmetric", dtype="int8", weight_threshold=2048), "constexpr_blockwise_shift_scale"),
    "int4 in blocks": ("iOS18", cto.linear_quantize_weights, cto.OpLinearQuantizerConfig(
        mode="linear_symmetric", dtype="int4", granularity="per_block", block_size=16, weight_threshold=2048),
        "constexpr_blockwise_shift_scale"),
}  # fmt: skip


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_compressed_weights_act_as_their_decompressed_form(name: str, models: Models, tmp_path: Path) -> None:
    target, compress, config, operator = COMPRESSIONS[name]
    package = models.package("segment", "fp16", target)
    gc.freeze()
    compressed = compress(ct.models.MLModel(str(package), skip_model_load=True), cto.OptimizationConfig(config))
    compressed.save(str(tmp_path / "compressed.mlpackage"))
    cto.decompress_weights(compressed).save(str(tmp_path / "dense.mlpackage"))
    gc.unfreeze()
    programs = [load_program(tmp_path / f"{form}.mlpackage") for form in ("compressed", "dense")]
    counts = [sum(op.op_type == operator for op in program.function.operations) for program in programs]
    assert counts[0] > 15
    assert counts[1] == 0
    few, dense = (run_program(program, IMAGE, precision="fp32")["logits"] for program in programs)
    assert relative_error(few, dense) <= 1e-5
    assert relative_error(few, models.answers["segment"]["logits"]) > 2e-3  # it was lossy


def test_quantized_activations_run_in_the_form_that_coremltools_writes(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """coremltools' calibration needs Core ML on a Mac; here the executor provides the ranges."""
    package = models.package("depth", "fp16", "iOS17")
    ranges = {
        variable.name: {"rmin": float(value.min()), "rmax": float(value.max())}
        for operation, outputs in _execute(load_program(package), IMAGE, "fp32")
        for variable, value in zip(operation.outputs, outputs, strict=True)
    }
    monkeypatch.setattr(post_training, "_get_activation_calibration_stats", lambda *_: ranges)
    settings = cto.OptimizationConfig(cto.experimental.OpActivationLinearQuantizerConfig(mode="linear_symmetric"))
    model = ct.models.MLModel(str(package), skip_model_load=True)
    post_training.linear_quantize_activations(model, settings, [{}]).save(str(tmp_path / "a8.mlpackage"))
    program = load_program(tmp_path / "a8.mlpackage")
    assert {"quantize", "dequantize"} <= {operation.op_type for operation in program.function.operations}
    depth = run_program(program, IMAGE, precision="fp32")["depth_m"]
    assert 1e-3 < relative_error(depth, models.answers["depth"]["depth_m"]) < 0.25


WRONG: dict[str, tuple[str, Callable[..., torch.Tensor]]] = {
    "another scale": ("matmul", lambda **operands: MATMUL(**operands) * 1.1),
    "tanh instead of erf": ("gelu", lambda *, x, mode: torch.nn.functional.gelu(x, approximate="tanh")),
    "softmax over queries": ("softmax", lambda *, x, axis: x.softmax(-2)),
    "corners aligned": ("upsample_bilinear", lambda *, x, align_corners, **rest: OPERATORS["resize_bilinear"](
        x=x, target_size_height=int(rest["scale_factor_height"] * x.shape[2]),
        target_size_width=int(rest["scale_factor_width"] * x.shape[3]), sampling_mode="STRICT_ALIGN_CORNERS")),
    "sum instead of mean": ("reduce_mean", lambda *, x, keep_dims, axes: x.sum(axes.tolist(), keepdim=True)),
    "no bias": ("conv", lambda *, bias, **rest: CONV(**rest)),
}  # fmt: skip
CONV, MATMUL = OPERATORS["conv"], OPERATORS["matmul"]


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_operator_is_noticed_against_pytorch(
    name: str, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = load_program(models.package("depth", "fp32", "iOS16"))
    monkeypatch.setitem(OPERATORS, *WRONG[name])
    found = run_program(program, IMAGE, precision="fp32")["depth_m"]
    expected = models.answers["depth"]["depth_m"]
    assert relative_error(logit(found / 10), logit(expected / 10)) > 1e-4  # what the sigmoid hides


@pytest.mark.parametrize("target", ["iOS16", "iOS18"])
@pytest.mark.parametrize("tower", ["image", "text"])
def test_both_towers_of_clip_give_pytorchs_embeddings(tower: str, target: str, tmp_path: Path) -> None:
    clip, tokenizer, _ = build_clip("nano", 64)
    clip = fuse_model(randomize(clip)).eval()

    class Tower(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            embedding: torch.Tensor = clip.encode_text(x) if tower == "text" else clip.encode_image(x)
            return torch.nn.functional.normalize(embedding, dim=-1)

    example = tokenizer(["a red cube on a table"]).int() if tower == "text" else torch.rand(1, 3, 64, 64)
    kind = np.int32 if tower == "text" else np.float32
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # a fused operator that coremltools does not know
    with torch.no_grad():
        convert(Tower(), example, [ct.TensorType(name="x", shape=example.shape, dtype=kind)],
                tmp_path / "tower.mlpackage", target=target)  # fmt: skip
        expected = Tower()(example).numpy()
    torch.backends.mha.set_fastpath_enabled(fast)
    program = load_program(tmp_path / "tower.mlpackage")
    (found,) = run_program(program, {"x": example.numpy()}, precision="fp32").values()
    assert relative_error(found, expected) <= 1e-4


@pytest.mark.parametrize(("layout", "order"), [(ct.colorlayout.RGB, [0, 1, 2]), (ct.colorlayout.BGR, [2, 1, 0])])
def test_an_image_arrives_in_the_programs_colours_scaled_and_shifted(
    layout: Any, order: list[int], tmp_path: Path
) -> None:
    image = ct.ImageType(name="image", shape=(1, 3, 4, 5), scale=0.5, bias=[1.0, -2.0, 3.0], color_layout=layout)
    convert(torch.nn.Hardtanh(-1000.0, 1000.0), torch.zeros(1, 3, 4, 5), [image], tmp_path / "m.mlpackage")
    pixels = IMAGE[:, :4, :5]
    (found,) = run_program(load_program(tmp_path / "m.mlpackage"), pixels, precision="fp32").values()
    for channel, source in enumerate(order):
        expected = pixels[..., source] * 0.5 + [1.0, -2.0, 3.0][channel]
        np.testing.assert_allclose(found[:, channel], expected, rtol=1e-6)


def squares(x: Any) -> Any:
    """In fp16, 300 squared is above the maximum of 65504, but its root is not."""
    half = mb.cast(x=x, dtype="fp16", name="half")
    doubled = mb.mul(x=half, y=np.float16(2), name="doubled")
    squared = mb.mul(x=doubled, y=doubled, name="squared")
    return mb.cast(x=mb.sqrt(x=squared, name="root"), dtype="fp32", name="single")


def test_the_operator_that_overflows_in_fp16_is_found(tmp_path: Path) -> None:
    x = np.float32([1.0, 30.0, 150.0])
    program = build_program(tmp_path, squares, [x])
    found = first_divergence(program, {"x": x}, 1e-2)
    assert found is not None
    assert (found.output, found.operator, found.largest_magnitude) == ("squared", "mul", 90000)
    assert not np.isfinite(found.relative_error)
    assert run_program(program, {"x": x}, precision="fp16")["single"].tolist() == [2, 60, np.inf]
    assert run_program(program, {"x": x}, precision="fp32")["single"].tolist() == [2, 60, 300]
    assert first_divergence(program, {"x": x / 2}, 1e-2) is None


def test_value_ranges_hold_over_all_images(models: Models) -> None:
    program = load_program(models.package("segment", "fp32", "iOS16"))
    dark = IMAGE // 2
    ranges = value_ranges(program, np.concatenate([IMAGE, dark]))
    assert ranges["image"] == (0, 255)
    logits = [run_program(program, image, precision="fp32")["logits"] for image in (IMAGE, dark)]
    assert ranges["logits"] == (min(float(x.min()) for x in logits), max(float(x.max()) for x in logits))


def test_a_tight_bound_finds_rounding_in_program_order(models: Models) -> None:
    program = load_program(models.package("segment", "fp16", "iOS16"))
    found = first_divergence(program, IMAGE, 1e-6)
    assert found is not None
    assert found.operator == "cast"  # of the scaled image, the first rounding there is
    assert first_divergence(program, IMAGE, 0.1) is None


def test_values_are_dropped_after_their_last_use(tmp_path: Path) -> None:
    def chain(x: Any) -> Any:
        for _ in range(20):
            x = mb.sqrt(x=x)
        return x

    x, alive, most = numbers(3) ** 2, weakref.WeakSet[torch.Tensor](), 0
    for _, outputs in _execute(build_program(tmp_path, chain, [x]), {"x": x}, "fp32"):
        alive.update(outputs)
        most = max(most, len(alive))
    assert most <= 3


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (IMAGE[:, :32], r"input image: found shape \(1, 3, 32, 96\), expected \(1, 3, 64, 96\)"),
        (IMAGE.astype(np.float32), r"input image: found float32 .*, expected uint8 \[1,H,W,3\] RGB"),
        (IMAGE[0], r"input image: found uint8 \(64, 96, 3\), expected uint8"),
        ({"picture": IMAGE}, r"inputs: found \['picture'\], expected \['image'\]"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(inputs: Any, message: str, models: Models) -> None:
    with pytest.raises(ValueError, match=message):
        run_program(load_program(models.package("depth", "fp32", "iOS16")), inputs, precision="fp32")
