"""Panel letters and all other lettering: text as masks, kept once drawn, and the letters' styles and places."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from medssl_jax.figures.layouts import Pad

FONTS = ("plain", "bold", "serif", "serif bold", "wide")
FILES = {"serif": "STIXGeneral.ttf", "serif bold": "STIXGeneralBol.ttf", "wide": "DejaVuSans-Bold.ttf"}  # these come with matplotlib
THICKENED = 0.035  # of the size: Pillow's own font has no bold, so its strokes are drawn wider
CASES, CASE_WEIGHTS = ("lower", "upper", "digit", "roman"), (0.2, 0.6, 0.1, 0.1)
FORMS, FORM_WEIGHTS = ("{}", "({})", "{})", "{}1"), (0.6, 0.2, 0.12, 0.08)
PLACES, PLACE_WEIGHTS = ("inside", "left", "below", "above"), (0.3, 0.3, 0.3, 0.1)
SIZES = (0.022, 0.045)  # of the figure's longer side
MIDDLE = 128  # brightness that decides between black and white ink
PATCHED = 0.15  # share of letters inside their panel that stand on a patch of their own
ROMAN = (("x", 10), ("ix", 9), ("v", 5), ("iv", 4), ("i", 1))

Color = tuple[int, int, int]
Rectangle = tuple[int, int, int, int]
BLACK, WHITE = (0, 0, 0), (255, 255, 255)


class Letters(NamedTuple):
    """The style of one figure's letters; `size` in pixels."""

    case: str
    form: str
    place: str
    font: str
    size: int
    patch: bool


def draw_letters(rng: np.random.Generator, side: float) -> Letters:
    """A style by section 2.1, item 5, for a figure whose longer side has `side` pixels."""
    size = max(9, round(side * rng.uniform(*SIZES)))
    case, form = str(rng.choice(CASES, p=CASE_WEIGHTS)), str(rng.choice(FORMS, p=FORM_WEIGHTS))
    form = "{}" if form == "{}1" and case != "upper" else form
    place, font = str(rng.choice(PLACES, p=PLACE_WEIGHTS)), str(rng.choice(FONTS, p=(0.3, 0.4, 0.1, 0.1, 0.1)))
    return Letters(case, form, place, font, size, bool(rng.random() < PATCHED))


def names(letters: Letters, count: int) -> list[str]:
    """What the panels are called, in order: a, b, ..., z, aa; 1, 2; i, ii; "A1" counts on: A1, A2, B1."""
    if letters.form == "{}1":
        return [f"{_latin(k // 2)}{k % 2 + 1}" for k in range(count)]
    if letters.case == "digit":
        found = [str(k + 1) for k in range(count)]
    elif letters.case == "roman":
        found = [_roman(k + 1) for k in range(count)]
    else:
        found = [_latin(k) if letters.case == "upper" else _latin(k).lower() for k in range(count)]
    return [letters.form.format(name) for name in found]


def _latin(k: int) -> str:
    return (chr(64 + k // 26) if k >= 26 else "") + chr(65 + k % 26)


def _roman(number: int) -> str:
    text = ""
    for sign, value in ROMAN:
        text, number = text + sign * (number // value), number % value
    return text


def pad(letters: Letters | None, count: int) -> Pad:
    """What a panel keeps free for its letter, which is not inside it."""
    if letters is None or letters.place == "inside":
        return Pad()
    if letters.place == "left":
        return Pad(left=max(sprite(name, letters.font, letters.size).width for name in names(letters, count)) + letters.size // 3)
    deep = round(1.4 * letters.size)
    return Pad(bottom=deep) if letters.place == "below" else Pad(top=deep)


def letter(canvas: Image.Image, letters: Letters, name: str, panel: Rectangle) -> Rectangle:
    """Write the name of the panel where the style has it; the rectangle (x0, y0, x1, y1) that it takes."""
    x0, y0, x1, y1 = panel
    near = max(2, letters.size // 4)
    if letters.place == "left":
        return write(canvas, name, (x0 - letters.size // 3, y0), (1, 0), letters.size, letters.font)
    if letters.place == "below":
        return write(canvas, name, ((x0 + x1) / 2, y1 + near), (0.5, 0), letters.size, letters.font)
    if letters.place == "above":
        return write(canvas, name, (x0, y0 - near), (0, 1), letters.size, letters.font)
    if letters.patch:
        wide = sprite(name, letters.font, letters.size).width
        canvas.paste(WHITE, (x0, y0, min(x1, x0 + wide + 2 * near), min(y1, y0 + letters.size + near)))
    return write(canvas, name, (x0 + near, y0 + near), (0, 0), letters.size, letters.font)


def write(
    canvas: Image.Image,
    text: str,
    place: tuple[float, float],
    anchor: tuple[float, float],
    size: int,
    font: str,
    ink: Color | None = None,
    turned: bool = False,
) -> Rectangle:
    """Write text and return the rectangle (x0, y0, x1, y1) that its ink takes.

    Args:
      canvas: an RGB image, which is changed.
      text: one line.
      place: x, y in pixels, of the point `anchor` of the text, in shares of its width and height.
      anchor: (0, 0) is its upper left corner, (1, 1) the lower right one.
      size: pixels.
      font: one of FONTS.
      ink: RGB; None takes black or white, by the brightness of what is there.
      turned: reads from below to above.
    """
    mask = sprite(text, font, size, turned)
    x, y = round(place[0] - anchor[0] * mask.width), round(place[1] - anchor[1] * mask.height)
    box = (x, y, x + mask.width, y + mask.height)
    canvas.paste(contrast(canvas, box) if ink is None else ink, box, mask)
    return box


def contrast(canvas: Image.Image, box: Rectangle) -> Color:
    """Black where the canvas is bright within the box on average, else white."""
    x0, y0, x1, y1 = max(box[0], 0), max(box[1], 0), min(box[2], canvas.width), min(box[3], canvas.height)
    if x0 >= x1 or y0 >= y1:
        return BLACK
    return BLACK if np.asarray(canvas.crop((x0, y0, x1, y1)).convert("L")).mean() >= MIDDLE else WHITE


@functools.lru_cache(maxsize=16384)
def sprite(text: str, font: str, size: int, turned: bool = False) -> Image.Image:
    """The text as a mask of mode L, cut to its ink."""
    loaded, stroke = _font(font, size), THICKENED * size if font == "bold" else 0
    left, top, right, bottom = (int(v) for v in loaded.getbbox(text, stroke_width=stroke))
    mask = Image.new("L", (right - left + 2, bottom - top + 2))
    ImageDraw.Draw(mask).text((1 - left, 1 - top), text, fill=255, font=loaded, stroke_width=stroke)
    mask = mask.crop(mask.getbbox() or (0, 0, 1, 1))
    return mask.transpose(Image.Transpose.ROTATE_90) if turned else mask


@functools.lru_cache(maxsize=256)
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    if name not in FILES:
        loaded = ImageFont.load_default(size)
        assert isinstance(loaded, ImageFont.FreeTypeFont)
        return loaded
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / FILES[name], size, layout_engine=ImageFont.Layout.BASIC)
