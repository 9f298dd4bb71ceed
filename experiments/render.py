"""Write the tables and pictures of experiments/README.md, and a table of README.md, from the records: `python -m experiments.render`."""

from __future__ import annotations

import argparse
import functools
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from experiments import (
    communication,
    convolutions_table,
    figures,
    figures_ablation_table,
    figures_speed,
    front,
    landmarks,
    lightly,
    packed_speed,
    plots,
    semireal,
    single,
    speed_table,
    stress,
    throughput,
    trivial,
    unlabelled,
)
from experiments.compare import ALL, Pooled, Scores, best, collect, enough, pooled
from experiments.grid import ARMS, BUDGETS, REPEATS, Group, groups
from experiments.records import RECORDS, Record
from medssl_jax import cli
from medssl_jax.data.splits import parse_amounts
from medssl_jax.errors import UserError
from medssl_jax.evaluate import PairedDifference
from medssl_jax.report.words import amount_name, signed

PAGES = tuple(folder / "README.md" for folder in list(Path(__file__).resolve().parents)[:2])
METRICS = {
    "segmentation": ("dice",),
    "ablation": ("dice",),
    "local": ("dice",),
    "classification": ("macro_auc", "balanced_accuracy", "knn_accuracy", "ridge_accuracy"),
    "mining": ("ridge_accuracy", "balanced_accuracy"),
}
CONTROLS = ("random", "simclr")
OF_MINING = ("random", "mined-whole", "mined-truth")  # the controls there
PICTURES = ("segmentation", "classification")
PICTURED = ("random", "tower", "simclr", "byol", "spark", "genesis")  # arms in the curves; the tables have all
PROBES = ("knn_accuracy", "ridge_accuracy")
MARGIN = 0.02  # of Dice or AUC, that a method may lose
MARK = r"<!-- (?:table (\S+) (\S+)|end) -->"
TOWER_ON_ORGANAMNIST = (
    "TOWER as published on OrganAMNIST (ResNet-50, 28 px; macro AUC with 1, 2 and 100 % of the labels): 0.930, 0.951, 0.996; random "
    "weights there 0.868, 0.894, 0.989."
)

Line = Sequence[str]


def main(arguments: Sequence[str]) -> int:
    """Rewrite what stands between the markers of the page; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=Path, default=RECORDS, help="where results are kept; those of the project where nothing is given")
    parser.add_argument(
        "--page", type=Path, help="one Markdown file with markers, in place of the project's; pictures go to figures/ beside it"
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where the page is not what the records say")
    asked = parser.parse_args(arguments)
    pages = [asked.page] if asked.page else PAGES
    return cli.guarded(lambda: max(render(asked.records, page, asked.check) for page in pages))


def render(records: Path, page: Path, check: bool) -> int:
    """Fill the page and draw its pictures, or only compare; the exit code. Raises UserError for what cannot be read."""
    for path, what in ((records, "records"), (page.parent, "page")):
        if not path.is_dir():
            raise UserError(f"there is no folder {path} to read the {what} from; see --help.")
    try:
        before = page.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{page} is not a page of text with markers; name one with --page.") from error
    after = filled(before, records)
    if check:
        print(f"{page} is {'what the records say' if before == after else 'not what the records say; run this again without --check'}.")
        return int(before != after)
    for table in (table for table in PICTURES if f"<!-- table {table} small -->" in after):
        draw(table, records, "small", page.parent / "figures")
    page.write_text(after)
    return 0


def filled(page: str, records: Path) -> str:
    """The page with every `<!-- table NAME BUDGET -->` ... `<!-- end -->` filled from the records. Raises UserError for a name that is no
    table or budget, for a page without markers, and for markers that do not alternate.
    """
    if not (marks := re.findall(MARK, page)):
        raise UserError("the page has no marker like <!-- table segmentation small --> ... <!-- end -->: there is nothing to fill.")
    ends = [not name for name, _ in marks]
    if ends != [False, True] * (len(ends) // 2):
        raise UserError("the markers of the page are not in pairs; every <!-- table NAME BUDGET --> needs its <!-- end -->.")

    def fill(found: re.Match[str]) -> str:
        name, budget = found[1], found[2]
        if name not in PARTS or budget not in BUDGETS:
            raise UserError(f"the page asks for a table '{name} {budget}'; there are {', '.join(PARTS)}, each {' or '.join(BUDGETS)}.")
        return f"<!-- table {name} {budget} -->\n\n{PARTS[name](records, budget)}\n\n<!-- end -->"

    return re.sub(r"<!-- table (\S+) (\S+) -->.*?<!-- end -->", fill, page, flags=re.DOTALL)


def scores_of(of_set: Sequence[Group], records: Path, metric: str) -> Scores:
    """What is recorded of one data set's groups in one metric. Raises UserError where the images were not the same in all."""
    data = of_set[0].data
    found = [record for group in of_set for record in group.book(records).read() if _measures(group, metric)]
    levels = of_set[0].levels(records).read()
    states = sorted({str(record.get("data", "")) for record in (*found, *levels)})
    if len(states) > 1:
        raise UserError(f"the records of {data.name} are of images that differ ({', '.join(states)}); delete those of the old ones.")
    amounts = [(float(amount.value), amount.unit) for amount in parse_amounts(data.amounts)]
    return collect(found, levels, data.name, metric, amounts)


def _measures(group: Group, metric: str) -> bool:
    """A probe is of frozen features, which unlabelled images in the fine-tuning do not change."""
    return not (metric in PROBES and "finetune.unlabelled" in group.arm.options)


def _sets(table: str, metric: str, records: Path, budget: str) -> list[Scores]:
    """The data sets of a table of which anything is recorded."""
    by_set: dict[str, list[Group]] = {}
    for group in groups(table, budget):
        by_set.setdefault(group.data.name, []).append(group)
    every = [scores_of(found, records, metric) for found in by_set.values()]
    return [scores for scores in every if scores.by_arm]


def _page_of(table: str, records: Path, budget: str) -> str:
    """All tables of segmentation, or of classification: scores, then differences, data set by data set; then over the data sets."""
    parts = []
    for number, metric in enumerate(METRICS[table]):
        for scores in _sets(table, metric, records, budget):
            heading = f"**{scores.dataset}**, {METRIC_NAMES[metric]}"
            parts += [heading, scores_table(scores)]
            if number == 0 or table == "mining":
                controls = OF_MINING if table == "mining" else CONTROLS
                parts += [difference_table(scores, control) for control in controls if scores.by_arm.keys() > {control}]
            if scores.dataset == "organamnist" and metric == "macro_auc":
                parts.append(TOWER_ON_ORGANAMNIST)
    return "\n\n".join(parts) or NOTHING


def mining_page(records: Path, budget: str) -> str:
    """What was mined and how well it was to pretrain on; then how many images there were for each arm, in the repeat with the fewest.

    Raises UserError where the repeats were cut by different detectors.
    """
    pools: dict[str, list[Record]] = {}
    for group in groups("mining", budget):
        for record in group.book(records).read():
            pools.setdefault(group.arm.title, []).extend([record["pool"]] if "pool" in record else [])
    marks = sorted({pool["detector"] for found in pools.values() for pool in found} - {""})
    if len(marks) > 1:
        raise UserError(f"the records of mining are of several detectors ({', '.join(marks)}); run the table again with one of them.")
    counts = [f"{title} {min(pool['images'] for pool in found)}" for title, found in pools.items() if found]
    note = f"\n\nImages pretrained on: {', '.join(counts)}." if counts else ""
    return _page_of("mining", records, budget) + note


def scores_table(scores: Scores) -> str:
    """A line an arm: mean ± standard deviation over repeats, with the number of repeats where it is not that of the others."""
    most = max((len(scores.cell(arm, amount)) for arm in scores.by_arm for amount in scores.amounts), default=0)
    lines = [["start from", *map(amount_name, scores.amounts)]]
    lines += [[_title(arm), *(_mean(scores.cell(arm, a), most) for a in scores.amounts)] for arm in _ordered(scores.by_arm)]
    for name, by_amount in scores.levels.items():
        constant = next(iter(by_amount.values())) if not by_amount.keys() & set(scores.amounts) else None
        lines.append([name, *(_level(constant if constant is not None else by_amount.get(a)) for a in scores.amounts)])
    return f"{_table(lines)}\n\n{f'Mean ± standard deviation over {most} repeats' if most > 1 else 'One repeat'}."


def difference_table(scores: Scores, control: str) -> str:
    """A line an arm: mean paired difference to the control, its 95 % interval (Student's t), and in how many repeats it was higher."""
    head = [f"minus {_title(control)}", *map(amount_name, scores.amounts)]
    others = [arm for arm in _ordered(scores.by_arm) if arm != control]
    return _table([head, *([_title(arm), *(_difference(scores.difference(arm, a, control)) for a in scores.amounts)] for arm in others)])


def pooled_table(table: str, records: Path, budget: str) -> str:
    """Over the data sets of segmentation, or of classification: few labels and all of them, minus each control."""
    metric = METRICS[table][0]
    sets = _sets(table, metric, records, budget)
    if not sets:
        return NOTHING
    arms = _ordered({arm for scores in sets for arm in scores.by_arm})
    few: Callable[[Scores, str], dict[int, float]] = Scores.few
    columns = [pooled(sets, arms, control, of) for control in CONTROLS for of in (few, _with_all)]
    lines = [["start from", *(f"{what}, minus {_title(control)}" for control in CONTROLS for what in ("few labels", "all labels"))]]
    for arm in arms:
        found = [next((p for p in column if p.arm == arm), None) for column in columns]
        if any(found):
            lines.append([_title(arm), *map(_pooled, found)])
    if len(lines) == 1:
        return "No arm has two repeats on each of the data sets yet."
    names = ", ".join(scores.dataset for scores in sets)
    note = f"{METRIC_NAMES[metric]}: the mean over {names}, with its 95 % interval over repeats; it speaks of these data sets alone."
    return f"{_table(lines)}\n\n{note} p of Wilcoxon's test over all pairs, adjusted by Holm over the arms."


def draw(table: str, records: Path, budget: str, folder: Path) -> None:
    """The pictures of segmentation, or of classification, where anything is recorded: scores over labels, differences over data sets."""
    metric = METRICS[table][0]
    sets = _sets(table, metric, records, budget)
    if not sets:
        return
    folder.mkdir(exist_ok=True)
    name = METRIC_NAMES[metric]
    shown = [arm for arm in PICTURED if any(arm in scores.by_arm for scores in sets)]
    plots.label_efficiency(sets, shown, _title, name, folder / f"{table}.png")
    found = pooled(sets, _ordered({arm for scores in sets for arm in scores.by_arm}), CONTROLS[0], Scores.few)
    if found:
        plots.differences(found, _title, f"{name}, minus random weights, few labels", folder / f"{table}_differences.png")


def _with_all(scores: Scores, arm: str) -> dict[int, float]:
    return dict(scores.by_arm.get(arm, {}).get(ALL, {}))


def savings_table(records: Path, budget: str) -> str:
    """For every method, the fewest labels that hold against all labels: from random weights, and of the arm that is best on validation.

    Of arms with all repeats: the interval of two pairs is 13 times their standard error to either side, and holds nearly everything.
    """
    lines: list[Line] = []
    for table in PICTURES:
        for scores in _sets(table, METRICS[table][0], records, budget):
            first = best(scores)
            for arm in _ordered(scores.by_arm):
                if first is not None and len(scores.cell(arm, scores.amounts[0])) >= REPEATS:
                    found = [enough(scores, arm, control, margin) for control in ("random", first) for margin in (None, MARGIN)]
                    lines.append([scores.dataset, _title(arm), *(amount_name(a) if a else "-" for a in found)])
    kinds = ("not clearly below {} with all labels", f"surely not {MARGIN} below {{}}")
    head = ["data set", "start from", *(kind.format(what) for what in ("random weights", "the best arm") for kind in kinds)]
    return _table([head, *lines]) if lines else NOTHING


def _ordered(arms: Iterable[str]) -> list[str]:
    """In the order of the grid, an encoder alone after its whole network."""
    names = list(ARMS)
    return sorted(arms, key=lambda arm: (names.index(arm.partition("/")[0]), arm))


def _title(arm: str) -> str:
    name, _, part = arm.partition("/")
    return f"{ARMS[name].title}, {part} only" if part else ARMS[name].title


def _mean(values: Sequence[float], most: int) -> str:
    if not values:
        return "-"
    spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread}{'' if len(values) == most else f' ({len(values)})'}"


def _level(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _difference(found: PairedDifference | None) -> str:
    if found is None:
        return "-"
    interval = f" [{signed(found.low)}, {signed(found.high)}]" if found.n > 1 else ""
    return f"{signed(found.mean)}{interval}, {found.higher}/{found.n}"


def _pooled(found: Pooled | None) -> str:
    if found is None:
        return "-"
    return f"{signed(found.mean)} [{signed(found.low)}, {signed(found.high)}], {found.higher}/{found.n}, p {found.p:.3f}"


def _table(lines: Sequence[Line]) -> str:
    head, *rest = lines
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in [head, rule, *rest])


NOTHING = "Nothing is recorded yet."
METRIC_NAMES = {
    "dice": "Dice, mean over test images",
    "macro_auc": "macro AUC after fine-tuning",
    "balanced_accuracy": "balanced accuracy after fine-tuning",
    "knn_accuracy": "accuracy of the nearest neighbours, frozen features",
    "ridge_accuracy": "accuracy of a linear probe (ridge), frozen features",
}
SIZES = {"small": "small", "full": "paper"}  # of the configs, by the grid's budget
PARTS: dict[str, Callable[[Path, str], str]] = {
    "segmentation": functools.partial(_page_of, "segmentation"),
    "classification": functools.partial(_page_of, "classification"),
    "segmentation-over-sets": functools.partial(pooled_table, "segmentation"),
    "classification-over-sets": functools.partial(pooled_table, "classification"),
    "ablation": functools.partial(_page_of, "ablation"),
    "local": functools.partial(_page_of, "local"),
    "mining": mining_page,
    "savings": savings_table,
    "unlabelled": lambda records, budget: unlabelled.table(records),
    "landmarks": lambda records, budget: landmarks.table(records / landmarks.RECORD),
    "figures-front": lambda records, _: front.table(records),
    "figures": lambda records, _: figures.table(records / figures.RECORD),
    "figures-semireal": lambda records, _: semireal.table(records / semireal.RECORD),
    "figures-single": lambda records, _: single.table(records / single.RECORD),
    "figures-imageclef": lambda records, _: trivial.table(records / trivial.RECORD),
    "figures-ablation": lambda records, _: figures_ablation_table.table(records),
    "speed": lambda records, _: speed_table.table(records / speed_table.RECORD),
    "convolutions": lambda records, _: convolutions_table.table(records / convolutions_table.RECORD),
    "throughput": lambda records, _: throughput.table(records / throughput.RECORD),
    "lightly": lambda records, _: lightly.table(records / lightly.RECORD),
    "communication": lambda records, budget: communication.table(records / communication.RECORD, SIZES[budget]),
    "figures-speed": lambda records, _: figures_speed.table(records / figures_speed.RECORD),
    "packed-speed": lambda records, _: packed_speed.table(records / packed_speed.RECORD),
    "stress": lambda records, _: stress.table(records / stress.RECORD),
}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
