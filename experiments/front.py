"""What README.md tells of the cutting of compound figures: a few lines of the records of `figures` and `semireal`."""

from __future__ import annotations

from pathlib import Path

from experiments import figures, semireal
from experiments.cut_tables import EVERY, NOTHING, SHOWN, markdown, shown
from experiments.cutters import CONTROL, DETECTOR, TIGHT
from medssl_jax.train.logging import read_json

SCORES = ("ap50", "ap", "imageclef", "right")
WAYS = {DETECTOR: "the detector", f"{DETECTOR}, with labels": "the detector, `--boxes=labelled`", CONTROL: "along blank lines"}
NAMES = {"right": "figures right in every panel", "imageclef": "ImageCLEF's accuracy, %"}
GROUPS = {  # of which record, and how they are called
    EVERY: (figures.RECORD, "real figures"),
    figures.TOUCHING: (figures.RECORD, "of these, where panels touch"),
    "gap 0, intra-class": (semireal.RECORD, "panels without gaps, alike"),
    "gap 0, inter-class": (semireal.RECORD, "panels without gaps, unlike"),
}


def table(records: Path) -> str:
    """Markdown: a line a group of figures and way to cut, tight boxes."""
    lines = [["figures", "cut by", *(NAMES.get(name, SHOWN[name]) for name in SCORES)]]
    for group, (record, title) in GROUPS.items():
        if not (records / record).exists():
            return NOTHING
        told = read_json(records / record, dict, "measure again")
        if group in told["groups"]:
            found = told["scores"][TIGHT][group]
            names = iter([f"{title} ({told['groups'][group]['figures']})"])
            lines += [[next(names, ""), WAYS[way], *(shown(found[way][name], name) for name in SCORES)] for way in WAYS if way in found]
    return markdown(lines)
