"""Dense fine-tuning: mmengine's Runner on a segmentor, a depth estimator or a detector."""

import math
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_reduce_params, barrier, broadcast_object_list, get_world_size, is_main_process
from mmengine.hooks import EMAHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner, set_random_seed
from mmseg.models.segmentors import EncoderDecoder
from mmseg.registry import MODELS
from mmseg.utils import register_all_modules
from torch import nn

from mobileclip_dense.artifact.palette import class_palette
from mobileclip_dense.config import FinetuneConfig
from mobileclip_dense.config.heads import HEADS
from mobileclip_dense.data.labelled.coco import CocoSet, read_images
from mobileclip_dense.data.labelled.coco_check import check_coco
from mobileclip_dense.data.labelled.labelled_set import LabelledSet
from mobileclip_dense.data.labelled.scan import check_set
from mobileclip_dense.dense.mmcv_compat import ignore_warnings
from mobileclip_dense.dense.model import build_from_run, model_config
from mobileclip_dense.dense.training.checkpoint import FIELDS, LastCheckpoint
from mobileclip_dense.dense.training.coco import detection_config
from mobileclip_dense.dense.training.engine import RunLog, StepAverage, compile_settings, join_processes, place_model
from mobileclip_dense.dense.training.pipelines import dataloader_config
from mobileclip_dense.models.sources import read_encoder_source
from mobileclip_dense.run.checkpoints import checkpoint_file
from mobileclip_dense.run.folder import Run, finish_run, load_run, open_run

LABELLED_DETAILS = ("layout", "reduce_zero_label", "ignored_label", "num_skipped")


def finetune(config: FinetuneConfig) -> None:
    """Train or resume the run `config.out`, and evaluate it on the held-out images.

    Under torchrun, each process trains on its share of each batch, and only the first process writes files.

    Raises:
        FileNotFoundError, ValueError: the data, the weights or the settings cannot be used.
        FileExistsError: see `open_run`.
    """
    started = time.time()
    launcher = join_processes()
    _check_micro_batch(config)
    if config.init is not None:
        read_encoder_source(config.init)  # fail on a wrong path before the data is scanned
    pruned = pruned_start(config)
    check = check_coco if config.task == "detect" else check_set
    folder = run_in_first_process(lambda: check(config))
    settings = runner_config(config, folder)
    ignore_warnings()
    set_random_seed(config.seed)
    model = fresh_model(settings["model"]) if pruned is None else _model_of(pruned, config, folder)
    inputs = {
        "--data": config.data,
        "--init": None if config.init is None else Path(config.init),
        "--class-names": config.class_names,
    }
    with open_run(config, inputs, FIELDS) if is_main_process() else nullcontext():
        runner = Runner(**settings | resume_settings(config) | {"model": place_model(model)}, launcher=launcher)
        runner.train()
        finalize_weights(runner)
        metrics = _measure(runner)
        if is_main_process():
            _finish(config, runner, metrics, folder, started, None if pruned is None else pruned.structure)
    barrier()


def run_in_first_process(function: Any) -> Any:
    """Call `function()` in the first process and return its result in all processes."""
    result = [function() if is_main_process() else None]
    broadcast_object_list(result)
    return result[0]


def resume_settings(config: FinetuneConfig) -> dict[str, Any]:
    """The settings of mmengine's Runner for resuming. Only the first process looks for a checkpoint."""
    checkpoint = checkpoint_file(config.out)
    resume = run_in_first_process(checkpoint.exists)
    return {"resume": resume, "load_from": str(checkpoint) if resume else None}


def _check_micro_batch(config: FinetuneConfig) -> None:
    """Verify the micro-batch size of heads that pool to one pixel, where one image has no variance for BatchNorm.

    Raises:
        ValueError: micro-batches have one image and BatchNorm is not synced over GPU processes.
    """
    synced = get_world_size() > 1 and torch.cuda.is_available()
    if HEADS[config.head].pools_to_one_pixel and config.batch_size == config.accumulate and not synced:
        raise ValueError(f"batch_size: found {config.batch_size} in micro-batches of one image, expected at least two "
                         f"images in each, because {config.head} pools to one pixel; raise --batch-size or lower "
                         "--accumulate")  # fmt: skip


def fresh_model(settings: dict[str, Any]) -> nn.Module:
    """The model of a config dictionary, before mmengine initializes its weights."""
    register_all_modules()  # sets mmengine's default scope, in which SegDataPreProcessor and others are registered
    model: nn.Module = MODELS.build(settings)
    return model


def finalize_weights(runner: Runner) -> None:
    """Set the final weights of the model: the moving average if there is one, and BatchNorm statistics averaged over
    the processes, which have different ones."""
    average = next((hook for hook in runner.hooks if isinstance(hook, EMAHook)), None)
    final = runner.model if average is None else average.ema_model.module
    all_reduce_params(final.buffers(), op="mean")
    if average is not None:
        average.src_model.load_state_dict(final.state_dict())  # copied, because mmengine swaps the two for evaluation


def _finish(
    config: FinetuneConfig, runner: Runner, metrics: dict[str, float], folder: LabelledSet | CocoSet,
    started: float, structure: Any,
) -> None:  # fmt: skip
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    details = {
        "class_names": list(folder.class_names),
        "palette": class_palette(len(folder.class_names)),
        "num_train_images": folder.num_train,
        "num_val_images": folder.num_val,
        "val_images": held_out_names(folder),
        "num_processes": runner.world_size,
    }
    if isinstance(folder, LabelledSet):
        details |= {name: getattr(folder, name) for name in LABELLED_DETAILS}
    device = str(next(model.parameters()).device)
    finish_run(
        config, model.state_dict(), metrics, started=started, device=device, details=details, structure=structure
    )
    if config.task == "segment":
        print(
            f"{config.out}: mIoU {metrics['mIoU']:.2f} %, accuracy {metrics['aAcc']:.2f} % on {folder.num_val} images"
        )
    elif config.task == "detect":
        print(f"{config.out}: boxes {metrics['bbox_mAP']:.2f} % mAP, masks {metrics['segm_mAP']:.2f} % mAP on "
              f"{folder.num_val} images")  # fmt: skip
    else:
        print(f"{config.out}: RMSE {metrics['rmse']:.3f} m, AbsRel {metrics['abs_rel']:.3f} on {folder.num_val} images")


def evaluate_model(model: EncoderDecoder, config: FinetuneConfig, folder: LabelledSet) -> dict[str, float]:
    """Measure an existing model on all held-out images, with the figures of `finetune`."""
    with tempfile.TemporaryDirectory() as unused:
        return _measure(Runner(**runner_config(config, folder) | {"model": model, "work_dir": unused}))


def _measure(runner: Runner) -> dict[str, float]:
    figures = {name: float(value) for name, value in runner.val_loop.run().items()}
    undefined = [name for name, value in figures.items() if not math.isfinite(value)]
    if undefined:
        raise ValueError(f"{', '.join(undefined)}: found a value that is not finite on the held-out images, expected "
                         "finite figures; lower --learning-rate and train again")  # fmt: skip
    return figures


def held_out_names(folder: LabelledSet | CocoSet) -> list[str]:
    """The names of the held-out images, by which `evaluate` and `prune` verify that the images are the same."""
    if isinstance(folder, LabelledSet):
        return [pair.image.name for pair in folder.val]
    return [image["file_name"] for image, _ in read_images(folder, "val")]


def pruned_start(config: FinetuneConfig) -> Run | None:
    """The run `config.init` if it is pruned, otherwise None. Training starts from the run's encoder, neck and head.

    Raises:
        ValueError: the pruned run has another task, encoder, head, or width of neck or head than `config`.
    """
    if config.init is None or not (Path(config.init) / "run.json").is_file():
        return None  # no weights, published weights, or a folder of `convert-weights`
    run = load_run(Path(config.init))
    if run.structure is None:
        return None
    for field in ("task", "encoder", "head", "neck_channels", "head_channels"):
        found, expected = getattr(run.config, field), getattr(config, field)
        if found != expected:
            raise ValueError(f"{config.init}: {field}: found a pruned run with {found}, expected {expected} as in the "
                             "recipe; fine-tune it with the recipe and flags it was trained with")  # fmt: skip
    return run


def _model_of(pruned: Run, config: FinetuneConfig, folder: LabelledSet | CocoSet) -> EncoderDecoder:
    """The pruned model, ready for mmengine.

    Raises:
        ValueError: the run and the data have different classes.
    """
    found, expected = pruned.record["class_names"], list(folder.class_names)
    if found != expected:
        raise ValueError(f"{config.init}: classes: found a pruned run with {len(found)} ({', '.join(found[:3])}, …), "
                         f"expected the {len(expected)} of {config.data} ({', '.join(expected[:3])}, …); fine-tune it "
                         "on the classes it was trained on")  # fmt: skip
    model = build_from_run(config, pruned)
    model.is_init = True  # otherwise mmengine would initialize the weights again
    return model


def _labelled_config(config: FinetuneConfig, folder: LabelledSet) -> dict[str, Any]:
    """The settings of mmengine's Runner for segmentation and depth."""
    evaluator: dict[str, Any] = dict(type="IoUScore")
    if config.task == "depth":
        evaluator = dict(type="DepthErrors", max_depth_m=config.max_depth_m)
    return dict(
        model=model_config(config, len(folder.class_names)),
        train_dataloader=dataloader_config(config, folder, training=True),
        val_dataloader=dataloader_config(config, folder, training=False),
        val_evaluator=evaluator,
    )


def runner_config(config: FinetuneConfig, folder: LabelledSet | CocoSet) -> dict[str, Any]:
    """The settings of mmengine's Runner. It counts micro-batches, while `config` counts optimizer steps."""
    num_batches = config.max_iters * config.accumulate
    return dict(
        **(detection_config(config, folder) if isinstance(folder, CocoSet) else _labelled_config(config, folder)),
        work_dir=str(config.out / "checkpoints"),
        # No evaluation in the loop: `finetune` evaluates at the end, with the averaged weights.
        train_cfg=dict(type="ResumingTrainLoop", max_iters=num_batches, val_begin=num_batches + 1),
        val_cfg=dict(type="ValLoop"),
        optim_wrapper=optim_wrapper_config(config),
        param_scheduler=_schedule(config),
        default_hooks=dict(logger=None, checkpoint=None),
        custom_hooks=_hooks(config),
        cfg=dict(compile=compile_settings(config)),
        default_scope="mmseg",
        log_level="ERROR",
        log_processor=dict(by_epoch=False),
        visualizer=dict(type="Visualizer", vis_backends=[]),
        randomness=dict(seed=config.seed),
        experiment_name=config.out.name,
    )


def optim_wrapper_config(config: FinetuneConfig) -> dict[str, Any]:
    """The settings of AdamW, gradient accumulation and precision."""
    return dict(
        type="BFloat16OptimWrapper" if config.precision == "bf16-mixed" else "OptimWrapper",
        accumulative_counts=config.accumulate,
        optimizer=dict(type="AdamW", lr=config.learning_rate, weight_decay=config.weight_decay),
        constructor="LayerDecayConstructor",
        paramwise_cfg=dict(layer_decay=config.layer_decay),
    )


def _schedule(config: FinetuneConfig) -> list[dict[str, Any]]:
    num_batches, warmup = config.max_iters * config.accumulate, config.warmup_iters * config.accumulate
    decay = dict(type="PolyLR", power=config.poly_power, eta_min=0.0, by_epoch=False, begin=warmup, end=num_batches)
    if warmup < 2:  # mmengine's LinearLR would stay at its start factor of 1/1000
        return [decay]
    return [dict(type="LinearLR", start_factor=1e-3, by_epoch=False, begin=0, end=warmup), decay]


def _hooks(config: FinetuneConfig) -> list[Hook]:
    hooks: list[Hook] = [RunLog(config), LastCheckpoint(config)]
    if config.ema_decay:
        hooks.append(StepAverage(config))
    return hooks
