"""The protocols of `benchmarks.caption_quality` and their steps. Each step writes one folder.

The settings of a protocol were chosen so that pretraining learns (held-out recall well above chance in minutes), not by
the result of the comparison.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from mobileclip_dense.artifact.files import read_json
from mobileclip_dense.config import CaptionQuality, FinetuneConfig, PretrainConfig, ScenesConfig, config_to_json
from mobileclip_dense.data.scenes.writer import IMAGES_PER_SHARD

QUALITIES: tuple[CaptionQuality, ...] = get_args(CaptionQuality)
WORSE, BETTER = "alt", "reinforced"  # the two qualities whose scaling is compared
TASKS = {"segment": "ade", "depth": "nyu"}  # task -> folder of its labels
TUNINGS = ("finetune", "probe")
SUPERVISED, SCRATCH = "supervised", "scratch"

Kind = Literal["scenes", "clip", "supervised", "finetune"]


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """One scale of the benchmark.

    Attributes:
        size_px: height and width of all scenes.
        num_images: number of generated scenes for pretraining. Every eighth scene is held out.
        num_labelled: number of other scenes for the dense tasks. Every eighth scene is held out.
        num_shards: numbers of pretraining shards of 100 pairs, ascending. The arms are compared at the last one.
        seeds: seeds of pretraining and of the fine-tuning after it.
        pretrain, finetune: settings without paths, seeds and tasks.
        probe: settings of a linear probe that differ from `finetune`.
        lanes: number of parallel steps.
        threads: threads of each step.
    """

    size_px: int
    num_images: int
    num_labelled: int
    num_shards: tuple[int, ...]
    seeds: tuple[int, ...]
    pretrain: PretrainConfig
    finetune: FinetuneConfig
    probe: dict[str, Any]
    lanes: int
    threads: int

    @property
    def num_pairs(self) -> tuple[int, ...]:
        """The number of pretraining pairs for each number of shards."""
        return tuple(number * IMAGES_PER_SHARD for number in self.num_shards)


_UNSET = Path("unset")
_PROBE: dict[str, Any] = dict(head="linear", frozen_stages=4, drop_path_rate=0.0)

CPU = Protocol(
    size_px=64, num_images=2864, num_labelled=1600, num_shards=(1, 5, 25), seeds=(0, 1, 2), lanes=2, threads=1,
    pretrain=PretrainConfig(
        data=("unset",), out=_UNSET, model="nano", image_size_px=64, batch_size=64, steps=150, learning_rate=2e-3,
        warmup_steps=15, num_workers=0, checkpoint_every=100,
    ),
    finetune=FinetuneConfig(
        data=_UNSET, out=_UNSET, encoder="nano", crop_size_px=(64, 64), scale_range=(0.75, 1.5), colour_jitter=False,
        batch_size=16, max_iters=60, warmup_iters=6, learning_rate=4e-3, drop_path_rate=0.0, neck_channels=48,
        head_channels=32, max_train_images=64, num_workers=0,
    ),
    probe=_PROBE,
)  # fmt: skip

GPU = Protocol(
    size_px=256, num_images=22_864, num_labelled=4000, num_shards=(8, 40, 200), seeds=(0, 1, 2), lanes=1, threads=8,
    pretrain=PretrainConfig(
        data=("unset",), out=_UNSET, model="mci2", image_size_px=256, batch_size=128, steps=2000, learning_rate=1e-3,
        warmup_steps=200, num_workers=8, checkpoint_every=200, precision="bf16-mixed",
    ),
    finetune=FinetuneConfig(
        data=_UNSET, out=_UNSET, encoder="mci2", crop_size_px=(256, 256), scale_range=(0.75, 1.5), colour_jitter=False,
        batch_size=16, max_iters=800, warmup_iters=80, learning_rate=5e-4, drop_path_rate=0.1, neck_channels=256,
        head_channels=128, max_train_images=400, num_workers=4, precision="bf16-mixed", checkpoint_every=200,
    ),
    probe=_PROBE,
)  # fmt: skip

PROTOCOLS = {"cpu": CPU, "gpu": GPU}


@dataclass(frozen=True, kw_only=True)
class Step:
    """A step of the plan, which writes one folder.

    Attributes:
        name: unique name.
        kind: kind of the step.
        config: settings of its command, including `out`.
        scenes: folder of scenes with the tags for supervised pretraining, None for other steps.
        after: names of the steps that must be complete before.
    """

    name: str
    kind: Kind
    config: ScenesConfig | PretrainConfig | FinetuneConfig
    scenes: Path | None = None
    after: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """The folder that the step writes."""
        return self.config.out

    @property
    def complete(self) -> bool:
        """Whether the folder is complete."""
        return (self.folder / ("scenes.json" if self.kind == "scenes" else "run.json")).is_file()


def clip_name(quality: str, num_pairs: int, seed: int) -> str:
    """The name of a pretraining step."""
    return f"clip-{quality}-{num_pairs}-{seed}"


def tuned_name(task: str, tuning: str, start: str) -> str:
    """The name of a fine-tuning step. `start` is the name of the pretraining step, or scratch-SEED."""
    return f"{task}-{tuning}-{start}"


def steps(protocol: Protocol, out: Path) -> list[Step]:
    """All steps, in an order in which they can run one after the other."""
    return [*_scenes(protocol, out), *_pretrainings(protocol, out), *_tunings(protocol, out)]


def _scenes(protocol: Protocol, out: Path) -> Iterator[Step]:
    for quality in QUALITIES:
        config = ScenesConfig(
            out=out / "scenes" / quality,
            num_images=protocol.num_images,
            size_px=protocol.size_px,
            caption_quality=quality,
        )
        yield Step(name=f"scenes-{quality}", kind="scenes", config=config)
    # The dense tasks have other scenes, because their images must not be seen in pretraining.
    config = ScenesConfig(
        out=out / "scenes" / "labelled",
        num_images=protocol.num_labelled,
        size_px=protocol.size_px,
        caption_quality="clean",
        seed=1,
    )
    yield Step(name="scenes-labelled", kind="scenes", config=config)


def _pretrainings(protocol: Protocol, out: Path) -> Iterator[Step]:
    for seed in protocol.seeds:
        for quality, number in arms(protocol):
            scenes, name = out / "scenes" / quality, clip_name(quality, number * IMAGES_PER_SHARD, seed)
            yield Step(
                name=name,
                kind="clip",
                config=_pretrain(protocol, scenes, number, out / "runs" / name, seed),
                after=(f"scenes-{quality}",),
            )
        scenes, name = out / "scenes" / "clean", f"{SUPERVISED}-{seed}"
        config = _pretrain(protocol, scenes, protocol.num_shards[-1], out / "runs" / name, seed)
        yield Step(name=name, kind="supervised", config=config, scenes=scenes, after=("scenes-clean",))


def arms(protocol: Protocol) -> list[tuple[CaptionQuality, int]]:
    """The caption quality and number of shards of each CLIP pretraining: all at the largest size, two at the others."""
    compared = [(quality, protocol.num_shards[-1]) for quality in QUALITIES]
    scaled = [(quality, n) for n in protocol.num_shards[:-1] for quality in QUALITIES if quality in (WORSE, BETTER)]
    return compared + scaled


def _pretrain(protocol: Protocol, scenes: Path, num_shards: int, run: Path, seed: int) -> PretrainConfig:
    shards = scenes / "shards" / "train" / f"{{00000..{num_shards - 1:05d}}}.tar"
    return dataclasses.replace(
        protocol.pretrain, data=(str(shards),), val_data=str(scenes / "shards"), out=run, seed=seed
    )


def _tunings(protocol: Protocol, out: Path) -> Iterator[Step]:
    for seed in protocol.seeds:
        starts = [(clip_name(q, n * IMAGES_PER_SHARD, seed), n == protocol.num_shards[-1]) for q, n in arms(protocol)]
        for start, compared in (*starts, (f"{SUPERVISED}-{seed}", True), (f"{SCRATCH}-{seed}", True)):
            for task, labels in TASKS.items():
                for tuning in TUNINGS if compared else TUNINGS[:1]:  # scaling is shown for fine-tuning alone
                    yield _tuning(protocol, out, task, labels, tuning, start, seed)


def _tuning(protocol: Protocol, out: Path, task: Any, labels: str, tuning: str, start: str, seed: int) -> Step:
    name, init = tuned_name(task, tuning, start), None
    if not start.startswith(SCRATCH):
        run = out / "runs" / start
        init = str(run / "weights.safetensors" if start.startswith(SUPERVISED) else run)
    config = dataclasses.replace(
        protocol.finetune,
        task=task,
        data=out / "scenes" / "labelled" / labels,
        out=out / "runs" / name,
        init=init,
        seed=seed,
        **protocol.probe if tuning == "probe" else {},
    )
    return Step(
        name=name, kind="finetune", config=config, after=("scenes-labelled", *(() if init is None else (start,)))
    )


def settings_of(step: Step) -> dict[str, Any]:
    """The settings of a step as written to its folder. Paths are relative to --out, so that folders may move."""
    if isinstance(step.config, ScenesConfig):
        values = dataclasses.asdict(step.config)
        return {name: value for name, value in values.items() if name not in ("out", "force")}
    values = config_to_json(step.config)
    if step.kind == "supervised":
        values["command"] = "supervised"
    return {name: _inside(value) for name, value in values.items() if name != "out"}


def _inside(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_inside(item) for item in value]
    if not isinstance(value, str) or not Path(value).is_absolute():
        return value
    parts = Path(value).parts
    root = max((index for index, part in enumerate(parts) if part in ("scenes", "runs")), default=len(parts) - 1)
    return "/".join(parts[root:])


def check_settings(step: Step) -> None:
    """Raise ValueError if a step's folder, complete or not, was made with other settings."""
    path = step.folder / ("scenes.json" if step.kind == "scenes" else "config.json")
    if not path.is_file():
        return
    found, expected = read_json(path), settings_of(step)
    changed = [
        f"{name}: {_inside(found.get(name))} instead of {value}"
        for name, value in expected.items()
        if _inside(found.get(name)) != value
    ]
    if changed:
        raise ValueError(
            f"{step.folder}: made with other settings ({', '.join(changed)}); choose another --out, or "
            "remove this folder and the runs trained from it"
        )
