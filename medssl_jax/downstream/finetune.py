"""Fine-tuning one network on one choice of labels, from any initial weights, with the same budget for all."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from medssl_jax.data.stream import index_batches, sub_seed
from medssl_jax.downstream.classification import Classifier
from medssl_jax.downstream.mean_teacher import MeanTeacher
from medssl_jax.downstream.segmentation import Segmenter
from medssl_jax.errors import UserError
from medssl_jax.methods.calibrate import Calibration
from medssl_jax.train import feed, optimizer
from medssl_jax.train import mesh as meshes
from medssl_jax.train.loop import Plan, StopRequest, train
from medssl_jax.train.state import State, fresh_state
from medssl_jax.train.step import Step, make_step

Tree = Any
Task = Segmenter | Classifier
MOST_LOOKS = 20  # validations of a long run


@dataclasses.dataclass
class Best:
    """The weights with the highest validation score so far; without validation, the last ones."""

    score: float = -1.0
    step: int = 0
    weights: tuple[Tree, Tree] | None = None
    looks: list[tuple[int, float]] = dataclasses.field(default_factory=list)  # step and score, whether kept or not

    def offer(self, score: float, state: State) -> None:
        """Keep the state's weights (a copy: the step donates its input) where they are better than those kept."""
        self.looks.append((int(state.step), score))
        if self.weights is None or score > self.score:
            copy = jax.tree.map(jax.numpy.copy, (state.params, state.carried))
            self.score, self.step, self.weights = score, int(state.step), copy


class FineTuner:
    """One task on one mesh; compiled once, used for every initial weight, label amount and seed.

    With a `calibration` the norms hold what it measures before the training, whatever the weights; without one they learn from the
    labelled batches. Where `unlabelled` images [N, S, S, C] are given, a mean teacher learns from them too.
    """

    def __init__(
        self,
        task: Task,
        config: ConfigDict,
        mesh: Mesh,
        batch: dict[str, np.ndarray],
        calibration: Calibration | None = None,
        unlabelled: np.ndarray | None = None,
    ) -> None:
        steady = dataclasses.replace(task, steady=calibration is not None)
        self.config, self.mesh, self._calibration = config, mesh, calibration
        self._unlabelled = None if unlabelled is None else meshes.to_all(mesh, {"image": unlabelled})
        self.task: Task | MeanTeacher = steady
        if unlabelled is not None:
            self.task = MeanTeacher(steady, config.steps, config.consistency_weight, config.teacher_decay)
        meshes.check_batch(config.batch, 1, mesh, "finetune.batch")
        update = optimizer.build(config.optimizer, config.steps, config.head_warmup)
        place = meshes.replicated(mesh)
        self._init = jax.jit(task.init, out_shardings=place)
        self._start = jax.jit(lambda *args: fresh_state(update, *args), out_shardings=place)
        self._shapes = {name: np.zeros((1, *array.shape[1:]), array.dtype) for name, array in batch.items()}
        key = jax.random.key(0)
        abstract = jax.eval_shape(self._start, key, *jax.eval_shape(self.task.init, key, self._shapes))
        self._places = meshes.shardings(abstract, mesh, fsdp=False)
        self._compiled: dict[int, Step] = {}

    def check(self, pretrained: Mapping[str, Tree]) -> None:
        """Raises UserError where pretrained parts do not fit the network."""
        fresh, _ = jax.eval_shape(self._init, jax.random.key(0), self._shapes)
        for part, values in pretrained.items():
            if part in fresh:
                _check_shapes(part, fresh[part], values["params"])

    def steps(self, examples: int) -> int:
        """How long `examples` are trained on: the configured steps, or the configured passes over them where that is more."""
        return max(self.config.steps, -(-int(self.config.epochs * examples) // self.config.batch))

    def _step(self, steps: int) -> Step:
        """The compiled step of a run of `steps`."""
        if steps not in self._compiled:
            update = optimizer.build(self.config.optimizer, steps, self.config.head_warmup)
            task = dataclasses.replace(self.task, steps=steps) if isinstance(self.task, MeanTeacher) else self.task
            self._compiled[steps] = make_step(task, update, self.mesh, self._places)
        return self._compiled[steps]

    def initial(self, seed: int, pretrained: Mapping[str, Tree]) -> tuple[jax.Array, Tree, Tree]:
        """The run's key, and fresh parameters with the pretrained parts put in their places; norms calibrated where they are to be."""
        key = jax.random.key(sub_seed(seed, "finetune/init"))
        fresh, carried = self._init(key, self._shapes)
        params, carried = transfer(fresh, carried, pretrained)
        if self._calibration is None:
            return key, params, carried
        found = self._calibration({p: {"params": params[p], "stats": carried["stats"][p]} for p in ("encoder", "decoder") if p in params})
        return key, params, {**carried, "stats": carried["stats"] | {name: part["stats"] for name, part in found.items()}}

    def run(
        self,
        examples: dict[str, np.ndarray],
        pretrained: Mapping[str, Tree],
        seed: int,
        validate: Callable[[State], float] | None,
        stop: StopRequest | None = None,
        title: str = "fine-tune",
    ) -> Best:
        """Train on `examples` [N, ...] for `steps(N)`; returns the weights that validation chose.

        Everything random (fresh parts, order, augmentation) depends on `seed` alone, so initial weights are compared in pairs.
        """
        key, params, carried = self.initial(seed, pretrained)
        if isinstance(self.task, MeanTeacher):
            params, carried = self.task.with_teacher(params, carried)
        state = self._start(key, params, carried)
        rates = optimizer.with_rates(state.opt_state, dict.fromkeys(pretrained, self.config.transferred_rate))
        state = state.replace(opt_state=jax.device_put(rates, meshes.replicated(self.mesh)))
        config, count = self.config, len(next(iter(examples.values())))
        best = Best()

        def evaluate(state: State) -> dict[str, float]:
            """Offer the state for the best; there is nothing to log."""
            score = validate(state) if validate else float(state.step)
            best.offer(score, state)
            return {}

        steps = self.steps(count)
        looks = max(config.eval_every, steps // MOST_LOOKS)
        plan = Plan(title, steps, config.batch, log_every=steps, eval_every=looks, option="finetune.optimizer")
        train(state, self._step(steps), self._batches(examples, seed), plan, evaluate=evaluate, stop=stop)
        return best

    def _batches(self, examples: dict[str, np.ndarray], seed: int) -> Iterator[feed.Batch]:
        """Batches of the labelled examples, each with as many unlabelled images where there are any."""
        found = self._drawn(meshes.to_all(self.mesh, examples), sub_seed(seed, "finetune/order"))
        if self._unlabelled is None:
            return found
        beside = self._drawn(self._unlabelled, sub_seed(seed, "finetune/unlabelled"))
        return ({**batch, "unlabelled": more["image"]} for batch, more in zip(found, beside))

    def _drawn(self, resident: feed.Batch, seed: int) -> Iterator[feed.Batch]:
        count = len(next(iter(resident.values())))
        return feed.from_resident(self.mesh, resident, index_batches(count, seed=seed, global_batch=self.config.batch))


def transfer(params: Tree, carried: Tree, pretrained: Mapping[str, Tree]) -> tuple[Tree, Tree]:
    """Fresh `params` and `carried` with the pretrained parts in their places.

    Raises UserError where a part has other shapes, naming the first parameter that differs.
    """
    params, stats = dict(params), dict(carried["stats"])
    for part, values in pretrained.items():
        if part in params:
            _check_shapes(part, params[part], values["params"])
            params[part], stats[part] = jax.tree.map(jax.numpy.asarray, (values["params"], values["stats"]))
    return params, {**carried, "stats": stats}


def _check_shapes(part: str, fresh: Tree, given: Tree) -> None:
    def flat(tree: Tree) -> dict[str, tuple[int, ...]]:
        """The shape of every leaf by its path."""
        return {jax.tree_util.keystr(path): np.shape(x) for path, x in jax.tree_util.tree_leaves_with_path(tree)}

    ours, theirs = flat(fresh), flat(given)
    for name in sorted(ours.keys() | theirs.keys()):
        if ours.get(name) != theirs.get(name):
            raise UserError(
                f"the pretrained {part} does not fit this network: {name} is {theirs.get(name)} there and {ours.get(name)} here; "
                "use the same config.model and the same number of channels as the pretraining."
            )
