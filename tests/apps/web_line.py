"""`python -m tests.apps.web_line OUT`: artifacts, photographs and what Python says about them, for the page's tests."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from tokenizers import Tokenizer

from mobileclip_dense.artifact.images import load_image
from mobileclip_dense.artifact.preprocess import crop_image
from mobileclip_dense.config.export import ToOnnxConfig
from mobileclip_dense.deploy.onnx.exporter import to_onnx
from mobileclip_dense.runtime.accuracy import predict_at
from mobileclip_dense.runtime.onnx_model import load_onnx_artifact
from tests.apps.web_pictures import accepted_pictures, refused_pictures
from tests.conftest import Line, train_line

LABELS = ("red cube", "green sphere", "something else")
_TEXTS = (
    "A photo of a  dog.\n", "it's 3 o'clock; they'RE late (2024)!!", "", "word " * 100, "naïve café, 犬の写真 🐕",
    "Straßenschild", "a <end_of_text> b", "don't I'll we've I'm he'd", "½ Ⅻ ²³", "🏳️‍🌈 flag", "a_b-c/d",
)  # fmt: skip
_MAX_ITERS = 60  # after four steps the segmenter sees one class everywhere: nothing to choose in the legend
_TURNED = 6  # EXIF: stored lying on its left side


def make_artifacts(out: Path) -> dict[str, Path]:
    """Folders of four artifacts by task; that of depth takes float pixels, the others uint8."""
    line = Line(out / "line")
    if not line.root.exists():
        train_line(line, max_iters=_MAX_ITERS)
    folders = {}
    for run in (line.run("segment"), line.run("depth"), line.clip):
        pixels = "float" if run.name == "depth" else "uint8"
        for folder in to_onnx(ToOnnxConfig(run=run, pixels=pixels, out=out / "artifacts", force=True)):
            folders[load_onnx_artifact(folder)[0].task] = folder
    return folders


def write_photographs(scenes: Path, out: Path) -> list[Path]:
    """A wide PNG and a JPEG that its EXIF data turn upright, both larger than the model's input."""
    out.mkdir(parents=True, exist_ok=True)
    scene = Image.open(scenes / "ade" / "images" / "validation" / "00000007.jpg")
    grain = np.random.default_rng(0).normal(0, 6, (211, 333, 3))
    wide = np.asarray(scene.resize((333, 211), Image.Resampling.BICUBIC)) + grain
    Image.fromarray(wide.clip(0, 255).astype(np.uint8)).save(out / "wide.png")
    exif = Image.Exif()
    exif[0x0112] = _TURNED
    Image.open(out / "wide.png").save(out / "turned.jpg", quality=92, exif=exif)
    (out / "damaged.jpg").write_bytes((out / "turned.jpg").read_bytes()[:40])
    for size in ((65_000, 1), (1, 65_000)):
        Image.effect_noise(size, 200).convert("RGB").save(out / f"{size[0]}x{size[1]}.png")
    return [out / "wide.png", out / "turned.jpg"]


def write_pictures(folder: Path) -> None:
    """Pictures of every kind, what Python reads them as (uint8 [H,W,3]), and those that it refuses."""
    for name, data in {**accepted_pictures(), **refused_pictures()}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        try:
            pixels = load_image(path)
        except ValueError as error:
            if name in accepted_pictures():
                raise
            print(error)
        else:
            if name in refused_pictures():
                raise ValueError(f"{path}: found a picture that is read, expected one that is refused")
            (folder / f"{name}.bin").write_bytes(pixels.tobytes())
            (folder / f"{name}.json").write_text(json.dumps(pixels.shape[:2]))


def write_expected(folders: dict[str, Path], photographs: list[Path], out: Path) -> None:
    """Maps at the photographs' resolution as raw numbers, and a table of everything else."""
    out.mkdir(parents=True, exist_ok=True)
    table: dict[str, object] = {}
    for photograph in photographs:
        image = load_image(photograph)
        table[photograph.name] = {"height": image.shape[0], "width": image.shape[1],
                                  "probabilities": _probabilities(folders, image)}  # fmt: skip
        for task, output, kind in (("segment", "class_map", np.uint16), ("depth", "depth_m", np.float32)):
            artifact, model = load_onnx_artifact(folders[task], 1)
            values = predict_at(model, output, image, artifact.input_size_px).astype(kind)
            (out / f"{photograph.name}-{task}.bin").write_bytes(values.tobytes())
            if len(np.unique(values)) == 1:
                raise ValueError(f"{photograph.name}: {task}: found one value, expected more; train for longer")
    tokenize = _tokenizer(folders["embed-text"])
    table["tokens"] = [[text, tokenize(text)] for text in _TEXTS]
    table["labels"] = LABELS
    (out / "expected.json").write_text(json.dumps(table))


def _probabilities(folders: dict[str, Path], image: npt.NDArray[np.uint8]) -> list[float]:
    artifact, image_tower = load_onnx_artifact(folders["embed-image"], 1)
    _, text_tower = load_onnx_artifact(folders["embed-text"], 1)
    tokenize = _tokenizer(folders["embed-text"])
    rows = [np.array([tokenize(f"a photo of a {label}")], np.int64) for label in LABELS]
    texts = np.concatenate([text_tower(row)["text_embedding"] for row in rows]).astype(np.float64)
    embedding = image_tower(crop_image(image, *artifact.input_size_px)[None])["image_embedding"][0]
    scores = artifact.logit_scale * texts @ embedding.astype(np.float64)
    powers = np.exp(scores - scores.max())
    return [float(power) for power in powers / powers.sum()]


def _tokenizer(folder: Path) -> Callable[[str], list[int]]:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return lambda text: tokenizer.encode(text).ids


if __name__ == "__main__":
    root = Path(sys.argv[1])
    made = make_artifacts(root)
    write_pictures(root / "pictures")
    write_expected(made, write_photographs(root / "line" / "scenes", root / "photographs"), root / "expected")
