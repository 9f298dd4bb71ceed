"""What the train step asks of anything it trains."""

from __future__ import annotations

from typing import Any, Protocol

import jax

Tree = Any
Batch = dict[str, jax.Array]
Views = dict[str, jax.Array]
Logs = dict[str, jax.Array]


class Method(Protocol):
    """A frozen dataclass of hyper-parameters with pure functions; supervised tasks have the same shape."""

    def init(self, key: jax.Array, batch: Batch) -> tuple[Tree, Tree]:
        """Fresh parameters, and `carried`: what lives beside them without a gradient."""

    def views(self, keys: jax.Array, batch: Batch) -> Views:
        """What the networks see, made on the device: every array has the leading axis B of `keys` and of the batch."""

    def loss(self, params: Tree, carried: Tree, views: Views, step: jax.Array) -> tuple[jax.Array, tuple[Tree, Logs]]:
        """A scalar to descend, the new `carried`, and scalars worth logging."""

    def after_update(self, params: Tree, carried: Tree, step: jax.Array) -> Tree:
        """The `carried` of the next step, once the optimizer has moved the parameters."""
