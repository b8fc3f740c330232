"""Smaller Core ML programs through coremltools.optimize: palettes, int8 weights, int8 weights and activations."""

import logging
from pathlib import Path
from tempfile import TemporaryDirectory

import coremltools as ct
import coremltools.optimize.coreml as cto
import numpy as np
import numpy.typing as npt
from coremltools.converters.mil.frontend.milproto import load as milproto
from coremltools.converters.mil.mil.passes.graph_pass import PassOption
from coremltools.converters.mil.mil.passes.pass_registry import PASS_REGISTRY
from coremltools.models.utils import _apply_graph_pass

from mobileclip_dense.deploy.coreml.mil.executor import value_ranges
from mobileclip_dense.deploy.coreml.mil.program import load_program

# What a program of each precision must hold, or nothing was compressed: constexpr operators by name.
WITNESS = {
    "w8": ("constexpr_affine_dequantize", "constexpr_blockwise_shift_scale"),
    "p8": ("constexpr_lut_to_dense",), "p6": ("constexpr_lut_to_dense",), "p4": ("constexpr_lut_to_dense",),
    "w8a8": ("quantize",),
}  # fmt: skip


def compress(model: ct.models.MLModel, precision: str, images: npt.NDArray[np.uint8]) -> ct.models.MLModel:
    """A compressed version of an fp16 program.

    Args:
        precision: p8, p6, p4: each weight tensor's values replaced by 256, 64 or 16 of their k-means centres; w8: int8
            weights, symmetric, per channel; w8a8: w8, and int8 activations around convolutions, linear layers and
            additions. fp16 and fp32 give the model as it is.
        images: calibration images of w8a8, uint8 [N,H,W,3].
    """
    if precision in ("fp16", "fp32"):
        return model
    logging.getLogger("coremltools").setLevel(logging.ERROR)
    if precision.startswith("p"):
        # From 10 000 values on coremltools clusters exactly (kmeans1d); below that it would need scikit-learn, and
        # there is little to save.
        palette = cto.OpPalettizerConfig(mode="kmeans", nbits=int(precision[1:]), weight_threshold=10_000)
        return cto.palettize_weights(model, cto.OptimizationConfig(global_config=palette))
    linear = cto.OpLinearQuantizerConfig(mode="linear_symmetric")
    if precision == "w8a8":
        model = _quantize_activations(model, cto.OptimizationConfig(global_config=linear), images)
    return cto.linear_quantize_weights(model, cto.OptimizationConfig(global_config=linear))


def _quantize_activations(
    model: ct.models.MLModel, config: cto.OptimizationConfig, images: npt.NDArray[np.uint8]
) -> ct.models.MLModel:
    """What coremltools' linear_quantize_activations does, with ranges measured here.

    Its own calibration calls Core ML, which only a Mac has. These ranges come from the MIL executor; the graph passes
    are coremltools' own.
    """
    with TemporaryDirectory() as scratch:
        package = Path(scratch) / "float.mlpackage"
        model.save(str(package))
        program = load_program(package)
    statistics = {name: {"rmin": low, "rmax": high} for name, (low, high) in value_ranges(program, images).items()}
    # coremltools 9.0 cannot quantize an operation whose result is an output of the program: that one stays float.
    for output in program.function.outputs:
        config.set_op_name(output.op.name, None)
    passes = [PASS_REGISTRY[f"compression::insert_{place}_quantize_dequantize_pair"] for place in ("prefix", "suffix")]
    for graph_pass in passes:
        graph_pass.set_options([PassOption("config", config), PassOption("activation_stats", statistics)])
    passes.append(PASS_REGISTRY["common::dequantize_quantize_pair_elimination"])
    return _apply_graph_pass(
        model, passes, spec_version=ct.target.iOS17.value, pymil_load_func=milproto.load, skip_model_load=True
    )
