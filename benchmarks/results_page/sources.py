"""Result files of a folder, and where each of them comes from."""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mobileclip_dense.artifact.files import read_json

_ROW = re.compile(r"^\| \[([\w-]+\.json)\]\(\1\) \| `[0-9a-f]{16}` \| (.+) \|$", re.MULTILINE)


@dataclass(frozen=True)
class Sources:
    """The result files of `folder`, whose README.md says which command made each.

    Args:
        folder: of *.json and README.md. link: path to that folder from the page, with / at the end.
    """

    folder: Path
    link: str

    @cached_property
    def names(self) -> list[str]:
        """Names of all result files, sorted."""
        return sorted(path.name for path in self.folder.glob("*.json"))

    def read(self, name: str) -> Any:
        """Contents of a result file.

        Raises:
            FileNotFoundError, ValueError: see `read_json`.
        """
        return read_json(self.folder / name)

    def linked(self, name: str) -> str:
        """A Markdown link to a result file."""
        return f"[{name}]({self.link}{name})"

    def command(self, name: str) -> str:
        """The command that made a file, in Markdown.

        Raises:
            ValueError: README.md does not list the file.
        """
        if name not in self._commands:
            raise ValueError(f"{self.folder / 'README.md'}: {name}: found no row with a hash and a command, expected "
                             "one; add it")  # fmt: skip
        return self._commands[name]

    @cached_property
    def _commands(self) -> dict[str, str]:
        return dict(_ROW.findall((self.folder / "README.md").read_text(encoding="utf-8")))

    def provenance(self, *names: str) -> str:
        """A Markdown list: file, command, processor and versions of each."""
        return "\n".join(
            f"- {self.linked(name)}, made by {self.command(name)}. Measured on {_devices(self.read(name))} with "
            f"{_versions(self.read(name))}."
            for name in names
        )


def _devices(result: dict[str, Any]) -> str:
    """The processor of a benchmark, or those on which a report's artifacts were timed."""
    if "device" in result:
        return f"`{result['device']}`"
    timed = sorted({one["device"] for one in result.get("latencies", [])})
    trained = sorted({run["device"] for run in result["runs"].values()})
    if timed:
        return f"`{'`, `'.join(timed)}` (latency; training: `{'`, `'.join(trained)}`)"
    return f"`{'`, `'.join(trained)}` (the file does not name the processor)"


def _versions(result: dict[str, Any]) -> str:
    """Versions of the benchmark's libraries, or of those of a report's runs and latencies."""
    found: dict[str, set[str]] = {}
    for one in (result, *result.get("runs", {}).values(), *result.get("latencies", [])):
        for library, version in one.get("versions", {}).items():
            found.setdefault(library, set()).add(version)
    return ", ".join(f"{library} {' and '.join(sorted(versions))}" for library, versions in found.items())
