"""The summary of a demo: a JSON file for programs, a table for people."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mobileclip_dense.apps.pipeline import Times
from mobileclip_dense.artifact.artifact import artifact_sha256
from mobileclip_dense.artifact.targets import TARGETS
from mobileclip_dense.artifact.versions import versions_of
from mobileclip_dense.pages.terminal import printable
from mobileclip_dense.pages.text_table import format_table
from mobileclip_dense.runtime.device import device_name
from mobileclip_dense.runtime.predictor import LoadedModel
from mobileclip_dense.runtime.timing import summarize

SUMMARY_SCHEMA_VERSION = 1
_STAGES = ("preprocessing", "model", "postprocessing")
_NUM_ROWS = 25


@dataclass(frozen=True, kw_only=True)
class Done:
    """An input that was processed: its files, its figures, its frames, and the median time of each stage per frame."""

    input: str
    files: list[str]
    result: dict[str, float]
    num_frames: int
    latency_ms: dict[str, float]


class Summary:
    """Collects the results of all inputs; its clock starts when it is created.

    Attributes:
        done: the processed inputs. failures: `input` and `error` of each of the others.
    """

    def __init__(self, task: str, result_name: str, model: LoadedModel):
        self._task, self._result_name, self._model = task, result_name, model
        self.done: list[Done] = []
        self.failures: list[dict[str, str]] = []
        self._times: list[Times] = []
        self._began = time.perf_counter()

    def finish(self, source: str, files: list[str], result: dict[str, float], times: list[Times]) -> None:
        """Add an input with the times of its frames; an image has one frame."""
        self._times += times
        medians = dict(zip(_STAGES, np.median(times, axis=0).tolist(), strict=True))
        self.done.append(Done(input=source, files=files, result=result, num_frames=len(times), latency_ms=medians))

    def fail(self, source: str, error: str) -> None:
        """Add an input that could not be used."""
        self.failures.append({"input": source, "error": error})

    def as_json(self) -> dict[str, Any]:
        """The contents of TASK-summary.json.

        `latency_ms` holds percentiles of each stage over all frames. `wall_ms_per_frame` is the time from one frame to
        the next; it is less than the sum of the stages, because they overlap.
        """
        wall_ms = (time.perf_counter() - self._began) * 1000
        columns = np.array(self._times).reshape(-1, len(_STAGES)).T
        return {
            "schema_version": SUMMARY_SCHEMA_VERSION,
            "task": self._task,
            "artifact": self._model.folder.name,
            "artifact_sha256": artifact_sha256(self._model.folder),
            "device": device_name(),
            "provider": self._model.backend.split()[-1],
            "threads": self._model.num_threads,
            "versions": versions_of(*TARGETS[self._model.artifact.runtime].libraries, "numpy", "pillow"),
            "num_frames": len(self._times),
            "wall_time_s": wall_ms / 1000,
            "wall_ms_per_frame": wall_ms / max(1, len(self._times)),
            "model_share_percent": float(columns[1].sum()) / wall_ms * 100,
            "latency_ms": {
                stage: summarize(column.tolist()) for stage, column in zip(_STAGES, columns, strict=True) if len(column)
            },
            "inputs": [
                {name if name != "result" else self._result_name: value for name, value in asdict(one).items()}
                for one in self.done
            ],
            "failures": self.failures,
        }


def format_summary(record: dict[str, Any], result_name: str, describe: Callable[[dict[str, float]], str]) -> str:
    """Two tables: the inputs with their results as `describe` words them, and the times of the stages."""
    rows = [
        (_shorten(one["input"]), printable(describe(one[result_name])), f"{one['latency_ms']['model']:.1f}")
        for one in record["inputs"]
    ]
    rows += [(_shorten(one["input"]), "not used, see above", "-") for one in record["failures"]]
    lines = [format_table(["input", record["task"], "model ms"], rows[:_NUM_ROWS])]
    if len(rows) > _NUM_ROWS:
        lines.append(f"... and {len(rows) - _NUM_ROWS} more")
    if latency := record["latency_ms"]:
        stages = [(stage, f"{times['p50']:.1f}", f"{times['p90']:.1f}") for stage, times in latency.items()]
        lines += ["", format_table(["milliseconds", "p50", "p90"], stages)]
        lines.append(
            f"{record['num_frames']} images in {record['wall_time_s']:.1f} s, {record['wall_ms_per_frame']:.1f} ms "
            f"each, {record['model_share_percent']:.0f} % of it in the model ({record['provider']})"
        )
    return "\n".join(lines)


def _shorten(path: str, length: int = 40) -> str:
    path = printable(path)
    return path if len(path) <= length else f"...{path[3 - length :]}"
