"""mmengine checkpoints that are written atomically and can be read with `torch.load(weights_only=True)`."""

from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from mobileclip_dense.config import FinetuneConfig
from mobileclip_dense.run.checkpoints import checkpoint_file, staged_checkpoint
from mobileclip_dense.run.folder import differences

FIELDS = ("meta", "state_dict", "optimizer", "param_schedulers", "message_hub", "num_processes")


@HOOKS.register_module()
class PlainCheckpoint(Hook):
    """Removes the log from a checkpoint: mmengine 0.10.7 pickles methods in it, and then cannot resume.

    Loading them would mean allow-listing `getattr`, which would defeat `weights_only`. Weights, optimizer, schedule and
    iteration are tensors and plain values; the checkpoint keeps them.
    """

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        checkpoint["message_hub"] = {"log_scalars": {}, "runtime_info": {}, "resumed_keys": {}}


class LastCheckpoint(PlainCheckpoint):
    """Saves the newest checkpoint of a run atomically, and keeps the one before it.

    mmengine's own hook deletes the old checkpoint before it writes the new one, so that a killed process or a full disk
    leaves none. It also stores an absolute path, so that a copied run would resume from the original folder.
    """

    priority = "VERY_LOW"  # runs after the hook of the moving average

    def __init__(self, config: FinetuneConfig):
        self.path = checkpoint_file(config.out)
        self.every = config.checkpoint_every * config.accumulate

    def after_train_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        """Save the state of the first process. Processes differ only in their BatchNorm statistics."""
        due = self.every_n_train_iters(runner, self.every) or self.is_last_train_iter(runner)
        if due and is_main_process():
            with staged_checkpoint(self.path) as staging:
                runner.save_checkpoint(str(staging.parent), staging.name, by_epoch=False)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        super().before_save_checkpoint(runner, checkpoint)
        checkpoint["num_processes"] = runner.world_size

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Verify that the checkpoint fits this run.

        Raises:
            ValueError: it was written by another number of processes, which would divide the images differently; or its
                weights do not fit the model (mmengine would load only the matching ones).
        """
        written = checkpoint["num_processes"]
        if written != runner.world_size:
            raise ValueError(
                f"{self.path}: num_processes: found {runner.world_size} processes, expected {written} as in the "
                "checkpoint; resume with that number, or start over with --force"
            )
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        unfit = [name for names in differences(model, checkpoint["state_dict"]) for name in names]
        if unfit:
            raise ValueError(
                f"{self.path}: checkpoint: found {len(unfit)} keys that do not fit this run's model "
                f"({', '.join(unfit[:3])}), expected the weights of this model; start over with --force"
            )
