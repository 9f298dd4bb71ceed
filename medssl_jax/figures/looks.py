"""What a panel looks like: a photograph (a micrograph, a scan, an X-ray) or a plot (also a diagram, a table, a text), by one small rule.

Where neighbouring pixels of an image differ, they mostly differ a little; lines and letters differ from the paper all at once. So the rule
is the share of hard steps among all steps off the paper, which may be lower where much of the panel is paper.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

PHOTOGRAPH, PLOT = "photograph", "plot"
SEEN = 300  # px of the longer side that is looked at, at most twice that
PAPER = 235  # of 255 in all channels
MUCH_PAPER = 0.1  # share of a panel
STEP, SMALL, HARD = 2, 32, 48  # of 255: smaller ones are none; up to the second they are of an image, above the third of a drawing
DRAWN = 0.25  # share of hard steps that makes a plot
DRAWN_ON_PAPER = 0.1  # the same on much paper
SEEN_AT_ALL = 24  # of 255, from the ground: what must be seen anywhere so that nothing is blank; dim fluorescence shows little more
GRID = 100  # pixels along each side that tell the ground
SPECKS = 2e-4  # share of a blank page that dust may cover


def looks(image: np.ndarray) -> str:
    """Says "photograph" or "plot" of a panel uint8 [H, W, 3] of any size; blots with their labels, between the two, are either."""
    small = np.asarray(Image.fromarray(image).reduce(max(1, max(image.shape[:2]) // SEEN)))
    channels = small.transpose(2, 0, 1).astype(np.int16, order="C")  # one after the other in memory, which is several times as fast
    paper = channels.min(axis=0) >= PAPER
    steps = np.concatenate([_steps(channels, paper, axis) for axis in (0, 1)])
    hard, soft = int((steps > HARD).sum()), int(((steps > STEP) & (steps <= SMALL)).sum())
    drawn = hard / max(hard + soft, 1)
    return PLOT if drawn >= (DRAWN_ON_PAPER if paper.mean() >= MUCH_PAPER else DRAWN) else PHOTOGRAPH


def is_blank(image: np.ndarray) -> bool:
    """Whether a figure or panel uint8 [H, W, 3] shows nothing but its ground, give or take some dust."""
    sparse = image[:: max(1, image.shape[0] // GRID), :: max(1, image.shape[1] // GRID)]
    ground = np.median(sparse, axis=(0, 1)).astype(int)
    dust = SPECKS * image.shape[0] * image.shape[1]
    return _off(sparse, ground) <= dust and _off(image, ground) <= dust  # some of the pixels mostly tell enough


def _off(pixels: np.ndarray, ground: np.ndarray) -> int:
    """How many pixels [H, W, 3] are far from the ground [3] in any channel."""
    seen = np.zeros(pixels.shape[:2], bool)
    for channel, middle in enumerate(ground.tolist()):
        seen |= (pixels[:, :, channel] < max(0, middle - SEEN_AT_ALL)) | (pixels[:, :, channel] > min(255, middle + SEEN_AT_ALL))
    return int(seen.sum())


def _steps(channels: np.ndarray, paper: np.ndarray, axis: int) -> np.ndarray:
    """The largest difference of the channels [C, H, W] between neighbours along an axis that are both off the paper."""
    size = paper.shape[axis]
    off = ~(paper.take(range(1, size), axis) | paper.take(range(size - 1), axis))
    return np.abs(np.diff(channels, axis=axis + 1)).max(axis=0)[off]
