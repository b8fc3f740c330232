"""Processes that end while gloo's threads still hold tensors."""

import subprocess
import sys
from pathlib import Path

from tests.conftest import REPOSITORY, SMALL_FINETUNE, Line, run_module

# Without the last line, two of three such processes abort.
PENDING = """
import sys, torch
from mobileclip_dense.processes import leave_processes
from tests import process_exit
torch.distributed.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=0, world_size=1)
model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(3, 3))
model.itself = model
model(torch.ones(2, 3)).sum().backward()
for _ in range(200):
    torch.distributed.all_reduce(torch.ones(1000), async_op=True)
del model
leave_processes()
"""


def test_a_process_ends_cleanly_with_tensors_still_under_way(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", PENDING, tmp_path / "store"], cwd=REPOSITORY, capture_output=True,
                          text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_no_thread_of_gloo_outlives_finetune(line: Line, tmp_path: Path) -> None:
    run_module("torch.distributed.run", "--nproc-per-node", 2, "--master-port", 29642, "-m", "tests.process_exit",
               "finetune", "nano-segment", "--data", line.scenes / "ade", "--out", tmp_path / "run",
               *SMALL_FINETUNE)  # fmt: skip
    assert (tmp_path / "run" / "run.json").exists()
