"""The augmentations of TOWER, SimCLR and BYOL once more, in PyTorch: batched, on tensors [B, C, H, W] in [0, 1].

What is drawn is drawn on the device of the images.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from medssl_jax.augment import Proxy, Recipe
from medssl_jax.augment.curves import FIXED
from medssl_jax.augment.masks import default_cells
from medssl_jax.errors import UserError

CURVE_POINTS = 1001  # of a tabulated tone curve
CURVES = FIXED.tolist()


def check_recipe(r: Recipe) -> None:
    """Raises UserError for a recipe with other steps."""
    if r.stain or r.saturation or r.hue or r.grayscale or r.rotation or not (r.quarter_turns and r.horizontal and r.vertical):
        raise UserError("the PyTorch twin has the steps of two recipes only; set --config.views.modality=brightfield or fluorescence.")


def check_proxy(p: Proxy) -> None:
    """Raises UserError for a proxy with other corruptions."""
    if p.curve == "none" or p.mask not in ("none", "block") or p.shuffle_probability or p.paint_probability or p.warp_probability:
        raise UserError("the PyTorch twin has TOWER's proxy only: a tone curve, then the block mask or none; set config.method.proxy so.")


def geometric(x: Tensor, recipe: Recipe) -> Tensor:
    """Random crop, resized, turned and mirrored: [B, C, H, W] -> [B, C, S, S]."""
    boxes = sample_boxes(x, recipe)
    return dihedral(crop_and_resize(x, boxes, recipe.size), torch.randint(8, (len(x),), device=x.device))


def sample_boxes(x: Tensor, recipe: Recipe) -> Tensor:
    """(y0, x0, height, width) [B, 4] for images [B, C, H, W], area and aspect ratio as the recipe has them."""
    height, width = x.shape[2:]
    stretch, down, across = torch.rand(3, len(x), device=x.device)
    area = _between(x, *recipe.scale).flatten() * (height * width)
    low, high = (torch.clamp(torch.full_like(area, r), area / height**2, width**2 / area).log() for r in recipe.ratio)
    shape = torch.exp(low + stretch * (high - low))
    h, w = (area / shape).sqrt().clamp(max=height), (area * shape).sqrt().clamp(max=width)
    return torch.stack([down * (height - h), across * (width - w), h, w], 1)


def crop_and_resize(x: Tensor, boxes: Tensor, size: int) -> Tensor:
    """The boxes, resized with an antialiased triangle filter: two batched matrix products."""
    rows, columns = _weights(boxes, 0, x.shape[2], size), _weights(boxes, 1, x.shape[3], size)
    return rows[:, None] @ x @ columns[:, None].transpose(2, 3)


def _weights(boxes: Tensor, axis: int, length: int, size: int) -> Tensor:
    stride = (boxes[:, axis + 2] / size)[:, None, None]
    centre = boxes[:, axis, None, None] + (torch.arange(size, device=boxes.device)[None, :, None] + 0.5) * stride
    distance = (centre - 0.5 - torch.arange(length, device=boxes.device)[None, None, :]).abs() / stride.clamp(min=1)
    weight = (1 - distance).clamp(min=0)
    return weight / weight.sum(2, keepdim=True)


def dihedral(x: Tensor, pose: Tensor) -> Tensor:
    """Quarter turns pose % 4, then mirrored left and right for pose >= 4; pose [B]."""
    turns, mirrored = (pose % 4)[:, None, None, None], (pose >= 4)[:, None, None, None]
    x = torch.where(turns % 2 == 1, x.transpose(2, 3), x)
    x = torch.where((turns == 1) | (turns == 2), x.flip(2), x)
    return torch.where((turns >= 2) ^ mirrored, x.flip(3), x)


def photometric(x: Tensor, r: Recipe) -> Tensor:
    """Brightness, contrast, gamma, gain of the channels, blur and noise, each for its share of the images."""
    x = _some(x, r.jitter_probability, x + _between(x, -r.brightness, r.brightness))
    mean = x.mean((2, 3), keepdim=True)
    x = _some(x, r.jitter_probability, mean + (x - mean) * _between(x, 1 - r.contrast, 1 + r.contrast))
    x = _some(x, r.jitter_probability, x ** _between(x, -r.gamma, r.gamma).exp())
    if r.gain:
        x = _some(x, r.jitter_probability, x * _between(x, 1 - r.gain, 1 + r.gain, x.shape[1]))
    x = _some(x, r.blur_probability, blur(x, _between(x, *r.blur)))
    return _some(x, r.noise_probability, x + _between(x, 0, r.noise) * torch.randn_like(x))


def _between(x: Tensor, low: float, high: float, channels: int = 1) -> Tensor:
    return low + (high - low) * torch.rand(len(x), channels, 1, 1, device=x.device)


def _some(x: Tensor, probability: float, changed: Tensor) -> Tensor:
    return torch.where(torch.rand(len(x), 1, 1, 1, device=x.device) < probability, changed.clamp(0, 1), x)


def blur(x: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian of sigma [B, 1, 1, 1] pixels, as two products with banded matrices."""

    def kernel(length: int) -> Tensor:
        place = torch.arange(length, device=x.device)
        weight = torch.exp(-0.5 * ((place[:, None] - place) / sigma.clamp(min=1e-3)) ** 2)
        return weight / weight.sum(3, keepdim=True)

    return kernel(x.shape[2]) @ x @ kernel(x.shape[3]).transpose(2, 3)


def corrupt(x: Tensor, proxy: Proxy) -> Tensor:
    """TOWER's corruption: a fixed or random tone curve, then, with mask="block", blocks set to zero."""
    chosen = torch.randint(len(CURVES), (len(x),), device=x.device)
    inner = torch.tensor(CURVES, device=x.device)[chosen] if proxy.curve == "fixed" else torch.rand(len(x), 2, 2, device=x.device)
    curved = tone_curve(x, inner, torch.rand(len(x), device=x.device) < proxy.inversion_probability)
    if proxy.curve_probability < 1:
        curved = _some(x, proxy.curve_probability, curved)
    return curved if proxy.mask == "none" else block_mask(curved, proxy.zero_fraction, proxy.mask_cells)


def tone_curve(x: Tensor, inner: Tensor, decreasing: Tensor) -> Tensor:
    """Cubic Bezier curves with inner points [B, 2, (x, y)], tabulated and interpolated; decreasing bool [B]."""
    s = torch.linspace(0, 1, CURVE_POINTS, device=x.device)[None, :, None]
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
    keep = torch.rand(len(x), cells**2, device=x.device).argsort(1) >= round(zero_fraction * cells**2)
    return x * F.interpolate(keep.reshape(-1, 1, cells, cells).float(), size=x.shape[2:], mode="nearest")
