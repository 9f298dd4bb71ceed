"""The trivial levels printed beside every result: what needs no network."""

from __future__ import annotations

from typing import Any

from medssl_jax.data.sources import Dataset
from medssl_jax.data.splits import Amount, choose
from medssl_jax.evaluate import baselines


def levels(dataset: Dataset, amounts: list[Amount], repeats: int, patch: int) -> list[dict[str, Any]]:
    """Rows without experiment, dataset, task and seed.

    Segmentation: everything foreground, and Otsu's threshold with its polarity chosen on the pool. Classification: the
    commonest class, and a colour histogram with logistic regression on the same choices of labels as the networks.
    """
    if dataset.task == "segmentation":
        return _segmentation(dataset)
    test = [dataset.test[i] for i in range(len(dataset.test))]
    found = []
    for amount in amounts:
        for subset in range(repeats):
            chosen = choose(dataset, amount, subset, patch).examples(dataset)
            at = {"labels": amount.value, "label_unit": amount.unit, "subset": subset}
            found += _rows(baselines.COLOUR_HISTOGRAM, baselines.colour_histogram(chosen, test, len(dataset.classes)), len(test), at)
            labels = [e["label"] for e in chosen], [e["label"] for e in test]
            found += _rows(baselines.MAJORITY, baselines.majority(*labels, len(dataset.classes)), len(test), at)
    return found


def _segmentation(dataset: Dataset) -> list[dict[str, Any]]:
    pool, test = (list(_labelled(source)) for source in (dataset.pool, dataset.test))
    at = {"labels": 0, "label_unit": "image", "subset": 0}
    return [
        *_rows(baselines.ALL_FOREGROUND, baselines.all_foreground(test), len(test), at),
        *(_rows(baselines.OTSU, baselines.otsu(pool, test), len(test), at) if pool else []),
    ]


def _labelled(source: Any) -> Any:
    return (example for example in (source[i] for i in range(len(source))) if "mask" in example)


def _rows(init: str, metrics: dict[str, float], n: int, at: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"init": init, **at, "metric": name, "value": value, "n": n} for name, value in metrics.items()]
