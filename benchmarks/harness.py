"""What torch computes on, for results that a GPU or a CPU may have given."""

import torch

from mobileclip_dense.runtime.device import device_name


def compute_device_name() -> str:
    """The GPU's name where torch has one, else the CPU's as `device_name` gives it."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else device_name()
