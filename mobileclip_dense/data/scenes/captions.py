"""Captions of three qualities for the same image.

`alt` imitates alt text from the web: file names, slogans, partly wrong words. `clean` is one short, correct sentence.
`reinforced` is several correct and detailed sentences, like those of a captioner (arXiv 2405.08911, section 3).
"""

import numpy as np

from mobileclip_dense.config import CaptionQuality
from mobileclip_dense.data.scenes.scene import COLOURS, KINDS, Rendered, Scene, SceneObject

NUM_REINFORCED = 5  # synthetic captions per sample, as in DataCompDR

_SLOGANS = (
    "Best prices on home decor, free shipping!",
    "Click to enlarge",
    "New collection 2024 | Shop now",
    "Stock photo, royalty free",
    "3D render wallpaper HD download",
    "photo gallery page {number}",
)
_COUNT_WORDS = ("no", "one", "two", "three", "four", "five", "six")


def write_captions(
    scene: Scene, view: Rendered, quality: CaptionQuality, rng: np.random.Generator
) -> tuple[str, list[str]]:
    """The caption of an image and its synthetic captions: NUM_REINFORCED if `quality` is reinforced, else none."""
    visible = [scene.objects[i] for i in view.visible_objects()]
    if quality == "clean":
        return _clean_caption(scene, visible), []
    alt = _alt_caption(visible, rng)
    return alt, _reinforced_captions(scene, view, rng) if quality == "reinforced" else []


def _a(phrase: str) -> str:
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def _short(item: SceneObject) -> str:
    return f"{item.colour} {item.kind}"


def _long(item: SceneObject) -> str:
    return f"{item.size} {item.material} {item.colour} {item.kind}"


def _join(phrases: list[str]) -> str:
    return phrases[0] if len(phrases) == 1 else ", ".join(phrases[:-1]) + " and " + phrases[-1]


def _place(scene: Scene) -> str:
    behind = "under an open sky" if scene.wall is None else f"in front of a {scene.wall} wall"
    return f"on a {scene.floor} floor {behind}"


def _alt_caption(visible: list[SceneObject], rng: np.random.Generator) -> str:
    number = int(rng.integers(1000, 9999))
    draw = rng.random()
    if draw < 0.3:
        return f"IMG_{number}.jpg"
    if draw < 0.6 or not visible:
        return str(rng.choice(_SLOGANS)).format(number=number)
    item = visible[int(rng.integers(len(visible)))]
    colour = str(rng.choice(list(COLOURS))) if rng.random() < 0.5 else item.colour
    kind = str(rng.choice(KINDS)) if rng.random() < 0.3 else item.kind
    return f"{colour} {kind} {number}"


def _clean_caption(scene: Scene, visible: list[SceneObject]) -> str:
    if not visible:
        return f"an empty {scene.floor} floor"
    return _join([_a(_short(item)) for item in visible[:2]]) + f" on a {scene.floor} floor"


def _reinforced_captions(scene: Scene, view: Rendered, rng: np.random.Generator) -> list[str]:
    """Five captions: attributes, left and right, near and far, the number of objects, and relations of the largest."""
    indices = view.visible_objects()
    if not indices:
        return [f"an empty scene {_place(scene)}"] * NUM_REINFORCED
    objects = [scene.objects[i] for i in indices]
    columns = [float(np.nonzero(view.instances == i)[1].mean()) for i in indices]
    depths = [float(scene.objects[i].placed.centre[2]) for i in indices]
    across = [objects[k] for k in np.argsort(columns, kind="stable")]
    inwards = [objects[k] for k in np.argsort(depths, kind="stable")]
    captions = [_join([_a(_long(item)) for item in objects]) + f" {_place(scene)}"]
    if len(objects) == 1:
        side = "left" if columns[0] < view.image.shape[1] / 2 else "right"
        captions.append(f"{_a(_short(objects[0]))} stands alone on the {side} side of the picture")
        captions.append(f"the only object is a {objects[0].size} {_short(objects[0])}, {depths[0]:.0f} metres away")
    else:
        captions.append("from left to right: " + _join([_a(_short(item)) for item in across]))
        captions.append(f"{_a(_short(inwards[0]))} is nearest and {_a(_short(inwards[-1]))} is farthest away")
    captions.append(
        f"{_COUNT_WORDS[len(objects)]} object{'s' * (len(objects) > 1)} {_place(scene)}, the largest a "
        f"{objects[0].material} {_short(objects[0])}"
    )
    first, second = objects[0], objects[int(rng.integers(1, len(objects)))] if len(objects) > 1 else objects[0]
    if first is second:
        captions.append(f"a {first.material} {_short(first)} {_place(scene)}")
    else:
        side = "left" if across.index(first) < across.index(second) else "right"
        distance = "closer than" if inwards.index(first) < inwards.index(second) else "farther than"
        captions.append(f"the {_short(first)} is to the {side} of and {distance} the {_short(second)}")
    return captions
