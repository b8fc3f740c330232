"""The page as a folder that any file host can serve: built by Vite, with artifacts and sample pictures beside it."""

import re
import shutil
import subprocess
from pathlib import Path

from mobileclip_dense.contract.artifact import Artifact, artifact_sha256, load_artifact
from mobileclip_dense.contract.files import read_json, write_json
from mobileclip_dense.contract.images import IMAGE_SUFFIXES

HERE = Path(__file__).parent
INDEX_SCHEMA_VERSION = 1
_TASKS = ("segment", "depth", "embed-image", "embed-text")
_OLDEST_NODE = (20, 19)  # as in package.json
_NODE_NEEDED = (
    "{name}: {found}; the page is built with Node.js 20.19 or newer: install it (Debian 13 or newer: apt-get install "
    "nodejs npm; nodejs.org has it for others) and try again"
)


def read_artifacts(folder: Path) -> list[tuple[Path, Artifact]]:
    """The verified ONNX artifacts of a folder of artifacts, by name, fp32 first within a task.

    Raises:
        FileNotFoundError: the folder or every ONNX artifact is missing. ValueError: an artifact was altered.
    """
    found = [
        (path.parent, load_artifact(path.parent))
        for path in sorted(folder.glob("*/artifact.json"))
        if read_json(path).get("runtime") == "onnx"
    ]
    if not found:
        raise FileNotFoundError(f"{folder}: artifacts: found no ONNX artifact; run `make demo` first, or give the "
                                f"folder that export.to_onnx wrote to (make web ARTIFACTS=DIR)")  # fmt: skip
    found.sort(key=lambda entry: (_TASKS.index(entry[1].task), entry[1].precision != "fp32", entry[1].name))
    return found


def build_page(out: Path, artifacts: list[tuple[Path, Artifact]], samples: Path) -> None:
    """Write the page to the empty folder `out`.

    Raises:
        FileNotFoundError: Node.js or the samples are missing. ValueError: Node.js is too old, or npm or Vite failed;
            their words are shown.
    """
    _require_node()
    _install_packages()
    _run(
        ["npm", "run", "--silent", "build", "--", "--outDir", str(out.resolve()), "--emptyOutDir", "--logLevel", "warn"]
    )
    for folder, artifact in artifacts:
        # With the time of this build: to a browser that holds another artifact of that name, an older one is unchanged.
        shutil.copytree(folder, out / "models" / artifact.name, ignore=shutil.ignore_patterns(".*"),
                        copy_function=shutil.copyfile)  # fmt: skip
    write_json(out / "models" / "index.json", {"schema_version": INDEX_SCHEMA_VERSION,
                                               "artifacts": [_entry(*found) for found in artifacts]})  # fmt: skip
    pictures = sorted(path for path in samples.glob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not pictures:
        raise FileNotFoundError(f"{samples}: samples: found no picture; expected {', '.join(IMAGE_SUFFIXES)}")
    (out / "samples").mkdir()
    for picture in pictures:
        shutil.copy(picture, out / "samples" / picture.name)
    write_json(out / "samples" / "index.json", {"samples": [picture.name for picture in pictures]})


def _entry(folder: Path, artifact: Artifact) -> dict[str, object]:
    """What the page must know before it downloads anything."""
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
    """npm ci, unless the packages of this lock file are there."""
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
