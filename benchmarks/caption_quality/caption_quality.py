"""`python -m benchmarks.caption_quality`: the paper's comparison of caption qualities, reproduced small.

For each caption quality of the generated scenes: pretraining with CLIP on the same pictures in the same order, with the
same steps and seeds; then fine-tuning and a linear probe on few labelled scenes, for segmentation and depth. Beside it
no pretraining, and supervised pretraining on tags of the same pictures. Then the paper's figure 2: what fewer pairs do.

Every step makes a folder; what is there is not made again, and a step that was interrupted goes on, so the command can
be repeated until it is through: `--minutes 9` stops it, with everything saved, in time for a scheduler's limit.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mobileclip_dense.config.check import require_numbers


@dataclass(frozen=True, kw_only=True)
class CaptionQualityConfig:
    """Compare caption qualities, no pretraining and supervised pretraining on dense tasks, over seeds; one page."""

    preset: Literal["cpu", "gpu"] = "cpu"
    """cpu: nano model at 64 px, under 20 minutes on 2 cores; gpu: MCi2 at 256 px, hours of one large GPU."""
    out: Path = Path("caption-quality")
    """Folder for scenes, runs, logs, the page and its figures (JSON); the same command goes on where it was stopped."""
    minutes: float | None = None
    """Minutes after which to stop, with everything saved; None: run to the end."""

    def __post_init__(self) -> None:
        require_numbers(self, "minutes", above=0)


def measure_caption_quality(config: CaptionQualityConfig) -> None:
    """Run what is not done yet, then write the page and the JSON.

    Raises:
        ValueError: a step failed, or a folder of --out was made with other settings.
    """
    from benchmarks.caption_quality.lanes import run_plan
    from benchmarks.caption_quality.page import write_page
    from benchmarks.caption_quality.plan import PROTOCOLS, steps
    from benchmarks.caption_quality.result import collect

    protocol = PROTOCOLS[config.preset]
    out = config.out / config.preset
    plan = steps(protocol, out)
    stop_at = None if config.minutes is None else time.time() + 60 * config.minutes
    if not run_plan(plan, out / "logs", lanes=protocol.lanes, threads=protocol.threads, stop_at=stop_at):
        print(f"{out}: stopped; repeat the command to go on")
        return
    result = collect(protocol, config.preset, plan)
    page = write_page(result, out / f"caption-quality-{config.preset}.html")
    for claim in result["claims"]:
        print(f"{claim['verdict']}: {claim['claim']} {claim['reason']}")
    print(f"{page}: open it in a browser; its figures are beside it as JSON")
