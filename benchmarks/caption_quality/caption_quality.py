"""`python -m benchmarks.caption_quality`: the paper's comparison of caption qualities, at small scale.

For each caption quality of the generated scenes, it pretrains with CLIP's loss on the same images in the same order,
with the same steps and seeds. Then it fine-tunes and trains a linear probe on few labelled scenes, for segmentation and
depth. The baselines are no pretraining, and supervised pretraining on tags of the same images. It also repeats the
paper's figure 2, with fewer pairs.

Each step writes a folder. Complete folders are kept and interrupted steps resume, so the command can be repeated until
it is complete. `--minutes 9` stops it, with everything saved, before the time limit of a scheduler.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mobileclip_dense.config.check import require_numbers


@dataclass(frozen=True, kw_only=True)
class CaptionQualityConfig:
    """Compare caption qualities, no pretraining and supervised pretraining on dense tasks, over seeds, on one page."""

    preset: Literal["cpu", "gpu"] = "cpu"
    """cpu: nano model at 64 px, under 20 minutes on 2 cores. gpu: MCi2 at 256 px, hours on one large GPU."""
    out: Path = Path("caption-quality")
    """Folder for scenes, runs, logs, the page and its figures (JSON). The same command resumes an interrupted run."""
    minutes: float | None = None
    """Minutes after which to stop, with everything saved. None: run to the end."""

    def __post_init__(self) -> None:
        require_numbers(self, "minutes", above=0)


def measure_caption_quality(config: CaptionQualityConfig) -> None:
    """Run the incomplete steps, then write the page and its JSON.

    Raises:
        ValueError: a step failed, or a folder in --out was made with other settings.
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
