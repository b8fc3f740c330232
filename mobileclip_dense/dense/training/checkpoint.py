"""mmengine checkpoints that are replaced by rename, and read with `torch.load(weights_only=True)`."""

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
    """Removes the log from a checkpoint: mmengine 0.10.7 pickles its buffers' methods, and then cannot resume.

    Allow-listing them would mean allow-listing `getattr`, which is as good as no check. Weights, optimizer, schedule
    and iteration are tensors and plain values and stay.
    """

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        checkpoint["message_hub"] = {"log_scalars": {}, "runtime_info": {}, "resumed_keys": {}}


class LastCheckpoint(PlainCheckpoint):
    """The newest checkpoint of a run, replaced by rename, and the one before it.

    mmengine's own hook deletes the last one before it writes the next into its place, so that a kill or a full disk in
    between leaves none; and it notes an absolute path, so that a copied run resumes from where it was copied.
    """

    priority = "VERY_LOW"  # once the moving average has the step

    def __init__(self, config: FinetuneConfig):
        self.path = checkpoint_file(config.out)
        self.every = config.checkpoint_every * config.accumulate

    def after_train_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        """Save the first process's state. The processes differ in BatchNorm's statistics alone."""
        due = self.every_n_train_iters(runner, self.every) or self.is_last_train_iter(runner)
        if due and is_main_process():
            with staged_checkpoint(self.path) as staging:
                runner.save_checkpoint(str(staging.parent), staging.name, by_epoch=False)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        super().before_save_checkpoint(runner, checkpoint)
        checkpoint["num_processes"] = runner.world_size

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Raises ValueError if the checkpoint is of another number of processes, whose shares of the images differ, or
        of another model, of which mmengine would load the matching weights alone."""
        written = checkpoint["num_processes"]
        if written != runner.world_size:
            raise ValueError(
                f"{self.path}: written by {written} processes, found {runner.world_size}; resume with as "
                "many, or start over with --force"
            )
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        unfit = [name for names in differences(model, checkpoint["state_dict"]) for name in names]
        if unfit:
            raise ValueError(
                f"{self.path}: checkpoint: {len(unfit)} keys do not fit this run's model "
                f"({', '.join(unfit[:3])}); start over with --force"
            )
