"""Each data set is found in its published layout, with its splits, classes and conventions."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobileclip_dense.data.labelled.annotations import read_class_labels
from mobileclip_dense.data.labelled.class_names import read_class_names
from mobileclip_dense.data.labelled.layouts import find_set
from mobileclip_dense.data.labelled.pairs import Pair
from mobileclip_dense.data.labelled.scan import check_set
from mobileclip_dense.dense.training.dataset import PairDataset
from tests.data.labelled import depth_folder, mask, own_folder, photograph, save, settings

ADE_HEADER = "Idx\tRatio\tTrain\tVal\tStuff\tName"
ADE_ROWS = ("1\t0.1576\t11664\t1172\t1\twall", "2\t0.1072\t6046\t612\t1\tbuilding, edifice", "3\t0.09\t1\t1\t1\tsky  ")


def names_of(pairs: tuple[Pair, ...]) -> list[tuple[str, str]]:
    return [(image.name, label.name) for image, label in pairs]


def test_ade20k_is_found_with_the_class_file_of_its_archive(tmp_path: Path) -> None:
    root = own_folder(tmp_path / "ADEChallengeData2016")
    (root / "objectInfo150.txt").write_text("\n".join([ADE_HEADER, *ADE_ROWS]) + "\n")
    found = find_set(tmp_path, "segment")  # the folder that the archive was unpacked in
    assert (found.layout, found.reduce_zero_label) == ("ADE20K", True)
    assert found.class_names == ("wall", "building", "sky")
    assert names_of(found.train) == [("0.jpg", "0.png"), ("1.jpg", "1.png"), ("2.jpg", "2.png")]
    assert names_of(found.val) == [("0.jpg", "0.png"), ("1.jpg", "1.png")]
    (root / "objectInfo150.txt").unlink()
    (root / "objectInfo150.csv").write_text("Idx,Ratio,Train,Val,Stuff,Name\n1,0.1,1,1,1,wall\n2,0.1,1,1,1,door;gate\n")
    assert find_set(root, "segment").class_names == ("wall", "door")


def test_a_folder_of_ones_own_mixes_suffixes_and_is_sorted(tmp_path: Path) -> None:
    root = own_folder(tmp_path / "own", num_train=0)
    for name in ("c.JPG", "a.png", "b.jpeg", "._c.JPG", "notes.txt"):
        photograph(root / "images" / "training" / name if name != "notes.txt" else root / "x.png")
        mask(
            root / "annotations" / "training" / Path(name).with_suffix(".PNG" if name[0] == "b" else ".png").name, 0, 1
        )
    mask(root / "annotations" / "training" / "without_image.png", 0)
    found = check_set(settings(root))
    assert names_of(found.train) == [("a.png", "a.png"), ("b.jpeg", "b.PNG"), ("c.JPG", "c.png")]
    assert found.layout == "folder of your own"
    assert found.class_names == ("class 0", "class 1", "class 2")
    assert not found.reduce_zero_label


def test_camvid_is_found_as_segnets_tutorial_publishes_it(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        photograph(tmp_path / split / "0001TP_006690.png")
        mask(tmp_path / f"{split}annot" / "0001TP_006690.png", 0, 10, 11)
    found = check_set(settings(tmp_path))
    assert found.layout == "CamVid"
    assert (len(found.class_names), found.class_names[0], found.class_names[10]) == (11, "sky", "cyclist")
    assert [pair.image.parent.name for pair in found.train + found.val] == ["train", "val"]
    labels = read_class_labels(found.val[0].label, found.reduce_zero_label, found.ignored_label)
    assert set(np.unique(labels)) == {0, 10, 255}


def test_voc_is_found_with_its_lists_and_palettes(tmp_path: Path) -> None:
    root = tmp_path / "VOCdevkit" / "VOC2012"
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    for split, names in (("train", ("2007_000032", "2007_000039")), ("val", ("2007_000033",))):
        (root / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("\n".join(reversed(names)) + "\n")
        for name in names:
            photograph(root / "JPEGImages" / f"{name}.jpg")
            drawn = Image.fromarray(np.resize(np.array([0, 20, 255], np.uint8), (8, 8)))
            drawn.putpalette([channel for index in range(256) for channel in (index, 255 - index, 7)])
            (root / "SegmentationClass").mkdir(exist_ok=True)
            drawn.save(root / "SegmentationClass" / f"{name}.png")
    photograph(root / "JPEGImages" / "2012_for_boxes_only.jpg")
    found = check_set(settings(tmp_path))
    assert (found.layout, len(found.class_names)) == ("VOC", 21)
    assert names_of(found.train) == [("2007_000032.jpg", "2007_000032.png"), ("2007_000039.jpg", "2007_000039.png")]
    assert names_of(found.val) == [("2007_000033.jpg", "2007_000033.png")]
    assert set(np.unique(read_class_labels(found.val[0].label, False))) == {0, 20, 255}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_voc_lists_are_cut_at_line_feeds_alone_and_may_have_a_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    names = ("a", "b\u2028c", "d e")
    (tmp_path / "ImageSets" / "Segmentation").mkdir(parents=True)
    for name in names:
        photograph(tmp_path / "JPEGImages" / f"{name}.jpg")
        mask(tmp_path / "SegmentationClass" / f"{name}.png", 0, 1)
    for split in ("train", "val"):
        text = "".join(f"{name}\r\n" for name in names) + "\n"
        (tmp_path / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(text, encoding=encoding, newline="")
    assert names_of(check_set(settings(tmp_path)).train) == [(f"{name}.jpg", f"{name}.png") for name in names]
    (tmp_path / "ImageSets" / "Segmentation" / "val.txt").write_text("a\n", encoding="utf-16")
    with pytest.raises(ValueError, match=r"Segmentation/val\.txt: VOC list: found UTF-16, expected UTF-8"):
        find_set(tmp_path, "segment")


def test_pictures_of_every_read_format_are_paired_and_others_named(tmp_path: Path) -> None:
    root = own_folder(tmp_path / "own")
    for suffix in (".webp", ".bmp", ".WEBP", ".jfif"):
        name = f"new{suffix}"
        if suffix == ".jfif":  # a JPEG under another name
            photograph(root / "x.jpg").rename(root / "images" / "training" / name)
        else:
            photograph(root / "images" / "training" / name)
    mask(root / "annotations" / "training" / "new.png", 0, 1)
    photograph(root / "images" / "training" / "0.tif")  # the original of 0.jpg
    found = check_set(settings(root))
    assert [pair.image.name for pair in found.train] == ["0.jpg", "1.jpg", "2.jpg", "new.WEBP", "new.bmp", "new.webp"]
    for name in ("new.WEBP", "new.bmp", "new.webp"):
        (root / "images" / "training" / name).unlink()
    assert check_set(settings(root)).train[-1].image.name == "new.jfif"
    (root / "images" / "training" / "odd.heic").write_bytes(b"\0\0\0\x18ftypheic")
    mask(root / "annotations" / "training" / "odd.png", 0, 1)
    with pytest.raises(ValueError, match=r"training/odd\.heic: image"):
        check_set(settings(root))


def test_what_was_looked_for_is_listed_where_nothing_is_known(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    with pytest.raises(FileNotFoundError, match=r"found pictures, expected .*ADE20K.*CamVid.*VOC"):
        find_set(tmp_path, "segment")
    with pytest.raises(FileNotFoundError, match=r"expected for task depth .*nyudepthv2_train.*labeled\.mat"):
        find_set(tmp_path, "depth")
    with pytest.raises(FileNotFoundError, match=r"nowhere: --data: no such"):
        find_set(tmp_path / "nowhere", "depth")


def test_a_folder_with_one_split_is_found_and_not_trained_on(tmp_path: Path) -> None:
    root = own_folder(tmp_path / "sample", num_train=0)
    assert len(find_set(root, "segment").val) == 2
    with pytest.raises(ValueError, match=r"0 training and 2 held-out images, expected training images"):
        check_set(settings(root))


def test_a_depth_folder_is_found(tmp_path: Path) -> None:
    found = check_set(settings(depth_folder(tmp_path / "own"), task="depth", head="semantic_fpn"))
    assert (len(found.train), len(found.val), found.class_names) == (2, 1, ())


@pytest.mark.parametrize(
    ("name", "text", "names", "first_index"),
    [
        ("a.txt", "road\ngrass, wild\n", ("road", "grass, wild"), None),
        ("b.csv", "colour,Name,ID\nred,grass,1\nblue,road;street,0\n", ("road", "grass"), 0),
        ("c.csv", "index;class\n2;grass\n1;road\n", ("road", "grass"), 1),
        ("d.txt", "\n".join([ADE_HEADER, *ADE_ROWS]), ("wall", "building", "sky"), 1),
        ("e.txt", "road\u2028side\r\ngrass\x0cwild\r\n\r\n", ("road\u2028side", "grass\x0cwild"), None),
        ("f.csv", "id,name\r\n0,road\u0085side\r\n1,grass\r\n", ("road\x85side", "grass"), 0),
    ],
)
def test_class_names_are_read(tmp_path: Path, name: str, text: str, names: tuple[str, ...], first_index: int) -> None:
    (tmp_path / name).write_text("\ufeff" + text, encoding="utf-8", newline="")
    assert read_class_names(tmp_path / name) == (names, first_index)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "road\n\ngrass\n", r"a\.txt: line 2: found no name"),
        ("a.txt", "", r"a\.txt: class names: found none"),
        ("b.csv", "id,name\n0,road\n2,grass\n", r"b\.csv: classes: found indices from 0 to 2 without 1"),
        ("b.csv", "id,name\n2,road\n3,grass\n", r"from 2 to 3 without 1, expected"),
        ("b.csv", "id,name\n0,road\n0,grass\n", r"class 0: found twice"),
        (
            "b.csv",
            "id,name\nzero,road\n",
            r"found the row \['zero', 'road'\], expected an index in column id",
        ),
        ("b.csv", "road\ngrass\n", r"b\.csv: header: found road, expected a column idx or index or id"),
        ("c.txt", "x\n" * 256, r"found 256, expected at most 255"),
        ("d.txt", "road\rgrass\r", r"d\.txt: class names: found line ends of CR only, expected LF or CR LF"),
        ("e.csv", 'id,name\n0,"' + "x" * 140_000 + "\n", r"e\.csv: class names: not a table"),
    ],
)
def test_class_names_with_gaps_or_without_sense_are_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text, newline="")
    with pytest.raises(ValueError, match=message):
        read_class_names(tmp_path / name)


def test_class_names_in_another_encoding_are_refused_by_file(tmp_path: Path) -> None:
    for encoding, message in (("utf-16", "UTF-16"), ("latin-1", "byte 0xe9 at 1")):
        (tmp_path / "names.txt").write_text("b\u00e9ton\ngrass\n", encoding=encoding)
        with pytest.raises(ValueError, match=rf"names\.txt: class names: found {message}"):
            read_class_names(tmp_path / "names.txt")


def test_indices_from_one_mean_that_zero_is_ignored(tmp_path: Path) -> None:
    root = own_folder(tmp_path / "own")
    names = tmp_path / "names.csv"
    names.write_text("name,index\nroad,1\ngrass,2\n")
    found = check_set(settings(root, class_names=names))
    assert (found.class_names, found.reduce_zero_label) == (("road", "grass"), True)


def test_names_from_one_for_camvid_make_its_eleven_a_class(tmp_path: Path) -> None:
    """Of what is scanned and of what is trained on."""
    for split in ("train", "val"):
        photograph(tmp_path / split / "a.png")
        mask(tmp_path / f"{split}annot" / "a.png", 0, 1, 10, 11)
    names = tmp_path / "names.csv"
    names.write_text("index,name\n" + "".join(f"{number},class {number}\n" for number in range(1, 12)))
    found = check_set(settings(tmp_path, class_names=names))
    assert (found.reduce_zero_label, found.ignored_label) == (True, 255)
    labels = read_class_labels(found.val[0].label, found.reduce_zero_label, found.ignored_label)
    load = dict(type="mmseg.LoadClassLabels", reduce_zero_label=True, ignored_label=found.ignored_label)
    trained = PairDataset(pairs=[(str(image), str(label)) for image, label in found.val], task="segment",
                          pipeline=[load])  # fmt: skip
    np.testing.assert_array_equal(trained[0]["gt_seg_map"], labels)
    assert set(np.unique(labels)) == {0, 9, 10, 255}


def test_ade20k_labels_lose_their_zero(tmp_path: Path) -> None:
    path = save(tmp_path / "mask.png", np.array([[0, 1], [150, 255]], np.uint8))
    np.testing.assert_array_equal(read_class_labels(path, True), [[255, 0], [149, 255]])
    np.testing.assert_array_equal(read_class_labels(path, False), [[0, 1], [150, 255]])
