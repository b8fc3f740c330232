"""The registry of layouts: a new layout needs only a file and a registration."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from mobileclip_dense.config import DataCheckConfig
from mobileclip_dense.data.labelled.check import check_data, describe_names
from mobileclip_dense.data.labelled.labelled_set import LabelledSet, Layout
from mobileclip_dense.data.labelled.layouts import LAYOUTS, find_set, register_layout
from mobileclip_dense.data.labelled.pairs import pair_by_name
from mobileclip_dense.dense.training.train import finetune
from mobileclip_dense.recipes.finetuning import RECIPES
from tests.conftest import REPOSITORY
from tests.data.labelled import mask, own_folder, photograph

CLASSES = ("ground", "petal", "leaf")


def find_flowers(root: Path) -> LabelledSet | None:
    train, val = (pair_by_name(root / split, root / f"{split}-masks") for split in ("spring", "summer"))
    return LabelledSet(train=train, val=val, class_names=CLASSES) if train or val else None


FLOWERS = Layout(
    name="Flowers",
    task="segment",
    recognised_by="spring, spring-masks, summer, summer-masks",
    find=find_flowers,
    data_set="flowers",
    sources=("https://example.org/flowers.zip",),
    num_images=(4, 2),
)


@pytest.fixture
def flowers(tmp_path: Path) -> Iterator[Path]:
    """A set in a layout of this file, which is registered during the test."""
    root = tmp_path / "flowers"
    for split, count in (("spring", 3), ("summer", 2)):
        for index in range(count):
            photograph(root / split / f"{index}.jpg", side=32)
            mask(root / f"{split}-masks" / f"{index}.png", 0, 1, 2, 255, side=32)
    register_layout(FLOWERS)
    yield root
    LAYOUTS.remove(FLOWERS)


def test_a_registered_layout_is_found_and_trained_on(flowers: Path, tmp_path: Path) -> None:
    found = find_set(flowers, "segment")
    assert (found.layout, found.num_train, found.num_val, found.class_names) == ("Flowers", 3, 2, CLASSES)
    out = tmp_path / "run"
    finetune(
        dataclasses.replace(
            RECIPES["nano-segment"](), data=flowers, out=out, crop_size_px=(32, 32), batch_size=2, max_iters=2,
            warmup_iters=1, num_workers=0, neck_channels=16, head_channels=8,
        )
    )  # fmt: skip
    record = json.loads((out / "run.json").read_text())
    assert (record["class_names"], record["num_val_images"]) == (list(CLASSES), 2)


def test_a_registered_layout_is_named_by_data_check(flowers: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check_data(DataCheckConfig(name="flowers", path=flowers))
    shown = capsys.readouterr().out
    assert "layout    Flowers" in shown and "training  3 images of 4\n" in shown
    assert "Flowers" in describe_names()
    empty = flowers / "spring-masks"
    with pytest.raises(FileNotFoundError, match=r"(?s)Flowers: spring, spring-masks.*get https://example\.org"):
        check_data(DataCheckConfig(name="flowers", path=empty))
    with pytest.raises(ValueError, match="'Flowers', which is registered already"):
        register_layout(FLOWERS)


def test_a_layout_is_unknown_before_and_after_its_registration(tmp_path: Path) -> None:
    assert FLOWERS not in LAYOUTS
    with pytest.raises(ValueError, match=r"NAME: found flowers, expected one of ade20k, .*coco, segment, depth"):
        check_data(DataCheckConfig(name="flowers", path=own_folder(tmp_path / "own")))


def test_the_documentation_lists_the_layouts() -> None:
    header = ["NAME", "layout", "task", "recognised by", "training + held-out images", "sources", "terms"]
    rows = [
        [
            layout.data_set or layout.task,
            layout.name,
            layout.task,
            layout.recognised_by.replace("|", "\\|"),
            " + ".join(f"{number:,}" for number in layout.num_images or ()) or "-",
            "; ".join(layout.sources) or "-",
            layout.licence or "-",
        ]
        for layout in LAYOUTS
    ]
    table = "\n".join("| " + " | ".join(cells) + " |" for cells in (header, ["---"] * len(header), *rows))
    assert table in (REPOSITORY / "docs" / "your-own-data.md").read_text(), f"docs/your-own-data.md needs\n{table}"
