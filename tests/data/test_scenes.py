import hashlib
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from mobileclip_dense.config import ScenesConfig
from mobileclip_dense.data.scenes.captions import NUM_REINFORCED, write_captions
from mobileclip_dense.data.scenes.scene import CLASS_NAMES, KINDS, MAX_DEPTH_M, render, sample_scene
from mobileclip_dense.data.scenes.writer import make_example, write_scenes


def digest(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scenes") / "scenes"
    write_scenes(ScenesConfig(out=out, num_images=24, size_px=64, seed=5))
    return out


def test_the_same_seed_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    write_scenes(ScenesConfig(out=again, num_images=24, size_px=64, seed=5))
    assert digest(again) == digest(folder)
    other = tmp_path / "other"
    write_scenes(ScenesConfig(out=other, num_images=24, size_px=64, seed=6))
    assert digest(other)["ade/images/training/00000000.jpg"] != digest(folder)["ade/images/training/00000000.jpg"]


def test_there_are_enough_kinds_and_classes() -> None:
    assert len(KINDS) >= 9
    assert len(CLASS_NAMES) >= 12


def test_the_picture_does_not_depend_on_the_caption_quality() -> None:
    alt, clean, reinforced = (make_example(3, 64, quality, 11) for quality in ("alt", "clean", "reinforced"))
    assert alt.jpeg == clean.jpeg == reinforced.jpeg
    assert len(reinforced.synthetic_captions) == NUM_REINFORCED
    assert reinforced.caption == alt.caption
    assert not alt.synthetic_captions


def test_floor_depth_is_that_of_a_plane_seen_by_a_tilted_camera() -> None:
    scene = sample_scene(np.random.default_rng([0, 4]))
    view = render(scene, 96)
    rows, columns = np.nonzero((view.classes == CLASS_NAMES.index("floor")) & (view.depth_m > 0))
    # In camera coordinates (down the image y), the floor is the plane  y cos(pitch) + z sin(pitch) = height.
    y = ((rows + 0.5) / 96 - 0.5) / scene.focal
    pitch = scene.camera_pitch_rad
    expected = scene.camera_height_m / (y * np.cos(pitch) + np.sin(pitch))
    np.testing.assert_allclose(view.depth_m[rows, columns], expected, rtol=1e-3)
    assert view.depth_m.max() <= MAX_DEPTH_M


def test_captions_say_what_is_true() -> None:
    for index in range(40):
        scene = sample_scene(np.random.default_rng([9, index]))
        view = render(scene, 96)
        visible = {f"{o.colour} {o.kind}": i for i, o in enumerate(scene.objects) if i in view.visible_objects()}
        _, captions = write_captions(scene, view, "reinforced", np.random.default_rng(index))
        assert len(captions) == NUM_REINFORCED
        for name in visible:
            assert name in captions[0], (captions[0], name)
        if len(visible) > 1:
            middles = {name: np.nonzero(view.instances == i)[1].mean() for name, i in visible.items()}
            order = sorted(middles, key=lambda name: middles[name])
            positions = [captions[1].index(name) for name in order]
            assert positions == sorted(positions), captions[1]
            near, far = captions[2].split(" is nearest and ")
            depth = {name: scene.objects[i].placed.centre[2] for name, i in visible.items()}
            assert min(depth, key=lambda name: depth[name]) in near
            assert max(depth, key=lambda name: depth[name]) in far


def test_shards_are_what_img2dataset_and_datacompdr_write(folder: Path) -> None:
    with tarfile.open(folder / "shards" / "train" / "00000.tar") as tar:
        members = {name: tar.extractfile(name).read() for name in tar.getnames()}  # type: ignore[union-attr]
    assert {name.split(".", 1)[1] for name in members} == {"jpg", "txt", "json", "syn.json"}
    record = json.loads(members["000000000.json"])
    assert record["sha256"] == hashlib.sha256(members["000000000.jpg"]).hexdigest()
    assert record["caption"] == members["000000000.txt"].decode()
    assert len(json.loads(members["000000000.syn.json"])["syn_text"]) == NUM_REINFORCED
    assert Image.open(io.BytesIO(members["000000000.jpg"])).size == (64, 64)


def test_the_coco_masks_are_the_class_maps(folder: Path) -> None:
    coco = COCO(folder / "coco" / "annotations" / "instances_train2017.json")
    for image in coco.loadImgs(coco.getImgIds()):
        stem = Path(image["file_name"]).stem
        classes = np.asarray(Image.open(folder / "ade" / "annotations" / "training" / f"{stem}.png"))
        for annotation in coco.loadAnns(coco.getAnnIds(image["id"])):
            mask = coco.annToMask(annotation).astype(bool)
            kind = coco.loadCats(annotation["category_id"])[0]["name"]
            assert (classes[mask] == CLASS_NAMES.index(kind) + 1).all()
            rows, columns = np.nonzero(mask)
            x, y, width, height = annotation["bbox"]
            assert (x, y) == (columns.min(), rows.min())
            assert (width, height) == (np.ptp(columns) + 1, np.ptp(rows) + 1)


def test_zero_shot_images_show_mainly_one_object_of_their_class(folder: Path) -> None:
    assert (folder / "classify" / "class_names.txt").read_text().splitlines() == sorted(KINDS)
    for split in ("train", "val"):
        assert sorted(path.name for path in (folder / "classify" / split).iterdir()) == sorted(KINDS)
        coco = COCO(folder / "coco" / "annotations" / f"instances_{split}2017.json")
        shown = {int(path.stem): path for path in (folder / "classify" / split).glob("*/*.jpg")}
        assert shown
        for image in coco.loadImgs(coco.getImgIds()):
            objects = sorted(coco.loadAnns(coco.getAnnIds(image["id"])), key=lambda a: -a["area"])
            stands_out = bool(objects) and all(2 * other["area"] <= objects[0]["area"] for other in objects[1:])
            assert (image["id"] in shown) == stands_out
            if stands_out:
                path = shown[image["id"]]
                assert path.parent.name == coco.loadCats(objects[0]["category_id"])[0]["name"]
                assert path.read_bytes() == (folder / "coco" / f"{split}2017" / image["file_name"]).read_bytes()


def test_an_existing_folder_is_refused_and_left_alone(folder: Path) -> None:
    before = digest(folder)
    with pytest.raises(FileExistsError, match="--force"):
        write_scenes(ScenesConfig(out=folder, num_images=8, size_px=64))
    assert digest(folder) == before


def test_settings_out_of_range_are_refused_by_flag() -> None:
    with pytest.raises(ValueError, match=r"--num-images: found 3, expected at least 8"):
        ScenesConfig(out=Path("x"), num_images=3)
