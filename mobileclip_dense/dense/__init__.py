"""The mmsegmentation plug-in: `custom_imports=dict(imports=["mobileclip_dense.dense"])` in any mmseg config."""

from mobileclip_dense.dense import mmcv_compat

mmcv_compat.install()  # before anything imports mmseg

from mobileclip_dense.dense import backbone, checkpoint, depth, metrics  # noqa: E402

__all__ = ["backbone", "checkpoint", "depth", "metrics"]
