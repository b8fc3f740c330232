"""Contrastive batches larger than memory, by gradient caching in two passes (Gao et al. 2021, arXiv 2101.06983).

A contrastive loss cannot be split over micro-batches, but its gradient with respect to the features can. The first pass
computes the features of all micro-batches without keeping their graphs. The loss over all features gives the gradient
of each feature. The second pass computes each micro-batch again and back-propagates its part of that gradient. The
result is the gradient of the whole batch, at the cost of one more forward pass, with the activations of one micro-batch
in memory. BatchNorm normalises each micro-batch by its own statistics, as in any gradient accumulation.

Both passes must compute the same function. Random numbers (drop path, dropout) are replayed, and only the second pass
updates BatchNorm's running statistics. The first pass records the graph of each micro-batch and drops it immediately:
under torch.compile, a network draws different random numbers if gradients are disabled, and the gradient would be
silently wrong.
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
    """Back-propagate the loss over all micro-batches. Returns the detached losses.

    Processes synchronise their gradients once, in the last micro-batch. All of them need the same number of
    micro-batches. A single micro-batch is an ordinary forward and backward pass.

    Args:
        fabric: the Fabric that set up `model`.
        model: `Towers` after `fabric.setup`.
        micro_batches: the arguments of the model's forward pass, for any number of pairs each.
        loss_of: computes the losses from the features of all pairs, in the order of `micro_batches`. Its teacher
            features, if any, must be those of the whole batch.
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
            # A scalar with the required gradient, which Fabric can scale like any loss.
            surrogate = sum((part * share).sum() for part, share in zip((image, *texts), shares[index], strict=True))
            if index == last:  # all micro-batches share the logit scale, so its gradient is added once
                surrogate = surrogate + logit_scale * scale_gradient
            with _recomputation_uncounted(model):
                fabric.backward(surrogate)
    set_random_states(fabric.device, states[-1])
    return losses._replace(total=losses.total.detach())


def _detached(features: Features) -> Features:
    texts = tuple(text.detach() for text in features.texts)
    return Features(features.image.detach(), texts, torch.as_tensor(features.logit_scale).detach())


def _joined(parts: Sequence[Features]) -> tuple[Features, Tensor]:
    """The concatenated features of all micro-batches, as leaves that require gradients; and their logit scale."""
    image = torch.cat([part.image for part in parts]).requires_grad_()
    texts = tuple(torch.cat(pieces).requires_grad_() for pieces in zip(*(part.texts for part in parts), strict=True))
    scale = torch.as_tensor(parts[-1].logit_scale).requires_grad_()
    return Features(image, texts, scale), scale


@contextmanager
def _frozen_running_statistics(model: nn.Module) -> Iterator[None]:
    """Normalise by batch statistics without updating running statistics or their counter.

    Without `track_running_stats`, a BatchNorm does not update its buffers in training, but still uses them in
    evaluation.
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
    """Keep running statistics unchanged while gradient checkpointing recomputes blocks, which would count them twice.

    It does not use `track_running_stats`, because both computations of a checkpointed block must save the same tensors,
    including running statistics.
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
