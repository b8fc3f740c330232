"""AdamW and the learning-rate schedule of MobileCLIP's pretraining (arXiv 2311.17049, appendix)."""

import math

import torch
from torch import nn

from mobileclip_dense.config import PretrainConfig


def build_optimizer(model: nn.Module, config: PretrainConfig) -> torch.optim.AdamW:
    """AdamW, with weight decay only on parameters of two or more dimensions."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, config.beta2), fused=True)


def learning_rate_at(step: int, config: PretrainConfig) -> float:
    """The learning rate at a step (from 0): linear warm-up to the peak, then cosine decay to zero."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
