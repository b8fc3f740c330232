"""Dense fine-tuning: mmengine's Runner on an mmsegmentation model."""

import time
import warnings
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from tqdm import tqdm

from mobileclip_dense.config import FinetuneConfig
from mobileclip_dense.contract.palette import class_palette
from mobileclip_dense.data.folders import SPLITS, LabelledFolder, check_folder
from mobileclip_dense.dense.model import model_config
from mobileclip_dense.models.weights import read_state_dict
from mobileclip_dense.run import append_metrics, drop_metrics_after, finish_run, open_run

_LOG_EVERY = 10


def finetune(config: FinetuneConfig) -> None:
    """Train, or go on training, the run `config.out`, and evaluate it on the held-out images.

    Raises:
        FileNotFoundError, ValueError: the data, the weights or the settings cannot be used.
        FileExistsError: see `open_run`.
    """
    started = time.time()
    if config.init is not None:
        read_state_dict(config.init)  # a wrong path should not wait for the scan of the data
    folder = check_folder(config)
    settings = runner_config(config, folder)
    open_run(config)
    warnings.filterwarnings("ignore", category=UserWarning, module="mmengine|mmseg|mmcv|torch")
    runner = Runner(**settings)
    runner.train()
    measured = runner.val_loop.run()
    metrics = {name: float(value) for name, value in measured.items()}
    state = runner.model.state_dict()
    details = {
        "class_names": list(folder.class_names),
        "palette": class_palette(len(folder.class_names)),
        "reduce_zero_label": folder.reduce_zero_label,
        "num_train_images": folder.num_train,
        "num_val_images": folder.num_val,
    }
    device = str(next(runner.model.parameters()).device)
    finish_run(config, state, metrics, started=started, device=device, details=details)
    if config.task == "segment":
        print(
            f"{config.out}: mIoU {metrics['mIoU']:.2f} %, accuracy {metrics['aAcc']:.2f} % on {folder.num_val} images"
        )
    else:
        print(f"{config.out}: RMSE {metrics['rmse']:.3f} m, AbsRel {metrics['abs_rel']:.3f} on {folder.num_val} images")


class RunLog(Hook):
    """Progress bar and metrics.jsonl."""

    def __init__(self, config: FinetuneConfig):
        self.config = config

    def before_train(self, runner: Runner) -> None:
        drop_metrics_after(self.config.out, runner.iter)
        self.bar = tqdm(
            total=self.config.max_iters, initial=runner.iter, unit="iter", desc=f"finetune {self.config.task}"
        )

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        """Count, and log every tenth step; a loss that is not finite ends the run."""
        assert outputs is not None
        loss, step = float(outputs["loss"]), runner.iter + 1
        if not torch.isfinite(torch.tensor(loss)):
            raise ValueError(f"{self.config.out}: loss: found {loss} at step {step}; lower --learning-rate")
        self.bar.update()
        if step % _LOG_EVERY == 0:
            rate = runner.optim_wrapper.get_lr()["lr"][0]
            append_metrics(self.config.out, step=step, loss=loss, learning_rate=rate)
            self.bar.set_postfix(loss=f"{loss:.3f}")

    def after_train(self, runner: Runner) -> None:
        self.bar.close()


def runner_config(config: FinetuneConfig, folder: LabelledFolder) -> dict[str, Any]:
    """Everything mmengine's Runner wants to know."""
    loaders = [_loader(config, folder, training) for training in (True, False)]
    evaluator: dict[str, Any] = dict(type="IoUMetric", iou_metrics=["mIoU"])
    if config.task == "depth":
        evaluator = dict(type="DepthMetric", max_depth_eval=config.max_depth_m)
    return dict(
        model=model_config(config, len(folder.class_names)),
        work_dir=str(config.out / "checkpoints"),
        train_dataloader=loaders[0],
        val_dataloader=loaders[1],
        train_cfg=dict(type="IterBasedTrainLoop", max_iters=config.max_iters, val_interval=config.max_iters + 1),
        val_cfg=dict(type="ValLoop"),
        val_evaluator=evaluator,
        optim_wrapper=dict(
            type="OptimWrapper",
            optimizer=dict(type="AdamW", lr=config.learning_rate, weight_decay=config.weight_decay),
            paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
        ),
        param_scheduler=[
            dict(type="LinearLR", start_factor=1e-3, by_epoch=False, begin=0, end=config.warmup_iters),
            dict(
                type="PolyLR", power=0.9, eta_min=0.0, by_epoch=False, begin=config.warmup_iters, end=config.max_iters
            ),
        ],
        default_hooks=dict(
            logger=None,
            checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=config.checkpoint_every, max_keep_ckpts=1),
        ),
        custom_hooks=[RunLog(config), dict(type="PlainCheckpoint")],
        default_scope="mmseg",
        log_level="ERROR",
        log_processor=dict(by_epoch=False),
        visualizer=dict(type="Visualizer", vis_backends=[]),
        randomness=dict(seed=config.seed),
        resume=True,
        experiment_name=config.out.name,
    )


def _loader(config: FinetuneConfig, folder: LabelledFolder, training: bool) -> dict[str, Any]:
    split = SPLITS[config.task][0 if training else 1]
    images, annotations = f"images/{split}", f"annotations/{split}"
    dataset: dict[str, Any] = dict(
        data_root=str(config.data),
        img_suffix=folder.image_suffix,
        pipeline=_train_pipeline(config) if training else _val_pipeline(config),
        indices=config.max_train_images if training else None,
    )
    if config.task == "segment":
        dataset.update(
            type="BaseSegDataset",
            data_prefix=dict(img_path=images, seg_map_path=annotations),
            metainfo=dict(classes=folder.class_names, palette=class_palette(len(folder.class_names))),
            reduce_zero_label=folder.reduce_zero_label,
        )
    else:
        dataset.update(type="DepthFolder", data_prefix=dict(img_path=images, depth_map_path=annotations))
    sampler = dict(type="InfiniteSampler", shuffle=True) if training else dict(type="DefaultSampler", shuffle=False)
    return dict(
        batch_size=config.batch_size if training else 1,
        num_workers=config.num_workers,
        persistent_workers=False,
        sampler=sampler,
        dataset=dataset,
    )


def _annotation(config: FinetuneConfig) -> dict[str, Any]:
    if config.task == "segment":
        return dict(type="LoadAnnotations")
    return dict(type="LoadDepthAnnotation", depth_rescale_factor=1 / config.depth_units_per_m)


def _short_side(config: FinetuneConfig) -> tuple[int, int]:
    """mmcv's way to say: the short side to the crop's, the long side free."""
    return (4 * max(config.crop_size_px), min(config.crop_size_px))


def _train_pipeline(config: FinetuneConfig) -> list[dict[str, Any]]:
    # Depth is not rescaled: a larger picture of the same scene would be a nearer scene.
    rescale = [dict(type="RandomResize", scale=_short_side(config), ratio_range=config.scale_range, keep_ratio=True)]
    return [
        dict(type="LoadImageFromFile"),
        _annotation(config),
        *(rescale if config.task == "segment" else []),
        dict(type="RandomCrop", crop_size=config.crop_size_px, cat_max_ratio=0.75 if config.task == "segment" else 1.0),
        dict(type="RandomFlip", prob=0.5),
        *([dict(type="PhotoMetricDistortion")] if config.colour_jitter else []),
        dict(type="PackSegInputs"),
    ]


def _val_pipeline(config: FinetuneConfig) -> list[dict[str, Any]]:
    rescale = [dict(type="Resize", scale=_short_side(config), keep_ratio=True)]
    return [
        dict(type="LoadImageFromFile"),
        *(rescale if config.task == "segment" else []),
        _annotation(config),
        dict(
            type="PackSegInputs",
            meta_keys=("img_path", "ori_shape", "img_shape", "pad_shape", "scale_factor", "flip", "flip_direction"),
        ),
    ]
