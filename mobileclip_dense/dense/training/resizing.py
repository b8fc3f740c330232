"""A resize transform for mmsegmentation's pipelines that accepts images of any shape."""

from typing import Any

import mmcv
from mmcv.transforms import Resize
from mmseg.registry import TRANSFORMS

_SMALLEST_SIDE_PX = 2  # NumPy counts a mirrored image one pixel wide as contiguous, torch does not


@TRANSFORMS.register_module()
class ResizeAnyShape(Resize):
    """mmcv's `Resize` with `keep_ratio=True` and sides of at least two pixels; mmcv fails for 1x1000 pixels."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Resize the image, and the class labels if they are loaded."""
        height, width = results["img"].shape[:2]
        size = mmcv.rescale_size((width, height), self.scale or self.scale_factor[0])
        results["scale"] = tuple(max(_SMALLEST_SIDE_PX, side) for side in size)
        self._resize_img(results)
        self._resize_seg(results)
        return results
