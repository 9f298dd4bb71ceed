"""report.html: one self-contained file that tells a colleague what was run, what came out, and how to run it again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from medssl_jax.evaluate.baselines import COLOUR_HISTOGRAM
from medssl_jax.evaluate.collapse import FEWEST_DIRECTIONS, LARGEST_COSINE, SMALLEST_RANK, SMALLEST_SPREAD
from medssl_jax.report import style
from medssl_jax.report.plots import draw_all
from medssl_jax.report.rising import still_rising
from medssl_jax.report.rundir import Run, read_run
from medssl_jax.report.tables import Row, Table, one_sided, sentences, summarise, to_html
from medssl_jax.report.words import amount_name, arm, duration

MAIN_METRICS = ("dice", "balanced_accuracy", "accuracy")  # the first that a data set has is its main table
HOW_TO_READ = (
    "Every score is of test images that neither pretraining nor the choice of weights has seen. All rows of a column are the same network, "
    "trained for the same number of steps on the same labels; only the weights it starts from differ. {kept}{differences} A name "
    "alone stands for everything that was pretrained."
)
DIFFERENCES = (
    " Under a score: its difference to random weights, repeat by repeat, with the 95 % interval of the mean difference and the number of "
    "repeats in which it was higher; in colour only where the interval leaves out zero."
)
KEPT = "The weights kept of each training are those with the best score on {}, whose labels are not counted in the amounts."
KEPT_LAST = "There were no validation images, so the weights kept are those of the last step."
CAPTIONS = {
    "label_efficiency": "Score over the amount of labels. Small points are repeats, each with its own labels and seed; large points are "
    "their means. Dashed: what needs no network.",
    "predictions": "Test images, and the same with the outlines of label and prediction: the largest amount short of all (where "
    "there is one), first repeat.",
    "restoration": "What the network had to restore during pretraining: the clean crop, the corrupted one that it saw, and its answer.",
    "clusters": "Which pixels belong together: tiles, the cluster of each of their pixels, and how like the marked place (the middle of "
    "the first tile) each pixel is.",
    "shapes": "Without labels: images, how much each pixel belongs to the guided cluster, what the refined network marks, and reference "
    "shapes (of other images, or of none).",
    "segmentations": "Test images, and the same with the outlines of the label and of each way to segment them without labels.",
    "pretrain_loss": "Loss and other readings of pretraining.",
    "pretrain_probes": "Probes while pretraining: accuracy of a nearest-neighbour vote and of ridge regression on the frozen features.",
    "pretrain_collapse": "Whether different images still get different features, and a decoder's channels say different things.",
}
DATASET_FIRST = ("name", "task", "licence", "citation")


def write_page(workdir: Path | str) -> Path:
    """Draw the plots and write report.html from the files of a run directory; parts that are missing are said to be.

    Returns:
      The path of report.html.

    Raises:
      UserError: there is no such directory.
    """
    run = read_run(workdir)
    tables = main_tables(run.rows)
    draw_all(run, tables[0] if tables else None)
    body = "\n".join(filter(None, (_header(run), _results(run, tables), _pictures(run), _data(run), _training(run), _again(run))))
    path = run.workdir / "report.html"
    partial = path.with_suffix(".html.partial")
    partial.write_text(style.document(_title(run), body), encoding="utf-8")
    return partial.replace(path)


def main_tables(rows: Sequence[Row]) -> list[Table]:
    """The table of the main metric of each data set."""
    tables = []
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        own = [row for row in rows if row["dataset"] == dataset]
        metric = next((m for m in MAIN_METRICS if any(row["metric"] == m for row in own)), own[0]["metric"])
        tables.append(summarise(own, metric))
    return tables


def _title(run: Run) -> str:
    method = arm(str(run.summary.get("method") or run.option("method.name", "")))
    dataset = str(run.summary.get("dataset", {}).get("name") or next((row["dataset"] for row in run.rows), ""))
    return " on ".join(part for part in (method, dataset) if part) or run.workdir.name


def _header(run: Run) -> str:
    seconds = run.summary.get("seconds", {})
    total = seconds.get("total", 0)
    parts = [str(run.option("name", "")), str(run.summary.get("device", "")), duration(total) if total else ""]
    line = style.paragraph(" · ".join(part for part in parts if part), "facts")
    warnings = [*map(str, run.summary.get("warnings", [])), *run.problems]
    boxes = "".join(f'<p class="warning">{escape(text)}</p>' for text in warnings)
    return f"<header><h1>{escape(_title(run))}</h1>{line}{boxes}{_story(run)}</header>"


def _results(run: Run, tables: list[Table]) -> str:
    if not any(table.cells for table in tables):
        return style.section("Result", style.paragraph("No fine-tuning results: nothing was labelled, or the run stopped before."))
    parts = []
    for table in tables:
        named = f"<h3>{escape(table.dataset)}</h3>" if len(tables) > 1 else ""
        own = [row for row in run.rows if row["dataset"] == table.dataset]
        parts += [named, style.bullets([*sentences(table), *one_sided(own)]), _scrolled(table)]
    parts += [
        style.bullets(still_rising(run.cells)),
        style.paragraph(_how_to_read(run, tables), "soft"),
        _figure(run, "label_efficiency"),
        _other_metrics(run, tables),
    ]
    return style.section("Result", *parts)


def _how_to_read(run: Run, tables: list[Table]) -> str:
    count = run.summary.get("dataset", {}).get("val")
    kept = KEPT_LAST if count == 0 else KEPT.format(f"{count} validation image{'s' * (count != 1)}" if count else "validation")
    compared = any(cell.difference for table in tables for cell in table.cells.values())
    return HOW_TO_READ.format(kept=kept, differences=DIFFERENCES if compared else "")


def _other_metrics(run: Run, tables: list[Table]) -> str:
    found = []
    for table in tables:
        own = [row for row in run.rows if row["dataset"] == table.dataset]
        others = [m for m in dict.fromkeys(row["metric"] for row in own) if m != table.metric]
        found += [_scrolled(summarise(own, metric)) for metric in others]
    return style.folded("The same in other metrics", "".join(found))


def _scrolled(table: Table) -> str:
    return f'<div class="scroll">{to_html(table)}</div>'


def _pictures(run: Run) -> str:
    """Predictions, and any picture that has no place elsewhere on the page."""
    names = sorted(path.stem for path in (run.workdir / "figures").glob("*.png"))
    elsewhere = ("label_efficiency", "restoration", "clusters", *(n for n in names if n.startswith("pretrain_")))
    return style.section("Pictures", *(_figure(run, name) for name in names if name not in elsewhere))


def _figure(run: Run, name: str) -> str:
    wide = name in ("predictions", "restoration", "clusters", "shapes", "segmentations", "pretrain_collapse", "pretrain_loss")
    return style.picture(run.workdir / "figures" / f"{name}.png", CAPTIONS.get(name, name.replace("_", " ").capitalize() + "."), wide)


def _data(run: Run) -> str:
    """The data set as the run saw it, with licence and citation."""
    dataset = dict(run.summary.get("dataset", {}))
    notes = [str(note) for note in dataset.pop("notes", ())]
    ordered = {name: dataset.pop(name) for name in DATASET_FIRST if name in dataset} | dataset
    return style.section("The data", style.facts(_splits_in_words(ordered)), style.bullets(notes))


def _splits_in_words(dataset: dict[str, Any]) -> dict[str, Any]:
    words = {"pool": "images to learn from", "val": "validation images", "test": "test images"}
    return {words.get(name, name): value for name, value in dataset.items()}


def _story(run: Run) -> str:
    """The run in sentences, as far as the config is known."""
    if not run.config:
        return ""
    get, method = run.option, arm(str(run.option("method.name", "")))
    network = f"U-Net with a {get('model.name')} encoder" if get("model.name") != "unet" else "plain U-Net"
    earlier = get("pretrain.from_run")
    first = (
        f"A {network} was pretrained with {method} and without labels: {get('pretrain.steps')} steps of {get('pretrain.batch')} "
        f"crops of {get('views.size')} x {get('views.size')} pixels."
    )
    if earlier:
        first = f"The pretrained {network} was taken from the run {Path(str(earlier)).name}."
    elif get("method.name") == "none":
        first = f"A {network} was not pretrained: the labels alone taught it."
    arms = "; ".join(dict.fromkeys(arm(init) for table in main_tables(run.rows) for init in table.inits if init != COLOUR_HISTOGRAM))
    amounts = ", ".join(amount_name(amount) for table in main_tables(run.rows)[:1] for amount in table.amounts)
    passes = f" ({get('finetune.epochs'):g} passes over the labels where that is more)" if get("finetune.epochs") else ""
    repeats = "once each" if get("finetune.seeds") == 1 else f"{get('finetune.seeds')} repeats each"
    second = (
        f"It was then fine-tuned for {get('finetune.steps')} steps{passes} on {amounts}, {repeats}, starting from: "
        f"{arms}. Every repeat has its own seed and its own choice of labels, the same for all starting points."
    )
    return style.paragraph(f"{first} {second}" if amounts else first)


def _training(run: Run) -> str:
    figures = [_figure(run, name) for name in ("restoration", "clusters", "pretrain_loss", "pretrain_probes", "pretrain_collapse")]
    return style.section("Training", _speed(run), *figures, _panel(run))


def _speed(run: Run) -> str:
    _, rates = run.series("pretrain", "images_per_second")
    _, waits = run.series("pretrain", "data_wait")
    if not rates:
        return ""
    waiting = f", {100 * _median(waits):.0f} % of the time waiting for data" if waits else ""
    return style.paragraph(f"Pretraining speed: {_median(rates):,.0f} crops a second{waiting} (medians).")


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def _panel(run: Run) -> str:
    """The last reading of the collapse panel beside what is healthy."""
    healthy = {
        "std_sqrt_d": ("spread std·√d", f"above {SMALLEST_SPREAD}"),
        "mean_cosine": ("mean cosine of two images", f"below {LARGEST_COSINE}"),
        "effective_rank": ("effective rank", f"above {100 * SMALLEST_RANK:g} % of the features"),
        "uniformity": ("uniformity", "well below 0"),
        "decoded_directions": ("directions of the decoded map", f"above {100 * FEWEST_DIRECTIONS:g} % of its channels"),
    }
    rows = []
    for key in run.keys("pretrain"):
        reading = next((name for name in healthy if key.startswith("collapse/") and key.endswith(name)), None)
        if reading:
            where = key.removeprefix("collapse/").removesuffix(reading).rstrip("_")
            cells = (f"{healthy[reading][0]}, {where}" if where else healthy[reading][0], f"{run.series('pretrain', key)[1][-1]:.4g}")
            rows.append(f'<tr><th scope="row">{escape(cells[0])}</th><td>{cells[1]}</td><td>{escape(healthy[reading][1])}</td></tr>')
    head = '<thead><tr><th scope="col">features at the end</th><th scope="col">reading</th><th scope="col">healthy</th></tr></thead>'
    return style.folded("The last readings in numbers", f"<table>{head}<tbody>{''.join(rows)}</tbody></table>") if rows else ""


def _again(run: Run) -> str:
    """The command, where and how long, and everything needed to run it again."""
    name = run.option("name")
    command = run.summary.get("command") or (
        f"python -m medssl_jax.main --config=configs/{name}.py --workdir={run.workdir}" if name else ""
    )
    seconds = {f"time, {part}": duration(value) for part, value in run.summary.get("seconds", {}).items()}
    told = {"device": run.summary.get("device"), **seconds, "versions": run.summary.get("versions"), "seed": run.option("seed")}
    config = f"<pre>{escape(json.dumps(run.config, indent=2))}</pre>" if run.config else ""
    return style.section(
        "How to run it again",
        f"<pre>{escape(command)}</pre>" if command else "",
        style.facts(told),
        style.folded("The full configuration", config),
    )
