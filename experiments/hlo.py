"""What the devices exchange in a compiled program, read from its text (HLO, as `compiled.as_text()` of XLA's CPU compiler prints it)."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable

# Bytes that a device sends of a payload of one byte in a group of n, on a ring.
SENT: dict[str, Callable[[int], float]] = {
    "all-reduce": lambda n: 2 * (n - 1) / n,
    "all-gather": lambda n: (n - 1) / n,
    "reduce-scatter": lambda n: (n - 1) / n,
    "all-to-all": lambda n: (n - 1) / n,
    "collective-permute": lambda n: 1.0,
}
LINE = re.compile(rf" = (?P<type>\(.*?\)|\S+) (?P<kind>{'|'.join(SENT)})\((?P<rest>.*)")
ARRAY = re.compile(r"\b([a-z]+[0-9]+\w*|pred)\[([0-9,]*)\]")
LISTED = re.compile(r"replica_groups=\{\{([0-9,]+)\}")  # {{0,1},{2,3}}
COUNTED = re.compile(r"replica_groups=\[[0-9]+,([0-9]+)\]<=")  # [groups,size]<=[devices]
NAMED = re.compile(r"replica_groups=mesh\[(.*?)\] \{(.*?)\}")  # mesh['a'=2,'b'=4] {'b'}


@dataclasses.dataclass(frozen=True)
class Collective:
    """One exchange: its kind, the bytes of the whole array that it is about, and how many devices take part."""

    kind: str
    payload: int
    group: int

    @property
    def sent(self) -> float:
        """Bytes that each device sends, on a ring."""
        return SENT[self.kind](self.group) * self.payload


def collectives(text: str) -> list[Collective]:
    """All exchanges of a program without loops, in the order of the text (one in the body of a loop stands there once).

    Raises ValueError for one whose group of devices is not written in a form that is known.
    """
    return [_read(found) for found in map(LINE.search, text.splitlines()) if found]


def _read(found: re.Match[str]) -> Collective:
    kind, size = found["kind"], sum(_bytes(dtype, shape) for dtype, shape in ARRAY.findall(found["type"]))
    group = 2 if kind == "collective-permute" else _group(found["rest"])
    return Collective(kind, size * group if kind == "reduce-scatter" else size, group)  # each keeps its part of a reduce-scatter


def _bytes(dtype: str, shape: str) -> int:
    bits = 8 if dtype == "pred" else int(re.findall("[0-9]+", dtype)[0])
    return math.prod(int(side) for side in shape.split(",") if side) * max(bits // 8, 1)


def _group(rest: str) -> int:
    if found := LISTED.search(rest):
        return found[1].count(",") + 1
    if found := COUNTED.search(rest):
        return int(found[1])
    if found := NAMED.search(rest):
        sides = dict(re.findall(r"'([^']+)'=([0-9]+)", found[1]))
        return math.prod(int(sides[name]) for name in re.findall("'([^']+)'", found[2]))
    raise ValueError(f"the devices of a collective are not understood: {rest[:200]}")
