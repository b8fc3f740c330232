"""mmsegmentation configs of the data pipelines for segmentation and depth."""

from typing import Any

from mobileclip_dense.artifact.palette import class_palette
from mobileclip_dense.config import FinetuneConfig
from mobileclip_dense.data.labelled.labelled_set import LabelledSet


def dataloader_config(config: FinetuneConfig, folder: LabelledSet, *, training: bool) -> dict[str, Any]:
    """The settings of the training or validation loader for mmengine's Runner."""
    dataset: dict[str, Any] = dict(
        type="PairDataset",
        pairs=[(str(image), str(label)) for image, label in (folder.train if training else folder.val)],
        task=config.task,
        pipeline=_train_pipeline(config, folder) if training else _val_pipeline(config, folder),
    )
    if config.task == "segment":
        dataset.update(metainfo=dict(classes=folder.class_names, palette=class_palette(len(folder.class_names))))
    sampler = dict(type="InfiniteSampler", shuffle=True) if training else dict(type="DefaultSampler", shuffle=False)
    return dict(
        batch_size=config.batch_size // config.accumulate if training else 1,
        num_workers=config.num_workers,
        persistent_workers=False,
        sampler=sampler,
        dataset=dataset,
    )


def _annotation(config: FinetuneConfig, folder: LabelledSet) -> dict[str, Any]:
    if config.task == "segment":
        return dict(
            type="LoadClassLabels", reduce_zero_label=folder.reduce_zero_label, ignored_label=folder.ignored_label
        )
    return dict(type="LoadDepth", units_per_m=config.depth_units_per_m)


def _short_side(config: FinetuneConfig) -> tuple[int, int]:
    """mmcv's `scale` that resizes the short side to that of the crop; the bound of the long side is large."""
    return (4 * max(config.crop_size_px), min(config.crop_size_px))


def _train_pipeline(config: FinetuneConfig, folder: LabelledSet) -> list[dict[str, Any]]:
    # Depth is not rescaled, because an enlarged picture of a scene looks like a nearer scene.
    rescale = [dict(type="RandomResize", scale=_short_side(config), ratio_range=config.scale_range,
                    resize_type="ResizeAnyShape")]  # fmt: skip
    return [
        dict(type="LoadImage"),
        _annotation(config, folder),
        *(rescale if config.task == "segment" else []),
        dict(type="RandomCrop", crop_size=config.crop_size_px, cat_max_ratio=0.75 if config.task == "segment" else 1.0),
        dict(type="RandomFlip", prob=0.5),
        *([dict(type="PhotoMetricDistortion")] if config.colour_jitter else []),
        dict(type="PackSegInputs"),
    ]


def _val_pipeline(config: FinetuneConfig, folder: LabelledSet) -> list[dict[str, Any]]:
    rescale = [dict(type="ResizeAnyShape", scale=_short_side(config))]
    return [
        dict(type="LoadImage"),
        *(rescale if config.task == "segment" else []),
        _annotation(config, folder),
        dict(
            type="PackSegInputs",
            meta_keys=("img_path", "ori_shape", "img_shape", "pad_shape", "scale_factor", "flip", "flip_direction"),
        ),
    ]
