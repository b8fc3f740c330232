"""Contrastive batches larger than memory, in two passes: gradient caching (Gao et al. 2021, arXiv 2101.06983).

A contrastive loss does not split over micro-batches, but its gradient with respect to the features does: the first pass
computes the features of all micro-batches and keeps no graph, the loss of them all gives their gradient, and the second
pass computes each micro-batch again and back-propagates its share. The result is the gradient of the whole batch for
one more forward pass, with the activations of one micro-batch in memory. BatchNorm normalises each micro-batch by its
own statistics, as it does with any other way of accumulating.

Both passes must see the same network. Random numbers (drop path, dropout) are replayed, and only the second pass
updates BatchNorm's running statistics. The first pass does record each micro-batch's graph, and drops it at once: under
torch.compile a network draws other random numbers where gradients are off, and the result would be silently wrong.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from mobileclip_dense.pretraining.losses import Features, Losses
from mobileclip_dense.pretraining.randomness import random_states, set_random_states


def backward(
    fabric: Fabric,
    model: nn.Module,
    micro_batches: Sequence[tuple[Tensor, ...]],
    loss_of: Callable[[Features], Losses],
) -> Losses:
    """Add the gradient of the loss of all micro-batches together to the parameters; the losses, detached.

    Processes synchronise their gradients once, in the last micro-batch, and must bring equally many micro-batches. A
    single micro-batch is the ordinary forward and backward pass.

    Args:
        fabric: what set up `model`.
        model: `Towers` after `fabric.setup`.
        micro_batches: the arguments of the model's forward pass, each of any number of pairs.
        loss_of: the losses of the features of all pairs in the order of `micro_batches`. Teachers' features have to be
            of the whole batch, too.
    """
    if len(micro_batches) == 1:
        losses = loss_of(model(*micro_batches[0]))
        with _recomputation_uncounted(model):
            fabric.backward(losses.total)
        return losses._replace(total=losses.total.detach())
    states, parts = [], []
    with fabric.no_backward_sync(model), _frozen_running_statistics(model):  # type: ignore[arg-type]
        for micro_batch in micro_batches:
            states.append(random_states(fabric.device))
            parts.append(_detached(model(*micro_batch)))
    features, scale = _joined(parts)
    losses = loss_of(features)
    *gradients, scale_gradient = torch.autograd.grad(losses.total, (features.image, *features.texts, scale))
    sizes = [len(part.image) for part in parts]
    shares = list(zip(*(torch.split(gradient, sizes) for gradient in gradients), strict=True))
    states.append(random_states(fabric.device))
    last = len(micro_batches) - 1
    for index, micro_batch in enumerate(micro_batches):
        set_random_states(fabric.device, states[index])
        with fabric.no_backward_sync(model, enabled=index < last):  # type: ignore[arg-type]
            image, texts, logit_scale = model(*micro_batch)
            # A scalar that has the wanted gradient, so that Fabric's precision may scale it like any loss.
            surrogate = sum((part * share).sum() for part, share in zip((image, *texts), shares[index], strict=True))
            if index == last:  # all micro-batches yield the same scale: its gradient counts once
                surrogate = surrogate + logit_scale * scale_gradient
            with _recomputation_uncounted(model):
                fabric.backward(surrogate)
    set_random_states(fabric.device, states[-1])
    return losses._replace(total=losses.total.detach())


def _detached(features: Features) -> Features:
    texts = tuple(text.detach() for text in features.texts)
    return Features(features.image.detach(), texts, torch.as_tensor(features.logit_scale).detach())


def _joined(parts: Sequence[Features]) -> tuple[Features, Tensor]:
    """The features of all micro-batches in one, as leaves that ask for a gradient; their logit scale again."""
    image = torch.cat([part.image for part in parts]).requires_grad_()
    texts = tuple(torch.cat(pieces).requires_grad_() for pieces in zip(*(part.texts for part in parts), strict=True))
    scale = torch.as_tensor(parts[-1].logit_scale).requires_grad_()
    return Features(image, texts, scale), scale


@contextmanager
def _frozen_running_statistics(model: nn.Module) -> Iterator[None]:
    """Normalise by the statistics of the batch and leave running statistics and their counter alone.

    Without `track_running_stats` a BatchNorm in training does not touch its buffers; one in evaluation uses them still.
    """
    tracking = [one for one in model.modules() if getattr(one, "track_running_stats", False)]
    for module in tracking:
        module.track_running_stats = False  # type: ignore[assignment]
    try:
        yield
    finally:
        for module in tracking:
            module.track_running_stats = True  # type: ignore[assignment]


@contextmanager
def _recomputation_uncounted(model: nn.Module) -> Iterator[None]:
    """Gradient checkpointing runs blocks again within the backward pass, and their statistics would count twice.

    Not through `track_running_stats`: a checkpoint has to save the same tensors both times, running ones among them.
    """
    norms = [one for one in model.modules() if isinstance(one, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
