"""Building the web page as a folder for any file host: Vite's output, artifacts and sample pictures."""

import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from mobileclip_dense.artifact.artifact import Artifact, artifact_sha256, load_artifact
from mobileclip_dense.artifact.files import read_json, write_json
from mobileclip_dense.artifact.images import IMAGE_SUFFIXES
from mobileclip_dense.artifact.targets import TARGETS

HERE = Path(__file__).parent
INDEX_SCHEMA_VERSION = 1
_TASKS = ("segment", "depth", "embed-image", "embed-text")
_OLDEST_NODE = (20, 19)  # as in package.json
_NODE_NEEDED = (
    "{name}: {found}, expected Node.js 20.19 or newer to build the page; install it (Debian 13 or newer: apt-get "
    "install nodejs npm; other systems: nodejs.org) and try again"
)


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """The artifacts of a page.

    Attributes:
        artifacts: verified artifacts with their folders, fp32 first within a task.
        left_out: the reason why an artifact cannot be on the page, by the name of its folder.
    """

    artifacts: list[tuple[Path, Artifact]] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


def read_artifacts(folder: Path) -> Bundle:
    """Read the ONNX artifacts in a folder. Core ML artifacts and hidden folders are ignored.

    If several artifacts record the same name, the one in a folder of that name is used, otherwise the first.

    Raises:
        FileNotFoundError: the folder is missing, or has no usable ONNX artifact.
    """
    bundle = Bundle()
    found = []
    for path in sorted(path for path in folder.glob("*/") if _is_artifact(path)):
        try:
            artifact = _load_for_page(path)
        except Exception as error:  # a problem of one artifact must not affect the others
            text = str(error) if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {error}"
            bundle.left_out[path.name] = text.replace(f"{path}/", "").replace(f"{path}: ", "")
        else:
            if artifact is not None:
                found.append((path, artifact))
    names: dict[str, str] = {}
    for path, artifact in sorted(found, key=lambda entry: entry[0].name != entry[1].name):
        if artifact.name in names:
            bundle.left_out[path.name] = (f"artifact.json: name: found {artifact.name}, which is also the name in the "
                                          f"folder {names[artifact.name]}; remove one of them")  # fmt: skip
        else:
            names[artifact.name] = path.name
            bundle.artifacts.append((path, artifact))
    if not bundle.artifacts:
        problems = "".join(f"; {name}: {problem}" for name, problem in bundle.left_out.items())
        raise FileNotFoundError(f"{folder}: artifacts: found no ONNX artifact; run `make demo` first, or "
                                f"export one and say where: make web ARTIFACTS=FOLDER{problems}")  # fmt: skip
    bundle.artifacts.sort(key=lambda entry: (_TASKS.index(entry[1].task), entry[1].precision != "fp32", entry[1].name))
    return bundle


def _is_artifact(path: Path) -> bool:
    is_named = path.suffix == ".onnx" or any((path / name).exists() for name in ("artifact.json", "model.onnx"))
    return path.is_dir() and is_named and not path.name.startswith(".")


def _load_for_page(folder: Path) -> Artifact | None:
    """A verified artifact, None for an artifact of another runtime than ONNX."""
    if read_json(folder / "artifact.json").get("runtime") in TARGETS.keys() - {"onnx"}:
        return None
    artifact = load_artifact(folder)
    if artifact.task not in _TASKS:
        raise ValueError(f"artifact.json: task: found {artifact.task!r}, expected one of {', '.join(_TASKS)}")
    if not re.fullmatch(r"\w[^/\\]*", artifact.name):  # used as the name of a folder of the page
        raise ValueError(f"artifact.json: name: found {artifact.name!r}, expected the name of a folder")
    return artifact


def build_page(out: Path, bundle: Bundle, samples: Path) -> None:
    """Write the page to the empty folder `out`.

    Raises:
        FileNotFoundError: Node.js or the samples are missing.
        ValueError: Node.js is too old, or npm or Vite failed; the message contains their output.
    """
    _require_node()
    _install_packages()
    _run(
        ["npm", "run", "--silent", "build", "--", "--outDir", str(out.resolve()), "--emptyOutDir", "--logLevel", "warn"]
    )
    for folder, artifact in bundle.artifacts:
        # Copied with the time of this build: a browser with a cached artifact of that name would ignore an older file.
        shutil.copytree(folder, out / "models" / artifact.name, ignore=shutil.ignore_patterns(".*"),
                        copy_function=shutil.copyfile)  # fmt: skip
    index = {
        "schema_version": INDEX_SCHEMA_VERSION,
        "artifacts": [_entry(*found) for found in bundle.artifacts],
        "left_out": bundle.left_out,
    }
    write_json(out / "models" / "index.json", index)
    pictures = sorted(path for path in samples.glob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not pictures:
        raise FileNotFoundError(f"{samples}: samples: found no picture, expected {', '.join(IMAGE_SUFFIXES)}")
    (out / "samples").mkdir()
    for picture in pictures:
        shutil.copy(picture, out / "samples" / picture.name)
    write_json(out / "samples" / "index.json", {"samples": [picture.name for picture in pictures]})


def _entry(folder: Path, artifact: Artifact) -> dict[str, object]:
    """The entry of an artifact in models/index.json, which the page reads before it downloads a model."""
    return {
        "name": artifact.name,
        "task": artifact.task,
        "precision": artifact.precision,
        "run": artifact.parent["run"],
        "weights_sha256": artifact.parent["weights_sha256"],
        "bytes": artifact.files[artifact.model_file]["bytes"],
        "sha256": artifact_sha256(folder),
    }


def _require_node() -> None:
    for name in ("node", "npm"):
        if shutil.which(name) is None:
            raise FileNotFoundError(_NODE_NEEDED.format(name=name, found="not found"))
    found = subprocess.run(["node", "--version"], capture_output=True, text=True, check=False).stdout.strip()
    version = re.match(r"v(\d+)\.(\d+)", found)
    if version is None or tuple(map(int, version.groups())) < _OLDEST_NODE:
        raise ValueError(_NODE_NEEDED.format(name="node", found=f"found {found or 'no version'}"))


def _install_packages() -> None:
    """Run `npm ci`, unless the packages of this lock file are installed."""
    lock, stamp = HERE / "package-lock.json", HERE / "node_modules" / ".package-lock.json"
    if not stamp.is_file() or stamp.stat().st_mtime < lock.stat().st_mtime:
        print("apps/web: installing npm packages", flush=True)
        _run(["npm", "ci", "--silent"])
        stamp.touch()


def _run(command: list[str]) -> None:
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise ValueError(f"{' '.join(command[:3])}: failed with exit status {done.returncode}:\n{tail}")
