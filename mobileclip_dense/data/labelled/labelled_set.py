"""A labelled data set that was found in a folder, and the layouts in which such sets are published."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mobileclip_dense.artifact.palette import IGNORE_INDEX
from mobileclip_dense.config import Task
from mobileclip_dense.data.labelled.pairs import Pair


@dataclass(frozen=True, kw_only=True)
class LabelledSet:
    """Training and held-out pairs, sorted by name, split as published.

    Attributes:
        layout: name of its `Layout`; `find_set` fills it in.
        class_names: by class index; empty for depth, and where the folder names none before the scan.
        reduce_zero_label: ADE20K's convention. ignored_label: the index that means no class, beside 255.
        num_skipped: pairs left out by the scan.
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
    """The folders and files in which a labelled data set is published.

    Attributes:
        name: as messages and records show it.
        task: what its labels are for.
        recognised_by: the files and folders that `find` looks for, in one line.
        find: from a folder to its set, without opening images, or None where the folder is laid out otherwise; raises
            ValueError where a list of files or names cannot be read. None for detection, which reads COCO's layout
            alone (`check_coco`).
        data_set: NAME of `mobileclip-dense data check NAME PATH`; the forms in which a data set is published share it.
            None for a folder of a user's own.
        sources: what to download, and from where. licence: terms of use, as far as they are known.
        num_images: training and held-out images of the complete data set; None where the layout has no fixed number.
        unpacked_folders: folders to which the published archives unpack. `find_set` looks into them as well.
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
