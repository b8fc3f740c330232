"""Loading transforms for mmsegmentation's pipelines. They read files exactly as the scan of the data does.

mmsegmentation's own loaders use OpenCV and Pillow directly and accept different files than `labelled.scan`.
"""

from pathlib import Path
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS

from mobileclip_dense.artifact.images import load_image
from mobileclip_dense.artifact.palette import IGNORE_INDEX
from mobileclip_dense.data.labelled.annotations import read_class_labels, read_depth_m


@TRANSFORMS.register_module()
class LoadImage(BaseTransform):
    """`img_path` -> `img` uint8 [H,W,3] in BGR (as in mmcv), `img_shape` and `ori_shape`."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Raises FileNotFoundError, ValueError: see `load_image`."""
        image = np.ascontiguousarray(load_image(Path(results["img_path"]))[..., ::-1])
        return results | {"img": image, "img_shape": image.shape[:2], "ori_shape": image.shape[:2]}


@TRANSFORMS.register_module()
class LoadClassLabels(BaseTransform):
    """`seg_map_path` -> `gt_seg_map` uint8 [H,W], IGNORE_INDEX for unlabelled pixels.

    Args:
        reduce_zero_label, ignored_label: see `read_class_labels`.
    """

    def __init__(self, reduce_zero_label: bool = False, ignored_label: int = IGNORE_INDEX):
        self.reduce_zero_label, self.ignored_label = reduce_zero_label, ignored_label

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Raises UnusableFile: see `read_class_labels`."""
        labels = read_class_labels(Path(results["seg_map_path"]), self.reduce_zero_label, self.ignored_label)
        return results | {"gt_seg_map": labels, "seg_fields": [*results["seg_fields"], "gt_seg_map"]}


@TRANSFORMS.register_module()
class LoadDepth(BaseTransform):
    """`depth_map_path` -> `gt_depth_map` float32 [H,W] in metres, 0 for pixels without a reading.

    Args:
        units_per_m: units of the stored 16-bit values per metre.
    """

    def __init__(self, units_per_m: float = 1000.0):
        self.units_per_m = units_per_m

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Raises UnusableFile: see `read_depth_m`."""
        depth_m = read_depth_m(Path(results["depth_map_path"]), self.units_per_m)
        return results | {"gt_depth_map": depth_m, "seg_fields": [*results["seg_fields"], "gt_depth_map"],
                          "depth_rescale_factor": 1 / self.units_per_m}  # fmt: skip
