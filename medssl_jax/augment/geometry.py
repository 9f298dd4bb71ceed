"""Where the pixels of a view come from: crops, flips, rotations, and the coordinates that carry a pixel from one view to another.

Coordinates are in pixels with y down, and pixel i covers [i, i + 1), so its centre is i + 0.5. A box is (y0, x0, height, width).
Output pixel i of a crop to `size` has the source coordinate y0 + (i + 0.5) * height / size.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from medssl_jax.augment.draw import flags, fold, integers, spread, uniform
from medssl_jax.augment.resample import sample_linear, sample_nearest
from medssl_jax.errors import UserError

Range = tuple[float, float]


def to_unit(images: jax.Array) -> jax.Array:
    """uint8 | uint16 -> float32 in [0, 1], by the largest value of the type. Raises UserError for other types."""
    if images.dtype not in (jnp.uint8, jnp.uint16):
        raise UserError(f"images come as uint8 or uint16, not {images.dtype}; scale them to one of these in the data source.")
    return images.astype(jnp.float32) / jnp.iinfo(images.dtype).max


def sample_boxes(keys: jax.Array, height: int, width: int, scale: Range, ratio: Range) -> jax.Array:
    """Random boxes float32 [B, 4]: the share of the image's area uniform in `scale`, log(width / height) uniform in log(`ratio`).

    The ratio is limited to what fits into the image, so the area is always as drawn (Inception's crop, without its retries).
    Raises UserError for ranges that are empty or out of bounds.
    """
    if not 0 < scale[0] <= scale[1] <= 1:
        raise UserError(f"crop scale={scale!r} is not a rising pair of shares of the image's area above 0 and up to 1.")
    if not 0 < ratio[0] <= ratio[1]:
        raise UserError(f"crop ratio={ratio!r} is not a rising pair of ratios (width / height) above 0.")
    area = uniform(fold(keys, 0), *scale) * (height * width)
    low, high = (jnp.log(jnp.clip(r, area / height**2, width**2 / area)) for r in ratio)
    shape = jnp.exp(low + uniform(fold(keys, 1), 0.0, 1.0) * (high - low))
    h, w = jnp.minimum(jnp.sqrt(area / shape), height), jnp.minimum(jnp.sqrt(area * shape), width)
    corner = uniform(fold(keys, 2), 0.0, 1.0, (2,))
    return jnp.stack([corner[:, 0] * (height - h), corner[:, 1] * (width - w), h, w], axis=1)


def crop_and_resize(images: jax.Array, boxes: jax.Array, size: int) -> jax.Array:
    """[B, H, W, C] -> [B, size, size, C]: the boxes, linearly interpolated and antialiased; two matrix products an image.

    Where it shrinks, the filter sees the pixels around the box, as an image cropped after resizing would.
    """

    def crop(image: jax.Array, box: jax.Array) -> jax.Array:
        """One image, one box: the scale and the shift that bring the box to the corners of the output."""
        scale = size / box[2:]
        shape = (size, size, image.shape[-1])
        return jax.image.scale_and_translate(image, shape, (0, 1), scale, -box[:2] * scale, "linear", antialias=True)

    return jax.vmap(crop)(images, boxes)


def crop_labels(masks: jax.Array, boxes: jax.Array, size: int) -> jax.Array:
    """int [B, H, W] -> [B, size, size]: the label of the pixel under the centre of each output pixel."""
    rows, columns = (_centres(boxes, axis, size) for axis in (0, 1))
    rows, columns = (_index(c, length) for c, length in ((rows, masks.shape[1]), (columns, masks.shape[2])))
    return jax.vmap(lambda mask, row, column: mask[row[:, None], column[None, :]])(masks, rows, columns)


def random_resized_crop(keys: jax.Array, images: jax.Array, size: int, scale: Range, ratio: Range) -> tuple[jax.Array, jax.Array]:
    """[B, H, W, C] -> crops [B, size, size, C] and their boxes [B, 4]; see `sample_boxes` and `crop_and_resize`."""
    boxes = sample_boxes(keys, images.shape[1], images.shape[2], scale, ratio)
    return crop_and_resize(images, boxes, size), boxes


def dihedral(images: jax.Array, pose: jax.Array) -> jax.Array:
    """Turn by 90 degrees counterclockwise `pose % 4` times, then, for pose >= 4, mirror left and right; pose int32 [B] in 0..7.

    Takes square images [B, S, S, C] or masks [B, S, S]; raises UserError for others.
    """
    if images.shape[1] != images.shape[2]:
        raise UserError(f"quarter turns need square images, not {images.shape[1]} x {images.shape[2]}; crop them to squares first.")
    turns = spread(pose % 4, images.ndim)
    out = jnp.where(turns % 2 == 1, jnp.swapaxes(images, 1, 2), images)
    out = jnp.where((turns == 1) | (turns == 2), out[:, ::-1], out)
    return jnp.where((turns >= 2) ^ spread(pose >= 4, images.ndim), out[:, :, ::-1], out)


def inverse_pose(pose: jax.Array) -> jax.Array:
    """The pose that undoes `pose`: turns go back, a mirrored pose is its own inverse."""
    return jnp.where(pose < 4, (4 - pose) % 4, pose)


def random_pose(keys: jax.Array, *, rotate: bool = True, horizontal: bool = True, vertical: bool = True) -> jax.Array:
    """Poses int32 [B], uniform over those that the allowed quarter turns, left-right and up-down mirrors reach."""
    zeros = jnp.zeros(keys.shape, jnp.int32)
    turns = integers(fold(keys, 0), 0, 3) if rotate else zeros
    across = flags(fold(keys, 1), 0.5).astype(jnp.int32) if horizontal else zeros
    upright = flags(fold(keys, 2), 0.5).astype(jnp.int32) if vertical else zeros
    # Mirroring up and down is half a turn and a mirror left and right; half turns commute with mirrors.
    return (turns + 2 * upright) % 4 + 4 * ((across + upright) % 2)


def rotate(images: jax.Array, degrees: jax.Array) -> jax.Array:
    """[B, H, W, C] turned counterclockwise about the centre by degrees [B]; bilinear, mirrored at the border."""
    return sample_linear(images, _turned(degrees, images.shape[1], images.shape[2]))


def rotate_labels(masks: jax.Array, degrees: jax.Array) -> jax.Array:
    """The same for int masks [B, H, W], by the nearest pixel."""
    return sample_nearest(masks, _turned(degrees, masks.shape[1], masks.shape[2]))


def source_coordinates(boxes: jax.Array, pose: jax.Array, size: int) -> jax.Array:
    """Where the pixel centres of a crop to `size` in a pose lie in the source image: (y, x) in pixels, float32 [B, size, size, 2]."""
    shape = (boxes.shape[0], size, size)
    y = jnp.broadcast_to(_centres(boxes, 0, size)[:, :, None], shape)
    x = jnp.broadcast_to(_centres(boxes, 1, size)[:, None, :], shape)
    return dihedral(jnp.stack([y, x], axis=-1), pose)


def _centres(boxes: jax.Array, axis: int, size: int) -> jax.Array:
    """Source coordinates of the output's pixel centres along an axis, [B, size]."""
    share = (jnp.arange(size) + 0.5) / size
    return boxes[:, axis, None] + share[None] * boxes[:, axis + 2, None]


def _index(coordinates: jax.Array, length: int) -> jax.Array:
    return jnp.clip(jnp.floor(coordinates).astype(jnp.int32), 0, length - 1)


def _turned(degrees: jax.Array, height: int, width: int) -> jax.Array:
    """Source coordinates [B, H, W, 2] of an image turned about its centre."""
    y = jnp.arange(height)[None, :, None] + (0.5 - height / 2)
    x = jnp.arange(width)[None, None, :] + (0.5 - width / 2)
    angle = spread(jnp.deg2rad(degrees), 3)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return jnp.stack([cos * y + sin * x + height / 2, cos * x - sin * y + width / 2], axis=-1)
