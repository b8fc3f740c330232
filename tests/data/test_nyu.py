"""NYUv2 in all its published layouts."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
from PIL import Image

from mobileclip_dense.artifact.images import load_image
from mobileclip_dense.data.labelled.annotations import read_depth_m
from mobileclip_dense.data.labelled.layouts import find_set
from mobileclip_dense.data.labelled.scan import check_set
from tests.data.labelled import depth, photograph, settings

HEIGHT, WIDTH = 6, 8


def write_mat(path: Path, count: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Write a small file with MATLAB's axis order. Returns its images [N,H,W,3] and depth [N,H,W], not symmetric."""
    rng = np.random.default_rng(count)
    images = rng.integers(0, 256, (count, HEIGHT, WIDTH, 3), dtype=np.uint8)
    depths = rng.uniform(0.5, 9.5, (count, HEIGHT, WIDTH)).astype(np.float32)
    depths[0, 0, 0] = np.nan
    with h5py.File(path, "w") as file:
        file["images"] = images.transpose(0, 3, 2, 1)
        file["rawDepths"] = depths.transpose(0, 2, 1)
        file["depths"] = np.full_like(depths, 4.0).transpose(0, 2, 1)  # holes filled in by colourization
    splits = {"trainNdxs": np.array([[3], [1]], np.uint16), "testNdxs": np.array([[2]], np.uint16)}
    scipy.io.savemat(path.parent / "splits.mat", splits)
    return images, depths


def test_the_labelled_file_is_unpacked_upright_into_its_splits(tmp_path: Path) -> None:
    mat = tmp_path / "nyu_depth_v2_labeled.mat"
    images, depths = write_mat(mat)
    found = find_set(mat, "depth")
    assert found.layout == "NYUv2, labelled .mat"
    assert [pair.image.name for pair in found.train] == ["0001.png", "0003.png"]
    assert [pair.image.name for pair in found.val] == ["0002.png"]
    for pair in found.train + found.val:
        number = int(pair.image.stem) - 1
        np.testing.assert_array_equal(load_image(pair.image), images[number])
        with Image.open(pair.label) as stored:
            assert (stored.mode, stored.size) == ("I;16", (WIDTH, HEIGHT))
        expected = np.nan_to_num(depths[number])
        np.testing.assert_allclose(read_depth_m(pair.label, 1000), expected, atol=0.00051)
    assert find_set(tmp_path, "depth") == found


def test_it_is_unpacked_once_and_again_for_another_file(tmp_path: Path) -> None:
    mat = tmp_path / "labelled.mat"
    write_mat(mat)
    (first, *_) = find_set(mat, "depth").train
    first.image.write_bytes(b"mine")
    assert find_set(mat, "depth").train[0].image.read_bytes() == b"mine"
    images, _ = write_mat(mat, count=4)
    np.testing.assert_array_equal(load_image(find_set(mat, "depth").train[0].image), images[0])


def test_a_folder_in_the_way_is_not_replaced(tmp_path: Path) -> None:
    mat = tmp_path / "labelled.mat"
    write_mat(mat)
    (tmp_path / "labelled").mkdir()
    with pytest.raises(FileExistsError, match=r"labelled: found a folder that was not unpacked from labelled\.mat"):
        find_set(mat, "depth")
    assert list((tmp_path / "labelled").iterdir()) == []


def test_files_that_are_not_nyus_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    mat = tmp_path / "labelled.mat"
    write_mat(mat)
    content = mat.read_bytes()
    mat.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"labelled\.mat: cannot be unpacked"):
        find_set(mat, "depth")
    with h5py.File(mat, "w") as file:
        file["images"] = np.zeros((3, HEIGHT, WIDTH, 3), np.uint8)
        file["rawDepths"] = np.zeros((3, HEIGHT, WIDTH), np.float32)
    with pytest.raises(ValueError, match=r"found images uint8 \(3, 6, 8, 3\) .*expected uint8 \[N,3,W,H\]"):
        find_set(mat, "depth")
    with h5py.File(mat, "w") as file:
        file["names"] = [1]
    with pytest.raises(ValueError, match=r"found names, expected images and rawDepths; images and rawDepths missing"):
        find_set(mat, "depth")
    mat.write_bytes(content)
    scipy.io.savemat(tmp_path / "splits.mat", {"trainNdxs": [[1]], "testNdxs": [[4]]})
    with pytest.raises(ValueError, match=r"found 3 images, expected at least 4"):
        find_set(mat, "depth")
    (tmp_path / "splits.mat").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"splits\.mat: not the splits of NYUv2"):
        find_set(mat, "depth")
    (tmp_path / "splits.mat").unlink()
    with pytest.raises(FileNotFoundError, match=r"splits\.mat: no such file, .*; get it from http"):
        find_set(mat, "depth")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labelled.mat"]


def picture(folder: Path, number: int) -> None:
    photograph(folder / f"rgb_{number:05d}.jpg", side=32)
    depth(folder / f"sync_depth_{number:05d}.png", 1500, 2500)


@pytest.mark.parametrize("slash", ["/", ""])
def test_the_lists_of_the_depth_papers_lead_to_their_folders(tmp_path: Path, slash: str) -> None:
    """BTS: sync/ and official_splits/test/, each with its list. Files that are not listed are not used."""
    for number in (45, 46, 47):
        picture(tmp_path / "sync" / "kitchen_0028b", number)
    picture(tmp_path / "official_splits" / "test" / "kitchen", 45)
    line = "{0}{1}/rgb_{2:05d}.jpg {0}{1}/sync_depth_{2:05d}.png 518.8579\n"
    train = "".join(line.format(slash, "kitchen_0028b", number) for number in (46, 45))
    (tmp_path / "nyudepthv2_train_files_with_gt_dense.txt").write_text(train)
    (tmp_path / "train_test_inputs").mkdir()
    test = line.format("", "kitchen", 45)
    (tmp_path / "train_test_inputs" / "nyudepthv2_test_files_with_gt.txt").write_text(test)
    found = check_set(settings(tmp_path, task="depth"))
    assert found.layout == "NYUv2, split files"
    assert [(pair.image.name, pair.label.name) for pair in found.train] == [
        ("rgb_00045.jpg", "sync_depth_00045.png"),
        ("rgb_00046.jpg", "sync_depth_00046.png"),
    ]
    assert found.val[0].image == tmp_path / "official_splits" / "test" / "kitchen" / "rgb_00045.jpg"


def test_lists_beside_the_scenes_and_lines_that_are_none(tmp_path: Path) -> None:
    """Folder of AdaBins and BinsFormer: scenes next to nyu_train.txt and nyu_test.txt."""
    for number in (1, 2):
        picture(tmp_path / "kitchen", number)
    for name, number in (("nyu_train.txt", 1), ("nyu_test.txt", 2)):
        (tmp_path / name).write_text(f"kitchen/rgb_{number:05d}.jpg kitchen/sync_depth_{number:05d}.png 518.8579\n\n")
    found = check_set(settings(tmp_path, task="depth"))
    assert [pair.image.stem for pair in found.train + found.val] == ["rgb_00001", "rgb_00002"]
    (tmp_path / "nyu_test.txt").write_text("kitchen/rgb_00002.jpg\n")
    with pytest.raises(ValueError, match=r"nyu_test\.txt: line 1: found 'kitchen/rgb_00002.jpg', expected `IMAGE"):
        find_set(tmp_path, "depth")
    (tmp_path / "nyu_test.txt").write_text("cellar/rgb_00002.jpg cellar/sync_depth_00002.png 518.8579\n")
    with pytest.raises(FileNotFoundError, match=r"nyu_test\.txt: cellar/rgb_00002\.jpg: no such file in .*sync"):
        find_set(tmp_path, "depth")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_lists_are_cut_at_line_feeds_alone_and_may_have_a_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    photograph(tmp_path / "k\u2028\u3000" / "rgb_00001.jpg", side=32)
    depth(tmp_path / "k\u2028\u3000" / "sync_depth_00001.png", 1500, 2500)
    line = "k\u2028\u3000/rgb_00001.jpg\tk\u2028\u3000/sync_depth_00001.png  518.8579\r\n\r\n"
    for name in ("nyu_train.txt", "nyu_test.txt"):
        (tmp_path / name).write_text(line, encoding=encoding, newline="")
    found = check_set(settings(tmp_path, task="depth"))
    assert [pair.image.parent.name for pair in found.train + found.val] == ["k\u2028\u3000"] * 2
    (tmp_path / "nyu_test.txt").write_text(line, encoding="utf-16")
    with pytest.raises(ValueError, match=r"nyu_test\.txt: NYUv2 list: found UTF-16, expected UTF-8"):
        find_set(tmp_path, "depth")


def test_pictures_without_a_split_are_for_evaluation_only(tmp_path: Path) -> None:
    for number in (0, 50):
        photograph(tmp_path / "rgb" / f"rgb_{number:05d}.jpg", side=32)
        depth(tmp_path / "depth" / f"sync_depth_{number:05d}.png", 1500, 2500)
    found = find_set(tmp_path, "depth")
    assert [pair.label.name for pair in found.val] == ["sync_depth_00000.png", "sync_depth_00050.png"]
    with pytest.raises(ValueError, match=r"0 training and 2 held-out images, expected training images"):
        check_set(settings(tmp_path, task="depth"))
