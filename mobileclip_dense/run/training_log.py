"""The metrics.jsonl of a run: one line per logged step."""

import json
import shutil
import sys
from pathlib import Path

from mobileclip_dense.artifact.files import staged_file


def append_metrics(folder: Path, **values: float) -> None:
    """Append a line to metrics.jsonl."""
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(values) + "\n")


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """All lines of metrics.jsonl; empty if there is no such file. An incomplete last line is ignored.

    Raises:
        ValueError: a line is damaged.
    """
    lines, damaged = _parse_metrics(folder)
    if damaged:
        raise ValueError(f"{folder / 'metrics.jsonl'}: {damaged[0]}, expected a JSON object with a step; remove the "
                         "line")  # fmt: skip
    return lines


def drop_metrics_after(folder: Path, step: int) -> None:
    """Remove the lines after `step`, the checkpoint from which a run resumes.

    Damaged lines are removed too, with a warning. A copy of the file is then saved as metrics.damaged.jsonl.
    """
    path = folder / "metrics.jsonl"
    lines, damaged = _parse_metrics(folder)
    if damaged:
        backup = path.with_name("metrics.damaged.jsonl")
        shutil.copyfile(path, backup)
        print(f"warning: {path}: {damaged[0]}, expected a JSON object with a step; removed {len(damaged)} such lines; "
              f"the original file is {backup}", file=sys.stderr)  # fmt: skip
    with staged_file(path) as staging:
        staging.write_text("".join(json.dumps(line) + "\n" for line in lines if line["step"] <= step))


def _parse_metrics(folder: Path) -> tuple[list[dict[str, float]], list[str]]:
    """The valid lines of metrics.jsonl, and the problems of the others."""
    path = folder / "metrics.jsonl"
    data = path.read_bytes() if path.is_file() else b""
    good, damaged = [], []
    for number, line in enumerate(data[: data.rfind(b"\n") + 1].split(b"\n")[:-1], 1):
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            values = None
        if isinstance(values, dict) and type(values.get("step")) is int:
            good.append(values)
        else:
            damaged.append(f"line {number}: found {line[:40].decode(errors='replace')!r}")
    return good, damaged
