"""Which memory format convolutions are fastest in, and safe."""

import torch


def memory_format_on(device: torch.device) -> torch.memory_format:
    """Channels-last, but on a CPU: there torch 2.11 crashes in the backward pass of MCi's convolutions."""
    return torch.channels_last if device.type == "cuda" else torch.contiguous_format
