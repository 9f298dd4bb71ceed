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
EXCHANGE = r"(?:ragged-)?all-[a-z-]+?|reduce-scatter|collective-[a-z-]+?|send|recv"  # also those not in SENT, which are refused, not missed
LINE = re.compile(rf" = (?P<type>\(.*?\)|\S+) (?P<kind>{EXCHANGE})(?P<half>-start|-done)?\((?P<rest>.*)")
ARRAY = re.compile(r"\b([a-z]+[0-9]+\w*|pred)\[([0-9,]*)\]")
ELEMENT = re.compile(rf"\([^()]*\)|{ARRAY.pattern}")  # of a tuple without layouts: a tuple of arrays, or an array
LAYOUT = re.compile(r"\{.*?\}")  # {1,0:T(8,128)}
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
    """All exchanges of a program without loops, in the order of the text (one in the body of a loop stands there once); one that is started
    and done in two instructions is counted where it is started.

    Raises ValueError for one of a kind that is not in `SENT`, and for one whose group of devices is not written in a form that is known.
    """
    return [_read(found) for found in map(LINE.search, text.splitlines()) if found and found["half"] != "-done"]


def _read(found: re.Match[str]) -> Collective:
    kind, half = found["kind"], found["half"]
    if kind not in SENT:
        raise ValueError(f"what a device sends in {kind} is not known: {found[0][:200]}")
    size = sum(_bytes(dtype, shape) for dtype, shape in ARRAY.findall(_result(found["type"], kind) if half else found["type"]))
    group = 2 if kind == "collective-permute" else _group(found["rest"])
    return Collective(kind, size * group if kind == "reduce-scatter" else size, group)  # each keeps its part of a reduce-scatter


def _result(started: str, kind: str) -> str:
    """Of what a `-start` holds, the type of the result: all of it in an all-reduce, else the second of operands, results and context."""
    if kind == "all-reduce":
        return started
    return [element[0] for element in ELEMENT.finditer(LAYOUT.sub("", started).removeprefix("(").removesuffix(")"))][1]


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
