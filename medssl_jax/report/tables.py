"""results.json -> the table: initial weights by amount of labels, with paired differences to random weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from medssl_jax.evaluate.baselines import ALL_FOREGROUND, COLOUR_HISTOGRAM, FRANGI, MAJORITY, OTSU
from medssl_jax.evaluate.statistics import PairedDifference, paired_difference
from medssl_jax.report.words import Amount, amount_name, amount_order, arm, metric_name, signed

LEVELS = (ALL_FOREGROUND, OTSU, FRANGI, MAJORITY)
CONTROL = "random"
WITHOUT_NETWORK, WITHOUT_LABELS = "without a network", "without labels"
ONE_SIDED = 0.02  # a segmentation whose foreground, or background, is less than this share of the pixels

Row = dict[str, Any]
Repeat = tuple[Any, Any]


@dataclass(frozen=True)
class Cell:
    """Scores of one arm at one amount of labels, by repeat (subset, seed), and their paired difference to random weights."""

    scores: dict[Repeat, float]
    difference: PairedDifference | None

    @property
    def mean(self) -> float:
        """Mean over repeats."""
        return float(np.mean(list(self.scores.values())))

    @property
    def std(self) -> float:
        """Sample standard deviation over repeats; NaN for one."""
        return float(np.std(list(self.scores.values()), ddof=1)) if len(self.scores) > 1 else math.nan

    def __str__(self) -> str:
        """'0.523 ± 0.031', or the mean alone for one repeat."""
        return f"{self.mean:.3f}" + (f" ± {self.std:.3f}" if len(self.scores) > 1 else "")


@dataclass(frozen=True)
class Table:
    """One metric of one data set."""

    metric: str
    dataset: str
    inits: list[str]
    amounts: list[Amount]
    cells: dict[tuple[str, Amount], Cell]
    levels: dict[str, float]
    images: list[int]

    @property
    def title(self) -> str:
        """What the numbers are, in words."""
        repeats = sorted({len(cell.scores) for cell in self.cells.values()})
        spread = f"mean ± standard deviation over {_range(repeats)} repeats" if repeats and repeats[-1] > 1 else "one repeat"
        return f"{metric_name(self.metric)} ({_range(self.images)} images; {spread})"


def summarise(rows: Sequence[Row], metric: str) -> Table:
    """Group tidy rows of one data set by (initial weights, amount of labels).

    Differences are paired over repeats (subset, seed) that both arms have. Scores that are not finite are left out, which the
    cell's number of repeats shows.

    Args:
      rows: of results.json, one data set.
      metric: e.g. "dice".
    """
    rows = [row for row in rows if row["metric"] == metric and row["value"] is not None and math.isfinite(row["value"])]
    arms = [row for row in rows if not _is_level(row)]
    inits = sorted(dict.fromkeys(str(row["init"]) for row in arms), key=lambda init: init != CONTROL)
    amounts = sorted({(float(row["labels"]), str(row["label_unit"])) for row in arms}, key=amount_order)
    scores: dict[tuple[str, Amount], dict[Repeat, float]] = {}
    for row in arms:
        cell = scores.setdefault((str(row["init"]), (float(row["labels"]), str(row["label_unit"]))), {})
        cell[row["subset"], row["seed"]] = float(row["value"])
    return Table(
        metric=metric,
        dataset=str(rows[0]["dataset"]) if rows else "",
        inits=inits,
        amounts=amounts,
        cells={key: Cell(found, _difference(found, scores.get((CONTROL, key[1])), key[0])) for key, found in scores.items()},
        levels={row["init"]: float(row["value"]) for row in rows if _is_level(row)},
        images=sorted({int(row["n"]) for row in rows}),
    )


def sentences(table: Table) -> list[str]:
    """What came out, one sentence an amount of labels: the first pretrained arm against random weights.

    'higher' and 'lower' only where the 95 % interval of the paired difference leaves out 0.
    """
    found = []
    for amount in table.amounts:
        cell = table.cells.get((_first_pretrained(table), amount))
        if cell is not None and cell.difference is not None:
            control, name = table.cells[CONTROL, amount], arm(_first_pretrained(table))
            scores = f"{cell.mean:.3f} against {control.mean:.3f} from {arm(CONTROL)}"
            found.append(f"With {amount_name(amount)}, {_verdict(name, cell.difference, scores)}.{_below(table, amount)}")
    return found


def one_sided(rows: Sequence[Row]) -> list[str]:
    """Where a score is not of a segmentation: one sentence for each amount of labels at which networks marked everything, or nothing."""
    marked = [row for row in rows if row["metric"] == "foreground" and not _is_level(row)]
    extreme = [row for row in marked if not ONE_SIDED <= row["value"] <= 1 - ONE_SIDED]
    found = []
    for amount in sorted({(float(row["labels"]), str(row["label_unit"])) for row in extreme}, key=amount_order):
        own = [row for row in extreme if (float(row["labels"]), str(row["label_unit"])) == amount]
        named = [f"{arm(row['init'])} in repeat {row['subset']} ({100 * row['value']:.0f} %)" for row in own]
        found.append(
            f"With {amount_name(amount)}, not a segmentation but (nearly) all or nothing marked as foreground: {', '.join(named)}."
        )
    return found


def to_text(table: Table) -> str:
    """For the terminal, within 80 columns: a block an amount of labels, a line an arm."""
    rows = [["labels", "start from", "score", f"minus {CONTROL} [95 %]", "higher"]]
    for amount in table.amounts:
        first = amount_name(amount)
        for init in table.inits:
            cell = table.cells.get((init, amount))
            rows.append([first, arm(init), *(_text_cells(cell) if cell else ("-", "", ""))])
            first = ""
    lines = [table.title, *_aligned(rows)]
    levels = (_text_levels(table, remark) for remark in (WITHOUT_LABELS, WITHOUT_NETWORK))
    return "\n".join([*lines, *filter(None, levels)])


def to_markdown(table: Table) -> str:
    """A pipe table of scores and differences, for a README."""
    head = [metric_name(table.metric), *map(amount_name, table.amounts)]
    rows = [*_score_rows(table), *([f"{row[0]} - {arm(CONTROL)}", *row[1:]] for row in _difference_rows(table))]
    rows += [[arm(init), *[f"{value:.3f}"] * len(table.amounts)] for init, value in table.levels.items()]
    lines = [head, ["---", *["---:"] * len(table.amounts)], *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def to_html(table: Table) -> str:
    """The same as an HTML table, each difference under its score; all text is escaped."""
    head = "".join(f'<th scope="col">{escape(amount_name(amount))}</th>' for amount in table.amounts)
    body = []
    for init in table.inits:
        cells = "".join(_html_cell(table.cells.get((init, amount))) for amount in table.amounts)
        body.append(f'<tr><th scope="row">{escape(arm(init))}</th>{cells}</tr>')
    for init, value in table.levels.items():
        cells = f'<td colspan="{len(table.amounts)}">{value:.3f}, {level_remark(init)}</td>'
        body.append(f'<tr class="level"><th scope="row">{escape(arm(init))}</th>{cells}</tr>')
    caption = f"<caption><span>{escape(table.title)}</span></caption>"
    return f'<table>{caption}<thead><tr><th scope="col">start from</th>{head}</tr></thead><tbody>{"".join(body)}</tbody></table>'


def level_remark(init: str) -> str:
    """What a level does without."""
    return WITHOUT_NETWORK if init in LEVELS else WITHOUT_LABELS


def _is_level(row: Row) -> bool:
    """Whether a score does not depend on how many labels there are."""
    return row["init"] in LEVELS or row["labels"] == 0


def _difference(scores: dict[Repeat, float], control: dict[Repeat, float] | None, init: str) -> PairedDifference | None:
    shared = sorted(scores.keys() & control.keys(), key=str) if control and init != CONTROL else []
    return paired_difference([scores[r] for r in shared], [control[r] for r in shared]) if control and shared else None


def _first_pretrained(table: Table) -> str:
    return next((init for init in table.inits if init not in (CONTROL, COLOUR_HISTOGRAM)), "")


def _verdict(name: str, difference: PairedDifference, scores: str) -> str:
    if difference.n == 1:
        return f"{name} gave {scores} in a single repeat, which says nothing about the spread"
    claim = f"there is no clear difference: {name}" if difference.verdict == "unclear" else f"{name} is {difference.verdict}:"
    interval = f"95 % interval {signed(difference.low)} to {signed(difference.high)}"
    return f"{claim} {scores} ({signed(difference.mean)}, {interval}, higher in {difference.higher} of {difference.n} repeats)"


def _below(table: Table, amount: Amount) -> str:
    """Says so where no arm's mean reaches the best level."""
    best = max((cell.mean for (_, found), cell in table.cells.items() if found == amount), default=math.inf)
    name, level = max(table.levels.items(), key=lambda item: item[1], default=("", -math.inf))
    needs = level_remark(name).replace("without a", "no").replace("without", "no")
    return f" That is below '{arm(name)}', which needs {needs} ({level:.3f})." if best < level else ""


def _score_rows(table: Table) -> Iterator[list[str]]:
    for init in table.inits:
        yield [arm(init), *(str(table.cells.get((init, amount), "-")) for amount in table.amounts)]


def _difference_rows(table: Table) -> Iterator[list[str]]:
    for init in table.inits:
        found = [cell.difference if (cell := table.cells.get((init, amount))) else None for amount in table.amounts]
        if any(found):
            yield [arm(init), *(f"{_short(d)}, {d.higher}/{d.n}" if d else "-" for d in found)]


def _text_levels(table: Table, remark: str) -> str:
    named = [f"{arm(init)} {value:.3f}" for init, value in table.levels.items() if level_remark(init) == remark]
    return f"{remark}: {', '.join(named)}" if named else ""


def _text_cells(cell: Cell) -> tuple[str, str, str]:
    d = cell.difference
    return (str(cell), _short(d), f"{d.higher}/{d.n}") if d else (str(cell), "", "")


def _short(difference: PairedDifference) -> str:
    interval = f" [{signed(difference.low)}, {signed(difference.high)}]" if difference.n > 1 else ""
    return f"{signed(difference.mean)}{interval}"


def _html_cell(cell: Cell | None) -> str:
    if cell is None:
        return "<td>-</td>"
    spread = f' <span class="spread">± {cell.std:.3f}</span>' if len(cell.scores) > 1 else ""
    d = cell.difference
    below = f'<div class="difference {d.verdict}">{escape(_short(d))}<br>higher in {d.higher} of {d.n}</div>' if d else ""
    return f"<td><b>{cell.mean:.3f}</b>{spread}{below}</td>"


def _aligned(rows: list[list[str]]) -> list[str]:
    """Columns as wide as their widest entry, with a rule under the head."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip() for row in rows]
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]


def _range(values: list[int]) -> str:
    return f"{values[0]} to {values[-1]}" if len(values) > 1 else f"{values[0]}" if values else "0"
