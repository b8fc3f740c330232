"""What Python computes, for the page's own tests: `python -m tests.apps.web_fixtures` writes the files anew."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mobileclip_dense.apps.batch import MOST_SIDE_PX
from mobileclip_dense.artifact import images
from mobileclip_dense.artifact.artifact import SCHEMA_VERSION
from mobileclip_dense.artifact.palette import TURBO, colour_depth, overlay_classes
from mobileclip_dense.artifact.precision import MIN_LOGITS_AGREEMENT_PERCENT, NEAR_TIE, PRECISIONS
from mobileclip_dense.artifact.preprocess import crop_image, resize_image
from mobileclip_dense.artifact.result import RESULT_SCHEMA_VERSION
from mobileclip_dense.runtime.accuracy import resize_map
from mobileclip_dense.runtime.parity import relative_error

WEB = Path(__file__).parent.parent.parent / "apps" / "web"
# Smaller, larger, one axis only, to a single pixel; and on both sides of Pillow's choice of the axis to begin with.
_SIZES = (((37, 53), (16, 16)), ((20, 30), (31, 47)), ((61, 7), (10, 20)), ((32, 32), (32, 12)), ((9, 11), (1, 1)),
          ((30, 20), (16, 13)), ((30, 20), (15, 13)), ((20, 30), (22, 50)),
          ((1, 650), (9, 7)), ((651, 2), (6, 7)), ((3, 48 * 2 + 1), (5, 10)), ((3, 96), (5, 10)))  # fmt: skip


def contract() -> dict[str, Any]:
    """The tables of the contract that the page shares; part of the page, not of its tests."""
    return {
        "artifact_schema_version": SCHEMA_VERSION,
        "result_schema_version": RESULT_SCHEMA_VERSION,
        "precisions": {
            one.name: {
                "max_relative_error": one.max_relative_error,
                "min_agreement_percent": one.min_agreement_percent,
            }
            for one in PRECISIONS.values()
            if one.runtime == "onnx"
        },
        "near_tie": NEAR_TIE,
        "min_logits_agreement_percent": MIN_LOGITS_AGREEMENT_PERCENT,
        "max_pixels": images.MAX_PIXELS,
        "max_side_px": MOST_SIDE_PX,
        "foreign_images": [[start.decode("latin-1"), name] for start, name in images._FOREIGN],
        "turbo": TURBO.astype(int).tolist(),
    }


def fixtures() -> dict[Path, Any]:
    """Contents by file."""
    return {
        WEB / "src" / "contract.json": contract(),
        WEB / "tests" / "fixtures" / "resizing.json": _resizing(),
        WEB / "tests" / "fixtures" / "colours.json": _colours(),
        WEB / "tests" / "fixtures" / "arrays.json": _arrays(),
    }


def as_text(value: Any) -> str:
    """The JSON as it is committed."""
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def _packed(array: npt.NDArray[Any]) -> dict[str, Any]:
    data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
    return {"dtype": array.dtype.name, "shape": list(array.shape), "base64": data}


def _resizing() -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    cases = []
    for size, target in _SIZES:
        image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        classes = rng.integers(0, 150, size, dtype=np.int32)
        metres = rng.uniform(0.3, 10, size).astype(np.float32)
        for kind, taken, given in (
            ("image", image, resize_image(image, *target)),
            ("crop", image, crop_image(image, *target)),
            ("classes", classes, resize_map(classes, *target)),
            ("metres", metres, resize_map(metres, *target)),
        ):
            cases.append({"kind": kind, "input": _packed(taken), "output": _packed(given)})
    return cases


def _colours() -> dict[str, Any]:
    rng = np.random.default_rng(1)
    image, palette = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8), [(208, 130, 57), (142, 123, 224), (49, 157, 37)]
    classes = rng.choice(np.array([0, 1, 2, 255], np.uint8), (4, 5))
    metres = np.append(np.linspace(0.5, 12, 39), 0).astype(np.float32).reshape(5, 8)
    return {
        "overlay": {"palette": palette, "image": _packed(image), "classes": _packed(classes.astype(np.uint16)),
                    "output": _packed(overlay_classes(image, classes, palette))},
        "depth": {"near_m": 1.25, "far_m": 9.5, "metres": _packed(metres),
                  "output": _packed(colour_depth(metres, 1.25, 9.5))},
    }  # fmt: skip


def _arrays() -> dict[str, Any]:
    rng = np.random.default_rng(2)
    arrays = {
        "input": rng.integers(0, 256, (2, 3, 4, 3), dtype=np.uint8),
        "tokens": np.array([[49406, 320, 49407, 0]], np.int64),
        "class_map": np.arange(6, dtype=np.int32).reshape(1, 2, 3),
        "logits": rng.normal(size=(1, 2, 3)).astype(np.float32),
    }
    stored, packed = io.BytesIO(), io.BytesIO()
    np.savez(stored, allow_pickle=False, **arrays)
    np.savez_compressed(packed, allow_pickle=False, **arrays)
    other = (arrays["logits"] * 1.001).astype(np.float32)
    return {
        "arrays": {name: _packed(array) for name, array in arrays.items()},
        "stored": base64.b64encode(stored.getvalue()).decode(),
        "compressed": base64.b64encode(packed.getvalue()).decode(),
        "other": _packed(other),
        "relative_error": relative_error(other, arrays["logits"]),
    }


if __name__ == "__main__":
    for file, value in fixtures().items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(as_text(value), encoding="utf-8")
        print(file)
