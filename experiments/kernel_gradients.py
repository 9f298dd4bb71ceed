"""The gradient to a 3 x 3 kernel as products of matrices: what was tried on a CPU in place of XLA's convolution, and not kept.

All take the input x [B, H, W, I] of a convolution that is padded by one pixel, and the gradient of its output [B, H, W, O], and give
[3, 3, I, O]; `experiments.convolutions` times them.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

KERNEL = 3


def gathered_patches(x: jax.Array, cotangent: jax.Array) -> jax.Array:
    """The gradient to the kernel [3, 3, I, O] as one product: what each output saw, nine shifts side by side, by its gradient."""
    return _product(jnp.concatenate(_nine(x), axis=-1), cotangent).reshape(KERNEL, KERNEL, x.shape[-1], -1)


def nine_taps(x: jax.Array, cotangent: jax.Array) -> jax.Array:
    """The same as nine products, one for each pixel of the kernel."""
    return jnp.stack([_product(part, cotangent) for part in _nine(x)]).reshape(KERNEL, KERNEL, x.shape[-1], -1)


def columns_by_rows(x: jax.Array, cotangent: jax.Array) -> jax.Array:
    """The same as one product of three columns of the input, side by side, by three rows of the output's gradient."""
    height, width, inputs, outputs = *x.shape[1:], cotangent.shape[-1]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    given = jnp.pad(cotangent, ((0, 0), (2, 2), (0, 0), (0, 0)))
    columns = jnp.concatenate([padded[:, :, k : k + width] for k in range(KERNEL)], axis=-1)
    rows = jnp.concatenate([given[:, 2 - k : 2 - k + height + 2] for k in range(KERNEL)], axis=-1)
    return _product(columns, rows).reshape(KERNEL, inputs, KERNEL, outputs).transpose(2, 0, 1, 3)


def _nine(x: jax.Array) -> list[jax.Array]:
    """The input as each pixel of the kernel meets it, row by row."""
    height, width = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return [padded[:, row : row + height, column : column + width] for row in range(KERNEL) for column in range(KERNEL)]


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    """[..., I], [..., O] -> [I, O], summed over all before."""
    return jnp.tensordot(a, b, axes=[[0, 1, 2]] * 2)


FORMULATIONS = {"gathered patches": gathered_patches, "nine taps": nine_taps, "columns by rows": columns_by_rows}
