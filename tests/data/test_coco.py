import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from mobileclip_dense.artifact.images import load_image
from mobileclip_dense.config import FinetuneConfig
from mobileclip_dense.data.labelled.coco import read_images
from mobileclip_dense.data.labelled.coco_annotations import to_rle, wrong_segmentation
from mobileclip_dense.data.labelled.coco_check import check_coco
from tests.data.coco_folder import HEIGHT, WIDTH, annotation, polygon, write_coco

BOX = [10, 5, 20, 12]


def settings(root: Path, **changes: Any) -> FinetuneConfig:
    return FinetuneConfig(data=root, out=Path("unused"), task="detect", head="mask_rcnn", **changes)


def runs_of(mask: np.ndarray) -> list[int]:
    """Uncompressed run-length encoding of a mask [H,W] by definition: column-major, starting with zeros."""
    flat = mask.T.reshape(-1)
    edges = np.flatnonzero(np.diff(flat)) + 1
    return [0] * int(flat[0]) + np.diff([0, *edges, flat.size]).tolist()


def test_category_ids_with_gaps_become_classes_in_their_order(tmp_path: Path) -> None:
    objects = [annotation(1, 0, 90, BOX), annotation(2, 2, 3, BOX)]
    coco = check_coco(settings(write_coco(tmp_path / "coco", {"train": objects, "val": objects})))
    assert coco.class_names == ("dog", "fern", "cup")
    assert coco.category_ids == (3, 7, 90)
    assert (coco.num_train, coco.num_val) == (2, 3)  # image 1 has no objects


def test_images_without_objects_are_measured_but_not_trained_on(tmp_path: Path) -> None:
    crowd = annotation(2, 1, 3, BOX, iscrowd=1)
    objects = [annotation(1, 2, 3, BOX), crowd, annotation(3, 0, 7, BOX)]
    coco = check_coco(settings(write_coco(tmp_path / "coco", {"train": objects, "val": objects})))
    assert [image["id"] for image, _ in read_images(coco, "train")] == [0, 2]
    assert [image["id"] for image, _ in read_images(coco, "val")] == [0, 1, 2]
    both = check_coco(settings(coco.root, max_train_images=2))  # a crowd alone takes nobody's place
    assert [image["id"] for image, _ in read_images(both, "train")] == [0, 2]
    first = check_coco(settings(coco.root, max_train_images=1))
    assert [image["id"] for image, _ in read_images(first, "train")] == [0]
    assert (first.num_train, first.num_val) == (1, 3)


def test_polygons_and_both_run_length_encodings_are_one_mask(tmp_path: Path) -> None:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[5:17, 10:30] = 1
    compressed = coco_mask.encode(np.asfortranarray(mask))
    forms = [polygon(*BOX), {"size": [HEIGHT, WIDTH], "counts": runs_of(mask)},
             {"size": [HEIGHT, WIDTH], "counts": compressed["counts"].decode()}]  # fmt: skip
    for segmentation in forms:
        assert wrong_segmentation(segmentation, HEIGHT, WIDTH) is None
        assert np.array_equal(coco_mask.decode(to_rle(segmentation, HEIGHT, WIDTH)), mask)


def test_any_mask_that_pycocotools_writes_is_accepted_and_a_cut_one_is_not() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        height, width = rng.integers(1, 60, 2).tolist()
        mask = (rng.random((height, width)) < rng.random()).astype(np.uint8)
        text = coco_mask.encode(np.asfortranarray(mask))["counts"].decode()
        assert wrong_segmentation({"size": [height, width], "counts": text}, height, width) is None
        assert wrong_segmentation({"size": [height, width], "counts": text[:-1]}, height, width) is not None
        assert wrong_segmentation({"size": [height, width], "counts": runs_of(mask)[:-1]}, height, width) is not None


def replace_annotations(file: Path, annotations: list[dict[str, Any]]) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | {"annotations": annotations}))


BROKEN = {
    "image_id: found 77": {"image_id": 77},
    "image_id: found None": {"image_id": None},
    "category_id: found 4": {"category_id": 4},
    "expected [x, y, width, height]": {"bbox": [1, 2, 3]},
    "found [10, 5, 20, nan]": {"bbox": [10, 5, 20, float("nan")]},
    "width and a height above 0": {"bbox": [10, 5, 0, 12]},
    "outside of 60x40": {"bbox": [10, 5, 20, 36.5]},
    "is it x, y, width, height, in pixels?": {"bbox": [10, 5, 30, 17]},  # corners
    "segmentation: found None": {"segmentation": None},
    "segmentation: found []": {"segmentation": []},
    "at least three corners": {"segmentation": [[10, 5, 30, 17]]},
    "polygon [10, 5, 30, 5, 1000000.0": {"segmentation": [[10, 5, 30, 5, 1e6, 17]]},
    "size [60, 40], expected [40, 60]": {"segmentation": {"size": [WIDTH, HEIGHT], "counts": [HEIGHT * WIDTH]}},
    "runs of 6 pixels in total, expected 2400": {"segmentation": {"size": [HEIGHT, WIDTH], "counts": [1, 2, 3]}},
    "not a run-length": {"segmentation": {"size": [HEIGHT, WIDTH], "counts": "\u00e9!"}},
    "counts: not": {"segmentation": {"size": [HEIGHT, WIDTH], "counts": [-5, HEIGHT * WIDTH + 5]}},
    "iscrowd: found 2": {"iscrowd": 2},
    "area: found -1": {"area": -1},
    "area: found 5000": {"area": 5000},  # an area that COCO's figures do not count
    "bbox: found [0.2, 0.1, 0.3, 0.3], all within 0..1": {"bbox": [0.2, 0.1, 0.3, 0.3]},
    "found a polygon [0.2, 0.1": {"bbox": [0, 0, 6, 6], "segmentation": polygon(0.2, 0.1, 0.3, 0.3)},
    "bbox: found [0.2, 0.1, 0.3, 0.5], expected [10.0, 5.0": {
        "bbox": [0.2, 0.1, 0.3, 0.5],
        "segmentation": {"size": [HEIGHT, WIDTH], "counts": [10 * HEIGHT + 5, 2, HEIGHT - 2, 2, 49 * HEIGHT - 7]},
    },
    "bbox: found [10, 5, 3, 30], expected [50.0": {"bbox": [10, 5, 3, 30], "segmentation": polygon(50, 2, 3, 30)},
    "covers no pixel": {"segmentation": polygon(10.01, 5, 0.01, 12)},
}  # fmt: skip


def test_every_broken_annotation_is_told_with_its_id_and_left_out_if_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = [annotation(100 + n, 0, 3, BOX) | change for n, change in enumerate(BROKEN.values())]
    good = [annotation(1, 0, 3, BOX), annotation(2, 1, 90, [0, 0, 60.01, 40.01])]  # as published: a hair outside
    root = write_coco(tmp_path / "coco", {"train": [good[0], *broken, good[1]], "val": good})
    coco = check_coco(settings(root, skip_bad=True))
    assert [[a["id"] for a in annotations] for _, annotations in read_images(coco, "train")] == [[1], [2]]
    file = root / "annotations" / "instances_train2017.json"
    assert f"{file}: skipped {len(BROKEN)} annotations" in capsys.readouterr().out
    with pytest.raises(ValueError, match=f"{len(BROKEN)} images or annotations cannot be used") as refused:
        check_coco(settings(root))
    _, *listed = str(refused.value).splitlines()
    assert len(listed) == 11 and listed[-1].strip() == f"... and {len(BROKEN) - 10} more"
    for number, (line, expected) in enumerate(zip(listed[:-1], BROKEN, strict=False)):
        assert f"annotation {100 + number}:" in line and expected in line
    messages = {}
    for number, expected in enumerate(BROKEN):
        replace_annotations(file, [good[0], broken[number]])
        with pytest.raises(ValueError, match="1 images or annotations") as refused:
            check_coco(settings(root))
        messages[expected] = str(refused.value)
    assert [expected for expected in BROKEN if expected not in messages[expected]] == []


def test_bad_images_are_told_by_name_and_left_out_if_asked(tmp_path: Path) -> None:
    objects = [annotation(n + 1, n, 3, BOX) for n in range(5)]
    root = write_coco(tmp_path / "coco", {"train": objects, "val": objects}, num_images=5)
    names = [root / "train2017" / f"{number:012d}.jpg" for number in range(5)]
    names[0].unlink()
    names[1].write_bytes(names[1].read_bytes()[:500])
    Image.new("RGB", (HEIGHT, WIDTH)).save(names[2])
    Image.new("L", (WIDTH, HEIGHT)).save(names[3])  # COCO has some: fine
    with pytest.raises(ValueError, match="3 images or annotations") as refused:
        check_coco(settings(root))
    for name, reason in ((names[0], "no such file"), (names[1], "cannot be decoded"), (names[2], "found 60x40")):
        assert any(str(name) in line and reason in line for line in str(refused.value).splitlines())
    coco = check_coco(settings(root, skip_bad=True))
    assert [image["id"] for image, _ in read_images(coco, "train")] == [3, 4]
    assert coco.num_train == 2


def test_a_second_start_opens_only_images_that_have_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    objects = [annotation(n + 1, n, 3, BOX) for n in range(3)]
    root = write_coco(tmp_path / "coco", {"train": objects, "val": objects}, num_images=3)
    opened: list[Path] = []

    def counted(path: Path) -> object:
        opened.append(path)
        return load_image(path)

    monkeypatch.setattr("mobileclip_dense.data.labelled.coco_check.load_image", counted)
    first = check_coco(settings(root))
    assert len(opened) == 6
    opened.clear()
    assert check_coco(settings(root)) == first
    assert opened == []
    changed = root / "val2017" / f"{1:012d}.jpg"
    Image.new("RGB", (HEIGHT, WIDTH)).save(changed)
    with pytest.raises(ValueError, match=f"{changed.name}: size: found 60x40, expected 40x60"):
        check_coco(settings(root))
    assert opened == [changed]
    opened.clear()
    file = root / "annotations" / "instances_val2017.json"
    contents = json.loads(file.read_text())
    contents["images"][1] |= {"height": WIDTH, "width": HEIGHT}  # the file's mistake, corrected
    contents["annotations"] = [entry for entry in contents["annotations"] if entry["image_id"] != 1]
    file.write_text(json.dumps(contents))
    assert check_coco(settings(root)) == first
    assert opened == [changed]


def test_a_folder_that_is_not_cocos_is_refused_by_file(tmp_path: Path) -> None:
    objects = [annotation(1, 0, 3, BOX)]
    root = write_coco(tmp_path / "coco", {"train": objects, "val": objects})
    file = root / "annotations" / "instances_val2017.json"
    text = file.read_text()
    for damage, message in (
        (text[:100], "val2017.json: not valid JSON"),
        ("[]", "val2017.json: found a JSON list"),
        (json.dumps({"images": []}), "val2017.json: annotations: found NoneType"),
        (text.replace('"fern"', '"moss"'), "val2017.json: categories: found differences from instances_train2017.json"),
        (text.replace('"id": 90', '"id": 7'), "val2017.json: categories: found"),
    ):
        file.write_text(damage)
        with pytest.raises(ValueError, match=message):
            check_coco(settings(root))
    file.write_text(text)
    replace_annotations(file, [])
    with pytest.raises(ValueError, match="found no usable object"):
        check_coco(settings(root))
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"instances_val2017\.json"):
        check_coco(settings(root))
    with pytest.raises(FileNotFoundError, match="expected train2017/, val2017/"):
        check_coco(settings(tmp_path))


def test_boxes_and_polygons_in_shares_of_the_image_are_refused(tmp_path: Path) -> None:
    """Boxes, polygons or both, of all objects. Training would otherwise have no objects, without an error."""
    shares = [BOX[0] / WIDTH, BOX[1] / HEIGHT, BOX[2] / WIDTH, BOX[3] / HEIGHT]
    forms = {"boxes": {"bbox": shares}, "polygons": {"segmentation": polygon(*shares)},
             "both": {"bbox": shares, "segmentation": polygon(*shares)},
             "whole images": {"bbox": [0, 0, 1, 1], "segmentation": polygon(0, 0, 1, 1)}}  # fmt: skip
    for name, changes in forms.items():
        objects = [annotation(n, n, 3, BOX, **changes) for n in range(3)]
        root = write_coco(tmp_path / name, {"train": objects, "val": objects})
        with pytest.raises(ValueError, match=r"all within 0\.\.1, expected pixels; multiply x by the width") as refused:
            check_coco(settings(root))
        assert "6 images or annotations cannot be used" in str(refused.value)


def test_a_pixel_of_an_object_at_the_corner_is_an_object(tmp_path: Path) -> None:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[0, 0] = 1
    corner = annotation(2, 0, 3, [0, 0, 1, 1], segmentation={"size": [HEIGHT, WIDTH], "counts": runs_of(mask)})
    objects = [annotation(1, 0, 3, BOX), corner]
    assert check_coco(settings(write_coco(tmp_path / "coco", {"train": objects, "val": objects}))).num_train == 1


def test_a_split_with_crowds_alone_is_refused(tmp_path: Path) -> None:
    objects, crowds = [annotation(1, 0, 3, BOX)], [annotation(1, 0, 3, BOX, iscrowd=1)]
    for train, val, name in ((objects, crowds, "val"), (crowds, objects, "train")):
        root = write_coco(tmp_path / name, {"train": train, "val": val})
        with pytest.raises(ValueError, match=rf"instances_{name}2017\.json: .*no usable object \(crowds"):
            check_coco(settings(root))


def test_objects_that_training_would_resize_to_nothing_are_refused(tmp_path: Path) -> None:
    objects = [annotation(1, 0, 3, [3, 3, 2, 1.2], segmentation=polygon(3, 3, 2, 1.2))]
    root = write_coco(tmp_path / "coco", {"train": objects, "val": objects})
    with pytest.raises(ValueError, match=r"found no object of at least one pixel .* to 32 pixels; .* raise --crop"):
        check_coco(settings(root, crop_size_px=(32, 32), scale_range=(0.5, 1.0)))
    check_coco(settings(root, crop_size_px=(64, 64), scale_range=(0.5, 1.0)))


def test_names_that_no_file_can_have_and_numbers_beyond_any_are_refused_by_place(tmp_path: Path) -> None:
    objects = [annotation(1, 0, 3, BOX), annotation(2, 0, 3, [10**400, 5, 20, 12])]
    root = write_coco(tmp_path / "coco", {"train": objects, "val": [annotation(1, 0, 3, BOX)]})
    file = root / "annotations" / "instances_val2017.json"
    contents = json.loads(file.read_text())
    contents["images"][1]["file_name"] = "a\0b.jpg"
    file.write_text(json.dumps(contents), encoding="utf-8-sig")  # a byte order mark is no fault
    with pytest.raises(ValueError, match="2 images or annotations cannot be used") as refused:
        check_coco(settings(root))
    assert "annotation 2: bbox: found [1000" in str(refused.value) and "b.jpg: image: no such" in str(refused.value)


def test_two_images_with_one_id_are_refused(tmp_path: Path) -> None:
    objects = [annotation(1, 0, 3, BOX)]
    root = write_coco(tmp_path / "coco", {"train": objects, "val": objects})
    file = root / "annotations" / "instances_val2017.json"
    contents = json.loads(file.read_text())
    contents["images"][1]["id"] = 0
    file.write_text(json.dumps(contents))
    with pytest.raises(ValueError, match=r"images\[1\]: id: found 0 twice"):
        check_coco(settings(root))
    coco = check_coco(settings(root, skip_bad=True))
    assert [image["file_name"] for image, _ in read_images(coco, "val")] == ["000000000000.jpg", "000000000002.jpg"]
