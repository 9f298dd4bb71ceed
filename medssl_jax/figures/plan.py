"""All that is decided of a figure before a pixel is drawn: how many panels of what kinds, where, of which images, with which lettering."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from medssl_jax.figures import layouts, letters
from medssl_jax.figures.axes import Rng
from medssl_jax.figures.distractors import BLOT, DIAGRAM, IMAGE, PLOT, draw_kinds, draw_shape
from medssl_jax.figures.layouts import Layout, Pad
from medssl_jax.figures.letters import BLACK, WHITE, Color, Letters
from medssl_jax.figures.pen import Theme, draw_theme
from medssl_jax.figures.replay import Published, group, layouts_of, replay, respace
from medssl_jax.figures.singles import Shown, Singles, closest
from medssl_jax.figures.style import Style

GREYS = (245, 255)
MARGIN = 0.03  # of the figure's longer side, at most
STRETCHED = (0.5, 2.5)  # width / height of the cells that images are stretched into
TRIED = 8  # images tried for a cell of a replayed layout
MATCHED = 0.6  # share of intra-class figures whose ground is that of their images
REPLAYED_KINDS = {"WesternBlot": BLOT, "Graphs": PLOT, "Others": DIAGRAM, "Microscopy": IMAGE}


_NOWHERE = Layout(0, 0, np.zeros((0, 4), int), 0)


class Plan(NamedTuple):
    """A figure to be drawn. `shown` has an image for every panel of the kind image, None for the others.

    `ground` is the colour around the panels, None for that of the images' borders; `headers` is "", "above" or "beside".
    """

    layout: Layout
    kinds: tuple[str, ...]
    shown: tuple[Shown | None, ...]
    intra: bool
    ground: Color | None
    theme: Theme
    letters: Letters | None
    pad: Pad
    headers: str


def make_plan(rng: Rng, singles: Singles, style: Style) -> Plan:
    """The plan of one figure; everything random comes from `rng` (section 2.1)."""
    intra, side = bool(rng.random() < style.intra_class), float(rng.uniform(*style.side))
    ground = _ground(rng, style, intra)
    theme = draw_theme(rng, side, ground if ground is not None and min(ground) >= GREYS[0] else WHITE)
    gap, replayed = layouts.draw_gap(rng, style, intra), bool(rng.random() < style.replayed)
    lettering = _lettering(rng, side, style, inside=intra or replayed or not gap)
    if replayed:
        return _replayed(rng, singles, style, Plan(_NOWHERE, (), (), intra, ground, theme, lettering, Pad(), ""), side)
    count = layouts.draw_count(rng, style.counts)
    kinds = _kinds(rng, count, 0.0 if intra else style.distractors)
    images = singles.choose(rng, count, intra, bool(rng.random() < style.cropped))
    aspects = np.array([_aspect(rng, kind, image, style) for kind, image in zip(kinds, images)])
    tree = layouts.draw_tree(rng, aspects, style.arrangements)
    pad = letters.pad(lettering, count)
    headers = str(rng.choice(("above", "beside"))) if rng.random() < style.headers else ""
    margin = _margin(rng, side * MARGIN if rng.random() < style.margin else 0, headers, theme)
    layout = layouts.arrange(tree, aspects, side, gap, pad, margin)
    return Plan(layout, kinds, _only_images(kinds, images), intra, ground, theme, lettering, pad, headers)


def _ground(rng: Rng, style: Style, intra: bool) -> Color | None:
    """Section 2.1, items 4 and 6."""
    kind = int(rng.choice(3, p=np.array(style.grounds) / np.sum(style.grounds)))
    grey = int(rng.integers(GREYS[0], GREYS[1] + 1))
    if intra and rng.random() < MATCHED:
        return None
    return (WHITE, BLACK, (grey, grey, grey))[kind]


def _lettering(rng: Rng, side: float, style: Style, inside: bool) -> Letters | None:
    """Letters, or none; `inside` where there is no room between panels, which touch or nearly do."""
    if rng.random() >= style.lettered:
        return None
    drawn = letters.draw_letters(rng, side)
    return drawn._replace(place="inside") if inside else drawn


def _kinds(rng: Rng, count: int, share: float) -> tuple[str, ...]:
    """What each panel is. The share of drawn ones varies from figure to figure: most have none of them, or nothing else."""
    if 0 < share < 1:
        share = float(rng.beta(share, 1 - share))
    drawn = rng.random(count) < share
    return tuple(kind if here else IMAGE for kind, here in zip(draw_kinds(rng, count), drawn))


def _aspect(rng: Rng, kind: str, image: Shown, style: Style) -> float:
    """Width / height of a panel in a layout that is made for it."""
    if kind != IMAGE:
        return draw_shape(rng, kind)
    return image.aspect if style.keep_aspect else float(np.exp(rng.uniform(*np.log(STRETCHED))))


def _margin(rng: Rng, most: float, headers: str, theme: Theme) -> Pad:
    sides = [int(v) for v in rng.uniform(0, most, 4)] if most else [0] * 4
    above, beside = (round(1.6 * theme.size) if headers == name else 0 for name in ("above", "beside"))
    return Pad(sides[0] + beside, sides[1] + above, sides[2], sides[3])


def _only_images(kinds: tuple[str, ...], images: list[Shown]) -> tuple[Shown | None, ...]:
    return tuple(image if kind == IMAGE else None for kind, image in zip(kinds, images))


def _replayed(rng: Rng, singles: Singles, style: Style, plan: Plan, side: float) -> Plan:
    """The plan with the boxes of a published figure, each filled by an image of about its shape."""
    published = layouts_of(style.layouts, *map(int, style.panels))
    chosen = published[rng.integers(len(published))]
    chosen = group(chosen) if style.grouped else chosen
    layout, count = replay(chosen, side), len(chosen.boxes)
    if style.respaced:
        layout = respace(layout, layouts.draw_gap_between(rng, style.respaced[0], style.respaced[1], layout.width))
    kinds = (IMAGE,) * count if plan.intra or not style.distractors else _replayed_kinds(rng, chosen, style)
    cropped, sizes = bool(rng.random() < style.cropped), layout.boxes[:, 2:] - layout.boxes[:, :2]
    tried = TRIED if style.keep_aspect else 1
    aspects = [float(w / h) for w, h in sizes]
    if plan.intra:
        candidates = singles.choose(rng, count * tried, intra=True, cropped=cropped)
        images = [closest(candidates[k * tried : (k + 1) * tried], aspect) for k, aspect in enumerate(aspects)]
    else:
        images = [singles.fitting(rng, aspect, tried, cropped) for aspect in aspects]
    return plan._replace(layout=layout, kinds=kinds, shown=_only_images(kinds, images))


def _replayed_kinds(rng: Rng, layout: Published, style: Style) -> tuple[str, ...]:
    """What was there, as far as the table says."""
    drawn = _kinds(rng, len(layout.boxes), style.distractors)
    return tuple(REPLAYED_KINDS.get(name, kind) for name, kind in zip(layout.shown, drawn))
