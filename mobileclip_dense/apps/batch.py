"""The loop that all demos share: read each input, run the model, write the pictures, and summarize at the end.

An input that cannot be used is reported and skipped.
"""

import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import tyro
from PIL import Image

from mobileclip_dense.apps.inputs import Input, find_inputs
from mobileclip_dense.apps.pipeline import Times, overlap
from mobileclip_dense.apps.summary import Summary, format_summary
from mobileclip_dense.apps.video import Frames, open_frames, show, staged_video
from mobileclip_dense.artifact.files import refuse_existing, staged_file, write_json
from mobileclip_dense.artifact.images import load_image
from mobileclip_dense.config.check import MAX_PARALLEL, require_numbers
from mobileclip_dense.extras import MissingExtra
from mobileclip_dense.pages.progress import print_above_bar, progress_bar
from mobileclip_dense.pages.terminal import printable
from mobileclip_dense.runtime.predictor import LoadedModel, Predictor, load_model
from mobileclip_dense.runtime.references import find_artifact

_NUM_WORKERS = 4  # most threads for reading, and for writing
MOST_SIDE_PX = 65_535  # the legend and the scale are as wide as the picture, and PNG viewers have limits too
Pixels = npt.NDArray[np.uint8]
Outputs = dict[str, npt.NDArray[np.generic]]


@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """Settings of all demos."""

    artifact: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="ARTIFACT")] = None
    """Artifact folder, sample:NAME or hf-hub:ORG/NAME."""
    inputs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="INPUT ...")] = ()
    """Image files (JPEG, PNG, WebP, BMP), folders, patterns such as "photos/**/*.jpg", videos, or camera:0 (press q or
    ctrl-C to stop)."""
    out: Path = Path("pictures")
    """Folder for the results and TASK-summary.json."""
    max_frames: int | None = None
    """Largest number of frames to read from a video or a camera; None: all."""
    threads: int | None = None
    """Threads of ONNX Runtime; None: one for each core."""
    provider: str = "cpu"
    """Execution provider of ONNX Runtime, such as cpu, cuda, coreml or openvino. Operators that it does not support run
    on the CPU."""
    force: bool = False
    """Replace results that exist."""

    def __post_init__(self) -> None:
        require_numbers(self, "max_frames", at_least=1)
        require_numbers(self, "threads", at_least=1, at_most=MAX_PARALLEL)
        self.require_artifact()

    def require_artifact(self) -> None:
        """Raise ValueError if no artifact is given."""
        if self.artifact is None:
            raise ValueError("ARTIFACT: found none, expected a folder, sample:NAME or hf-hub:ORG/NAME")


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """The results of a demo for one image.

    Attributes:
        picture: uint8 [H',W',3]. result: figures by name; for a video they are averaged over the frames.
        files: by suffix, functions that write further files beside the picture; not called for a video.
    """

    picture: Pixels
    result: dict[str, float]
    files: dict[str, Callable[[Path], None]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Demo:
    """The parts in which demos differ.

    Attributes:
        name: part of file names, as in NAME-segment.png. result_name: key of `Drawn.result` in the summary.
        prepare: image uint8 [H,W,3] -> input of the model, uint8 [h,w,3].
        new_drawing: takes whether the input is a video, whose frames share one legend and scale; returns a function of
            an image and the model's outputs. For a video that function is called in order, for images from several
            threads.
        suffixes: of the files of one image, the picture included. describe: a result in a few words.
    """

    name: str
    result_name: str
    prepare: Callable[[Pixels], Pixels]
    new_drawing: Callable[[bool], Callable[[Pixels, Outputs], Drawn]]
    suffixes: tuple[str, ...]
    describe: Callable[[dict[str, float]], str]


def load_for(config: BatchConfig, task: str) -> LoadedModel:
    """Load the artifact of a demo.

    Raises:
        FileNotFoundError, OSError, ValueError: see `find_artifact` and `load_model`; or the artifact is for another
            task.
    """
    assert config.artifact is not None
    loaded = load_model(find_artifact(config.artifact), num_threads=config.threads, device=config.provider)
    found = loaded.artifact.task
    if found != task:
        commands = {"segment": "segment", "depth": "depth", "embed-image": "classify"}
        hint = f"; try `mobileclip-dense {commands[found]}`" if found in commands else ""
        raise ValueError(f"{config.artifact}: task: found {found}, expected {task}{hint}")
    return loaded


def run_batch(config: BatchConfig, demo: Demo, model: LoadedModel) -> dict[str, Any]:
    """Process all inputs and write their files; write, print and return the summary (see `Summary.as_json`).

    Raises:
        FileExistsError: a result exists; nothing was done. ValueError: at the end, if some inputs could not be used.
    """
    inputs, problems = find_inputs(config.inputs, config.out)
    if not config.inputs:
        raise ValueError("INPUT: found none, expected an image, a folder, a pattern, a video or camera:0")
    if not inputs:
        raise ValueError("; ".join(problems.values()))
    for problem in problems.values():
        print(f"error: {printable(problem)}", file=sys.stderr)
    path = config.out / f"{demo.name}-summary.json"
    _refuse_existing(config, demo, inputs, path)
    if config.out.exists() and not config.out.is_dir():
        raise ValueError(f"--out: found {config.out}, which is a file, expected a folder or a new name")
    model_s = _warm_up(model)
    summary = Summary(demo.name, demo.result_name, model)
    for argument, problem in problems.items():
        summary.fail(argument, problem)
    _run_images([one for one in inputs if one.kind == "image"], config, demo, model.predict, summary)
    for one in inputs:
        if one.kind != "image":
            _run_stream(one, config, demo, model.predict, summary, model_s)
    record = summary.as_json()
    write_json(path, record)
    print(format_summary(record, demo.result_name, demo.describe))
    print(f"{printable(str(path))}: written")
    if summary.failures:
        num = len(inputs) + len(problems)
        others = "; the others were" if len(summary.failures) < num else ""
        raise ValueError(f"{len(summary.failures)} of {num} inputs could not be used (see above){others}")
    return record


def _warm_up(model: LoadedModel) -> float:
    """Seconds for one run of the model, after a first run that allocates its memory."""
    blank = np.zeros((1, *model.artifact.input_size_px, 3), np.uint8)
    model.predict(blank)
    began = time.perf_counter()
    model.predict(blank)
    return time.perf_counter() - began


def _refuse_existing(config: BatchConfig, demo: Demo, inputs: list[Input], summary: Path) -> None:
    targets = [summary]
    for one in inputs:
        suffixes = demo.suffixes if one.kind == "image" else (f"-{demo.name}.mp4",)
        targets += [config.out / f"{one.name}{suffix}" for suffix in suffixes]
    existing = [path for path in targets if _exists(path)]
    sources = {Path(one.source).resolve() for one in inputs if one.kind != "camera"}
    for path in existing:
        if path.resolve() in sources:
            raise FileExistsError(f"{path}: is an input, and would be replaced by a result; choose another --out")
    if len(existing) > 1 and not config.force:
        raise FileExistsError(f"{existing[0]} and {len(existing) - 1} other results already exist; choose another "
                              f"--out, or pass --force to replace them")  # fmt: skip
    for path in existing:
        refuse_existing(path, config.force)


def _exists(path: Path) -> bool:
    """Whether the path exists; False for a name that is too long, which fails when its own input is written."""
    try:
        return path.exists()
    except OSError:
        return False


def save_png(picture: npt.NDArray[np.uint8] | npt.NDArray[np.uint16], path: Path) -> None:
    """Write uint8 [H,W,3] or [H,W], or uint16 [H,W], at the fastest compression: others take several times as long."""
    Image.fromarray(picture).save(path, compress_level=1)


def _run_images(images: list[Input], config: BatchConfig, demo: Demo, model: Predictor, summary: Summary) -> None:
    def read(one: Input) -> tuple[Input, Pixels, Pixels]:
        image = load_image(Path(one.source))
        height, width = image.shape[:2]
        if max(height, width) > MOST_SIDE_PX:
            raise ValueError(f"{one.source}: image: found {width}x{height} pixels, expected at most {MOST_SIDE_PX} on "
                             f"a side; cut it first")  # fmt: skip
        return one, image, demo.prepare(image)

    def write(taken: tuple[Input, Pixels, Pixels], outputs: Outputs) -> dict[str, float]:
        one, image, _ = taken
        drawn = draw(image, outputs)
        files = {f"-{demo.name}.png": lambda path: save_png(drawn.picture, path), **drawn.files}
        for suffix, save in files.items():
            with staged_file(config.out / f"{one.name}{suffix}") as staging:
                save(staging)
        return drawn.result

    draw = demo.new_drawing(False)
    threads = min(_NUM_WORKERS, os.cpu_count() or 1)
    outcomes = overlap(
        images, read, lambda taken: model(taken[2][None]), write, num_threads=threads, num_waiting=2 * threads
    )
    for outcome in progress_bar(outcomes, demo.name, unit="image", total=len(images), shown=bool(images)):
        if outcome.error is not None or outcome.written is None:
            problem = _in_words(outcome.item.source, outcome.error)
            print_above_bar(f"error: {printable(problem)}")
            summary.fail(outcome.item.source, problem)
        else:
            files = [f"{outcome.item.name}{suffix}" for suffix in demo.suffixes]
            summary.finish(outcome.item.source, files, outcome.written, [outcome.times_ms])


def _run_stream(
    source: Input, config: BatchConfig, demo: Demo, model: Predictor, summary: Summary, model_s: float
) -> None:
    """Process a video or a camera; the pictures become a video."""
    live = source.kind == "camera"
    target = config.out / f"{source.name}-{demo.name}.mp4"
    totals: Counter[str] = Counter()
    times: list[Times] = []
    ended = False
    try:
        with open_frames(source, config.max_frames) as opened:
            # A camera returns its newest frame whenever the model is ready, which sets the rate of the video.
            rate = min(opened.rate, 1 / model_s) if live else opened.rate
            with staged_video(target, rate) as append:
                draw = demo.new_drawing(True)

                def read(_: int) -> tuple[Pixels, Pixels] | None:
                    image = next(opened.frames, None)
                    return None if image is None else (image, demo.prepare(image))

                def write(taken: tuple[Pixels, Pixels], outputs: Outputs) -> tuple[dict[str, float], Pixels | None]:
                    drawn = draw(taken[0], outputs)
                    append(drawn.picture)
                    return drawn.result, drawn.picture if live else None

                outcomes = overlap(
                    count(), read, lambda taken: model(taken[1][None]), write, num_threads=1, num_waiting=2
                )
                # Ctrl-C stops a camera that has no window.
                with suppress(KeyboardInterrupt) if live else nullcontext(), closing(outcomes):
                    for outcome in progress_bar(outcomes, source.source, unit="frame", total=opened.num_frames):
                        if outcome.written is None:
                            problem = _in_words(f"frame {outcome.item}", outcome.error)
                            raise ValueError(f"{source.source}: {problem}")
                        result, picture = outcome.written
                        totals.update(result)
                        times.append(outcome.times_ms)
                        if picture is not None and not show(picture, source.source):
                            break
                    else:
                        ended = True
                if not times:
                    raise ValueError(f"{source.source}: stopped before its first frame was done")
    except Exception as error:  # of this input; the others go on
        problem = _in_words(source.source, error)
        print(f"error: {printable(problem)}", file=sys.stderr)
        summary.fail(source.source, problem)
    else:
        means = {name: total / len(times) for name, total in totals.items()}
        summary.finish(source.source, [target.name], means, times)
        if ended and len(times) != config.max_frames and (reason := _why_early(opened, len(times), live)):
            lost = (f"{source.source}: {source.kind}: gave {len(times)} frames and then no more; {reason} What it gave "
                    f"is in {target}")  # fmt: skip
            print(f"error: {printable(lost)}", file=sys.stderr)
            summary.fail(source.source, lost)


def _why_early(opened: Frames, num_frames: int, live: bool) -> str:
    """The reason why a video or a camera ended too early; empty if it did not."""
    if live:
        return "was it unplugged?"
    if opened.missing_bytes:
        return f"the file is cut short: {opened.missing_bytes} bytes are missing."
    if opened.is_exact and opened.num_frames is not None and num_frames < opened.num_frames:
        return f"expected {opened.num_frames}, which the file announces: it is damaged."
    return ""


def _in_words(what: str, error: Exception | None) -> str:
    """The message for an input that failed, with the type of an unexpected error."""
    if isinstance(error, MemoryError):
        return f"{what}: needs more memory than this machine gives"
    text = str(error) if isinstance(error, ValueError | OSError | MissingExtra) else f"{type(error).__name__}: {error}"
    return text if what in text else f"{what}: {text}"
