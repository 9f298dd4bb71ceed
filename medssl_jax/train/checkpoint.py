"""Checkpoints: parameters and the rest of the state, kept apart so that each can be read alone (Orbax).

Of several processes the first one writes the arrays of its host, whole, and each reads for itself. Given the devices' arrays, Orbax has
every process write its own pieces, for which all would need one folder; the copies of a run at a URL (mirror.py) are not that.
"""

from __future__ import annotations

import functools
import hashlib
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from medssl_jax.errors import UserError
from medssl_jax.train import agree
from medssl_jax.train import mesh as meshes
from medssl_jax.train.logging import say
from medssl_jax.train.state import State

UNREADABLE = "{} does not hold readable weights ({}); pretrain again in another --workdir."


class _Manager(ocp.CheckpointManager):
    """Orbax's, which does not ask for a preemption: the loop does, and what all processes ask alike counts (agree.py)."""

    def reached_preemption(self, step: int) -> bool:
        """No."""
        return False


class Checkpoints:
    """The checkpoints of one run under `path`: the latest `keep` of those that were saved; every `every` steps one is due."""

    def __init__(self, path: Path, every: int, keep: int) -> None:
        self.path, self.every = path, every
        path.mkdir(parents=True, exist_ok=True)
        options = ocp.CheckpointManagerOptions(preservation_policy=policies.LatestN(keep), multiprocessing_options=_alone(), create=False)
        self._manager = _Manager(path.absolute(), options=options)
        self.latest = self._manager.latest_step()  # the step that was saved last

    def due(self, step: int) -> bool:
        """Whether it is time for the next one."""
        return step % self.every == 0

    def save(self, state: State) -> None:
        """Write in the background, in all processes at the same step; a step already there is left as it is."""
        items, self.latest = meshes.on_host(_items(state, jax.random.key_data(state.key))), int(state.step)
        if jax.process_index() > 0 or self.latest in self._manager.all_steps():
            return
        args = {name: ocp.args.StandardSave(tree) for name, tree in items.items()}
        about = ocp.args.JsonSave({"crc32": _checksum(items)})
        self._manager.save(self.latest, args=ocp.args.Composite(**args, about=about), force=True)

    def restore(self, abstract: State) -> State | None:
        """The latest state that can be read, placed as the shardings in `abstract` say; None where there is none.

        A checkpoint cut short is passed over with a word and set aside, and the one before it is taken. Raises UserError, and leaves all
        as it is, where there are checkpoints and none can be read.
        """
        damaged: dict[int, str] = {}
        for step in agree.from_first(lambda: sorted(self._manager.all_steps(), reverse=True)):
            found, reason = self._try(step, abstract)
            if agree.all_agree(found is not None):  # a process alone must not go on from another step than the others
                assert found is not None
                if _checksum(meshes.on_host(found.items)) == found.crc32:
                    self._set_aside(damaged)
                    return found.state(abstract)
                reason = "its numbers are not those that were saved"
            damaged[step] = reason
        if damaged:
            step, reason = next(iter(damaged.items()))
            raise UserError(
                f"no checkpoint in {self.path} can be read (step {step}: {reason}); they are left as they are: continue with the program "
                "that wrote them, or start in another --workdir."
            )
        return None

    def _try(self, step: int, abstract: State) -> tuple[_Found | None, str]:
        """What a step holds, or None and why not. A lack of permission is no damage and is raised."""
        try:
            return self._restore(step, abstract), "another process cannot read it"
        except PermissionError:
            raise
        except Exception as error:  # Orbax and TensorStore raise plain ones too
            return None, (str(error).splitlines() or [type(error).__name__])[0][:120]

    def _restore(self, step: int, abstract: State) -> _Found:
        key = jax.eval_shape(jax.random.key_data, abstract.key)
        items = _items(abstract, jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=abstract.key.sharding))
        args = {name: ocp.args.StandardRestore(tree) for name, tree in items.items()}
        found = self._manager.restore(step, args=ocp.args.Composite(**args, about=ocp.args.JsonRestore()))
        return _Found({name: found[name] for name in items}, found.about["crc32"])

    def _set_aside(self, damaged: dict[int, str]) -> None:
        """Move what cannot be read beside the others, so that its step can be saved again."""
        aside = self.path.with_name(f"{self.path.name}-damaged")
        for step, reason in damaged.items():
            say(f"The checkpoint of step {step} cannot be read ({reason}); going back to the one before it. It is kept in {aside}.")
            if jax.process_index() == 0:
                aside.mkdir(exist_ok=True)
                shutil.rmtree(aside / str(step), ignore_errors=True)  # the same step, damaged once before
                (self.path / str(step)).rename(aside / str(step))
        if damaged:
            agree.wait_for_all("damaged checkpoints are set aside")
            self._manager.reload()
            self.latest = self._manager.latest_step()

    def close(self) -> None:
        """Wait for writes under way."""
        self._manager.wait_until_finished()
        self._manager.close()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self.close()


class _Found(NamedTuple):
    """What a checkpoint holds, and the checksum of what was saved: TensorStore keeps none, and reads most flipped bits without a word."""

    items: dict[str, Any]
    crc32: int

    def state(self, abstract: State) -> State:
        """The items as a state, its key where `abstract` has it."""
        rest = self.items["rest"]
        key = jax.jit(jax.random.wrap_key_data, out_shardings=abstract.key.sharding)(rest["key"])
        return State(params=self.items["params"], **rest | {"key": key})


def _checksum(items: Any) -> int:
    """CRC-32 of all numbers, in the order of the tree."""
    return functools.reduce(lambda crc, x: zlib.crc32(np.asarray(x).tobytes(), crc), jax.tree.leaves(items), 0)


def _items(state: State, key: Any) -> dict[str, Any]:
    """What is written of a state, by the name of its part; its random key as numbers."""
    return {"params": state.params, "rest": {"step": state.step, "key": key, "carried": state.carried, "opt_state": state.opt_state}}


def save_tree(path: Path, tree: Any) -> None:
    """One tree of the host's arrays, whole or not at all; afterwards all processes that share the folder can read it."""
    if jax.process_index() == 0:
        with ocp.StandardCheckpointer(multiprocessing_options=_alone()) as checkpointer:
            checkpointer.save(path.absolute(), tree, force=True)
    agree.wait_for_all("the tree is written")


def inventory(path: Path) -> dict[str, str]:
    """The files of a `save_tree` and a digest of each, by which a damaged copy is known."""
    found = (file for file in sorted(path.rglob("*")) if file.is_file())
    return {str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()[:16] for file in found}


def check_inventory(path: Path, expected: Mapping[str, str]) -> None:
    """Raises UserError where a file is missing or not as it was written. Asked before reading: a read that fails half way leaves others
    under way, whose complaints come after the sentence.
    """
    found = inventory(path)
    for name, word in expected.items():
        if found.get(name) != word:
            raise UserError(UNREADABLE.format(path, f"{name} is missing or damaged"))


def load_tree(path: Path, place: jax.sharding.Sharding) -> Any:
    """The tree of a `save_tree`, each array placed as `place` says. Raises UserError where it cannot be read."""
    try:
        with ocp.StandardCheckpointer(multiprocessing_options=_alone()) as checkpointer:
            found = checkpointer.metadata(path.absolute()).item_metadata.tree
            shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), found)
            return checkpointer.restore(path.absolute(), shapes)
    except Exception as error:  # Orbax and TensorStore raise plain ones too
        raise UserError(UNREADABLE.format(path, "not whole, or of another program")) from error


def _alone() -> ocp.options.MultiprocessingOptions:
    """Orbax waits for no other process."""
    index = jax.process_index()
    return ocp.options.MultiprocessingOptions(primary_host=index, active_processes={index}, barrier_sync_key_prefix=f"process {index}")


def abstract(tree: Any, shardings: Any) -> Any:
    """Shapes, dtypes and the places where arrays shall go, without arrays."""
    return jax.tree.map(lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree, shardings)
