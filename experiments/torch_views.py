"""The augmentations of TOWER and SimCLR once more, in PyTorch: batched, on tensors [B, C, H, W] in [0, 1]."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from medssl_jax.augment import Proxy, Recipe
from medssl_jax.augment.curves import FIXED
from medssl_jax.augment.masks import default_cells
from medssl_jax.errors import UserError

CURVE_POINTS = 1001  # of a tabulated tone curve


def geometric(x: Tensor, recipe: Recipe) -> Tensor:
    """Random crop, resized, turned and mirrored: [B, C, H, W] -> [B, C, S, S]."""
    boxes = sample_boxes(len(x), x.shape[2], x.shape[3], recipe)
    return dihedral(crop_and_resize(x, boxes, recipe.size), torch.randint(8, (len(x),)))


def sample_boxes(count: int, height: int, width: int, recipe: Recipe) -> Tensor:
    """(y0, x0, height, width) [B, 4], area and aspect ratio as the recipe has them."""
    area = torch.empty(count).uniform_(*recipe.scale) * (height * width)
    low, high = (torch.clamp(torch.full_like(area, r), area / height**2, width**2 / area).log() for r in recipe.ratio)
    shape = torch.exp(low + torch.rand(count) * (high - low))
    h, w = (area / shape).sqrt().clamp(max=height), (area * shape).sqrt().clamp(max=width)
    return torch.stack([torch.rand(count) * (height - h), torch.rand(count) * (width - w), h, w], 1)


def crop_and_resize(x: Tensor, boxes: Tensor, size: int) -> Tensor:
    """The boxes, resized with an antialiased triangle filter: two batched matrix products."""
    rows, columns = _weights(boxes, 0, x.shape[2], size), _weights(boxes, 1, x.shape[3], size)
    return rows[:, None] @ x @ columns[:, None].transpose(2, 3)


def _weights(boxes: Tensor, axis: int, length: int, size: int) -> Tensor:
    stride = (boxes[:, axis + 2] / size)[:, None, None]
    centre = boxes[:, axis, None, None] + (torch.arange(size)[None, :, None] + 0.5) * stride
    distance = (centre - 0.5 - torch.arange(length)[None, None, :]).abs() / stride.clamp(min=1)
    weight = (1 - distance).clamp(min=0)
    return weight / weight.sum(2, keepdim=True)


def dihedral(x: Tensor, pose: Tensor) -> Tensor:
    """Quarter turns pose % 4, then mirrored left and right for pose >= 4; pose [B]."""
    turns, mirrored = (pose % 4)[:, None, None, None], (pose >= 4)[:, None, None, None]
    x = torch.where(turns % 2 == 1, x.transpose(2, 3), x)
    x = torch.where((turns == 1) | (turns == 2), x.flip(2), x)
    return torch.where((turns >= 2) ^ mirrored, x.flip(3), x)


def photometric(x: Tensor, r: Recipe) -> Tensor:
    """Brightness, contrast, gamma, blur and noise, each for its share of the images. Raises UserError for recipes of colour."""
    if r.stain or r.saturation or r.hue or r.grayscale or r.gain or r.rotation:
        raise UserError("the PyTorch twin has the steps of the brightfield recipe only; set --config.views.modality=brightfield.")
    x = _some(x, r.jitter_probability, x + _between(x, -r.brightness, r.brightness))
    mean = x.mean((2, 3), keepdim=True)
    x = _some(x, r.jitter_probability, mean + (x - mean) * _between(x, 1 - r.contrast, 1 + r.contrast))
    x = _some(x, r.jitter_probability, x ** _between(x, -r.gamma, r.gamma).exp())
    x = _some(x, r.blur_probability, blur(x, _between(x, *r.blur)))
    return _some(x, r.noise_probability, x + _between(x, 0, r.noise) * torch.randn_like(x))


def _between(x: Tensor, low: float, high: float) -> Tensor:
    return torch.empty(len(x), 1, 1, 1).uniform_(low, high)


def _some(x: Tensor, probability: float, changed: Tensor) -> Tensor:
    return torch.where(torch.rand(len(x), 1, 1, 1) < probability, changed.clamp(0, 1), x)


def blur(x: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian of sigma [B, 1, 1, 1] pixels, as two products with banded matrices."""

    def kernel(length: int) -> Tensor:
        place = torch.arange(length)
        weight = torch.exp(-0.5 * ((place[:, None] - place) / sigma.clamp(min=1e-3)) ** 2)
        return weight / weight.sum(3, keepdim=True)

    return kernel(x.shape[2]) @ x @ kernel(x.shape[3]).transpose(2, 3)


def corrupt(x: Tensor, proxy: Proxy) -> Tensor:
    """TOWER's corruption: a fixed or random tone curve, then blocks set to zero. Raises UserError for other proxies."""
    if proxy.curve == "none" or proxy.mask != "block" or proxy.shuffle_probability or proxy.paint_probability or proxy.warp_probability:
        raise UserError("the PyTorch twin has TOWER's proxy only: a tone curve, then the block mask; set config.method.proxy so.")
    count = len(x)
    inner = torch.from_numpy(FIXED)[torch.randint(len(FIXED), (count,))] if proxy.curve == "fixed" else torch.rand(count, 2, 2)
    curved = tone_curve(x, inner, torch.rand(count) < proxy.inversion_probability)
    if proxy.curve_probability < 1:
        curved = torch.where(torch.rand(count, 1, 1, 1) < proxy.curve_probability, curved, x)
    return block_mask(curved, proxy.zero_fraction, proxy.mask_cells)


def tone_curve(x: Tensor, inner: Tensor, decreasing: Tensor) -> Tensor:
    """Cubic Bezier curves with inner points [B, 2, (x, y)], tabulated and interpolated; decreasing bool [B]."""
    s = torch.linspace(0, 1, CURVE_POINTS)[None, :, None]
    table = 3 * inner[:, :1] * s * (1 - s) ** 2 + 3 * inner[:, 1:] * s**2 * (1 - s) + s**3
    level, value = table[..., 0].contiguous(), table[..., 1]
    value = torch.where(decreasing[:, None], value.flip(1), value)
    flat = x.reshape(len(x), -1)
    right = torch.searchsorted(level, flat).clamp(1, CURVE_POINTS - 1)
    low, high = level.gather(1, right - 1), level.gather(1, right)
    share = ((flat - low) / (high - low).clamp(min=1e-9)).clamp(0, 1)
    return torch.lerp(value.gather(1, right - 1), value.gather(1, right), share).reshape(x.shape)


def block_mask(x: Tensor, zero_fraction: float, cells: int) -> Tensor:
    """Zeroes round(zero_fraction * cells^2) cells of a grid, in all channels."""
    cells = cells or default_cells(*x.shape[2:])
    keep = torch.rand(len(x), cells**2).argsort(1) >= round(zero_fraction * cells**2)
    return x * F.interpolate(keep.reshape(-1, 1, cells, cells).float(), size=x.shape[2:], mode="nearest")
