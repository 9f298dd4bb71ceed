"""What training carries from step to step."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from medssl_jax.train.method import Method

Tree = Any


class State(struct.PyTreeNode):
    """Everything a checkpoint holds. `key` seeds the run: all randomness is derived from (key, step, slot)."""

    step: jax.Array
    key: jax.Array
    params: Tree
    carried: Tree
    opt_state: Tree


def init_state(method: Method, optimizer: optax.GradientTransformation, key: jax.Array, batch: dict[str, jax.Array]) -> State:
    """A fresh state; `batch` gives the shapes only."""
    params, carried = method.init(jax.random.fold_in(key, 0), batch)
    return fresh_state(optimizer, key, params, carried)


def fresh_state(optimizer: optax.GradientTransformation, key: jax.Array, params: Tree, carried: Tree) -> State:
    """A state at step 0 that starts from given parameters."""
    return State(step=jnp.int32(0), key=jax.random.fold_in(key, 1), params=params, carried=carried, opt_state=optimizer.init(params))
