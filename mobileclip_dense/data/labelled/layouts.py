"""The registry of layouts of labelled data sets.

To add a layout, write a file with a `Layout` and add it to `LAYOUTS`, or call `register_layout` from outside the
package. Fine-tuning, evaluation, export and `mobileclip-dense data check` read this registry.
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
"""All layouts. The first match is used, so stricter layouts come before more general ones."""


def register_layout(layout: Layout) -> None:
    """Register a layout. It is tried before the others, since it may be stricter than the user's own folder.

    Raises:
        ValueError: the name is registered already.
    """
    if any(layout.name == known.name for known in LAYOUTS):
        raise ValueError(f"layout: found {layout.name!r}, which is registered already, expected another name")
    LAYOUTS.insert(0, layout)


def layouts_of(data_set: str) -> list[Layout]:
    """The layouts of a published data set; empty if the name is unknown."""
    return [layout for layout in LAYOUTS if layout.data_set == data_set]


def published_names() -> list[str]:
    """The names of the published data sets, as in `mobileclip-dense data check NAME PATH`."""
    return list(dict.fromkeys(layout.data_set for layout in LAYOUTS if layout.data_set is not None))


def find_set(root: Path, task: Task, class_names: Path | None = None) -> LabelledSet:
    """Find the labelled set in `root`, or in a subfolder that a published archive creates. Images are not opened.

    `train` or `val` may be empty. NYUv2's labelled .mat file is unpacked on first use.

    Args:
        root: the folder (or NYUv2's labelled .mat file).
        task: segment or depth.
        class_names: file with class names that replace the folder's, see `read_class_names`.

    Raises:
        FileNotFoundError: there is no such folder, or it has none of the layouts. The message lists them.
        ValueError: a list of files or names cannot be read, or the task is detect.
    """
    if task == "detect":
        raise ValueError(f"{root}: --data: found task {task}, expected segment or depth")
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
        # The index that the layout ignores may be a class in this file.
        ignored_label=IGNORE_INDEX if first_index == 1 or found.ignored_label < len(names) else found.ignored_label,
    )
