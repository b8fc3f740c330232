"""Explicit pairs of image and label as an mmsegmentation data set."""

from typing import Any

from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from mobileclip_dense.contract.palette import IGNORE_INDEX


@DATASETS.register_module()
class PairDataset(BaseSegDataset):
    """`dict(type="PairDataset", pairs=[("a.jpg", "a.png")], task="segment", metainfo=..., pipeline=...)`.

    Args:
        pairs: paths of image and label; the order stays.
        task: segment (labels are class indices) or depth (labels are depth maps).
        ignored_label: the index that means no class, beside IGNORE_INDEX. Further arguments: as for mmseg's
            `BaseSegDataset`.
    """

    def __init__(self, pairs: list[tuple[str, str]], task: str, ignored_label: int = IGNORE_INDEX, **kwargs: Any):
        self.pairs = pairs
        self.label_key = "seg_map_path" if task == "segment" else "depth_map_path"
        self.ignored_label = ignored_label
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """One entry per pair, as mmseg's `LoadAnnotations` and `LoadDepthAnnotation` expect it."""
        ignored = None if self.ignored_label == IGNORE_INDEX else {self.ignored_label: IGNORE_INDEX}
        return [
            {"img_path": image, self.label_key: label, "label_map": ignored,
             "reduce_zero_label": self.reduce_zero_label, "seg_fields": []}
            for image, label in self.pairs
        ]  # fmt: skip
