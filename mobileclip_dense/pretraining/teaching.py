"""The teachers of a run: teachers with embeddings stored in the shards, or frozen models that run in every step."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from mobileclip_dense.artifact.files import read_json
from mobileclip_dense.config import PretrainConfig
from mobileclip_dense.data.captioned.reinforced import SIDECAR
from mobileclip_dense.data.captioned.stream import Batch
from mobileclip_dense.pretraining.losses import Features, split_teachers
from mobileclip_dense.pretraining.teachers import Teacher


@dataclass(frozen=True, kw_only=True)
class Teaching:
    """K teachers.

    Attributes:
        dims: widths of their embeddings.
        temperatures: scales of their similarities (DataCompDR: 100).
        online: the models, if the teachers run in every step. Empty for stored embeddings.
    """

    dims: tuple[int, ...]
    temperatures: tuple[float, ...]
    online: tuple[Teacher, ...] = ()

    def features(self, batch: Batch, images: torch.Tensor, num_parts: int = 1) -> list[Features]:
        """The features of a batch by each teacher: stored ones, or computed from the student's crops.

        Args:
            batch: the batch.
            images: its images on the device, uint8 [B,3,S,S].
            num_parts: number of parts in which online teachers encode the batch, to save memory.
        """
        if self.online:
            return [_run(teacher, scale, batch, images, num_parts) for teacher, scale in
                    zip(self.online, self.temperatures, strict=True)]  # fmt: skip
        stored = (batch.teacher_images, batch.teacher_texts, batch.teacher_synthetic_texts)
        parts = [split_teachers(one.to(images.device), self.dims) for one in stored if one is not None]
        return [Features(image, tuple(texts), scale) for (image, *texts), scale in
                zip(zip(*parts, strict=True), self.temperatures, strict=True)]  # fmt: skip


def _run(teacher: Teacher, temperature: float, batch: Batch, images: torch.Tensor, num_parts: int) -> Features:
    # `cat` also makes ordinary tensors from those of inference mode, which cannot be used in the student's graph.
    size_px = teacher.image_size_px
    image = torch.cat([teacher.encode_images(_resized(part, size_px)) for part in images.chunk(num_parts)])
    tokens = (teacher.tokenize(list(captions)) for captions in batch.captions)
    texts = tuple(torch.cat([teacher.encode_tokens(part) for part in one.chunk(num_parts)]) for one in tokens)
    return Features(image, texts, temperature)


def _resized(images: torch.Tensor, size_px: int) -> torch.Tensor:
    """uint8 [B,3,S,S] -> uint8 [B,3,size_px,size_px], bicubic."""
    if images.shape[-2:] == (size_px, size_px):
        return images
    floats = F.interpolate(images.float(), (size_px, size_px), mode="bicubic", antialias=True)
    return floats.round_().clamp_(0, 255).to(torch.uint8)


def find_teaching(config: PretrainConfig) -> Teaching | None:
    """The teachers that a config names, None if the weight of distillation is 0.

    Raises:
        FileNotFoundError: neither flags nor a reinforcement.json name the teachers of the shards.
        ValueError: the numbers of widths and temperatures differ, or the sources have different teachers.
    """
    if config.distillation_weight == 0:
        return None
    if config.teachers:
        online = tuple(Teacher(name, torch.device("cpu")) for name in config.teachers)
        dims, temperatures = tuple(t.dim for t in online), tuple(t.temperature for t in online)
    elif config.teacher_dims:
        online, dims, temperatures = (), config.teacher_dims, config.teacher_temperatures
    else:
        online, (dims, temperatures) = (), _read_sidecars(config.data)
    temperatures = config.teacher_temperatures or temperatures
    if len(temperatures) != len(dims):
        raise ValueError(
            f"--teacher-temperatures: found {len(temperatures)}, expected one for each of {len(dims)} teachers"
        )
    return Teaching(dims=dims, temperatures=temperatures, online=online)


def _read_sidecars(sources: tuple[str, ...]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    found = {source: Path(source) / SIDECAR for source in sources}
    missing = [source for source, path in found.items() if not path.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{missing[0]}: {SIDECAR}: no such file, so the teachers' widths are unknown; pass --teacher-dims and "
            f"--teacher-temperatures (DataCompDR: 768 768 and 100 100)"
        )
    kinds = {source: _read_sidecar(path) for source, path in found.items()}
    if len(set(kinds.values())) > 1:
        raise ValueError(f"--data: found sources with different teachers ({kinds}), expected the same teachers; "
                         "reinforce them with the same ones")  # fmt: skip
    return next(iter(kinds.values()))


def _read_sidecar(path: Path) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """The widths and temperatures of the teachers."""
    teachers: Any = read_json(path).get("teachers")
    try:
        if not teachers:
            raise ValueError
        return tuple(int(t["dim"]) for t in teachers), tuple(float(t["temperature"]) for t in teachers)
    except (TypeError, KeyError, ValueError):
        raise ValueError(f"{path}: teachers: found {repr(teachers)[:80]}, expected a list of objects with dim and "
                         f"temperature; pass --teacher-dims and --teacher-temperatures instead") from None  # fmt: skip
