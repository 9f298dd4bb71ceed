"""What plots and diagrams are drawn with: a sheet of paper twice as fine as the figure, one look a figure, and words to write on it."""

from __future__ import annotations

import dataclasses

import numpy as np
from PIL import Image, ImageDraw

from medssl_jax.figures import letters
from medssl_jax.figures.letters import BLACK, Color

FINER = 2  # drawn so many times larger and then reduced, which smooths lines and letters
TEXT = (0.013, 0.023)  # size of the text, as a share of the figure's longer side
LEAST = 7  # pixels of it
PALETTES: tuple[tuple[Color, ...], ...] = (
    ((31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189)),
    ((0, 0, 0), (150, 150, 150), (255, 255, 255), (90, 90, 90), (210, 210, 210)),
    ((228, 26, 28), (55, 126, 184), (77, 175, 74), (152, 78, 163), (255, 127, 0)),
    ((0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233)),
    ((0, 0, 255), (255, 0, 0), (0, 128, 0), (0, 0, 0), (0, 191, 255)),
    ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)),
)
QUANTITIES = (
    *("Time (min)", "Time (h)", "Days", "Dose (mg/kg)", "Concentration (nM)", "Wavelength (nm)", "Relative expression", "Fold change"),
    *("Number of cells", "% of control", "Intensity (a.u.)", "Survival (%)", "Body weight (g)", "Distance (mm)", "Absorbance", "Score"),
)
GROUPS = (
    *("Control", "WT", "KO", "Treated", "DMSO", "siRNA", "Mock", "Saline", "Day 1", "Day 7", "Vehicle", "High", "Low", "Sham", "Naive"),
    *("Male", "Female", "0 h", "24 h", "48 h", "Normal", "Tumour", "Lesion", "Stage I", "Stage II", "Baseline", "Follow-up"),
)
GENES = tuple(f"{name}{number}" for name in ("ABC", "KRX", "TMP", "SLC", "ZNF", "CDM", "PLT", "Hox") for number in (1, 2, 4, 7, 11, 16))
SENTENCE = (
    "the cells were washed twice and fixed before staining with primary antibody overnight at room temperature samples from each group "
    "showed increased signal in treated tissue compared to control images were acquired under identical conditions scale arrows indicate "
    "regions of interest patients with follow up after surgery mean values of three independent experiments are shown"
)

Area = tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True)
class Theme:
    """The look of one figure's drawn panels; `size` of text and `stroke` of lines are pixels of the figure."""

    paper: Color
    colors: tuple[Color, ...]
    font: str
    size: int
    stroke: float
    boxed: bool
    grid: bool


def draw_theme(rng: np.random.Generator, side: float, paper: Color) -> Theme:
    """A look for a figure whose longer side has `side` pixels."""
    palette = PALETTES[rng.integers(len(PALETTES))]
    turned = int(rng.integers(len(palette)))
    font = str(rng.choice(letters.FONTS, p=(0.6, 0.15, 0.15, 0.05, 0.05)))
    size = max(LEAST, round(side * rng.uniform(*TEXT)))
    stroke = float(rng.choice((0.5, 1.0, 1.5)))
    return Theme(paper, palette[turned:] + palette[:turned], font, size, stroke, bool(rng.random() < 0.4), bool(rng.random() < 0.2))


class Pen:
    """A sheet of `width` x `height` pixels of the figure; all that is drawn on it is in its own pixels, which are FINER times smaller."""

    def __init__(self, width: int, height: int, theme: Theme) -> None:
        self.theme = theme
        self.image = Image.new("RGB", (width * FINER, height * FINER), theme.paper)
        self.draw = ImageDraw.Draw(self.image)
        self.area: Area = (0, 0, width * FINER, height * FINER)
        self.size = FINER * max(LEAST, min(theme.size, min(width, height) // 8))  # whole pixels of the figure: letters are met again
        self.stroke = max(1, round(theme.stroke * FINER))

    def text(
        self,
        text: str,
        place: tuple[float, float],
        anchor: tuple[float, float] = (0.5, 0.5),
        ink: Color = BLACK,
        turned: bool = False,
        scale: float = 1.0,
    ) -> None:
        """A line of text; see `letters.write`."""
        letters.write(self.image, text, place, anchor, round(self.size * scale), self.theme.font, ink, turned)

    def wide(self, text: str) -> int:
        """Pixels that a line of text is wide."""
        return letters.sprite(text, self.theme.font, round(self.size)).width

    def color(self, k: int) -> Color:
        """The k-th colour of the theme."""
        return self.theme.colors[k % len(self.theme.colors)]

    def box(self, x0: float, y0: float, x1: float, y1: float, fill: Color | None = None, line: Color | None = BLACK) -> None:
        """A rectangle between two points, whichever is the upper or the left one."""
        corners = (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
        self.draw.rectangle(corners, fill, line, self.stroke if line else 0)

    def disc(self, x: float, y: float, radius: float, fill: Color | None = None, line: Color | None = None) -> None:
        """A circle."""
        self.draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill, line, self.stroke if line else 0)

    def line(self, *points: tuple[float, float], ink: Color = BLACK, width: float = 1.0) -> None:
        """Straight pieces from point to point."""
        self.draw.line(points, ink, max(1, round(self.stroke * width)), joint="curve")

    def arrow(self, start: tuple[float, float], end: tuple[float, float], ink: Color = BLACK) -> None:
        """A line with a head."""
        along = np.subtract(end, start) / max(float(np.hypot(*np.subtract(end, start))), 1e-6)
        side, head = np.array([-along[1], along[0]]), 0.6 * self.size
        self.line(start, end, ink=ink)
        base = np.array(end) - head * along
        self.draw.polygon([tuple(end), tuple(base + 0.4 * head * side), tuple(base - 0.4 * head * side)], ink)

    def done(self) -> Image.Image:
        """The sheet in pixels of the figure."""
        return self.image.reduce(FINER)


def within(area: Area, margin: float) -> Area:
    """What is left of an area inside of a margin."""
    return area[0] + margin, area[1] + margin, area[2] - margin, area[3] - margin


def quantity(rng: np.random.Generator) -> str:
    """What an axis may show."""
    return QUANTITIES[rng.integers(len(QUANTITIES))]


def groups(rng: np.random.Generator, count: int) -> list[str]:
    """Names of groups of a study, or of genes."""
    names = GENES if rng.random() < 0.4 else GROUPS
    return [names[k] for k in rng.choice(len(names), count, replace=count > len(names))]


def words(rng: np.random.Generator, count: int) -> str:
    """Some words in a row."""
    every = SENTENCE.split()
    start = int(rng.integers(len(every)))
    return " ".join(every[(start + k) % len(every)] for k in range(count))


def wrapped(pen: Pen, text: str, width: float) -> list[str]:
    """The text in lines that are not wider than that, but for words that are."""
    lines, space, free = [""], 0.35 * pen.size, width
    for word in text.split():
        wide = pen.wide(word) + space  # word by word, which are met again
        if wide > free and lines[-1]:
            lines.append("")
            free = width
        lines[-1] = f"{lines[-1]} {word}".strip()
        free -= wide
    return lines
