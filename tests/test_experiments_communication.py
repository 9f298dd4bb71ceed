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


def told(slope: int) -> dict:
    def count(devices: int) -> dict:
        payloads = {"all-reduce": 1_000_000, "all-gather": slope * devices}
        return {"flops": 2e9, "payloads": payloads, "sent": 2e6 * (devices - 1) / devices + slope * (devices - 1)}

    return {str(n): count(n) for n in (2, 4, 8, 16)}


def test_the_line_through_two_counts_meets_the_others():
    found = told(100)
    for devices in (4, 16):
        assert communication.predicted(found, devices) == pytest.approx(found[str(devices)]["sent"])
    assert communication.predicted(found, 256) == pytest.approx(2e6 * 255 / 256 + 100 * 255)


def test_table(tmp_path):
    record = tmp_path / communication.RECORD
    assert communication.table(record, "small") == "Nothing is recorded yet."
    record.write_text(json.dumps({"small": {"simclr": {"batch": 32, "replicated": told(0), "FSDP": told(1000)}}}))
    assert communication.table(record, "paper") == "Nothing is recorded yet."
    head, _, whole, divided = communication.table(record, "small").splitlines()
    assert "MB sent, 256 chips" in head
    assert whole == "| simclr, 32 | replicated | 1.75 | 1.97 | 1.99 | +0.0% | +0.0% | 0.00875 | 0.00984 | 0.00996 | 2 | 0.0102 |"
    assert "| 2.25 |" in divided


def test_a_method_is_recorded_beside_the_others(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(communication, "FITTED", (2, 4))
    monkeypatch.setattr(communication, "CHECKED", ())
    monkeypatch.setattr(communication.importlib, "import_module", lambda name: SimpleNamespace(get_config=lambda size: small("simclr")))
    tower = {"batch": 32, "replicated": told(0), "FSDP": told(0)}
    (tmp_path / communication.RECORD).write_text(json.dumps({"small": {"tower": tower}}))
    assert communication.measure(tmp_path, "small", ["simclr"]) == 0
    assert "| simclr, 2 | FSDP |" in capsys.readouterr().out
    recorded = json.loads((tmp_path / communication.RECORD).read_text())["small"]
    assert recorded["tower"] == tower
    assert recorded["simclr"]["replicated"].keys() == {"2", "4"}
    assert recorded["simclr"]["replicated"]["4"]["sent"] > 0
