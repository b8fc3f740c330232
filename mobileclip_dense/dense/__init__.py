"""The mmsegmentation plug-in: `custom_imports=dict(imports=["mobileclip_dense.dense"])` in any mmseg config."""

from mobileclip_dense.dense import mmcv_compat

mmcv_compat.install()  # before anything imports mmseg

from mobileclip_dense.dense import (  # noqa: E402
    backbone,
    checkpoint,
    coco,
    coco_metric,
    dataset,
    deconvolution,
    depth,
    detect,
    fpn_lite,
    layer_decay,
    linear_probe,
    loading,
    metrics,
    resizing,
)

__all__ = [
    "backbone",
    "checkpoint",
    "coco",
    "coco_metric",
    "dataset",
    "deconvolution",
    "depth",
    "detect",
    "fpn_lite",
    "layer_decay",
    "linear_probe",
    "loading",
    "metrics",
    "resizing",
]
