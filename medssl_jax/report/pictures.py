"""Pictures made of arrays: corrupted and restored crops, outlines on test images. Any number of channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from skimage.measure import find_contours

from medssl_jax.evaluate.metrics import dice
from medssl_jax.report.words import arm

TRUTH, PREDICTION = "#56B4E9", "#E69F00"
DPI = 110
WIDTH = 10.0  # inches of a full page


def displayable(image: np.ndarray, like: np.ndarray | None = None) -> np.ndarray:
    """An image of any kind as RGB in [0, 1].

    uint8 and floats within [0, 1] keep their values; anything else is scaled from its 0.1 to its 99.9 percentile, channel by
    channel. One channel is gray, two are red and green, and of more than three the first three are shown.

    Args:
      image: uint8, uint16 or float [H, W] or [H, W, C].
      like: the image whose range decides the scale, so that pictures side by side can be compared; the image itself if None.

    Returns:
      float32 [H, W, 3].
    """
    image, like = _three_axes(image), _three_axes(image if like is None else like)
    low, high = _range(like)
    scaled = np.clip((image.astype(np.float32) - low) / np.maximum(high - low, 1e-12), 0, 1)[..., :3]
    if scaled.shape[-1] == 1:
        return np.repeat(scaled, 3, axis=-1)
    return np.pad(scaled, ((0, 0), (0, 0), (0, 3 - scaled.shape[-1])))


def triplets(path: Path, clean: Sequence[np.ndarray], corrupted: Sequence[np.ndarray], restored: Sequence[np.ndarray]) -> Path:
    """Three rows, clean above corrupted above restored, a column an image, each column on the clean image's intensity scale.

    Args:
      path: the PNG to write.
      clean: N images [H, W, C]; corrupted, restored: the same.
    """
    figure, axes = _grid(3, len(clean), np.shape(clean[0]), label=0.9)
    for row, (name, images) in enumerate({"clean": clean, "corrupted": corrupted, "restored": restored}.items()):
        for column, image in enumerate(images):
            axes[row, column].imshow(displayable(image, clean[column]), interpolation="nearest")
        axes[row, 0].set_ylabel(name, fontsize=11)
    return _save(figure, path)


def places(path: Path, images: Sequence[np.ndarray], clusters: Sequence[np.ndarray], similarity: Sequence[np.ndarray]) -> Path:
    """Three rows, images above the cluster of every pixel above its likeness to the middle of the first image (marked), a column an image.

    Args:
      path: the PNG to write.
      images: N images [H, W, C]; clusters: int [H, W]; similarity: cosines [H, W].
    """
    figure, axes = _grid(3, len(images), np.shape(images[0]), label=0.9)
    for column, (image, found, likeness) in enumerate(zip(images, clusters, similarity, strict=True)):
        axes[0, column].imshow(displayable(image), interpolation="nearest")
        axes[1, column].imshow(found, cmap="tab20", vmin=0, vmax=19, interpolation="nearest")
        axes[2, column].imshow(likeness, cmap="magma", vmin=-0.2, vmax=1, interpolation="nearest")
    for row, name in enumerate(("image", "cluster", "likeness")):
        axes[row, 0].set_ylabel(name, fontsize=11)
        axes[row, 0].plot(images[0].shape[1] // 2, images[0].shape[0] // 2, "+", color=PREDICTION, markersize=12, mew=2)
    return _save(figure, path)


def guided(
    path: Path, images: Sequence[np.ndarray], maps: Sequence[np.ndarray], masks: Sequence[np.ndarray], shapes: Sequence[np.ndarray]
) -> Path:
    """Four rows: images, the guided cluster's share of every pixel, what is marked in the end, and reference shapes; a column an image.

    Args:
      path: the PNG to write.
      images: N images [H, W, C]; maps: [H, W] in [0, 1]; masks: int [H, W].
      shapes: N reference masks [h, w], of no particular image.
    """
    figure, axes = _grid(4, len(images), np.shape(images[0]), label=0.9)
    for column, rows in enumerate(zip(map(displayable, images), maps, masks, shapes, strict=True)):
        for row, shown in enumerate(rows):
            axes[row, column].imshow(shown, cmap="gray", vmin=0, vmax=np.max(shown) if row == 3 else 1, interpolation="nearest")
    for row, name in enumerate(("image", "guided cluster", "marked", "references")):
        axes[row, 0].set_ylabel(name, fontsize=11)
    return _save(figure, path)


def overlays(path: Path, panels: Sequence[tuple[str, np.ndarray, tuple[float, float], np.ndarray | None]]) -> Path:
    """Images with a place (x, y) marked on each, above the likeness of all their places (where it is given), a column an image.

    Args:
      path: the PNG to write.
      panels: title, image [H, W, C], place in its pixels, likeness [H, W] or None.
    """
    figure, axes = _grid(2, len(panels), np.shape(panels[0][1]), label=0.1, title=0.3)
    for column, (title, image, (x, y), likeness) in enumerate(panels):
        axes[0, column].imshow(displayable(image), interpolation="nearest")
        axes[0, column].plot(x, y, "+", color=PREDICTION, markersize=12, mew=2)
        axes[0, column].set_title(_short(title), fontsize=8, parse_math=False)
        if likeness is not None:
            axes[1, column].imshow(likeness, cmap="magma", vmin=-0.2, vmax=1, interpolation="nearest")
    return _save(figure, path)


def outlines(
    path: Path,
    images: Sequence[np.ndarray],
    truths: Sequence[np.ndarray],
    predictions_by_init: Mapping[str, Sequence[np.ndarray]],
    titles: Sequence[str],
) -> Path:
    """Test images beside the same with the outlines of the truth and of each arm's prediction, and the image's Dice.

    A row an image; wide images take a row for two panels, so that the outlines stay visible.

    Args:
      path: the PNG to write.
      images: N images [H, W, C], sizes may differ.
      truths: N masks int [H, W], 0 the background; every class is outlined.
      predictions_by_init: {"random": N masks, "tower": N masks, ...}.
      titles: N names.
    """
    panels = [(_short(title), image, truth, None) for title, image, truth in zip(titles, images, truths)]
    shown = [panel for i, first in enumerate(panels) for panel in (first, *_predicted(i, images, truths, predictions_by_init))]
    wide = np.shape(images[0])[1] > 1.5 * np.shape(images[0])[0]
    each = 1 + len(predictions_by_init)
    columns = min(2, each) if wide else each
    rows = -(-each // columns)
    figure, axes = _grid(rows * len(images), columns, np.shape(images[0]), label=0.0, title=0.42)
    places = axes.reshape(len(images), rows * columns)
    for axis, panel in zip(places[:, :each].ravel(), shown):
        _panel(axis, *panel)
    for axis in places[:, each:].ravel():
        axis.set_visible(False)
    lines = [Line2D([], [], color=colour, lw=2, label=name) for colour, name in ((TRUTH, "label"), (PREDICTION, "prediction"))]
    figure.legend(handles=lines, loc="outside upper left", ncols=2, frameon=False)
    return _save(figure, path)


def _three_axes(image: np.ndarray) -> np.ndarray:
    image = np.asarray(image)
    return image[..., None] if image.ndim == 2 else image


def _range(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values [C] that become black and white."""
    channels = np.ones(image.shape[-1], np.float32)
    if image.dtype == np.uint8:
        return 0 * channels, 255 * channels
    if np.issubdtype(image.dtype, np.floating) and image.min() >= 0 and image.max() <= 1:
        return 0 * channels, channels
    low, high = np.percentile(image.astype(np.float32), [0.1, 99.9], axis=(0, 1))
    return low, high


def _predicted(
    i: int, images: Sequence[np.ndarray], truths: Sequence[np.ndarray], predictions: Mapping[str, Sequence[np.ndarray]]
) -> list[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    """Title with Dice, image, truth and prediction of image i, for every arm."""
    found = []
    for init, masks in predictions.items():
        classes = int(max(2, np.max(truths[i]) + 1, np.max(masks[i]) + 1))
        found.append((f"{arm(init)}\nDice {dice(masks[i], truths[i], classes):.2f}", images[i], truths[i], masks[i]))
    return found


def _panel(axis: Any, title: str, image: np.ndarray, truth: np.ndarray, prediction: np.ndarray | None) -> None:
    axis.imshow(displayable(image), interpolation="nearest")
    axis.set_title(title, fontsize=9, parse_math=False)
    if prediction is not None:
        _outline(axis, np.asarray(truth), TRUTH)
        _outline(axis, np.asarray(prediction), PREDICTION)


def _outline(axis: Any, mask: np.ndarray, colour: str) -> None:
    """The borders of every class above 0; the frame of zeros closes those that touch the image's edge. All lines are one artist: a
    network that has learned little outlines thousands of specks."""
    for value in np.unique(mask[mask > 0]):
        lines = find_contours(np.pad(mask == value, 1).astype(np.float32), 0.5)
        axis.add_collection(LineCollection([line[:, ::-1] - 1 for line in lines], colors=colour, linewidths=1.3), autolim=False)
    axis.set_xlim(-0.5, mask.shape[1] - 0.5)
    axis.set_ylim(mask.shape[0] - 0.5, -0.5)


def _short(title: str, longest: int = 30) -> str:
    return title if len(title) <= longest else f"…{title[1 - longest :]}"


def _grid(rows: int, columns: int, shape: tuple[int, ...], label: float, title: float = 0.05) -> tuple[Figure, Any]:
    """Axes without ticks that fill a page's width, as high as images of `shape` need; a few images stay small."""
    cell = min((WIDTH - label) / columns, 4.5)
    height = rows * (cell * shape[0] / shape[1] + title) + 0.4
    figure = Figure(figsize=(cell * columns + label, height), dpi=DPI, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.ravel():
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_visible(False)
    return figure, axes


def _save(figure: Figure, path: Path) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path
