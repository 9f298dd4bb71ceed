"""Which stored images train, validate and test: the split that the data bring, completed by a seeded one."""

from __future__ import annotations

from collections.abc import Sequence

from ml_collections import ConfigDict

from medssl_jax.data.collection import Item
from medssl_jax.data.splits import split

PARTS = ("train", "val", "test")
LABEL_NAMES = {"segmentation": "mask", "classification": "class"}


def assign(items: Sequence[Item], task: str, config: ConfigDict) -> tuple[dict[str, list[int]], list[str]]:
    """Positions of the images of each part, and what a user should know about them.

    val and test hold labelled images only; where the data give none of them, `config.val_fraction` or `test_fraction` of the labelled
    training images, stratified, become one. Everything else, labelled or not, trains; images given to val or test never do.
    """
    labelled = [item.labelled(task) for item in items]
    where = [item.part or "train" for item in items]
    missing = {part: config[f"{part}_fraction"] for part in ("test", "val") if (part, True) not in zip(where, labelled)}
    free = [i for i, part in enumerate(where) if part == "train" and labelled[i]]
    if missing and free:
        groups = _groups(items, free)
        for members, part in zip(groups, split([_stratum(items[group[0]], task) for group in groups], missing, config.seed)):
            for i in members:
                where[i] = part
    parts = {part: [i for i, w in enumerate(where) if w == part and (part == "train" or labelled[i])] for part in PARTS}
    given = any(item.part for item in items)
    idle = len(items) - sum(map(len, parts.values()))
    unlabelled = sum(not labelled[i] for i in parts["train"])
    return parts, _notes(task, list(missing) if given and free else [], idle, unlabelled, len(parts["train"]))


def _groups(items: Sequence[Item], free: Sequence[int]) -> list[list[int]]:
    """The items that go to one part together: those of a group, every other one by itself."""
    found: dict[str | int, list[int]] = {}
    for i in free:
        group = items[i].group
        found.setdefault(i if group is None else group, []).append(i)
    return list(found.values())


def _stratum(item: Item, task: str) -> tuple[int | None, ...]:
    """The group whose members are spread evenly over the parts: the class, or for masks the size and channels."""
    return (item.label,) if task == "classification" else item.probe[:3]


def _notes(task: str, drawn: list[str], idle: int, unlabelled: int, training: int) -> list[str]:
    notes = []
    if drawn:
        notes.append(f"the given split has no labelled {' and no '.join(drawn)} images; they are drawn from the training images")
    if idle:
        notes.append(f"{idle} images of the given val and test parts have no labels and are not used")
    if unlabelled and task != "none":
        notes.append(f"{unlabelled} of {training} training images have no {LABEL_NAMES[task]}; they serve pretraining only")
    return notes
