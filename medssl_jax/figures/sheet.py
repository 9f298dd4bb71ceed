"""What was cut, to look through: pages of figures with their panels outlined, each page one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

import numpy as np
from PIL import Image, ImageDraw

from medssl_jax.figures.looks import PHOTOGRAPH, PLOT
from medssl_jax.figures.panels import Row
from medssl_jax.figures.read import where
from medssl_jax.report import style
from medssl_jax.report.words import counted

SIDE = 260  # px of a thumbnail's longer side
INK = {PHOTOGRAPH: (0, 110, 220), PLOT: (230, 120, 0)}
ON_PAGE = 100  # figures
MOST = 2000  # figures of all pages; of more, as many at equal distances
MOST_ERRORS = 200  # sentences on the first page
QUALITY = 70  # of JPEG
GRID = (
    "<style>.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: 1rem; } .grid figure { margin: 0; } "
    ".grid figcaption { overflow-wrap: anywhere; font-size: .78rem; } body { max-width: 90rem; }</style>"
)

COLOURS = {kind: f"rgb{ink}" for kind, ink in INK.items()}
LEGEND = "<p class=soft>{}; numbers as in panels.csv, each a link to its crop.</p>".format(
    ", ".join(f'<b style="color: {colour}">&#9633;</b> {kind}' for kind, colour in COLOURS.items())
)

Key = tuple[str, str, str]  # source, page, number of the figure on it


def key_of(row: Row) -> Key:
    """Which figure a line of panels.csv is of."""
    return row["source"], row["page"], row["figure"]


def thumbnail(image: np.ndarray, boxes: np.ndarray, kinds: Sequence[str]) -> Image.Image:
    """A figure uint8 [H, W, 3] at 260 px at most, its panels [N, 4] outlined and numbered: blue for photographs, orange for plots."""
    factor = max(1, max(image.shape[:2]) // (2 * SIDE))
    small = Image.fromarray(image).reduce(factor)
    small.thumbnail((SIDE, SIDE), Image.Resampling.BILINEAR)
    draw, scale = ImageDraw.Draw(small), small.width / image.shape[1]
    for number, ((x0, y0, x1, y1), kind) in enumerate(zip(boxes * scale, kinds, strict=True), 1):
        draw.rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), outline=INK[kind], width=2)
        draw.rectangle(draw.textbbox((x0 + 3, y0 + 2), str(number)), fill=INK[kind], outline=INK[kind], width=2)
        draw.text((x0 + 3, y0 + 2), str(number), fill="white")
    return small


def save_thumbnail(path: Path, picture: Image.Image) -> None:
    """Write a thumbnail where the sheet will look for it, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, "JPEG", quality=QUALITY)


def write_sheet(out: Path, rows: Sequence[Row], thumbnails: Mapping[Key, Path], mark: str, left_out: str = "") -> Path:
    """Write index.html, and index-2.html and so on where there are many figures.

    Args:
      out: the folder of the pages.
      rows: lines of panels.csv, those of a figure one after the other.
      thumbnails: the thumbnail of each figure (source, page, figure) that was cut.
      mark: ends the names of unfinished files, which nobody else may use at the same time.
      left_out: what was no figure, in words.

    Returns:
      The path of index.html.
    """
    figures = [(key, list(own)) for key, own in itertools.groupby(rows, key_of)]
    cut = [(thumbnails[key], own) for key, own in figures if key in thumbnails]
    shown = cut if len(cut) <= MOST else [cut[i * len(cut) // MOST] for i in range(MOST)]
    pages = [shown[i : i + ON_PAGE] for i in range(0, len(shown), ON_PAGE)] or [[]]
    told = _summary(rows, len(figures), len(cut), len(shown)) + (f" {left_out[0].upper()}{left_out[1:]}." if left_out else "")
    errors = _grouped([row for row in rows if row["error"]])
    for number, page in enumerate(pages, 1):
        parts = [GRID, "<h1>Separated figures</h1>", style.paragraph(told, "facts"), LEGEND, _links(number, len(pages)), _grid(page)]
        parts += [_errors(errors)] if number == 1 else []
        path = out / _name(number)
        partial = path.with_name(f"{path.name}.{mark}.partial")
        partial.write_text(style.document("Separated figures", "\n".join(parts)), encoding="utf-8")
        partial.replace(path)
    return out / _name(1)


def _summary(rows: Sequence[Row], figures: int, cut: int, shown: int) -> str:
    panels = [row["looks"] for row in rows if not row["error"]]
    plots = panels.count(PLOT)
    some = f" {shown} of the figures are shown, at equal distances." if shown < cut else ""
    return (
        f"{counted(figures, 'figure')}, {counted(len(panels), 'panel')}: {len(panels) - plots} like photographs, {plots} like plots; "
        f"{counted(figures - cut, 'figure')} could not be cut.{some}"
    )


def _name(number: int) -> str:
    return "index.html" if number == 1 else f"index-{number}.html"


def _links(number: int, count: int) -> str:
    links = (f"<b>{n}</b>" if n == number else f'<a href="{_name(n)}">{n}</a>' for n in range(1, count + 1))
    return f"<nav><p>Pages: {' '.join(links)}</p></nav>" if count > 1 else ""


def _grid(figures: Sequence[tuple[Path, list[Row]]]) -> str:
    return f'<div class="grid">{"".join(_figure(path, own) for path, own in figures)}</div>'


def _figure(path: Path, rows: list[Row]) -> str:
    first = rows[0]
    caption = f"{where(first['source'], first['page'], first['figure'])}: {counted(len(rows), 'panel')}"
    links = " ".join(f'<a href="{quote(row["crop"])}">{row["panel"]}</a>' for row in rows)
    data = base64.b64encode(path.read_bytes()).decode() if path.exists() else ""
    image = f'<img alt="{escape(caption)}" loading="lazy" src="data:image/jpeg;base64,{data}">' if data else ""
    return f"<figure>{image}<figcaption>{escape(caption)} {links}</figcaption></figure>"


def _grouped(rows: Sequence[Row]) -> list[str]:
    """What could not be cut and why, a sentence for each file and reason."""
    groups: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        reason = row["error"].removeprefix(where(*key_of(row))).removeprefix(row["source"])
        groups.setdefault((row["source"], reason), []).append(row["error"])
    return [same[0] + (f" The same of {len(same) - 1} more in {source}." if len(same) > 1 else "") for (source, _), same in groups.items()]


def _errors(sentences: list[str]) -> str:
    more = len(sentences) - MOST_ERRORS
    rest = [f"and {more} more, see the column error of panels.csv"] if more > 0 else []
    return style.section("Not cut", style.bullets([*sentences[:MOST_ERRORS], *rest])) if sentences else ""
