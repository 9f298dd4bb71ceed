"""A planned figure drawn: images and drawn panels on their ground, with frames, scale bars, titles and letters."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from medssl_jax.figures import letters, marks
from medssl_jax.figures.axes import Rng
from medssl_jax.figures.distractors import IMAGE, content, draw_panel
from medssl_jax.figures.letters import BLACK, WHITE, Color, Rectangle
from medssl_jax.figures.plan import Plan
from medssl_jax.figures.rgb import fit
from medssl_jax.figures.singles import Shown, Singles
from medssl_jax.figures.style import Style

GAIN = (0.4, 2.5)  # of an image's brightness, to match the first one's
TINTS: tuple[Color | None, ...] = ((60, 90, 255), (0, 255, 60), (255, 40, 40), (255, 0, 255), (0, 255, 255), None)
COARSER = 4  # times fewer pixels each way tell how bright an image is
DARK = 110  # mean brightness below which an image can be of fluorescence
LETTER_ROOM = 4  # a drawn panel that is so many letters high keeps its upper edge free for one


def render(plan: Plan, rng: Rng, singles: Singles, style: Style) -> tuple[Image.Image, np.ndarray]:
    """The figure as an RGB image, before degradation, and its tight boxes float [N, 4]."""
    layout = plan.layout
    pictures = _toned([_picture(image, box, singles, style) for image, box in zip(plan.shown, layout.boxes)], rng, plan, style)
    canvas = Image.new("RGB", (layout.width, layout.height), plan.ground or _border(pictures))
    boxes = [_paste(canvas, plan, rng, k, picture) for k, picture in enumerate(pictures)]
    _mark(canvas, plan, rng, style)
    names = letters.names(plan.letters, len(boxes)) if plan.letters else []
    for k, name in enumerate(names):
        assert plan.letters is not None
        where = letters.letter(canvas, plan.letters, name, _corners(layout.boxes[k]))
        if style.letters_in_box or (plan.letters.place == "inside" and plan.kinds[k] != IMAGE):
            boxes[k] = _union(boxes[k], where, canvas)
    return canvas, np.array(boxes, float)


def _picture(image: Shown | None, box: np.ndarray, singles: Singles, style: Style) -> Image.Image | None:
    """The image of a panel at its size."""
    return None if image is None else fit(singles[image.number], image.part, *_size(box), style.keep_aspect)


def _corners(box: np.ndarray) -> Rectangle:
    x0, y0, x1, y1 = (int(v) for v in box)
    return x0, y0, x1, y1


def _size(box: np.ndarray) -> tuple[int, int]:
    return int(box[2] - box[0]), int(box[3] - box[1])


def _union(box: Rectangle, other: Rectangle, canvas: Image.Image) -> Rectangle:
    x0, y0, x1, y1 = min(box[0], other[0]), min(box[1], other[1]), max(box[2], other[2]), max(box[3], other[3])
    return max(x0, 0), max(y0, 0), min(x1, canvas.width), min(y1, canvas.height)


def _toned(pasted: list[Image.Image | None], rng: Rng, plan: Plan, style: Style) -> list[Image.Image | None]:
    """Images as channels of one colour each, in some figures; in the intra-class mode, as bright on average as the first one."""
    tinted, shift = rng.random() < style.tinted, int(rng.integers(len(TINTS)))
    if not (tinted or plan.intra):
        return pasted
    means = [0.0 if image is None else float(np.asarray(image.reduce(COARSER)).mean()) for image in pasted]
    found: list[Image.Image | None] = []
    for k, image in enumerate(pasted):
        tint = TINTS[(k + shift) % len(TINTS)]
        if image is not None and plan.intra and k:
            gain = float(np.clip(means[0] / max(means[k], 1), *GAIN))
            image = ImageEnhance.Brightness(image).enhance(gain)
        if image is not None and tinted and tint and means[k] < DARK:
            image = ImageOps.colorize(image.convert("L"), BLACK, tint)
        found.append(image)
    return found


def _border(pictures: list[Image.Image | None]) -> Color:
    """The median colour along the edges of the first image."""
    pixels = np.asarray(next(picture for picture in pictures if picture is not None))
    edges = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    red, green, blue = (int(v) for v in np.median(edges, axis=0))
    return red, green, blue


def _paste(canvas: Image.Image, plan: Plan, rng: Rng, k: int, picture: Image.Image | None) -> Rectangle:
    """Put panel k where it belongs; its tight box."""
    box = _corners(plan.layout.boxes[k])
    if picture is not None:
        canvas.paste(picture, box[:2])
        return box
    width, height = _size(plan.layout.boxes[k])
    room = plan.letters.size if plan.letters and plan.letters.place == "inside" and height > LETTER_ROOM * plan.letters.size else 0
    drawn = draw_panel(rng, plan.kinds[k], width, height - room, plan.theme, alone=plan.letters is None)
    canvas.paste(plan.theme.paper, box)
    canvas.paste(drawn, (box[0], box[1] + room))
    seen = content(drawn, plan.theme.paper)
    if seen is None or plan.theme.paper != plan.ground:
        return box
    return box[0] + seen[0], box[1] + room + seen[1], box[0] + seen[2], box[1] + room + seen[3]


def _mark(canvas: Image.Image, plan: Plan, rng: Rng, style: Style) -> None:
    """Frames, scale bars, arrows, titles and text across gaps, as far as the figure has them."""
    framed, bars, arrows = (rng.random() < share for share in (style.framed, style.scale_bars, style.arrows))
    for kind, box in zip(plan.kinds, plan.layout.boxes):
        panel = _corners(box)
        if kind == IMAGE and bars:
            marks.scale_bar(canvas, rng, panel, plan.theme)
        if kind == IMAGE and arrows and rng.random() < 0.5:
            marks.arrows(canvas, rng, panel)
        if kind == IMAGE and framed:
            marks.frame(canvas, panel, BLACK if plan.ground != BLACK else WHITE)
    if plan.headers:
        beside = plan.headers == "beside"
        marks.headers(canvas, rng, plan.layout.boxes, plan.theme, beside, 3 + (plan.pad.left if beside else plan.pad.top))
    if rng.random() < style.crossing and len(plan.kinds) > 1:
        marks.crossing(canvas, rng, plan.layout.boxes, plan.layout.gap, plan.theme)
