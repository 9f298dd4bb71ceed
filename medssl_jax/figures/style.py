"""What simulated figures look like: every probability and range of the simulator in one place."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Sequence
from typing import Any

from medssl_jax.errors import UserError

COUNTS = (0.5, 37.1, 16.9, 19.5, 4.8, 9.8, 6.8, 4.7)  # ImageCLEF 2016, training: 1, 2, 3, 4, 5, 6, 7 to 9, 10 and more panels
WEIGHTS = {"counts": len(COUNTS), "arrangements": 3, "grounds": 3}  # options that are lists of weights, and their lengths
RANGES = {  # options that are ranges, and what they must lie in
    "side": (64, 4000),
    "panels": (1, 1000),
    "respaced": (0, 0.07),
    "rescale": (0.1, 4),
    "quality": (1, 100),
}
Range = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Style:
    """Probabilities are of a figure, unless they say what else; lengths are shares of the figure's width or pixels.

    Raises UserError for a value out of range.
    """

    counts: tuple[float, ...] = COUNTS  # weights of 1, 2, 3, 4, 5, 6, 7 to 9, 10 and more panels
    arrangements: tuple[float, ...] = (0.45, 0.45, 0.1)  # weights of rows, columns, recursive cuts
    replayed: float = 0.1  # takes the boxes of a published figure instead
    layouts: str = ""  # a CSV of published layouts; "" for those that come with the package
    panels: Range = (1, 1000)  # of such a layout, before strips are one
    respaced: tuple[float, ...] = ()  # gaps that such a layout gets, from and to, (0, 0) so that panels touch; () keeps its own
    grouped: bool = True  # the strips of a blot in such a layout are one panel
    side: Range = (300, 640)  # pixels of the longer side, before degradation; figures of many panels are larger
    zero_gap: float = 0.2  # no gap at all, outside the intra-class mode
    margin: float = 0.6  # some ground around all panels
    grounds: tuple[float, ...] = (0.8, 0.1, 0.1)  # weights of white, black, grey of 245 to 255
    keep_aspect: bool = True  # False stretches images into cells of any shape, as Tsutsui and Crandall (2017) did
    cropped: float = 0.3  # shows parts of its images, of other shapes
    intra_class: float = 0.4  # images of one class, touching or nearly, on a ground like theirs
    intra_gap: float = 0.003  # largest gap there
    distractors: float = 0.35  # share of plots, blots, tables, texts and diagrams among the panels outside the intra-class mode
    tinted: float = 0.08  # its images are of one colour each, as channels of fluorescence
    lettered: float = 0.75
    letters_in_box: bool = False  # a tight box takes in a letter beside, above or below its panel
    framed: float = 0.15  # thin lines around its images
    scale_bars: float = 0.2
    arrows: float = 0.1
    headers: float = 0.15  # titles over the columns, or beside the rows
    crossing: float = 0.08  # some text lies across the gaps
    degrade: bool = True
    rescale: Range = (0.5, 1.5)
    quality: Range = (40, 95)  # of JPEG

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type == "float" and not 0 <= value <= 1:
                raise UserError(f"the style {field.name}={value!r} is a share; it must be from 0 to 1.")
            if (length := WEIGHTS.get(field.name)) and (len(value) != length or min(value) < 0 or sum(value) <= 0):
                raise UserError(f"the style {field.name}={value!r} is no list of {length} weights; none may be below 0, nor all of them 0.")
            low, high = RANGES.get(field.name, (0, 0))
            if high and value != field.default and not (len(value) == 2 and low <= value[0] <= value[1] <= high):
                raise UserError(f"the style {field.name}={value!r} is no rising range; it must lie from {low} to {high}.")


def changed_style(options: Sequence[str]) -> Style:
    """The default style with some `name=value` changed. Raises UserError for a name that is none, or a value that cannot be read."""
    known = {field.name: str(field.type) for field in dataclasses.fields(Style)}
    changed: dict[str, Any] = {}
    for option in options:
        name, _, text = option.partition("=")
        if name not in known:
            raise UserError(f"--style={option} names no part of the style; choose one of {', '.join(known)}.")
        try:
            changed[name] = _value(text, known[name])
        except (ValueError, SyntaxError) as error:
            raise UserError(f"--style={option} cannot be read; write a value like its default, {getattr(Style(), name)!r}.") from error
    return Style(**changed)


def _value(text: str, kind: str) -> Any:
    """What is written, as a str, bool, float or tuple of numbers. Raises ValueError or SyntaxError for anything else."""
    if kind == "str":
        return text
    value = ast.literal_eval(text)
    numbers = value if isinstance(value, tuple) else (value,)
    plain = all(isinstance(v, int | float) and not isinstance(v, bool) for v in numbers)
    if isinstance(value, bool) if kind == "bool" else plain and isinstance(value, tuple) == (kind != "float"):
        return value
    raise ValueError(f"{text} is not of the kind {kind}")
