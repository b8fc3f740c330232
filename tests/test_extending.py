"""The code of docs/extending.md: five extensions from outside of the package, through the real command line."""

import re
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from mobileclip_dense.artifact.files import read_json
from tests.conftest import REPOSITORY, run_module

PAGE = (REPOSITORY / "docs" / "extending.md").read_text()


def write_cityscapes(root: Path) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        for kind in ("leftImg8bit", "gtFine"):
            (root / kind / split / "ulm").mkdir(parents=True)
        for index in range(count):
            stem = f"ulm_{index:06d}_000019"
            image = rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)
            labels = rng.choice(np.array([0, 7, 18, 255], np.uint8), (64, 96))
            Image.fromarray(image).save(root / "leftImg8bit" / split / "ulm" / f"{stem}_leftImg8bit.png")
            Image.fromarray(labels).save(root / "gtFine" / split / "ulm" / f"{stem}_gtFine_labelTrainIds.png")


def test_an_encoder_a_head_a_layout_a_precision_and_a_target_are_a_file_each(tmp_path: Path) -> None:
    for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        (tmp_path / re.match(r"# (\w+\.py)\n", block)[1]).write_text(block)  # type: ignore[index]
    write_cityscapes(tmp_path / "cityscapes")
    data, trained, out = tmp_path / "cityscapes", tmp_path / "run", tmp_path / "artifacts"

    run = partial(run_module, cwd=tmp_path)
    assert "Cityscapes" in run("my_tools", "data", "check", "cityscapes", data).stdout
    run(
        "my_tools", "finetune", "nano-segment", "--data", data, "--out", trained, "--encoder", "fastvit_t8",
        "--head", "segformer", "--head-channels", 16, "--max-iters", 2, "--warmup-iters", 0, "--batch-size", 2,
        "--crop-size-px", 64, 64, "--num-workers", 0,
    )  # fmt: skip
    record = read_json(trained / "run.json")
    assert record["architecture"] == "fastvit_t8-segformer"
    assert len(record["class_names"]) == 19

    run("my_tools", "export", "coreml", trained, "--out", out, "--precision", "p2", "--allow-accuracy-drop")
    run("my_tools", "export", "torchscript", trained, "--out", out)
    stem = "fastvit_t8-segformer-segment-cityscapes-64x64"
    assert {path.name for path in out.iterdir()} == {f"{stem}-p2.coreml", f"{stem}-fp32.torchscript"}
    for folder in out.iterdir():
        artifact = read_json(folder / "artifact.json")
        assert artifact["architecture"] == "fastvit_t8-segformer"
        assert artifact["parity"]["golden_agreement_percent"] > 50
    verified = run("my_tools", "verify", out / f"{stem}-fp32.torchscript").stdout
    assert "golden_agreement_percent 100" in verified
    photo = data / "leftImg8bit" / "val" / "ulm" / "ulm_000000_000019_leftImg8bit.png"
    run("my_tools", "segment", out / f"{stem}-fp32.torchscript", photo, "--out", tmp_path / "pictures")
    assert (tmp_path / "pictures" / f"{photo.stem}-segment.png").is_file()
