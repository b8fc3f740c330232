"""`python -m benchmarks.dense_training`: the time of a fine-tuning step, with our settings and with mmsegmentation's.

Both arms run mmengine's `train_step` of the same model on the same random images, without loading, in turn.
mmsegmentation's settings: float32, contiguous tensors. Ours: bf16 autocast, channels-last on a GPU, and torch.compile
with --compile.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.runner import set_random_seed
from mmengine.structures import PixelData

from benchmarks.harness import ResultSettings, compute_device_name, provenance, save_result
from mobileclip_dense.artifact.files import refuse_existing
from mobileclip_dense.command import run_with_settings
from mobileclip_dense.config import FinetuneConfig
from mobileclip_dense.config.check import MAX_SIDE_PX, require, require_numbers
from mobileclip_dense.config.encoders import last_stride
from mobileclip_dense.dense.model import model_config
from mobileclip_dense.dense.training.engine import place_model
from mobileclip_dense.dense.training.train import fresh_model, optim_wrapper_config
from mobileclip_dense.pages.progress import progress_bar
from mobileclip_dense.runtime.timing import time_in_turn

_NUM_CLASSES = 150


@dataclass(frozen=True, kw_only=True)
class DenseTrainingConfig(ResultSettings):
    """Measure images per second of dense fine-tuning, with our settings and with mmsegmentation's, in turn."""

    encoder: str = "mci2"
    """Encoder, as in `finetune`."""
    size_px: int = 512
    """Height and width of the images, pixels."""
    batch_size: int = 16
    """Images per step."""
    compile: bool = False
    """Use torch.compile in our arm."""
    steps: int = 10
    """Timed steps of each arm in each round, after one warm-up step."""
    rounds: int = 5
    """Number of rounds. Each round runs both arms."""
    out: Path = Path("results/dense-training.json")

    def __post_init__(self) -> None:
        require_numbers(self, "batch_size", "steps", "rounds", at_least=1)
        require_numbers(self, "size_px", at_least=32, at_most=MAX_SIDE_PX)
        stride = last_stride(self.encoder)
        require(self, "size_px", self.size_px % stride == 0, f"a multiple of {stride}")


def measure_dense_training(config: DenseTrainingConfig) -> dict[str, Any]:
    """Write and return the result: `images_per_s` of each arm, and `ours_against_stock`, the ratio of the medians.

    Raises:
        FileExistsError: the result exists and --force was not given.
    """
    refuse_existing(config.out, config.force)
    arms = {
        "stock": _arm(config, precision="32-true", placed=lambda model: model.to(_device())),
        "ours": _arm(config, precision="bf16-mixed", placed=place_model),
    }
    times_ms: dict[str, list[float]] = {name: [] for name in arms}
    for _ in progress_bar(range(config.rounds), unit="round"):
        for name, step in arms.items():
            times_ms[name] += time_in_turn([step], config.steps, num_warmup=1)[0]
    seconds = {name: median(taken) / 1e3 for name, taken in times_ms.items()}
    result = {
        **{name: getattr(config, name) for name in ("encoder", "size_px", "batch_size", "compile", "steps", "rounds")},
        "head": "semantic_fpn",
        **provenance(compute_device_name(), "torch", "mmengine", "mmsegmentation", "timm"),
        "seed": 0,
        "s_per_step_median": seconds,
        "images_per_s": {name: config.batch_size / taken for name, taken in seconds.items()},
        "ours_against_stock": seconds["stock"] / seconds["ours"],
    }
    return save_result(
        config.out,
        result,
        f"{result['images_per_s']['ours']:.1f} images per s, {result['ours_against_stock']:.2f}x the "
        f"{result['images_per_s']['stock']:.1f} of mmsegmentation's settings",
    )


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _arm(config: DenseTrainingConfig, precision: Any, placed: Callable[[Any], Any]) -> Callable[[], None]:
    """A function that runs one training step."""
    settings = FinetuneConfig(
        data=Path(),
        out=Path(),
        encoder=config.encoder,
        crop_size_px=(config.size_px, config.size_px),
        batch_size=config.batch_size,
        precision=precision,
    )
    set_random_seed(0)
    model: Any = fresh_model(model_config(settings, _NUM_CLASSES))
    model.init_weights()
    model = placed(model).train()
    wrapper: OptimWrapper = build_optim_wrapper(model, optim_wrapper_config(settings))
    take = torch.compile(model.train_step) if config.compile and precision != "32-true" else model.train_step
    batch = _batch(config)

    def step() -> None:
        take(batch, wrapper)
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return step


def _batch(config: DenseTrainingConfig) -> dict[str, Any]:
    """Random images uint8 [3,H,W] and labels, in the format of mmsegmentation's loader."""
    from mmseg.structures import SegDataSample  # must be imported after mobileclip_dense.dense

    generator, shape = torch.Generator().manual_seed(0), (config.size_px, config.size_px)
    samples = []
    for _ in range(config.batch_size):
        sample = SegDataSample(metainfo=dict(img_shape=shape, ori_shape=shape))
        sample.gt_sem_seg = PixelData(data=torch.randint(_NUM_CLASSES, (1, *shape), generator=generator))
        samples.append(sample)
    pictures = torch.randint(256, (config.batch_size, 3, *shape), dtype=torch.uint8, generator=generator)
    return dict(inputs=list(pictures), data_samples=samples)


if __name__ == "__main__":
    run_with_settings(DenseTrainingConfig, measure_dense_training, "python -m benchmarks.dense_training")
