"""The project's own train step and its stages, as `experiments.speed` times them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from experiments.throughput import compiled
from medssl_jax import methods
from medssl_jax.train import mesh as meshes
from medssl_jax.train import optimizer
from medssl_jax.train.state import State, init_state
from medssl_jax.train.step import example_keys, make_step

MODALITY, DTYPE = "brightfield", np.uint16  # the built-in sample's, where the config does not say


class JaxSide:
    """The step for `config` and images of so many channels. `compile_s` are seconds by stage, `bytes` what the full step holds at once.

    Full steps and the optimizer alone, with the gradients of the first, go on from one state, which they are given for good.
    """

    def __init__(self, config: ConfigDict, channels: int = 1) -> None:
        mesh = meshes.make_mesh(jax.devices()[:1])
        method, update = methods.build(config, channels, MODALITY), optimizer.build(config.pretrain.optimizer, config.pretrain.steps)
        slots = np.arange(config.pretrain.batch, dtype=np.int32)
        self.compile_s: dict[str, float] = {}
        self.batch = meshes.to_devices(mesh, {"image": images(config, channels), "slot": slots})
        start = jax.jit(lambda key: init_state(method, update, key, self.batch), out_shardings=meshes.replicated(mesh))
        self.state, self.donated = start(jax.random.key(0)), start(jax.random.key(0))
        places = jax.tree.map(lambda x: x.sharding, self.state)
        look = jax.jit(lambda state, batch: method.views(example_keys(state.key, state.step, batch["slot"]), batch))
        self.augment = self._compile("augmentation", look, self.state, self.batch)
        self.views = self.augment(self.state, self.batch)
        self.inputs = (self.state.params, self.state.carried, self.views, self.state.step)
        self.forward = self._compile("forward", jax.jit(method.loss), *self.inputs)
        self.backward = self._compile("forward+backward", jax.jit(jax.value_and_grad(method.loss, has_aux=True)), *self.inputs)
        self.grads = jax.block_until_ready(self.backward(*self.inputs))[1]
        finish = jax.jit(partial(finished, method, update), out_shardings=places, donate_argnums=0)
        self.update = self._compile("optimizer", finish, self.donated, self.grads)
        self.step = self._compile("full step", make_step(method, update, mesh, places), self.donated, self.batch)

    def runs(self) -> dict[str, Callable[[], Any]]:
        """The stages, each blocking until it is done."""
        calls: dict[str, Callable[[], Any]] = {
            "augmentation": lambda: self.augment(self.state, self.batch),
            "forward": lambda: self.forward(*self.inputs),
            "forward+backward": lambda: self.backward(*self.inputs),
            "optimizer": self._update,
            "full step": self._full,
        }
        return {stage: partial(_blocking, call) for stage, call in calls.items()}

    def parameters(self) -> int:
        """How many numbers are learned."""
        return sum(x.size for x in jax.tree.leaves(self.state.params))

    def loss(self) -> float:
        """That of its views with its first parameters."""
        return float(self.forward(*self.inputs)[0])

    def _update(self) -> Any:
        self.donated = self.update(self.donated, self.grads)
        return self.donated.params, self.donated.opt_state, self.donated.carried

    def _full(self) -> Any:
        self.donated, logs = self.step(self.donated, self.batch)
        return self.donated.params, logs

    def _compile(self, stage: str, function: Any, *arguments: Any) -> Callable:
        program, counted = compiled(function, *arguments)
        self.compile_s[stage], self.bytes = counted["compile_s"], counted["bytes"]
        return program


def _blocking(call: Callable[[], Any]) -> None:
    jax.block_until_ready(call())


def finished(method: methods.Pretraining, update: optax.GradientTransformation, state: State, grads: Any) -> State:
    """What a step makes of its gradients."""
    updates, opt_state = update.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    carried = method.after_update(params, state.carried, state.step)
    return state.replace(step=state.step + 1, params=params, carried=carried, opt_state=opt_state)


def images(config: ConfigDict, channels: int) -> np.ndarray:
    """A batch of random blocks of 4 px, uint16 [B, T, T, C]."""
    side = config.data.tile
    coarse = np.random.default_rng(0).random((config.pretrain.batch, side // 4 + 1, side // 4 + 1, channels))
    return (coarse.repeat(4, 1).repeat(4, 2)[:, :side, :side] * np.iinfo(DTYPE).max).astype(DTYPE)
