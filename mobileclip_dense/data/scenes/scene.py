"""Generated scenes: sampling of their contents (`sample_scene`) and rendering (`render`).

Scenes are ray cast, with one ray per pixel and one sun with hard shadows. Depth is the distance along the optical axis,
as measured by a depth camera, and 0 without a measurement.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mobileclip_dense.data.scenes.solids import SOLIDS, FloatArray, Placed, intersect, may_hit, normals_at

KINDS = tuple(SOLIDS)
CLASS_NAMES = ("floor", "wall", "sky", *KINDS)
MAX_DEPTH_M = 10.0  # range of NYUv2's depth camera

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.82, 0.12, 0.10),
    "green": (0.14, 0.60, 0.18),
    "blue": (0.12, 0.24, 0.80),
    "yellow": (0.93, 0.82, 0.12),
    "purple": (0.50, 0.16, 0.64),
    "orange": (0.95, 0.50, 0.08),
    "cyan": (0.12, 0.72, 0.78),
    "pink": (0.94, 0.52, 0.68),
    "white": (0.93, 0.93, 0.91),
    "black": (0.10, 0.10, 0.11),
    "brown": (0.45, 0.26, 0.12),
}
# Most objects have the typical colour of their kind, as in real images.
TYPICAL_COLOUR = dict(zip(KINDS, COLOURS, strict=True))
_TYPICAL_SHARE = 0.7
MATERIALS = ("matte", "glossy", "striped", "checkered")
FLOORS: dict[str, tuple[float, float, float]] = {
    "wooden": (0.55, 0.36, 0.20),
    "tiled": (0.72, 0.72, 0.70),
    "grass": (0.30, 0.48, 0.20),
    "concrete": (0.50, 0.50, 0.48),
}
WALLS: dict[str, tuple[float, float, float]] = {
    "brick": (0.62, 0.32, 0.24),
    "painted": (0.76, 0.78, 0.70),
    "panelled": (0.46, 0.40, 0.34),
}
_SKY, _FLOOR, _WALL = -1, -2, -3  # objects have indices from 0
_SKY_LOW, _SKY_HIGH = np.array([0.82, 0.88, 0.95], np.float32), np.array([0.36, 0.56, 0.86], np.float32)
_SUN_AMBIENT = np.float32(0.38)
_MIN_VISIBLE_FRACTION = 0.0015  # of the image; smaller objects are neither annotated nor mentioned in captions


@dataclass(frozen=True, kw_only=True)
class SceneObject:
    """A solid and the words that describe it."""

    kind: str
    colour: str
    material: str
    size: str  # small, medium or large
    placed: Placed


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A scene: a camera, a floor, a wall or the sky, a sun, and solids. Metres; x right, y up, z forward."""

    objects: tuple[SceneObject, ...]
    floor: str
    wall: str | None  # None outdoors
    wall_distance_m: float
    camera_height_m: float
    camera_pitch_rad: float  # downwards
    focal: float  # focal length over image width
    sun: FloatArray  # unit vector towards the sun, [3]


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """A rendered image and its labels. H = W = size_px.

    Attributes:
        image: uint8 [H,W,3] RGB.
        classes: uint8 [H,W], index into CLASS_NAMES.
        depth_m: float32 [H,W], 0 for sky and beyond MAX_DEPTH_M.
        instances: int8 [H,W], index into the scene's objects; -1 for no object.
    """

    image: npt.NDArray[np.uint8]
    classes: npt.NDArray[np.uint8]
    depth_m: FloatArray
    instances: npt.NDArray[np.int8]

    def visible_objects(self) -> list[int]:
        """Indices of the objects that are large enough to be annotated, largest first."""
        counts = np.bincount(self.instances[self.instances >= 0], minlength=1)
        order = np.argsort(-counts, kind="stable")
        return [int(i) for i in order if counts[i] >= max(4, _MIN_VISIBLE_FRACTION * self.instances.size)]

    def main_object(self) -> int | None:
        """Index of the object with at least twice the image area of every other object; None if there is none."""
        visible = self.visible_objects()
        areas = [int((self.instances == index).sum()) for index in visible]
        return visible[0] if visible and (len(areas) == 1 or areas[0] >= 2 * areas[1]) else None


def sample_scene(rng: np.random.Generator) -> Scene:
    """Sample a scene with 1 to 4 solids that do not intersect. No two have the same kind and colour."""
    outdoors = rng.random() < 0.4
    wall_distance_m = float(rng.uniform(4.5, 8.0))
    sun = np.array([rng.uniform(-0.8, 0.8), 1.0, rng.uniform(-0.9, 0.2)], np.float32)
    objects: list[SceneObject] = []
    wanted = int(rng.integers(1, 5))
    for _ in range(40):
        if len(objects) == wanted:
            break
        candidate = _sample_object(rng, min(wall_distance_m - 1.2, 5.5))
        if all(_clear_of(candidate, other) for other in objects):
            objects.append(candidate)
    floors = ("grass", "concrete", "tiled") if outdoors else ("wooden", "tiled", "concrete")
    return Scene(
        objects=tuple(objects),
        floor=str(rng.choice(floors)),
        wall=None if outdoors else str(rng.choice(list(WALLS))),
        wall_distance_m=wall_distance_m,
        camera_height_m=float(rng.uniform(1.1, 2.2)),
        camera_pitch_rad=float(np.deg2rad(rng.uniform(8, 20))),
        focal=float(rng.uniform(0.85, 1.1)),
        sun=sun / np.linalg.norm(sun),
    )


def _sample_object(rng: np.random.Generator, far_m: float) -> SceneObject:
    kind = str(rng.choice(KINDS))
    size_index = int(rng.integers(3))
    half_m = np.float32((0.40, 0.55, 0.74)[size_index] * rng.uniform(0.92, 1.08))
    z = float(rng.uniform(2.0, far_m))
    x = float(rng.uniform(-0.48, 0.48) * z)
    scale = np.array([half_m, half_m * SOLIDS[kind].height, half_m], np.float32)
    colour = TYPICAL_COLOUR[kind] if rng.random() < _TYPICAL_SHARE else str(rng.choice(list(COLOURS)))
    return SceneObject(
        kind=kind,
        colour=colour,
        material=str(rng.choice(MATERIALS)),
        size=("small", "medium", "large")[size_index],
        placed=Placed(
            solid=SOLIDS[kind],
            centre=np.array([x, scale[1], z], np.float32),
            scale=scale,
            yaw=float(rng.uniform(0, 2 * np.pi)),
        ),
    )


def _clear_of(a: SceneObject, b: SceneObject) -> bool:
    apart = float(np.hypot(*(a.placed.centre - b.placed.centre)[[0, 2]]))
    return apart > 1.15 * float(a.placed.scale[0] + b.placed.scale[0]) and (a.kind, a.colour) != (b.kind, b.colour)


def render(scene: Scene, size_px: int) -> Rendered:
    """Render a scene to a square image with exact labels."""
    origin, directions, forward = _camera_rays(scene, size_px)
    distance, hit = _first_hits(scene, origin, directions)
    points = origin + directions * distance[:, None]
    colour = np.empty_like(points)
    normals = np.zeros_like(points)
    sky = hit == _SKY
    colour[sky] = _SKY_LOW + (_SKY_HIGH - _SKY_LOW) * np.clip(directions[sky, 1:2] * 2.5, 0, 1)
    gloss = np.zeros(len(points), np.float32)
    floor, wall = hit == _FLOOR, hit == _WALL
    normals[floor], colour[floor] = np.array([0, 1, 0], np.float32), _floor_colour(scene.floor, points[floor])
    if scene.wall is not None:
        normals[wall], colour[wall] = np.array([0, 0, -1], np.float32), _wall_colour(scene.wall, points[wall])
    for index, item in enumerate(scene.objects):
        chosen = hit == index
        normals[chosen], local = normals_at(item.placed, points[chosen])
        colour[chosen] = _object_colour(item, local)
        gloss[chosen] = 0.7 if item.material == "glossy" else 0.0
    lit = np.flatnonzero(~sky)
    colour[lit] = _shade(scene, points[lit], directions[lit], normals[lit], colour[lit], gloss[lit])
    z_depth = distance * (directions @ forward)
    classes = np.select([floor, wall], [0, 1], 2).astype(np.uint8)
    for index, item in enumerate(scene.objects):
        classes[hit == index] = CLASS_NAMES.index(item.kind)
    shape = (size_px, size_px)
    return Rendered(
        image=(np.clip(colour, 0, 1) * 255 + 0.5).astype(np.uint8).reshape(*shape, 3),
        classes=classes.reshape(shape),
        depth_m=np.where(sky | (z_depth > MAX_DEPTH_M), 0, z_depth).astype(np.float32).reshape(shape),
        instances=np.where(hit >= 0, hit, -1).astype(np.int8).reshape(shape),
    )


def _camera_rays(scene: Scene, size_px: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Origin [1,3], unit directions [P,3] in row-major pixel order, and the optical axis [3]."""
    grid = (np.arange(size_px, dtype=np.float32) + 0.5) / size_px - 0.5
    right, down = np.meshgrid(grid, grid)
    cos, sin = np.float32(np.cos(scene.camera_pitch_rad)), np.float32(np.sin(scene.camera_pitch_rad))
    forward, up = np.array([0, -sin, cos], np.float32), np.array([0, cos, sin], np.float32)
    sideways = np.array([1, 0, 0], np.float32)
    directions = forward * np.float32(scene.focal) + right.reshape(-1, 1) * sideways - down.reshape(-1, 1) * up
    unit = (directions / np.linalg.norm(directions, axis=1, keepdims=True)).astype(np.float32)
    return np.array([[0, scene.camera_height_m, 0]], np.float32), unit, forward


def _first_hits(scene: Scene, origin: FloatArray, directions: FloatArray) -> tuple[FloatArray, npt.NDArray[np.int8]]:
    """Distance [P] and what was hit [P]: an object's index, or _SKY, _FLOOR, _WALL."""
    slope = directions[:, 1]
    with np.errstate(divide="ignore"):
        distance = np.where(slope < -1e-4, -origin[0, 1] / slope, np.float32(1e4)).astype(np.float32)
    hit = np.where(slope < -1e-4, _FLOOR, _SKY).astype(np.int8)
    if scene.wall is not None:
        to_wall = np.float32(scene.wall_distance_m) / np.maximum(directions[:, 2], np.float32(1e-6))
        nearer = to_wall < distance
        distance[nearer], hit[nearer] = to_wall[nearer], _WALL
    for index, item in enumerate(scene.objects):
        rays = may_hit(item.placed, origin, directions)
        enter, leave = intersect(item.placed, origin, directions[rays])
        nearer = (enter < leave) & (enter > 1e-3) & (enter < distance[rays])
        distance[rays[nearer]], hit[rays[nearer]] = enter[nearer], index
    return distance, hit


def _shade(
    scene: Scene, points: FloatArray, directions: FloatArray, normals: FloatArray, colour: FloatArray, gloss: FloatArray
) -> FloatArray:
    """Lambertian shading with ambient light, hard shadows, and highlights on glossy materials."""
    lambert = np.maximum(normals @ scene.sun, 0)
    facing = np.flatnonzero(lambert > 0)
    start = points[facing] + normals[facing] * np.float32(2e-3)
    towards_sun = np.broadcast_to(scene.sun, start.shape)
    for item in scene.objects:
        rays = may_hit(item.placed, start, towards_sun)
        enter, leave = intersect(item.placed, start[rays], towards_sun[rays])
        lambert[facing[rays[(enter < leave) & (leave > 1e-3)]]] = 0
    mirrored = directions - 2 * np.einsum("pc,pc->p", directions, normals)[:, None] * normals
    highlight = gloss * np.maximum(mirrored @ scene.sun, 0) ** 24 * (lambert > 0)
    light = _SUN_AMBIENT + (1 - _SUN_AMBIENT) * lambert
    return colour * light[:, None] + highlight[:, None].astype(np.float32)


def _floor_colour(floor: str, points: FloatArray) -> FloatArray:
    base = np.asarray(FLOORS[floor], np.float32)
    x, z = points[:, 0], points[:, 2]
    if floor == "wooden":
        pattern = 0.85 + 0.15 * np.sin(np.floor(x * 4) * 12.9) + 0.05 * np.sin(z * 9 + np.floor(x * 4) * 3)
    elif floor == "tiled":
        pattern = np.where((np.floor(x * 1.6) + np.floor(z * 1.6)) % 2 == 0, 1.0, 0.78)
    else:
        roughness = 0.22 if floor == "grass" else 0.08
        pattern = 1 + roughness * (_hash_noise(x * 22, z * 22) - 0.5) * 2
    return base * pattern[:, None].astype(np.float32)


def _wall_colour(wall: str, points: FloatArray) -> FloatArray:
    base = np.asarray(WALLS[wall], np.float32)
    x, y = points[:, 0], points[:, 1]
    if wall == "brick":
        row = np.floor(y * 4)
        joint = (np.mod(y * 4, 1) < 0.12) | (np.mod(x * 1.8 + 0.5 * (row % 2), 1) < 0.06)
        pattern = np.where(joint, 1.35, 0.9 + 0.2 * _hash_noise(np.floor(x * 1.8 + 0.5 * (row % 2)), row))
    elif wall == "panelled":
        pattern = np.where(np.mod(x * 1.2, 1) < 0.05, 0.6, 1.0)
    else:
        pattern = np.ones_like(x)
    return base * pattern[:, None].astype(np.float32)


def _object_colour(item: SceneObject, local: FloatArray) -> FloatArray:
    base = np.asarray(COLOURS[item.colour], np.float32)
    if item.material in ("matte", "glossy"):
        return np.broadcast_to(base, local.shape)
    contrast = base * np.float32(0.6)
    bands = np.floor(local[:, 1] * 3)
    if item.material == "checkered":
        bands = bands + np.floor(np.arctan2(local[:, 2], local[:, 0]) * (4 / np.pi))
    return np.where((bands % 2 == 0)[:, None], base, contrast)


def _hash_noise(x: FloatArray, y: FloatArray) -> FloatArray:
    """Deterministic white noise in [0,1) on the integer lattice, without a random generator."""
    key = np.floor(x).astype(np.int64) * 73856093 ^ np.floor(y).astype(np.int64) * 19349663
    return ((key * 2654435761 >> 8) & 0xFFFF).astype(np.float32) / np.float32(65536)
