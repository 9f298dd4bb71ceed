"""Names that people read: arms, metrics, amounts of labels, durations."""

from __future__ import annotations

from typing import Any

ARMS = {
    "random": "random weights",
    "none": "no pretraining",
    "tower": "TOWER",
    "simclr": "SimCLR",
    "byol": "BYOL",
    "restoration": "restoration",
    "spark": "SparK",
    "local_discrimination": "Local Discrimination",
    "shape_guided": "shape-guided clusters",
    "shape_guided/cluster": "the guided cluster",
    "shape_guided/likeness": "likeness to the guided cluster",
    "shape_guided/refined": "a network refined on the cluster",
}
METRICS = {
    "dice": "Dice, mean over test images",
    "iou": "intersection over union, mean over test images",
    "dice_pooled": "Dice, pixels of all test images pooled",
    "foreground": "share of the pixels marked as foreground, mean over test images",
    "validation": "score on the validation images, by which the weights were chosen",
    "balanced_accuracy": "balanced accuracy",
    "accuracy": "accuracy",
    "knn_accuracy": "accuracy of the nearest neighbours by frozen features",
    "ridge_accuracy": "accuracy of ridge regression on frozen features",
    "macro_auc": "area under the ROC curve, mean over classes",
}
UNITS = ("patch", "image", "fraction")  # from the fewest labels to the most

Amount = tuple[float, str]


def arm(init: str) -> str:
    """'tower/encoder' -> 'TOWER, encoder only'."""
    if init in ARMS:
        return ARMS[init]
    base, _, part = init.partition("/")
    name = ARMS.get(base, base)
    return f"{name}, {part} only" if part else name


def metric_name(metric: str) -> str:
    """'dice' -> 'Dice, mean over test images'."""
    return METRICS.get(metric, metric.replace("_", " "))


def amount_name(amount: Amount) -> str:
    """(4, 'patch') -> '4 patches'; (0.1, 'fraction') -> '10 % of labels'."""
    number, unit = amount
    if unit == "fraction":
        return "all labels" if number >= 1 else f"{100 * number:g} % of labels"
    plural = unit + ("es" if unit.endswith("ch") else "s")
    return f"{number:g} {unit if number == 1 else plural}"


def amount_order(amount: Amount) -> tuple[int, float]:
    """Sorts amounts: patches, images, fractions, and within each by number."""
    return (UNITS.index(amount[1]) if amount[1] in UNITS else len(UNITS), amount[0])


def duration(seconds: float) -> str:
    """75.3 -> '1 min 15 s'."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def counted(count: int, thing: str) -> str:
    """(1, 'figure') -> '1 figure'; (2, 'figure') -> '2 figures'."""
    return f"{count} {thing}{'s' * (count != 1)}"


def signed(value: float) -> str:
    """A difference with its sign, e.g. '+0.051'."""
    return f"{value:+.3f}"


def show(value: Any) -> str:
    """Any value of a JSON file in plain words."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(show(item) for item in value) or "-"
    if isinstance(value, dict):
        return ", ".join(f"{name} {show(item)}" for name, item in value.items()) or "-"
    return str(value) if str(value) else "-"
