"""An mmsegmentation data set of explicit pairs of image and label."""

from typing import Any

from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS


@DATASETS.register_module()
class PairDataset(BaseSegDataset):
    """`dict(type="PairDataset", pairs=[("a.jpg", "a.png")], task="segment", metainfo=..., pipeline=...)`.

    Args:
        pairs: paths of image and label, in the order of the data set.
        task: segment (labels are class indices) or depth (labels are depth maps).
        kwargs: arguments of mmseg's `BaseSegDataset`.
    """

    def __init__(self, pairs: list[tuple[str, str]], task: str, **kwargs: Any):
        self.pairs = pairs
        self.label_key = "seg_map_path" if task == "segment" else "depth_map_path"
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """An entry for each pair, in the form that the transforms of `training.loading` expect."""
        return [{"img_path": image, self.label_key: label, "seg_fields": []} for image, label in self.pairs]
