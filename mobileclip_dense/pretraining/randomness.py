"""The random numbers that a network draws (drop path, dropout): where the generators stand, and putting them there."""

from collections.abc import Sequence

import torch


def random_states(device: torch.device) -> list[torch.Tensor]:
    """Of the CPU's generator and, if it is another one, of the device's."""
    states = [torch.get_rng_state()]
    if device.type != "cpu":
        states.append(torch.get_device_module(device).get_rng_state())
    return states


def set_random_states(device: torch.device, states: Sequence[torch.Tensor]) -> None:
    """Put the generators where `random_states(device)` found them."""
    torch.set_rng_state(states[0])
    if device.type != "cpu":
        torch.get_device_module(device).set_rng_state(states[1])
