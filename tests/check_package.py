"""`make test-package`: the wheel, installed as a user would, in environments of its own. Run after `make demo`.

Checks the contents of the wheel; installs it without extras, and predicts from an empty folder; installs it with
`[export]`, and exports a run of the demo to Core ML; and resolves the constraints for every supported Python.
"""

import argparse
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

REPOSITORY = Path(__file__).parent.parent
MOST_MB = 260
PYTHONS = ("3.11", "3.12", "3.13")
PLATFORMS = ("x86_64-manylinux_2_28", "aarch64-apple-darwin")
SAMPLE_BYTES = 4e6


def run(*command: object, cwd: Path = REPOSITORY, **variables: str) -> str:
    """Run a command and return its stdout; ends the check if it fails."""
    print("$", *command, flush=True)
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False,
        env={**os.environ, **variables},
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"exit status {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done.stdout


def require(holds: bool, message: str) -> None:
    """End the check where `holds` is false."""
    if not holds:
        sys.exit(message)


def build_wheel(folder: Path) -> Path:
    """Build the wheel of this checkout."""
    run(sys.executable, "-m", "build", "--wheel", "--outdir", folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


def check_contents(wheel: Path) -> None:
    """The wheel holds the library and its samples, and neither tests nor results nor caches."""
    with zipfile.ZipFile(wheel) as archive:
        sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
    tops = {name.split("/")[0] for name in sizes}
    require(all(top == "mobileclip_dense" or top.endswith(".dist-info") for top in tops), f"{wheel}: found {tops}")
    wrong = [name for name in sizes if "__pycache__" in name or "/test" in name or "/results/" in name]
    require(not wrong, f"{wheel}: found {wrong}")
    for name in ("py.typed", "samples/README.md", "models/open_clip_configs/MobileCLIP-nano.json"):
        require(f"mobileclip_dense/{name}" in sizes, f"{wheel}: {name} is missing")
    parts = tuple(f"mobileclip_dense/samples/{task}/" for task in ("segment", "depth"))
    samples = sum(size for name, size in sizes.items() if name.startswith(parts))
    require(0 < samples <= SAMPLE_BYTES, f"{wheel}: samples: found {samples} bytes, expected at most {SAMPLE_BYTES:g}")


def install(wheel: Path, folder: Path, extra: str) -> Path:
    """Install the wheel into a new environment with the constraints; the environment's programs."""
    run(sys.executable, "-m", "venv", folder)
    requirement = f"mobileclip-dense{extra} @ {wheel.as_uri()}"
    run(folder / "bin" / "pip", "install", "--quiet", "-c", REPOSITORY / "constraints.txt", requirement)
    return folder / "bin"


def check_base(wheel: Path, scratch: Path, demo: Path) -> None:
    """Without extras: small, no torch, and a photograph is segmented from an empty folder."""
    programs = install(wheel, scratch / "base", "")
    size_mb = int(run("du", "-sm", scratch / "base").split()[0])
    require(size_mb < MOST_MB, f"base install: found {size_mb} MB, expected less than {MOST_MB}")
    require("torch" not in run(programs / "pip", "list").lower().split(), "base install: found torch")
    empty = scratch / "empty"
    empty.mkdir()
    command = programs / "mobileclip-dense"
    run(command, "segment", "--sample", cwd=empty)
    run(command, "depth", "--sample", cwd=empty)
    artifact = next((demo / "artifacts").glob("nano-segment-*-fp32.onnx"))
    photo = next((demo / "scenes" / "ade" / "images" / "validation").glob("*.jpg"))
    run(command, "segment", artifact.absolute(), photo.absolute(), "--out", "own", cwd=empty)
    run(command, "verify", artifact.absolute(), cwd=empty)
    run(command, "latency", artifact.absolute(), "--runs", 3, cwd=empty)
    require((empty / "own" / f"{photo.stem}-segment.png").is_file(), "base install: no picture was written")
    print(f"base install: {size_mb} MB")


def check_export(wheel: Path, scratch: Path, demo: Path) -> None:
    """With `[export]`: a run becomes a Core ML artifact from an empty folder."""
    programs = install(wheel, scratch / "export", "[export]")
    empty = scratch / "empty-export"
    empty.mkdir()
    source = (demo / "runs" / "depth-clip-0").absolute()
    run(programs / "mobileclip-dense", "export", "coreml", source, cwd=empty)
    (artifact,) = (empty / "artifacts").glob("*.coreml")
    run(programs / "mobileclip-dense", "verify", artifact.relative_to(empty), cwd=empty)


def check_constraints() -> None:
    """Every pinned package has a wheel for each supported Python, on Linux and on a Mac."""
    uv = Path(sys.executable).with_name("uv")
    for python in PYTHONS:
        for platform in PLATFORMS:
            target = ("--python-version", python, "--python-platform", platform)
            flags = ("--quiet", "--all-extras", "--only-binary", ":all:", "-c", "constraints.txt")
            # macOS 14 is the oldest for which ONNX Runtime has wheels.
            run(uv, "pip", "compile", *flags, *target, "pyproject.toml", MACOSX_DEPLOYMENT_TARGET="14.0")


def main() -> None:
    """Run all checks; the first that fails ends with its message."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--demo", type=Path, default=REPOSITORY / "demo", help="folder of `make demo`")
    demo = parser.parse_args().demo
    require((demo / "runs" / "depth-clip-0" / "run.json").is_file(), f"{demo}: found no demo; run `make demo` first")
    with TemporaryDirectory() as folder:
        scratch = Path(folder)
        check_constraints()
        wheel = build_wheel(scratch / "dist")
        check_contents(wheel)
        check_base(wheel, scratch, demo)
        check_export(wheel, scratch, demo)
    print("the package is as it should be")


if __name__ == "__main__":
    main()
