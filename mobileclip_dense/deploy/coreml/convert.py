"""Conversion of a fused network to a Core ML program, by coremltools."""

import warnings
from typing import Any

import coremltools as ct
import numpy as np
import torch
from coremltools.converters.mil.frontend.torch import ops
from coremltools.converters.mil.mil.passes import pass_pipeline

from mobileclip_dense.artifact.artifact import Artifact
from mobileclip_dense.artifact.precision import find_precision
from mobileclip_dense.config.export import System
from mobileclip_dense.deploy.prepared import Prepared
from mobileclip_dense.pages.progress import hide_bars_in_logs

hide_bars_in_logs(ops, "_tqdm")
hide_bars_in_logs(pass_pipeline)

_SYSTEMS = {"ios15": ct.target.iOS15, "ios16": ct.target.iOS16, "ios17": ct.target.iOS17, "ios18": ct.target.iOS18}


def convert_network(prepared: Prepared, artifact: Artifact, system: System) -> ct.models.MLModel:
    """Convert to an uncompressed ML program, in the full precision (float32 or float16) of the artifact's precision.

    Args:
        prepared: the fused network and its outputs.
        artifact: input and precision.
        system: the oldest system that can load the program.
    """
    shape = artifact.input.shape
    if artifact.input.dtype == "uint8":
        example = torch.zeros(1, 3, *shape[1:3])
        # The network takes RGB in 0..1: Core ML multiplies pixels by `scale`.
        taken: Any = ct.ImageType(name="image", shape=example.shape, scale=1 / 255, color_layout=ct.colorlayout.RGB)
    else:
        example = torch.from_numpy(prepared.golden["input"][:1].astype(np.int32))
        taken = ct.TensorType(name=artifact.input.name, shape=shape, dtype=np.int32)
    full = find_precision("coreml", artifact.precision).full
    precision = ct.precision.FLOAT32 if full == "fp32" else ct.precision.FLOAT16
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)  # coremltools does not know its fused operator
        try:
            traced = torch.jit.trace(prepared.network, example)  # type: ignore[no-untyped-call]
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)
        return ct.convert(
            traced,
            inputs=[taken],
            outputs=[ct.TensorType(name=name) for name in prepared.outputs],
            minimum_deployment_target=_SYSTEMS[system],
            compute_precision=precision,
            convert_to="mlprogram",
            skip_model_load=True,
        )
