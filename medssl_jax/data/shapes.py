"""Reference shapes for segmentation without labels: masks from elsewhere, or simulated vessels, optic discs and foveas, lung fields.

Simulated masks are drawn on [0, 1] x [0, 1] and rasterised at any size; (y, x), y down. Every mask is a function of its seed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree
from skimage.draw import polygon

from medssl_jax.errors import UserError

TREES = 2  # arteries and veins, which cross each other but not themselves
TRUNKS = (3, 5)  # vessels of a tree that leave the optic disc
SOUGHT = (45, 90)  # places that a tree grows towards
REACHED = 0.025  # of the image's side: a place is reached
STEP = 0.01
MOST_STEPS = 150
THINNEST = 0.0022  # radius of the last twigs
MURRAY = 2.4  # r^m = r1^m + r2^m at a branching; 3 is the least work of blood flow (Murray 1926), retinas have less
STIFF = 2.5  # how much a vessel keeps its heading, beside the pull on it
SIDEWAYS = 0.7  # how much a branch keeps of it: it sets off at an acute angle
WANDER = 0.25  # a step, at random: what makes a vessel tortuous
FINE = 512  # pixels a side, at least, that vessels are drawn on
COVERED = 0.4  # share of a pixel that makes it vessel
DISC_RADIUS = (0.055, 0.075)
FOVEA_DISTANCE = 4.9  # disc radii from the disc's centre to the fovea's, about 2.5 diameters
FOVEA_DROP = 0.55  # disc radii that the fovea lies lower


class Eye(NamedTuple):
    """Where the optic disc and the fovea of a fundus lie, and the disc's radius."""

    disc: tuple[float, float]
    fovea: tuple[float, float]
    radius: float


def vessels(seed: int, size: int) -> np.ndarray:
    """A vascular tree, bool [size, size].

    Two trees grow from the optic disc by space colonisation (Runions et al. 2005): places spread over the field of view pull the nearest
    vessel towards them, which grows by steps, with some wander, and branches where it is pulled to several sides, until each place is
    reached. Twigs have one radius and vessels that of their branches by Murray's law, so that they taper towards the rim.
    """
    rng = np.random.default_rng(seed)
    eye = place_eye(rng)
    finer = -(-FINE // size)
    mask = np.zeros((size * finer, size * finer), bool)
    for _ in range(TREES):
        places, parents = _grow(rng, np.array(eye.disc))
        for place, parent, radius in zip(places, parents, _radii(parents), strict=True):
            for share in np.linspace(0, 1, 1 + int(np.ceil(2 * STEP * len(mask)))):  # no gap of more than half a pixel
                _dot(mask, place + share * (places[parent] - place), radius)
    coarse = mask.reshape(size, finer, size, finer).mean((1, 3)) >= COVERED
    return coarse & _circle(size)


def _grow(rng: np.random.Generator, root: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nodes of a tree [N, 2] and each one's parent [N], which comes before it; the trunks' own is the root, node 0."""
    angle, reach = rng.uniform(0, 2 * np.pi, rng.integers(*SOUGHT)), 0.49
    far = reach * np.sqrt(rng.uniform(0, 1, len(angle)))
    sought = 0.5 + far[:, None] * np.stack([np.sin(angle), np.cos(angle)], 1)
    count = int(rng.integers(TRUNKS[0], TRUNKS[1] + 1))
    heading = 2 * np.pi * (np.arange(count) + rng.uniform(-0.3, 0.3, count) + rng.uniform()) / count
    stubs = np.stack([np.sin(heading), np.cos(heading)], 1)
    nodes, headings = np.concatenate([root[None], root + 2 * STEP * stubs]), np.concatenate([np.zeros((1, 2)), stubs])
    parents = np.zeros(len(nodes), int)
    for _ in range(MOST_STEPS):
        distance, nearest = cKDTree(nodes[1:]).query(sought)
        sought, nearest = sought[distance > REACHED], nearest[distance > REACHED] + 1
        if not len(sought):
            break
        pull = np.zeros_like(nodes)
        np.add.at(pull, nearest, _direction(sought - nodes[nearest]))
        growing = np.unique(nearest)
        fresh = np.bincount(parents, minlength=len(nodes))[growing] == 0
        keep = np.where(fresh, STIFF, SIDEWAYS)[:, None] * headings[growing]
        ahead = _direction(keep + _direction(pull[growing]) + rng.normal(0, WANDER, (len(growing), 2)))
        nodes, headings = np.concatenate([nodes, nodes[growing] + STEP * ahead]), np.concatenate([headings, ahead])
        parents = np.concatenate([parents, growing])
    return nodes, parents


def _direction(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


def _radii(parents: np.ndarray) -> np.ndarray:
    """Murray's law from the twigs to the root."""
    cubes = np.zeros(len(parents))
    for node in range(len(parents) - 1, 0, -1):
        cubes[node] = max(cubes[node], THINNEST**MURRAY)
        cubes[parents[node]] += cubes[node]
    cubes[0] = THINNEST**MURRAY  # the root is no vessel of its own
    return cubes ** (1 / MURRAY)


def _dot(mask: np.ndarray, place: np.ndarray, radius: float) -> None:
    """Fill a disc and nothing of the rest; at least the pixel under its centre."""
    size = len(mask)
    centre, reach = place * size, max(radius * size, 0.5)
    low, high = (np.clip((centre + sign * (reach + 1)).astype(int), 0, size - 1) for sign in (-1, 1))
    rows, columns = np.ogrid[low[0] : high[0] + 1, low[1] : high[1] + 1]
    inside = (rows + 0.5 - centre[0]) ** 2 + (columns + 0.5 - centre[1]) ** 2 <= reach**2
    mask[low[0] : high[0] + 1, low[1] : high[1] + 1] |= inside


def place_eye(rng: np.random.Generator) -> Eye:
    """A disc on the nasal side, left or right, with the fovea on the other side of the centre, a little lower."""
    side, radius = rng.choice([-1, 1]), rng.uniform(*DISC_RADIUS)
    disc = np.array([0.5 + rng.normal(0, 0.02), 0.5 + side * rng.uniform(0.18, 0.26)])
    fovea = disc + radius * np.array([FOVEA_DROP + rng.normal(0, 0.3), -side * FOVEA_DISTANCE * rng.uniform(0.9, 1.1)])
    return Eye((float(disc[0]), float(disc[1])), (float(fovea[0]), float(fovea[1])), float(radius))


def optic_disc(seed: int, size: int) -> np.ndarray:
    """The disc, an ellipse a little higher than wide, bool [size, size]."""
    rng = np.random.default_rng(seed)
    eye = place_eye(rng)
    return _ellipse(size, eye.disc, eye.radius * rng.uniform(1.0, 1.15), eye.radius)


def fovea(seed: int, size: int) -> np.ndarray:
    """The fovea, a disc as large as the optic disc of the same seed, bool [size, size]."""
    eye = place_eye(np.random.default_rng(seed))
    return _ellipse(size, eye.fovea, eye.radius, eye.radius)


def lungs(seed: int, size: int) -> np.ndarray:
    """Two lung fields of a frontal chest X-ray, bool [size, size].

    Each is an outline of an apex, a convex outer side, a costophrenic angle below, a diaphragm that rises inwards and a straighter inner
    side; the heart takes a part of the inner side of the one on the right of the image, which is the narrower.
    """
    rng = np.random.default_rng(seed)
    mask = np.zeros((size, size), bool)
    top, bottom = rng.uniform(0.14, 0.22), rng.uniform(0.68, 0.82)
    for side, width, notch in ((-1, rng.uniform(0.27, 0.35), 0.0), (1, rng.uniform(0.26, 0.33), rng.uniform(0.03, 0.08))):
        inner = 0.5 + side * rng.uniform(0.035, 0.065)
        low = bottom + rng.normal(0, 0.02)
        outline = _lung(inner, side, width, notch, top + rng.normal(0, 0.015), low, rng)
        y, x = np.array(outline).T * size
        rows, columns = polygon(y, x, mask.shape)
        mask[rows, columns] = True
    return mask


def _lung(
    inner: float, side: int, width: float, notch: float, top: float, bottom: float, rng: np.random.Generator
) -> list[tuple[float, float]]:
    """Corners (y, x) of one outline: down the outer side, along the diaphragm inwards, up the inner side."""
    height, dome = bottom - top, rng.uniform(0.1, 0.18)
    u = np.linspace(0, 1, 40)
    outer = 0.3 + 0.42 * np.minimum(1, u / 0.3) ** 0.5 + 0.28 * u  # from the rounded apex to the costophrenic angle
    middle = 0.3 * np.maximum(0, 1 - u / 0.12) ** 1.5 + 0.3 * np.maximum(0, u - 0.3)
    middle = middle + notch / width * np.exp(-((u - 0.78) ** 2) / 0.03)  # the heart
    raised = 1 - dome * (np.sin(np.pi * u) + 0.8 * u)  # the diaphragm, from the outer to the inner side
    across = outer[-1] + (np.interp(raised[-1], u, middle) - outer[-1]) * u
    corners = [*zip(u, outer), *zip(raised, across), *((v, m) for v, m in zip(u[::-1], middle[::-1]) if v < raised[-1])]
    return [(top + height * y, inner + side * width * x) for y, x in corners]


def _ellipse(size: int, centre: tuple[float, float], high: float, wide: float) -> np.ndarray:
    rows, columns = np.ogrid[:size, :size]
    y, x = (rows + 0.5) / size - centre[0], (columns + 0.5) / size - centre[1]
    return (y / high) ** 2 + (x / wide) ** 2 <= 1


def _circle(size: int) -> np.ndarray:
    """The camera's field of view."""
    return _ellipse(size, (0.5, 0.5), 0.49, 0.49)


SIMULATORS: dict[str, Callable[[int, int], np.ndarray]] = {
    "vessels": vessels,
    "optic_disc": optic_disc,
    "fovea": fovea,
    "lungs": lungs,
}


def simulate(kind: str, count: int, size: int, seed: int) -> np.ndarray:
    """`count` masks, bool [count, size, size]. Raises UserError for a kind that there is no simulator of."""
    if kind not in SIMULATORS:
        raise UserError(f"there is no simulator of {kind!r}; choose one of {', '.join(SIMULATORS)}, or name a folder of masks.")
    return np.stack([SIMULATORS[kind](seed * 100_003 + i, size) for i in range(count)])
