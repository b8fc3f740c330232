"""Saving and restoring the states of the random generators that a network uses (drop path, dropout)."""

from collections.abc import Sequence

import torch


def random_states(device: torch.device) -> list[torch.Tensor]:
    """The state of the CPU's generator and, for another device, of the device's generator."""
    states = [torch.get_rng_state()]
    if device.type != "cpu":
        states.append(torch.get_device_module(device).get_rng_state())
    return states


def set_random_states(device: torch.device, states: Sequence[torch.Tensor]) -> None:
    """Restore the states that `random_states(device)` returned."""
    torch.set_rng_state(states[0])
    if device.type != "cpu":
        torch.get_device_module(device).set_rng_state(states[1])
