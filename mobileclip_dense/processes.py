"""How a command leaves the processes that it was started with."""

import gc

import torch

# Imported before the processes are joined: its functions take the process group that there is as a default argument,
# and would keep that group until the interpreter ends.
import torch.distributed.nn


def leave_processes() -> None:
    """Destroy the process group, if there is one, and with it gloo's threads; nothing may use it any longer.

    A thread of gloo that lets go of a tensor while the interpreter ends aborts the process ("terminate called without
    an active exception"), and torchrun then calls a finished run failed (pytorch/pytorch#190489).
    """
    if torch.distributed.is_initialized():
        gc.collect()  # models under DistributedDataParallel, which hold the group
        torch.distributed.destroy_process_group()
