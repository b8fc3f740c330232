"""The mmsegmentation plug-in: `custom_imports=dict(imports=["mobileclip_dense.dense"])` in any mmseg config."""

from mobileclip_dense.dense import mmcv_compat

mmcv_compat.install()  # before anything imports mmseg

from mobileclip_dense.dense import (  # noqa: E402
    backbone,
    checkpoint,
    deconvolution,
    depth,
    fpn_lite,
    layer_decay,
    linear_probe,
)

__all__ = ["backbone", "checkpoint", "deconvolution", "depth", "fpn_lite", "layer_decay", "linear_probe"]
