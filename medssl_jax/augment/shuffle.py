"""Local pixel shuffling: hundreds of small windows, each with its pixels in random order (Models Genesis, Zhou et al. 2021).

The windows read the unshuffled image and later ones overwrite earlier ones, so a pixel's value depends only on the last window that
covers it. That window is found for all pixels at once, and its permutation is computed pixel by pixel, without a loop over windows.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from medssl_jax.augment.draw import fold, integers
from medssl_jax.errors import UserError

MIN_SIDE = 20  # below, the windows are single pixels
WRITES = 1.87  # mean writes a pixel in Genesis' 64 x 64 x 32 volumes, kept in 2D
ROUNDS = 16


def local_shuffle(keys: jax.Array, images: jax.Array, windows: int = 0) -> jax.Array:
    """Shuffle images [B, H, W, C] within `windows` windows with sides from 1 to d // 10; 0: as many as write a pixel 1.87 times.

    All channels move together. A window's permutation comes from 16 rounds of a swap-or-not network (Hoang, Morris, Rogaway 2012):
    always a permutation, close to uniform among all. Raises UserError below 20 px, where nothing would move.
    """
    height, width = images.shape[1:3]
    if min(height, width) < MIN_SIDE:
        raise UserError(
            f"local shuffling needs images of at least {MIN_SIDE} px, these have {min(height, width)}; "
            f"set shuffle_probability=0 or larger crops."
        )
    windows = windows or default_windows(height, width)
    return jax.vmap(lambda key, image: _shuffle(key, image, windows))(keys, images)


def default_windows(height: int, width: int) -> int:
    """1.87 H W / (mean window area): about 650 at 28 px, 710 at 224."""
    return round(WRITES * height * width * 4 / ((1 + height // 10) * (1 + width // 10)))


def _shuffle(key: jax.Array, image: jax.Array, windows: int) -> jax.Array:
    """One image [H, W, C]."""
    height, width, channels = image.shape
    sides, corners = zip(*(_intervals(jax.random.fold_in(key, axis), d, windows) for axis, d in enumerate((height, width))))
    last = _last_window(corners, sides, height, width)
    (top, left), (tall, wide) = (tuple(values[jnp.maximum(last, 0)] for values in pair) for pair in (corners, sides))
    y, x = jnp.arange(height)[:, None] - top, jnp.arange(width)[None, :] - left
    seed = jax.random.bits(jax.random.fold_in(key, 2), (windows,))[jnp.maximum(last, 0)]
    place = _permute(y * wide + x, tall * wide, seed)
    source = (top + place // wide) * width + left + place % wide
    untouched = jnp.arange(height * width).reshape(height, width)
    return image.reshape(-1, channels)[jnp.where(last < 0, untouched, source)]


def _intervals(key: jax.Array, length: int, windows: int) -> tuple[jax.Array, jax.Array]:
    """Sides and corners of the windows along an axis, int32 [windows] each."""
    keys = key[None]
    side = integers(fold(keys, 0), 1, length // 10, (windows,))
    return side[0], integers(fold(keys, 1), 0, length - side, (windows,))[0]


def _last_window(corners: tuple[jax.Array, ...], sides: tuple[jax.Array, ...], height: int, width: int) -> jax.Array:
    """The largest index of a window that covers each pixel, -1 for none: int32 [H, W].

    A window is the union of four overlapping rectangles with sides of powers of two; these are entered by their corner, one map a size,
    and every map is then pushed to the next smaller size, down to single pixels.
    """
    level = [31 - jax.lax.clz(side) for side in sides]
    places = [(corner, corner + side - (1 << k)) for corner, side, k in zip(corners, sides, level)]
    maps = jnp.full(((height // 10).bit_length(), (width // 10).bit_length(), height, width), -1)
    for y in places[0]:
        for x in places[1]:
            maps = maps.at[level[0], level[1], y, x].max(jnp.arange(len(y)))
    return _cover(_cover(maps))


def _cover(maps: jax.Array) -> jax.Array:
    """Marks of intervals of length 2^level, entered by their start on axis 1 of maps[level] -> the largest mark over each place."""
    top = maps[-1]
    for k in range(len(maps) - 1, 0, -1):
        top = jnp.maximum(maps[k - 1], jnp.maximum(top, jnp.roll(top, 1 << (k - 1), 1)))
    return top


def _permute(place: jax.Array, count: jax.Array, seed: jax.Array) -> jax.Array:
    """Swap-or-not: the image of `place` under a permutation of 0 .. count - 1 that `seed` determines, elementwise.

    Each round pairs i with (k - i) mod count and swaps the pair or not by a coin that both see.
    """

    def swap(number: jax.Array, place: jax.Array) -> jax.Array:
        """One round: `place`, or its partner where the coin of both says so."""
        offset = seed + 2 * number.astype(jnp.uint32)
        k = _below(_hash(offset + 1), count)
        partner = jnp.where(k >= place, k - place, k - place + count)
        coin = _hash(_hash(offset + 2) + jnp.maximum(place, partner).astype(jnp.uint32)) & 1
        return jnp.where(coin == 1, partner, place)

    # A loop, not unrolled: XLA would fuse the rounds into each of their users and compute them several times over.
    return jax.lax.fori_loop(0, ROUNDS, swap, place)


def _below(bits: jax.Array, count: jax.Array) -> jax.Array:
    """Uniform bits -> a uniform integer in 0 .. count - 1."""
    share = (bits >> 8).astype(jnp.float32) * 2.0**-24
    return jnp.minimum((share * count).astype(jnp.int32), count - 1)


def _hash(x: jax.Array) -> jax.Array:
    """A bijection of uint32 whose every output bit depends on every input bit (two multiplications, three shifts)."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)
