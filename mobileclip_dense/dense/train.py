"""Dense fine-tuning: mmengine's Runner on an mmsegmentation model."""

import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.models.segmentors import EncoderDecoder
from tqdm import tqdm

from mobileclip_dense.config import FinetuneConfig
from mobileclip_dense.contract.palette import class_palette
from mobileclip_dense.data.folders import LabelledFolder, check_folder
from mobileclip_dense.dense.model import build_from_run, model_config
from mobileclip_dense.dense.pipelines import dataloader_config
from mobileclip_dense.models.weights import read_encoder_source
from mobileclip_dense.run import Run, append_metrics, drop_metrics_after, finish_run, load_run, open_run

_LOG_EVERY = 10


def finetune(config: FinetuneConfig) -> None:
    """Train, or go on training, the run `config.out`, and evaluate it on the held-out images.

    Raises:
        FileNotFoundError, ValueError: the data, the weights or the settings cannot be used.
        FileExistsError: see `open_run`.
    """
    started = time.time()
    if config.init is not None:
        read_encoder_source(config.init)  # a wrong path should not wait for the scan of the data
    pruned = pruned_start(config)
    folder = check_folder(config)
    settings = runner_config(config, folder)
    if pruned is not None:
        settings["model"] = _model_of(pruned, config, folder)
    open_run(config)
    warnings.filterwarnings("ignore", category=UserWarning, module="mmengine|mmseg|mmcv|torch")
    runner = Runner(**settings)
    runner.train()
    metrics = _measure(runner)
    state = runner.model.state_dict()
    details = {
        "class_names": list(folder.class_names),
        "palette": class_palette(len(folder.class_names)),
        "reduce_zero_label": folder.reduce_zero_label,
        "num_train_images": folder.num_train,
        "num_val_images": folder.num_val,
    }
    device = str(next(runner.model.parameters()).device)
    structure = None if pruned is None else pruned.structure
    finish_run(config, state, metrics, started=started, device=device, details=details, structure=structure)
    if config.task == "segment":
        print(
            f"{config.out}: mIoU {metrics['mIoU']:.2f} %, accuracy {metrics['aAcc']:.2f} % on {folder.num_val} images"
        )
    else:
        print(f"{config.out}: RMSE {metrics['rmse']:.3f} m, AbsRel {metrics['abs_rel']:.3f} on {folder.num_val} images")


def evaluate_model(model: EncoderDecoder, config: FinetuneConfig, folder: LabelledFolder) -> dict[str, float]:
    """The figures that `finetune` ends with, of a model that is built already, on all held-out images."""
    with tempfile.TemporaryDirectory() as unused:
        return _measure(Runner(**runner_config(config, folder) | {"model": model, "work_dir": unused}))


def _measure(runner: Runner) -> dict[str, float]:
    return {name: float(value) for name, value in runner.val_loop.run().items()}


def pruned_start(config: FinetuneConfig) -> Run | None:
    """The run `config.init` if it is a pruned one: training then starts from all of it, encoder, neck and head.

    Raises:
        ValueError: it is, and of another task, encoder or size of neck or head than `config`.
    """
    if config.init is None or not Path(config.init).is_dir():
        return None
    run = load_run(Path(config.init))
    if run.structure is None:
        return None
    for field in ("task", "encoder", "head", "neck_channels", "head_channels"):
        found, expected = getattr(run.config, field), getattr(config, field)
        if found != expected:
            raise ValueError(f"{config.init}: {field}: found a pruned run with {found}, the recipe has {expected}; "
                             "a pruned run is fine-tuned with the recipe and flags it was trained with")  # fmt: skip
    return run


def _model_of(pruned: Run, config: FinetuneConfig, folder: LabelledFolder) -> EncoderDecoder:
    """The pruned model, ready for mmengine.

    Raises:
        ValueError: it knows other classes than the data.
    """
    found, expected = pruned.record["class_names"], list(folder.class_names)
    if found != expected:
        raise ValueError(f"{config.init}: classes: found a pruned run with {len(found)} ({', '.join(found[:3])}, …), "
                         f"{config.data} has {len(expected)} ({', '.join(expected[:3])}, …); fine-tune it on "
                         "the classes it was trained on")  # fmt: skip
    model = build_from_run(config, pruned)
    model.is_init = True  # mmengine draws weights for whatever is not
    return model


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
    evaluator: dict[str, Any] = dict(type="IoUMetric", iou_metrics=["mIoU"])
    if config.task == "depth":
        evaluator = dict(type="DepthMetric", max_depth_eval=config.max_depth_m)
    return dict(
        model=model_config(config, len(folder.class_names)),
        work_dir=str(config.out / "checkpoints"),
        train_dataloader=dataloader_config(config, folder, training=True),
        val_dataloader=dataloader_config(config, folder, training=False),
        train_cfg=dict(type="IterBasedTrainLoop", max_iters=config.max_iters, val_interval=config.max_iters + 1),
        val_cfg=dict(type="ValLoop"),
        val_evaluator=evaluator,
        optim_wrapper=dict(
            type="OptimWrapper",
            optimizer=dict(type="AdamW", lr=config.learning_rate, weight_decay=config.weight_decay),
            constructor="LayerDecayConstructor",
            paramwise_cfg=dict(layer_decay=config.layer_decay),
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
