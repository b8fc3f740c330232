"""The losses of CLIP (arXiv 2103.00020) and of multi-modal reinforced distillation (MobileCLIP, arXiv 2311.17049,
section 3.2; used by arXiv 2405.08911), over the batches of all processes.

In one direction, for the rows of this process and the columns of all processes:

    log p = log softmax(s rows columns^T)                          the student, s its logit scale
    P     = mean over teachers k of softmax(tau_k rows_k columns_k^T)
    C     = - mean over rows of log p of the row's own pair        contrastive
    D     = - mean over rows of the sum over columns of P log p    distillation

Both are averaged over the two directions, image to text and text to image. The loss is the sum over caption sets (real,
synthetic) of w_0 C + w_1 D. Each direction takes the softmax of its own logits. The transpose of the other direction's
P would be wrong: its rows do not sum to one.

All computations are float32, also under autocast. At a scale of 100, rounding a cosine near one to bfloat16 (2^-9)
changes a logit by 0.2, as much as the difference between two good captions.

Each of W processes with B pairs computes the B x WB logits of its own rows and the gathered columns of all processes.
The gather propagates gradients back to the process of each column, so that the gradient averaged by DDP equals that of
one process with all WB pairs, also for the logit scale. Without gradients through the gather, a feature would lack the
gradient from the rows of other processes. With WB x WB logits on every process, the same gradient would take W times
the memory and work.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.distributed._functional_collectives import all_gather_tensor_autograd


class Features(NamedTuple):
    """The features of B images and their captions, by one network: the student or a teacher."""

    image: Tensor
    """Float [B,D], unit norm."""
    texts: tuple[Tensor, ...]
    """For each caption set (for example real and synthetic) float [B,D], unit norm."""
    logit_scale: Tensor | float
    """Factor on the cosines: the exponential of CLIP's parameter, or a teacher's tau (DataCompDR: 100)."""


class Losses(NamedTuple):
    """Float32 scalars for the rows of this process. Their mean over processes is the loss of the whole batch."""

    total: Tensor
    """w_0 contrastive + w_1 distillation."""
    contrastive: Tensor
    """C summed over caption sets, detached."""
    distillation: Tensor
    """D summed over caption sets, detached; 0 without teachers."""


def reinforced_loss(
    student: Features, teachers: Sequence[Features] = (), *, weights: tuple[float, float] = (1.0, 0.0)
) -> Losses:
    """The sum over caption sets of w_0 contrastive + w_1 distillation, over the pairs of all processes.

    Without teachers it is CLIP's loss. The features of teachers are stored ones or those of frozen networks. Their
    widths and scales may differ, and they get no gradient. All processes need the same B; each call makes one
    collective for the student and one for the teachers.

    Args:
        student: features and logit scale of the student; both get gradients.
        teachers: features of the same images and captions, with the same number of caption sets as the student.
        weights: (w_0, w_1).

    Raises:
        ValueError: a teacher has another number of pairs or caption sets than the student, or w_1 is not 0 without
            teachers.
    """
    _check(student, teachers, weights)
    with torch.autocast(student.image.device.type, enabled=False):
        everyones = _gather([student])[0]
        everyones_teachers = _gather(teachers)
        contrastive = distillation = torch.zeros((), device=student.image.device)
        for caption_set in range(len(student.texts)):
            for direction in ("image to text", "text to image"):
                log_p = _logits(student, everyones, caption_set, direction).log_softmax(dim=1)
                contrastive = contrastive + F.nll_loss(log_p, _own_columns(log_p)) / 2
                if teachers:
                    targets = _targets(teachers, everyones_teachers, caption_set, direction)
                    distillation = distillation - (targets * log_p).sum(dim=1).mean() / 2
        total = weights[0] * contrastive + weights[1] * distillation
    return Losses(total, contrastive.detach(), distillation.detach())


def split_teachers(embeddings: Tensor, dims: Sequence[int]) -> tuple[Tensor, ...]:
    """Split the concatenated embeddings of teachers, float [B,sum D_k], into float32 [B,D_k] of unit norm per teacher.

    Raises:
        ValueError: the width is not the sum of `dims`.
    """
    if embeddings.shape[-1] != sum(dims):
        raise ValueError(f"teachers' embeddings: found a width of {embeddings.shape[-1]}, expected {sum(dims)} "
                         f"({' + '.join(map(str, dims))})")  # fmt: skip
    return tuple(F.normalize(part.float(), dim=-1) for part in torch.split(embeddings, list(dims), dim=-1))


@torch.no_grad()
def _targets(teachers: Sequence[Features], everyones: Sequence[Features], caption_set: int, direction: str) -> Tensor:
    """P of one direction, float32 [B,WB]."""
    targets = torch.zeros((), device=teachers[0].image.device)
    for teacher, everyones_teacher in zip(teachers, everyones, strict=True):
        targets = targets + _logits(teacher, everyones_teacher, caption_set, direction).softmax(dim=1)
    return targets / len(teachers)


def _logits(own: Features, everyones: Features, caption_set: int, direction: str) -> Tensor:
    """The scaled cosines of one direction, float32 [B,WB]."""
    if direction == "image to text":
        rows, columns = own.image, everyones.texts[caption_set]
    else:
        rows, columns = own.texts[caption_set], everyones.image
    return (own.logit_scale * rows.float()) @ columns.T


def _own_columns(log_p: Tensor) -> Tensor:
    """The column index of each row's own pair among the columns of all processes, int64 [B]."""
    size = log_p.shape[0]
    rank = dist.get_rank() if _is_distributed() else 0
    return torch.arange(size, device=log_p.device) + size * rank


def _gather(networks: Sequence[Features]) -> list[Features]:
    """Gather features [B,D] of all processes to float32 [WB,D] in rank order, in one differentiable collective."""
    parts = [part.float() for network in networks for part in (network.image, *network.texts)]
    if parts and _is_distributed():
        assert dist.group.WORLD is not None
        gathered = all_gather_tensor_autograd(torch.cat(parts, dim=1), 0, dist.group.WORLD)
        parts = list(gathered.split([part.shape[1] for part in parts], dim=1))
    left = iter(parts)
    return [Features(next(left), tuple(next(left) for _ in network.texts), network.logit_scale) for network in networks]


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def _check(student: Features, teachers: Sequence[Features], weights: tuple[float, float]) -> None:
    if weights[1] and not teachers:
        raise ValueError(f"weights: found {weights[1]} for distillation, expected 0 without teachers")
    expected = (len(student.image), len(student.texts))
    for number, one in enumerate((student, *teachers)):
        for part in (one.image, *one.texts):
            found = (len(part), len(one.texts))
            if found != expected:
                name = f"teacher {number}" if number else "student"
                raise ValueError(f"{name}: found {found[0]} pairs, {found[1]} caption sets; expected {expected[0]}, "
                                 f"{expected[1]} as for the student's images")  # fmt: skip
