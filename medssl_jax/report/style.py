"""The page's style sheet and the few HTML pieces it is made of. No script, no font, nothing from the network."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from medssl_jax.report.words import show

CSS = """
:root { color-scheme: light; --ink: #1c2227; --soft: #5b6670; --line: #d9dee3; --tint: #f4f6f8; --good: #00664a; --bad: #9c2a10; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem 1.1rem 4rem; background: #fff; color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: .4rem 0 .3rem; }
h2 { font-size: 1.25rem; margin: 2.4rem 0 .6rem; padding-top: .9rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
p, ul { max-width: 46rem; margin: .5rem 0; }
ul { padding-left: 1.2rem; }
li { margin: .3rem 0; }
.facts, .soft, figcaption, caption { color: var(--soft); }
.facts { margin-bottom: 1rem; }
.warning { border-left: 4px solid #d58a00; background: #fff7e6; padding: .6rem .9rem; margin: 1rem 0; max-width: none; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: .8rem 0; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .4rem; font-size: .9em; }
caption span { display: block; max-width: min(46rem, 92vw); }
th, td { padding: .45rem .9rem .45rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
thead th { border-bottom: 2px solid var(--ink); white-space: nowrap; }
tbody th { font-weight: 600; min-width: 8rem; }
td { white-space: nowrap; }
.level th, .level td { color: var(--soft); font-weight: 400; }
.spread { color: var(--soft); }
.difference { font-size: .82em; color: var(--soft); }
.difference.higher { color: var(--good); font-weight: 600; }
.difference.lower { color: var(--bad); font-weight: 600; }
figure { margin: 1rem 0; }
figure img { max-width: 100%; height: auto; display: block; }
figcaption { font-size: .9rem; max-width: 46rem; margin-top: .4rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.2rem; margin: .6rem 0; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
pre { background: var(--tint); padding: .8rem 1rem; overflow-x: auto; border-radius: 4px; font-size: .86rem; line-height: 1.45; }
details { margin: .8rem 0; }
summary { cursor: pointer; color: #00527f; }
@media (max-width: 40rem) {
  body { padding: 1rem .8rem 3rem; }
  h1 { font-size: 1.5rem; }
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .5rem; }
  .wide { overflow-x: auto; }
  .wide img { max-width: none; width: 44rem; }
}
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  h2 { break-after: avoid; }
  figure, table, .warning { break-inside: avoid; }
  pre { white-space: pre-wrap; }
  .scroll { overflow: visible; }
  table { font-size: 8pt; }
  th, td { padding-right: .5rem; }
  figure img { max-height: 21cm; }
}
"""


def document(title: str, body: str) -> str:
    """A whole HTML page around `body`, which is HTML; `title` is text."""
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(title)}</title>'
    return f'<!doctype html>\n<html lang="en"><head>{head}<style>{CSS}</style></head>\n<body>\n{body}\n</body></html>\n'


def section(title: str, *parts: str) -> str:
    """A headed section of HTML parts, or nothing where all parts are empty."""
    body = "\n".join(part for part in parts if part)
    return f"<section><h2>{escape(title)}</h2>\n{body}\n</section>" if body else ""


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text, or nothing."""
    mark = f' class="{kind}"' if kind else ""
    return f"<p{mark}>{escape(text)}</p>" if text else ""


def bullets(texts: list[str]) -> str:
    """A list of plain texts, or nothing."""
    return "<ul>" + "".join(f"<li>{escape(text)}</li>" for text in texts) + "</ul>" if texts else ""


def facts(values: Mapping[str, Any]) -> str:
    """Names and values side by side, those without a value left out."""
    kept = {name: value for name, value in values.items() if value not in (None, "", [], {})}
    cells = "".join(f"<dt>{escape(name.replace('_', ' '))}</dt><dd>{escape(show(value))}</dd>" for name, value in kept.items())
    return f"<dl>{cells}</dl>" if cells else ""


def picture(path: Path, caption: str, wide: bool = False) -> str:
    """A PNG inside the page, or nothing where there is no file; a wide one scrolls on a phone instead of shrinking."""
    if not path.exists():
        return ""
    data = base64.b64encode(path.read_bytes()).decode()
    image = f'<img alt="{escape(caption)}" src="data:image/png;base64,{data}">'
    image = f'<div class="wide">{image}</div>' if wide else image
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"


def folded(title: str, body: str) -> str:
    """HTML that opens on a click."""
    return f"<details><summary>{escape(title)}</summary>{body}</details>" if body else ""
