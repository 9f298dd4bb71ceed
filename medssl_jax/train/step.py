"""The one train step: pretraining and fine-tuning alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from medssl_jax.train import mesh as meshes
from medssl_jax.train.method import Method
from medssl_jax.train.state import State

Batch = dict[str, jax.Array]
Logs = dict[str, jax.Array]
Step = Callable[[State, Batch], tuple[State, Logs]]


def example_keys(key: jax.Array, step: jax.Array, slots: jax.Array) -> jax.Array:
    """One key an example [B], a function of (seed, step, slot in the global batch) alone."""
    at_step = jax.random.fold_in(key, step)
    return jax.vmap(lambda slot: jax.random.fold_in(at_step, slot))(slots)


def make_step(method: Method, optimizer: optax.GradientTransformation, mesh: Mesh, state_shardings: State, accumulate: int = 1) -> Step:
    """`step(state, batch) -> state, logs`, jitted, the state donated; `batch` is divided over the mesh along its first axis.

    What is divided between steps (FSDP) is gathered for the loss, and its gradients are summed and divided again: left to itself, XLA would
    rather divide the convolutions by channels, and exchange their maps of the whole batch.
    """
    whole = meshes.replicated(mesh)

    def step(state: State, batch: Batch) -> tuple[State, Logs]:
        """One update from one global batch."""
        views = method.views(example_keys(state.key, state.step, batch["slot"]), batch)
        params, carried = jax.lax.with_sharding_constraint((state.params, state.carried), whole)
        gathered = state.replace(params=params, carried=carried)
        grads, carried, logs = _gradients(method, gathered, views, accumulate, [whole, state_shardings.params])
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        carried = method.after_update(params, carried, state.step)
        logs["gradient_norm"] = optax.tree.norm(grads)
        return state.replace(step=state.step + 1, params=params, carried=carried, opt_state=opt_state), logs

    return jax.jit(
        step,
        in_shardings=(state_shardings, meshes.along_batch(mesh)),
        out_shardings=(state_shardings, meshes.replicated(mesh)),
        donate_argnums=0,
    )


def _gradients(method: Method, state: State, views: Any, accumulate: int, places: Sequence[Any]) -> tuple[Any, Any, Logs]:
    """Mean gradient over the micro-batches, each of which sees the batch statistics that the one before left; put to one of `places` after
    the other."""

    def one(carried: Any, part: Any) -> tuple[Any, tuple[Any, Logs]]:
        """Gradients and logs of one micro-batch, and the statistics after it."""
        value_and_grad = jax.value_and_grad(method.loss, has_aux=True)
        (loss, (carried, logs)), grads = value_and_grad(state.params, carried, part, state.step)
        for place in places:
            grads = jax.lax.with_sharding_constraint(grads, place)
        return carried, (grads, {"loss": loss, **logs})

    if accumulate == 1:
        carried, (grads, logs) = one(state.carried, views)
        return grads, carried, logs
    carried, stacked = _scan_sum(one, state.carried, jax.tree.map(lambda x: _split(x, accumulate), views))
    grads, logs = jax.tree.map(lambda x: x / accumulate, stacked)
    return grads, carried, logs


def _split(x: jax.Array, parts: int) -> jax.Array:
    """[B, ...] -> [parts, B / parts, ...], strided so that every device keeps its own examples."""
    return x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1)


def _scan_sum(one: Callable, carried: Any, parts: Any) -> tuple[Any, Any]:
    """Scan `one` over the parts and add its outputs up, holding one set of gradients at a time."""

    def body(state: tuple, part: Any) -> tuple[tuple, None]:
        """Add one part's outputs to the total."""
        carried, total = state
        carried, out = one(carried, part)
        return (carried, jax.tree.map(jnp.add, total, out)), None

    _, shapes = jax.eval_shape(one, carried, jax.tree.map(lambda x: x[0], parts))
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    return jax.lax.scan(body, (carried, zeros), parts)[0]
