"""What devices exchange: the parser against programs whose exchanges are known, FSDP against its promise, the line, the table."""

from __future__ import annotations

import json
import math
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import tiny
from jax.sharding import PartitionSpec as P

from medssl_jax.train import mesh as meshes

sys.path.insert(0, str(tiny.ROOT))  # experiments/ and configs/ are not part of the installed package
from experiments import communication
from experiments.hlo import Collective, collectives

ROWS, COLUMNS = 8, 16
BYTES = 4 * ROWS * COLUMNS

EXCHANGES = {
    "all-reduce": (lambda x: jax.lax.psum(x, "data"), P(), BYTES // 4, 2 * 3 / 4),
    "all-gather": (lambda x: jax.lax.all_gather(x, "data", tiled=True), P(), BYTES, 3 / 4),
    "reduce-scatter": (lambda x: jax.lax.psum_scatter(x, "data", scatter_dimension=1, tiled=True), P("data"), BYTES // 4, 3 / 4),
    "all-to-all": (lambda x: jax.lax.all_to_all(x, "data", 1, 0, tiled=True), P("data"), BYTES // 4, 3 / 4),
    "collective-permute": (lambda x: jax.lax.ppermute(x, "data", [(i, (i + 1) % 4) for i in range(4)]), P("data"), BYTES // 4, 1),
}


@pytest.mark.parametrize("kind", EXCHANGES)
def test_exchanges_of_known_size(kind):
    """Four devices with 2 of 8 rows each."""
    function, out, payload, share = EXCHANGES[kind]
    mesh = meshes.make_mesh(jax.devices()[:4])
    program = jax.jit(jax.shard_map(function, mesh=mesh, in_specs=P("data"), out_specs=out, check_vma=False))
    (found,) = collectives(program.lower(jax.ShapeDtypeStruct((ROWS, COLUMNS), np.float32)).compile().as_text())
    assert (found.kind, found.payload) == (kind, payload)
    assert found.sent == pytest.approx(share * payload)


@pytest.mark.parametrize(
    ("groups", "size"),
    [("{{0,2},{1,3}}", 2), ("{{0,1,2,3}}", 4), ("[2,8]<=[16]", 8), ("mesh['a'=2,'b'=8] {'b'}", 8), ("mesh['a'=2,'b'=8] {'a','b'}", 16)],
)
def test_every_way_to_write_a_group(groups, size):
    line = f"  %x = (bf16[3,2]{{1,0}}, /*index=1*/pred[4]{{0}}) all-reduce(%a, %b), channel_id=1, replica_groups={groups}, to_apply=%add"
    assert collectives(f"HloModule m\n%y = f32[9] add(%a, %b)\n{line}\n") == [Collective("all-reduce", 16, size)]


def test_a_group_in_another_form_is_no_guess():
    with pytest.raises(ValueError, match="not understood: %a"):
        collectives("%x = f32[3]{0} all-reduce(%a), replica_groups=<new>")


STARTED = {
    "all-reduce": ("(f32[3,2]{1,0:T(8,128)}, pred[4]{0})", 28),
    "all-gather": ("(f32[1,2]{1,0}, f32[4,2]{1,0:T(8,128)(2,1)S(1)})", 32),
    "reduce-scatter": ("((f32[8]{0}, bf16[4]{0}), (f32[2]{0}, /*index=1*/bf16[1]{0}), u32[]{:S(2)})", 4 * (8 + 2)),
    "all-to-all": ("((f32[8]{0}), f32[8]{0}, u32[], u32[])", 32),
    "collective-permute": ("(bf16[6]{0}, bf16[6]{0}, u32[], u32[])", 12),
}


@pytest.mark.parametrize("kind", STARTED)
def test_an_exchange_in_two_halves_is_counted_once(kind):
    """As compilers for accelerators write it: the start holds operands and results, and what is done has the same name and no groups."""
    held, payload = STARTED[kind]
    lines = [f"%s = {held} {kind}-start(%a), replica_groups={{{{0,1,2,3}}}}, to_apply=%add", f"%d = f32[8]{{0}} {kind}-done({held} %s)"]
    assert collectives("\n".join(lines)) == [Collective(kind, payload, 2 if kind == "collective-permute" else 4)]


@pytest.mark.parametrize("kind", ["ragged-all-to-all", "collective-broadcast", "collective-broadcast-start", "send", "all-new"])
def test_a_kind_that_is_not_known_is_not_skipped(kind):
    with pytest.raises(ValueError, match=f"sends in {kind.removesuffix('-start')} is not known"):
        collectives(f"%x = (f32[3]{{0}}, u32[]) {kind}(%a), replica_groups={{{{0,1}}}}")


def small(name: str):
    c = tiny.shrink(tiny.config(name))
    c.pretrain.batch, c.model.width = 2, 8
    return c


def test_divided_parameters_are_gathered_and_nothing_of_the_images_is(monkeypatch):
    monkeypatch.setattr(meshes, "FSDP_MIN_SIZE", 256)
    c = small("simclr")
    lowered = communication.lower(c, 4, fsdp=True)
    found = collectives(lowered.compile().as_text())
    gathered = sum(one.payload for one in found if one.kind == "all-gather")
    whole = 4 * sum(math.prod(x.shape) for x in jax.tree.leaves(lowered.args_info[0][0].params))
    assert 0.5 * whole < gathered < 1.1 * whole
    one_view = 4 * c.pretrain.batch * c.views.size**2  # of one device, in the smallest number of channels
    assert all(one.payload < max(one_view, whole) for one in found)
    assert sum(one.payload for one in found if one.kind == "all-to-all") < one_view


PERMUTED = 2_910_000


def told(slope: int) -> dict:
    """Counts as they are found: with 2 devices fewer permutes, and from 4 on a straight line."""

    def count(devices: int) -> dict:
        payloads = {"all-reduce": 1_000_000, "all-gather": slope * devices, "collective-permute": PERMUTED // (10 if devices == 2 else 1)}
        sent = 2e6 * (devices - 1) / devices + slope * (devices - 1) + payloads["collective-permute"]
        return {"flops": 2e9 + 1e7 * devices, "payloads": payloads, "sent": sent}

    return {str(n): count(n) for n in (2, 4, 8, 16)}


def test_the_line_through_two_counts_meets_the_others():
    found = told(100)
    assert sum(communication.predicted(found, 16).values()) == pytest.approx(found["16"]["sent"])
    assert communication.predicted_flops(found, 16) == pytest.approx(found["16"]["flops"])


def test_what_does_not_grow_from_four_devices_on_does_not_grow_at_256():
    """What 2 devices exchange, another program than that of more, moves nothing."""
    expected = {"all-reduce": 2e6 * 255 / 256, "all-gather": 100 * 255, "collective-permute": PERMUTED}
    assert communication.predicted(told(100), 256) == pytest.approx(expected)
    assert communication.predicted_flops(told(100), 256) == pytest.approx(4.56e9)


def test_table(tmp_path):
    record = tmp_path / communication.RECORD
    assert communication.table(record, "small") == "Nothing is recorded yet."
    record.write_text(json.dumps({"small": {"simclr": {"batch": 32, "replicated": told(0), "FSDP": told(1000)}}}))
    assert communication.table(record, "paper") == "Nothing is recorded yet."
    head, _, *lines, _, note = communication.table(record, "small").splitlines()
    assert [title.strip() for title in head.split("|")][4:8] == ["all-reduce, MB", "all-gather, MB", "other, MB", "all sent, MB"]
    assert lines[0] == "| simclr, 32 | replicated | 8 | 1.75 | 0 | 2.91 | 4.66 | 0.0233 | 2.08 | 0.0106 |"
    assert lines[5] == "|  |  | 256 | 1.99 | 0.255 | 2.91 | 5.16 | 0.0258 | 4.56 | 0.0231 |"
    assert note == "Off at 16 devices, bytes or FLOPs of any line: 0.00% at most."


@pytest.mark.parametrize("key", ["sent", "flops"])
def test_a_line_that_is_off_is_told_below_the_table(tmp_path, key):
    found = told(0)
    found["16"][key] /= 1.25
    (tmp_path / communication.RECORD).write_text(json.dumps({"small": {"simclr": {"batch": 32, "replicated": told(0), "FSDP": found}}}))
    assert communication.table(tmp_path / communication.RECORD, "small").endswith(": 25.00% at most.")


def test_a_method_is_recorded_beside_the_others(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(communication, "FITTED", (2, 4))
    monkeypatch.setattr(communication, "CHECKED", (4,))
    monkeypatch.setattr(communication.importlib, "import_module", lambda name: SimpleNamespace(get_config=lambda size: small("simclr")))
    tower = {"batch": 32, "replicated": told(0), "FSDP": told(0)}
    (tmp_path / communication.RECORD).write_text(json.dumps({"small": {"tower": tower}}))
    assert communication.measure(tmp_path, "small", ["simclr"]) == 0
    assert "| simclr, 2 | FSDP |" in capsys.readouterr().out
    recorded = json.loads((tmp_path / communication.RECORD).read_text())["small"]
    assert recorded["tower"] == tower
    assert recorded["simclr"]["replicated"].keys() == {"2", "4"}
    assert recorded["simclr"]["replicated"]["4"]["sent"] > 0
