"""Checkpoints of mmengine that `torch.load(weights_only=True)` reads, as torch >= 2.6 insists."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner


@HOOKS.register_module()
class PlainCheckpoint(Hook):
    """Leaves the log out of a checkpoint: mmengine 0.10.7 pickles its buffers' methods, and then cannot resume.

    Allow-listing them would mean allow-listing `getattr`, which is as good as no check. Weights, optimizer, schedule
    and iteration are tensors and plain values and stay.
    """

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        checkpoint["message_hub"] = {"log_scalars": {}, "runtime_info": {}, "resumed_keys": {}}
