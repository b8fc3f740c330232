"""The mmsegmentation plug-in: `custom_imports=dict(imports=["mobileclip_dense.dense"])` in any mmseg config."""

from mobileclip_dense.dense import mmcv_compat

mmcv_compat.install()  # has to run before mmseg is imported

from mobileclip_dense.dense import backbone, detector  # noqa: E402
from mobileclip_dense.dense.evaluation import coco_metric, metrics  # noqa: E402
from mobileclip_dense.dense.heads import deconvolution, fpn_lite, linear, semantic_fpn  # noqa: E402
from mobileclip_dense.dense.training import checkpoint, coco, dataset, layer_decay, loading, resizing  # noqa: E402

__all__ = [
    "backbone",
    "checkpoint",
    "coco",
    "coco_metric",
    "dataset",
    "deconvolution",
    "detector",
    "fpn_lite",
    "layer_decay",
    "linear",
    "loading",
    "metrics",
    "resizing",
    "semantic_fpn",
]
