"""Checkpoints: parameters, the rest of the state, and a word about the run, kept apart so that each can be read alone (Orbax)."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from medssl_jax.errors import UserError
from medssl_jax.train import mesh as meshes
from medssl_jax.train.logging import say
from medssl_jax.train.state import State

UNREADABLE = "{} does not hold readable weights ({}); pretrain again in another --workdir."


class Checkpoints:
    """The checkpoints of one run under `path`: the latest `keep`, saved every `every` steps and on a preemption notice."""

    def __init__(self, path: Path, every: int, keep: int) -> None:
        self.path = path
        decide = policies.AnySavePolicy([policies.PreemptionCheckpointingPolicy(), policies.FixedIntervalPolicy(every)])
        options = ocp.CheckpointManagerOptions(save_decision_policy=decide, preservation_policy=policies.LatestN(keep))
        self._manager = ocp.CheckpointManager(path.absolute(), options=options)

    def due(self, step: int) -> bool:
        """Whether `save` would write at this step."""
        return self._manager.should_save(step)

    def save(self, state: State, *, force: bool = False) -> None:
        """Write in the background. `force`: also where the step is not due; a step already there is left as it is."""
        step = int(state.step)
        if force and step in self._manager.all_steps():
            return
        rest = {"step": state.step, "key": state.key, "carried": state.carried, "opt_state": state.opt_state}
        items = {"params": ocp.args.StandardSave(state.params), "rest": ocp.args.StandardSave(rest)}
        self._manager.save(step, args=ocp.args.Composite(**items), force=force)

    def restore(self, abstract: State) -> State | None:
        """The latest state that can be read, placed as the shardings in `abstract` say; None where there is none.

        A checkpoint cut short is passed over with a word and set aside, and the one before it is taken. Raises UserError, and leaves all
        as it is, where there are checkpoints and none can be read.
        """
        damaged: dict[int, str] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            state, reason = self._try(step, abstract)
            if meshes.all_agree(state is not None):  # a process alone must not go on from another step than the others
                self._set_aside(damaged)
                return state
            damaged[step] = reason
        if damaged:
            step, reason = next(iter(damaged.items()))
            raise UserError(
                f"no checkpoint in {self.path} can be read (step {step}: {reason}); they are left as they are: continue with the program "
                "that wrote them, or start in another --workdir."
            )
        return None

    def _try(self, step: int, abstract: State) -> tuple[State | None, str]:
        """The state of a step, or None and why not. A lack of permission is no damage and is raised."""
        try:
            return self._restore(step, abstract), "another process cannot read it"
        except PermissionError:
            raise
        except (ValueError, OSError, KeyError) as error:
            return None, (str(error).splitlines() or [type(error).__name__])[0][:120]

    def _restore(self, step: int, abstract: State) -> State:
        rest = {"step": abstract.step, "key": abstract.key, "carried": abstract.carried, "opt_state": abstract.opt_state}
        items = {"params": ocp.args.StandardRestore(abstract.params), "rest": ocp.args.StandardRestore(rest)}
        found = self._manager.restore(step, args=ocp.args.Composite(**items))
        return State(params=found.params, **found.rest)

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
            meshes.wait_for_all("damaged checkpoints are set aside")
            self._manager.reload()

    def preempted(self, step: int) -> bool:
        """Whether the cluster has announced the end of this run (the same answer in every process)."""
        return self._manager.reached_preemption(step)

    @property
    def latest(self) -> int | None:
        """The step of the newest checkpoint."""
        return self._manager.latest_step()

    def close(self) -> None:
        """Wait for writes under way."""
        self._manager.wait_until_finished()
        self._manager.close()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None or not issubclass(kind, jax.errors.JaxRuntimeError) or jax.process_count() == 1:
            self.close()  # a write would wait for a process that is gone


def save_tree(path: Path, tree: Any) -> None:
    """One tree of arrays, whole or not at all."""
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path.absolute(), tree, force=True)


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
        with ocp.StandardCheckpointer() as checkpointer:
            found = checkpointer.metadata(path.absolute()).item_metadata.tree
            shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), found)
            return checkpointer.restore(path.absolute(), shapes)
    except Exception as error:  # Orbax and TensorStore raise plain ones too
        raise UserError(UNREADABLE.format(path, "not whole, or of another program")) from error


def abstract(tree: Any, shardings: Any) -> Any:
    """Shapes, dtypes and the places where arrays shall go, without arrays."""
    return jax.tree.map(lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree, shardings)
