"""Registry of the layouts of labelled data sets, and what reads it.

A new layout is one file with a `Layout` and one line in `LAYOUTS`; from outside of the package, one call of
`register_layout`. Fine-tuning, evaluation, export and `mobileclip-dense data check` then know it.
"""

from dataclasses import replace
from pathlib import Path

from mobileclip_dense.artifact.palette import IGNORE_INDEX
from mobileclip_dense.config import Task
from mobileclip_dense.data.labelled.ade20k import ADE20K
from mobileclip_dense.data.labelled.camvid import CAMVID
from mobileclip_dense.data.labelled.class_names import read_class_names
from mobileclip_dense.data.labelled.coco import COCO
from mobileclip_dense.data.labelled.folder import OWN_SEGMENTATION
from mobileclip_dense.data.labelled.labelled_set import LabelledSet, Layout
from mobileclip_dense.data.labelled.nyu import NYU_FOLDER, NYU_MAT, NYU_SPLIT_FILES, NYU_SYNCHRONIZED
from mobileclip_dense.data.labelled.voc import VOC

LAYOUTS: list[Layout] = [
    ADE20K,
    OWN_SEGMENTATION,
    CAMVID,
    VOC,
    NYU_SPLIT_FILES,
    NYU_FOLDER,
    NYU_SYNCHRONIZED,
    NYU_MAT,
    COCO,
]
"""All layouts. The first that a folder has is taken, so those that ask for more come before those that ask for less."""


def register_layout(layout: Layout) -> None:
    """Add a layout, in front of the others: it may ask for more than a folder of your own does.

    Raises:
        ValueError: there is a layout of that name.
    """
    if any(layout.name == known.name for known in LAYOUTS):
        raise ValueError(f"layout: found {layout.name!r} twice, expected a name of its own")
    LAYOUTS.insert(0, layout)


def layouts_of(data_set: str) -> list[Layout]:
    """The forms in which a data set is published; none for a name that is not known."""
    return [layout for layout in LAYOUTS if layout.data_set == data_set]


def published_names() -> list[str]:
    """The data sets that are published in a known layout, by NAME of `mobileclip-dense data check`."""
    return list(dict.fromkeys(layout.data_set for layout in LAYOUTS if layout.data_set is not None))


def find_set(root: Path, task: Task, class_names: Path | None = None) -> LabelledSet:
    """The labelled set at `root`, or in a folder of it to which a published archive unpacks; images stay unread.

    `train` or `val` may be empty. The labelled .mat file of NYUv2 is unpacked the first time.

    Args:
        class_names: a file of `read_class_names`, in place of the folder's own names.

    Raises:
        FileNotFoundError: no such folder, or none of the layouts; the message lists what was looked for.
        ValueError: a list of files or names cannot be read.
    """
    if task == "detect":
        raise ValueError(f"{root}: --data: found task {task}, expected one with a label for each pixel")
    if not root.exists():
        raise FileNotFoundError(f"{root}: --data: no such file or folder")
    layouts = [layout for layout in LAYOUTS if layout.task == task]
    unpacked = [name for layout in LAYOUTS for name in layout.unpacked_folders]
    for folder in (root, *(root / name for name in unpacked)):
        for layout in layouts:
            found = layout.find(folder) if layout.find is not None else None
            if found is not None:
                found = replace(found, layout=layout.name)
                return found if class_names is None else _renamed(found, class_names)
    present = ", ".join(sorted(path.name for path in root.iterdir())[:10]) if root.is_dir() else "a file"
    expected = "; ".join(f"{layout.name}: {layout.recognised_by}" for layout in layouts)
    raise FileNotFoundError(
        f"{root}: --data: found {present or 'nothing'}, expected for task {task} one of: {expected}"
    )


def _renamed(found: LabelledSet, path: Path) -> LabelledSet:
    names, first_index = read_class_names(path)
    return replace(
        found,
        class_names=names,
        reduce_zero_label=found.reduce_zero_label if first_index is None else first_index == 1,
        # The layout's own index of no class may be one of these names' classes.
        ignored_label=IGNORE_INDEX if first_index == 1 or found.ignored_label < len(names) else found.ignored_label,
    )
