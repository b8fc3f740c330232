"""COCO as an mmengine data set, with torchvision's transforms."""

from typing import Any

import numpy as np
import torch
from mmengine.dataset import BaseDataset
from mmseg.registry import DATASETS
from pycocotools import mask as coco_mask
from torchvision import tv_tensors
from torchvision.ops import masks_to_boxes
from torchvision.transforms import v2

from mobileclip_dense.artifact.images import load_image
from mobileclip_dense.config import FinetuneConfig
from mobileclip_dense.config.encoders import ENCODERS
from mobileclip_dense.data.labelled.coco import CocoSet, Split, read_images
from mobileclip_dense.data.labelled.coco_annotations import to_rle
from mobileclip_dense.dense.detector import detector_config


@DATASETS.register_module()
class CocoObjects(BaseDataset):
    """A split of a COCO data set. A sample is {"inputs", "data_samples"}, see `pack`.

    Args:
        coco: see `check_coco`.
        split: train or val.
        transforms: applied to each example of `read_example`.
    """

    def __init__(self, coco: CocoSet, split: Split, transforms: v2.Transform):
        self.coco, self.split = coco, split
        super().__init__(metainfo={"classes": coco.class_names}, pipeline=[read_example, transforms, pack])

    def load_data_list(self) -> list[dict[str, Any]]:
        """The path, id, size and objects of every image, without crowds."""
        labels = {number: label for label, number in enumerate(self.coco.category_ids, start=1)}
        folder = self.coco.image_folder(self.split)
        return [
            {
                "path": folder / image["file_name"],
                "image_id": image["id"],
                "size_px": (image["height"], image["width"]),
                "objects": [
                    (labels[annotation["category_id"]], annotation["bbox"], annotation["segmentation"])
                    for annotation in annotations
                    if not annotation["iscrowd"]
                ],
            }
            for image, annotations in read_images(self.coco, self.split)
        ]


def read_example(entry: dict[str, Any]) -> dict[str, Any]:
    """Read an entry of `CocoObjects` into an example for torchvision's transforms.

    Returns:
        image: uint8 [3,H,W]; boxes: float [N,4], corners x, y, x, y inside the image; masks: uint8 [N,H,W];
        labels: int64 [N], 1..num_classes; image_id.
    """
    height, width = entry["size_px"]
    labels, boxes, segmentations = zip(*entry["objects"], strict=True) if entry["objects"] else ((), (), ())
    corners = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    masks = np.zeros((len(labels), height, width), np.uint8)
    for mask, segmentation in zip(masks, segmentations, strict=True):
        mask[:] = coco_mask.decode(to_rle(segmentation, height, width))
    return {
        "image": tv_tensors.Image(torch.tensor(load_image(entry["path"])).permute(2, 0, 1)),
        "boxes": v2.functional.clamp_bounding_boxes(
            tv_tensors.BoundingBoxes(corners, format="XYXY", canvas_size=(height, width))
        ),
        "masks": tv_tensors.Mask(torch.from_numpy(masks)),
        "labels": torch.tensor(labels, dtype=torch.int64),
        "image_id": entry["image_id"],
    }


def train_transforms(config: FinetuneConfig) -> v2.Transform:
    """Random scale, crop, horizontal flip and, with `colour_jitter`, colours. The result has `crop_size_px`."""
    short_px = min(config.crop_size_px)
    smallest, largest = (max(1, round(factor * short_px)) for factor in config.scale_range)
    largest_crop = max(config.crop_size_px)
    # Images smaller than the crop are padded with the mean, which normalization turns into zero, as the model pads.
    mean = tuple(255 * value for value in ENCODERS[config.encoder].normalization.mean)
    jitter = v2.ColorJitter(brightness=0.125, contrast=0.5, saturation=0.5, hue=0.05)
    return v2.Compose(
        [
            RandomShortSide(list(range(smallest, largest + 1)), max_size=4 * largest_crop * largest // short_px),
            v2.RandomCrop(config.crop_size_px, pad_if_needed=True, fill={tv_tensors.Image: mean, "others": 0}),
            v2.RandomHorizontalFlip(),
            *([jitter] if config.colour_jitter else []),
            fit_boxes,
            v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True),
        ]
    )


class RandomShortSide(v2.RandomShortestSize):
    """torchvision's `RandomShortestSize`, with sides of at least one pixel, for images of extreme aspect ratio."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Height and width, of at least one pixel."""
        height, width = super().make_params(flat_inputs)["size"]
        return {"size": (max(1, height), max(1, width))}


def val_transforms() -> v2.Transform:
    """Only a conversion to float: the model resizes the images and scales its detections back."""
    return v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True)


def fit_boxes(example: dict[str, Any]) -> dict[str, Any]:
    """Fit boxes to the visible parts of cropped objects, and remove objects thinner than a pixel.

    Clipping the boxes at the crop would leave boxes larger than the visible part.
    """
    masks, boxes = example["masks"], example["boxes"]
    seen = masks.bool().flatten(1).any(1)  # on uint8, `any` would return uint8
    masks, boxes, labels = masks[seen], boxes[seen], example["labels"][seen]
    around = masks_to_boxes(masks)  # from the centre of the first pixel to that of the last
    # The margin of one pixel leaves annotated boxes unchanged if the crop does not touch them.
    boxes = torch.cat([boxes[:, :2].maximum(around[:, :2] - 1), boxes[:, 2:].minimum(around[:, 2:] + 2)], 1)
    large = ((boxes[:, 2:] - boxes[:, :2]) >= 1).all(1)
    return {**example, "boxes": boxes[large], "masks": masks[large], "labels": labels[large]}


def pack(example: dict[str, Any]) -> dict[str, Any]:
    """{"inputs": float [3,H,W] in 0..1, "data_samples": boxes, masks, labels and image_id}, as plain tensors."""
    targets = {
        name: value.as_subclass(torch.Tensor) if isinstance(value, torch.Tensor) else value
        for name, value in example.items()
    }
    return {"inputs": targets.pop("image"), "data_samples": targets}


def collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Collate samples into lists, because the sizes of images and the numbers of objects differ."""
    return {name: [sample[name] for sample in samples] for name in ("inputs", "data_samples")}


def loader_config(config: FinetuneConfig, coco: CocoSet, split: Split) -> dict[str, Any]:
    """The settings of a data loader for mmengine's Runner."""
    training = split == "train"
    return dict(
        batch_size=config.batch_size // config.accumulate if training else 1,
        num_workers=config.num_workers,
        persistent_workers=False,
        sampler=dict(type="InfiniteSampler", shuffle=True) if training
        else dict(type="DefaultSampler", shuffle=False, round_up=False),
        dataset=dict(
            type="CocoObjects", coco=coco, split=split,
            transforms=train_transforms(config) if training else val_transforms(),
        ),
        collate_fn=collate,
    )  # fmt: skip


def detection_config(config: FinetuneConfig, coco: CocoSet) -> dict[str, Any]:
    """The settings of mmengine's Runner for detection: model, train_dataloader, val_dataloader and val_evaluator.

    Args:
        config: settings of the run.
        coco: see `check_coco`.
    """
    return dict(
        model=detector_config(config, len(coco.class_names)),
        train_dataloader=loader_config(config, coco, "train"),
        val_dataloader=loader_config(config, coco, "val"),
        val_evaluator=dict(type="CocoMetric", coco=coco),
    )
