"""Labelled data sets and their layouts."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mobileclip_dense.artifact.palette import IGNORE_INDEX
from mobileclip_dense.config import Task
from mobileclip_dense.data.labelled.pairs import Pair


@dataclass(frozen=True, kw_only=True)
class LabelledSet:
    """The training and held-out pairs of a data set, sorted by name.

    Attributes:
        layout: name of the set's `Layout`, set by `find_set`.
        class_names: class names by index. Empty for depth, and before the scan of a folder without class names.
        reduce_zero_label: whether labels follow ADE20K's convention: 0 is ignored, 1 is the first class.
        ignored_label: another index that is ignored, besides 255.
        num_skipped: number of pairs that the scan skipped.
    """

    train: tuple[Pair, ...]
    val: tuple[Pair, ...]
    layout: str = ""
    class_names: tuple[str, ...] = ()
    reduce_zero_label: bool = False
    ignored_label: int = IGNORE_INDEX
    num_skipped: int = 0

    @property
    def num_train(self) -> int:
        return len(self.train)

    @property
    def num_val(self) -> int:
        return len(self.val)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A layout of a labelled data set: its folders and files.

    Attributes:
        name: name of the layout in messages and records.
        task: task of the labels.
        recognised_by: the files and folders that `find` looks for, in one line.
        find: function (folder) -> set, or None if the folder has another layout. It does not open images. It raises
            ValueError if a list of files or names cannot be read. None for detection, which supports COCO's layout only
            (`check_coco`).
        data_set: NAME in `mobileclip-dense data check NAME PATH`, shared by all layouts of a data set. None for the
            user's own folder.
        sources: download addresses.
        licence: terms of use, if known.
        num_images: number of training and held-out images of the complete data set; None if it varies.
        unpacked_folders: folders that the published archives create. `find_set` looks into them as well.
    """

    name: str
    task: Task
    recognised_by: str
    find: Callable[[Path], LabelledSet | None] | None
    data_set: str | None = None
    sources: tuple[str, ...] = ()
    licence: str = ""
    num_images: tuple[int, int] | None = None
    unpacked_folders: tuple[str, ...] = ()
