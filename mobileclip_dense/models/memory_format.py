"""Choice of the memory format of convolutions."""

import torch


def memory_format_on(device: torch.device) -> torch.memory_format:
    """Channels-last on GPUs. Not on CPUs, where torch 2.11 crashes in the backward pass of MCi's convolutions."""
    return torch.channels_last if device.type == "cuda" else torch.contiguous_format
