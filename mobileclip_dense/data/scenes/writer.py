"""Writing of generated scenes in the formats of published data sets.

DIR/shards/{train,val}/00000.tar   img2dataset: KEY.jpg, KEY.txt, KEY.json; DataCompDR's KEY.syn.json if reinforced
DIR/ade/{images,annotations}/{training,validation}, objectInfo150.csv   ADE20K (0 = other, 1.. = classes)
DIR/nyu/{images,annotations}/{train,test}   NYU Depth v2 in mmsegmentation's layout (16-bit PNG, millimetres)
DIR/coco/{train2017,val2017}, annotations/instances_{train,val}2017.json   COCO boxes and run-length masks
DIR/classify/{train,val}/CLASS/*.jpg, class_names.txt   ImageNet's layout, for zero-shot classification

`classify` holds the scenes in which one object has at least twice the area of every other object; its kind is the
class. Every kind has a folder, possibly empty, so that zero-shot classification chooses among all kinds.
"""

import io
import json
import tarfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from pycocotools import mask as coco_mask

from mobileclip_dense.artifact.files import write_json
from mobileclip_dense.artifact.outputs import SCENES, staged_folder
from mobileclip_dense.config import ScenesConfig
from mobileclip_dense.data.captioned.tar import add_sample
from mobileclip_dense.data.scenes.captions import write_captions
from mobileclip_dense.data.scenes.scene import CLASS_NAMES, KINDS, Rendered, render, sample_scene
from mobileclip_dense.pages.progress import progress_bar

IMAGES_PER_SHARD = 100
_HELD_OUT_EVERY = 8  # every eighth image is held out for validation, in all layouts
_ADE_SPLIT = {"train": "training", "val": "validation"}
_NYU_SPLIT = {"train": "train", "val": "test"}


@dataclass(frozen=True, kw_only=True)
class Example:
    """An encoded scene, as returned by the worker processes."""

    index: int
    jpeg: bytes
    class_png: bytes
    depth_png: bytes
    caption: str
    synthetic_captions: list[str]
    annotations: list[dict[str, Any]]  # COCO, without ids
    main_kind: str | None  # None without a main object

    @property
    def split(self) -> str:
        return "val" if self.index % _HELD_OUT_EVERY == _HELD_OUT_EVERY - 1 else "train"


def write_scenes(config: ScenesConfig) -> None:
    """Generate scenes into `config.out`. The same config writes the same bytes.

    Raises:
        FileExistsError: the folder exists and --force was not given.
    """
    with staged_folder(config.out, SCENES, force=config.force, inputs={}) as folder:
        coco = {split: _empty_coco() for split in ("train", "val")}
        shards = {split: _ShardWriter(folder / "shards" / split) for split in ("train", "val")}
        for example in progress_bar(_examples(config), "scenes", total=config.num_images, unit="image"):
            _write_images(folder, example)
            shards[example.split].add(example, config.size_px)
            _add_to_coco(coco[example.split], example, config.size_px)
        for split, writer in shards.items():
            writer.close()
            write_json(folder / "coco" / "annotations" / f"instances_{split}2017.json", coco[split])
        _write_class_names(folder / "ade" / "objectInfo150.csv")
        _complete_classes(folder / "classify")
        write_json(
            folder / "scenes.json",
            {"num_images": config.num_images, "size_px": config.size_px, "caption_quality": config.caption_quality,
             "seed": config.seed},
        )  # fmt: skip
    num_val = config.num_images // _HELD_OUT_EVERY
    print(
        f"{config.out}: {config.num_images - num_val} training and {num_val} validation scenes, "
        f"{len(CLASS_NAMES)} classes; shards/, ade/, nyu/, coco/, classify/"
    )


def _examples(config: ScenesConfig) -> Iterator[Example]:
    """All examples in order, generated in parallel."""
    make = partial(make_example, config.seed, config.size_px, config.caption_quality)
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        yield from pool.map(make, range(config.num_images), chunksize=16)


def make_example(seed: int, size_px: int, quality: Any, index: int) -> Example:
    """Generate scene `index` of the data set `seed`. The image does not depend on the caption quality."""
    scene = sample_scene(np.random.default_rng([seed, index]))
    view = render(scene, size_px)
    main = view.main_object()
    caption, synthetic_captions = write_captions(scene, view, quality, np.random.default_rng([seed, index, 1]))
    return Example(
        index=index,
        jpeg=_encode(view.image, "JPEG", quality=92),
        class_png=_encode(view.classes + np.uint8(1), "PNG", compress_level=3),
        depth_png=_encode((view.depth_m * 1000 + 0.5).astype(np.uint16), "PNG", compress_level=3),
        caption=caption,
        synthetic_captions=synthetic_captions,
        annotations=_coco_annotations([item.kind for item in scene.objects], view),
        main_kind=None if main is None else scene.objects[main].kind,
    )


def _encode(pixels: npt.NDArray[Any], image_format: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, image_format, **options)
    return buffer.getvalue()


def _coco_annotations(kinds: list[str], view: Rendered) -> list[dict[str, Any]]:
    annotations = []
    for index in view.visible_objects():
        encoded = coco_mask.encode(np.asfortranarray(view.instances == index, dtype=np.uint8))
        annotations.append(
            {
                "category_id": KINDS.index(kinds[index]) + 1,
                "bbox": [float(v) for v in coco_mask.toBbox(encoded)],
                "area": float(coco_mask.area(encoded)),
                "segmentation": {"size": encoded["size"], "counts": encoded["counts"].decode()},
                "iscrowd": 0,
            }
        )
    return annotations


def _write_images(folder: Path, example: Example) -> None:
    name, split = f"{example.index:08d}", example.split
    _write(folder / "ade" / "images" / _ADE_SPLIT[split] / f"{name}.jpg", example.jpeg)
    _write(folder / "nyu" / "images" / _NYU_SPLIT[split] / f"{name}.jpg", example.jpeg)
    _write(folder / "coco" / f"{split}2017" / f"{name}.jpg", example.jpeg)
    if example.main_kind is not None:
        _write(folder / "classify" / split / example.main_kind / f"{name}.jpg", example.jpeg)
    _write(folder / "ade" / "annotations" / _ADE_SPLIT[split] / f"{name}.png", example.class_png)
    _write(folder / "nyu" / "annotations" / _NYU_SPLIT[split] / f"{name}.png", example.depth_png)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _write_class_names(path: Path) -> None:
    rows = ["Idx,Name", *(f"{index},{name}" for index, name in enumerate(CLASS_NAMES, start=1))]
    _write(path, ("\n".join(rows) + "\n").encode())


def _complete_classes(folder: Path) -> None:
    """Create a folder for every kind, and class_names.txt with one name per line in the order of the folders."""
    for split in ("train", "val"):
        for kind in KINDS:
            (folder / split / kind).mkdir(parents=True, exist_ok=True)
    _write(folder / "class_names.txt", "".join(f"{kind}\n" for kind in sorted(KINDS)).encode())


class _ShardWriter:
    """Writes tar shards of IMAGES_PER_SHARD samples. The same samples give the same bytes."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True)
        self.folder = folder
        self.num_samples = 0
        self.tar: tarfile.TarFile | None = None

    def add(self, example: Example, size_px: int) -> None:
        if self.num_samples % IMAGES_PER_SHARD == 0:
            self.close()
            self.tar = tarfile.open(  # noqa: SIM115  closed by close()
                self.folder / f"{self.num_samples // IMAGES_PER_SHARD:05d}.tar", "w"
            )
        self.num_samples += 1
        key = f"{example.index:09d}"
        digest = sha256(example.jpeg).hexdigest()
        record = {"uid": digest[:32], "key": key, "status": "success", "caption": example.caption,
                  "width": size_px, "height": size_px, "sha256": digest}  # fmt: skip
        members = {"jpg": example.jpeg, "txt": example.caption.encode(), "json": json.dumps(record).encode()}
        if example.synthetic_captions:
            members["syn.json"] = json.dumps({"syn_text": example.synthetic_captions}).encode()
        assert self.tar is not None
        add_sample(self.tar, key, members)

    def close(self) -> None:
        if self.tar is not None:
            self.tar.close()


def _empty_coco() -> dict[str, Any]:
    categories = [{"id": i, "name": kind, "supercategory": "solid"} for i, kind in enumerate(KINDS, start=1)]
    return {"info": {"description": "generated scenes"}, "images": [], "annotations": [], "categories": categories}


def _add_to_coco(coco: dict[str, Any], example: Example, size_px: int) -> None:
    image = {"id": example.index, "file_name": f"{example.index:08d}.jpg", "width": size_px, "height": size_px}
    coco["images"].append(image)
    for annotation in example.annotations:
        number = len(coco["annotations"]) + 1
        coco["annotations"].append({"id": number, "image_id": example.index, **annotation})
