"""The layout of the user's own segmentation data: ADE20K's folders without its class file.

Masks hold class indices from 0; 255 is ignored. The user's own depth data has mmsegmentation's layout of NYUv2, see
`NYU_FOLDER`.
"""

from pathlib import Path

from mobileclip_dense.data.labelled.labelled_set import LabelledSet, Layout
from mobileclip_dense.data.labelled.pairs import pair_splits


def _find(root: Path) -> LabelledSet | None:
    train, val = pair_splits(root, "training", "validation")
    return LabelledSet(train=train, val=val) if train or val else None


OWN_SEGMENTATION = Layout(
    name="folder of your own",
    task="segment",
    recognised_by="images/{training,validation} and annotations/{training,validation}",
    find=_find,
)
