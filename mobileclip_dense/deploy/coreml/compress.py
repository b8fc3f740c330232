"""Compression of Core ML programs by coremltools.optimize: palettes, int8 weights, int8 weights and activations."""

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
from coremltools.optimize.coreml import _post_training_quantization, _quantization_passes

from mobileclip_dense.artifact.precision import Precision
from mobileclip_dense.deploy.coreml.mil.executor import value_ranges
from mobileclip_dense.deploy.coreml.mil.program import load_program
from mobileclip_dense.pages.progress import hide_bars_in_logs

hide_bars_in_logs(_quantization_passes)
hide_bars_in_logs(_post_training_quantization)


def palettize(model: ct.models.MLModel, precision: Precision, images: npt.NDArray[np.uint8]) -> ct.models.MLModel:
    """Replace the values of each weight tensor of an fp16 program by 2^N k-means centres; N is 4 for precision p4."""
    # From 10 000 values, coremltools clusters exactly (kmeans1d). For smaller tensors it would need scikit-learn, and
    # they are too small to matter.
    palette = cto.OpPalettizerConfig(mode="kmeans", nbits=int(precision.name[1:]), weight_threshold=10_000)
    return cto.palettize_weights(model, cto.OptimizationConfig(global_config=palette))


def quantize_weights(
    model: ct.models.MLModel, precision: Precision, images: npt.NDArray[np.uint8]
) -> ct.models.MLModel:
    """Quantize the weights of an fp16 program to int8, symmetric, per channel."""
    return cto.linear_quantize_weights(model, _linear())


def quantize_weights_and_activations(
    model: ct.models.MLModel, precision: Precision, images: npt.NDArray[np.uint8]
) -> ct.models.MLModel:
    """Quantize weights as `quantize_weights` does, and the activations of convolutions, linear layers and additions.

    Args:
        images: calibration images, uint8 [N,H,W,3].
    """
    return cto.linear_quantize_weights(_quantize_activations(model, _linear(), images), _linear())


def _linear() -> cto.OptimizationConfig:
    return cto.OptimizationConfig(global_config=cto.OpLinearQuantizerConfig(mode="linear_symmetric"))


def _quantize_activations(
    model: ct.models.MLModel, config: cto.OptimizationConfig, images: npt.NDArray[np.uint8]
) -> ct.models.MLModel:
    """Quantize activations as coremltools' linear_quantize_activations does, but with ranges from the MIL executor.

    coremltools' own calibration runs Core ML, which is only available on a Mac. The graph passes are coremltools'.
    """
    with TemporaryDirectory() as scratch:
        package = Path(scratch) / "float.mlpackage"
        model.save(str(package))
        program = load_program(package)
    statistics = {name: {"rmin": low, "rmax": high} for name, (low, high) in value_ranges(program, images).items()}
    # coremltools 9.0 cannot quantize an operation that computes an output of the program, so it stays float.
    for output in program.function.outputs:
        config.set_op_name(output.op.name, None)
    passes = [PASS_REGISTRY[f"compression::insert_{place}_quantize_dequantize_pair"] for place in ("prefix", "suffix")]
    for graph_pass in passes:
        graph_pass.set_options([PassOption("config", config), PassOption("activation_stats", statistics)])
    passes.append(PASS_REGISTRY["common::dequantize_quantize_pair_elimination"])
    return _apply_graph_pass(
        model, passes, spec_version=ct.target.iOS17.value, pymil_load_func=milproto.load, skip_model_load=True
    )
