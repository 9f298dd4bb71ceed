"""Reference shapes for segmentation without labels: masks from elsewhere, or simulated vessels, optic discs and foveas, lung fields.

Simulated masks are drawn on [0, 1] x [0, 1] and rasterised at any size; (y, x), y down. Every mask is a function of its seed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from skimage.draw import polygon

from medssl_jax.errors import UserError

ASYMMETRY = (0.5, 1.0)  # radius of the thinner child by that of the thicker
MURRAY = 3.0  # r^3 = r1^3 + r2^3 at a branching (Murray 1926, the least work of blood flow)
TAPER = 0.99  # of the radius, a step
STEP = 0.01  # of the image's side
THINNEST = 0.002  # radius at which a vessel ends
FINE = 512  # pixels a side, at least, that vessels are drawn on
COVERED = 0.4  # share of a pixel that makes it vessel
TREES = (6, 8)  # vessels that leave the optic disc: the arcades and what lies between
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

    Vessels leave the optic disc to all sides. They go forward in short steps whose heading wanders about a straight line (an
    Ornstein-Uhlenbeck process: tortuosity) and whose radius falls (tapering); at random lengths, longer for the thicker, they branch in
    two by Murray's law, the thinner child by the larger angle.
    """
    rng = np.random.default_rng(seed)
    eye = place_eye(rng)
    finer = -(-FINE // size)
    mask = np.zeros((size * finer, size * finer), bool)
    count = int(rng.integers(TREES[0], TREES[1] + 1))
    for number in range(count):
        heading = 2 * np.pi * (number + rng.uniform(-0.25, 0.25)) / count
        _grow(mask, rng, np.array(eye.disc), heading, rng.uniform(0.005, 0.0095))
    coarse = mask.reshape(size, finer, size, finer).mean((1, 3)) >= COVERED
    return coarse & _circle(size)


def _grow(mask: np.ndarray, rng: np.random.Generator, place: np.ndarray, heading: float, radius: float) -> None:
    """Draw one vessel and, where it branches, its children."""
    straight, bend, left = heading, 0.0, _length(rng, radius)
    while radius > THINNEST and (np.abs(place - 0.5) < 0.5).all():
        bend = 0.8 * bend + rng.normal(0, 0.035) - 0.02 * (heading - straight)
        heading += bend
        ahead = STEP * np.array([np.sin(heading), np.cos(heading)])
        for share in np.linspace(0, 1, 1 + int(np.ceil(2 * STEP * len(mask)))):  # no gap of more than half a pixel
            _dot(mask, place + share * ahead, radius)
        place, radius, left = place + ahead, radius * TAPER, left - 1
        if left < 0:
            ratio, side, angle = rng.uniform(*ASYMMETRY), rng.choice([-1, 1]), rng.uniform(0.5, 1.1)
            thick = radius / (1 + ratio**MURRAY) ** (1 / MURRAY)
            _grow(mask, rng, place, heading + side * angle / (1 + ratio**2), ratio * thick)
            heading -= side * angle * ratio**2 / (1 + ratio**2)
            straight, radius, left = heading, thick, _length(rng, thick)


def _length(rng: np.random.Generator, radius: float) -> float:
    """Steps to the next branching: longer for the thicker."""
    return 3 + rng.exponential(14) * radius / 0.01


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
