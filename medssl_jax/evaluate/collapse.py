"""The collapse panel: does the network still give different features to different images?"""

from __future__ import annotations

import numpy as np

# Pooled outputs of a ReLU are all positive, so that two images have a cosine near 0.9 before and after a healthy training: stricter
# limits (0.3 and 0.9, as for projections on the whole sphere) would cry wolf.
SMALLEST_SPREAD = 0.1
LARGEST_COSINE = 0.99
SMALLEST_RANK = 0.05  # of the largest rank possible, min(N, D)
FEWEST_DIRECTIONS = 0.2  # of a decoded map's channels (experiments/README.md, "How the default recipe was chosen")


def collapse_panel(features: np.ndarray) -> dict[str, float]:
    """Four readings of the features' spread; no single one sees every collapse.

    All are of the unit vectors z = x / |x|:
      std_sqrt_d: standard deviation over images, mean over dimensions, times sqrt(D); 1 on a full sphere, 0 collapsed.
      mean_cosine: (|sum z|^2 - N) / (N (N - 1)); 0 on a full sphere, 1 collapsed.
      effective_rank: exp(entropy of s / sum s) with the singular values s (Roy & Vetterli 2007; Garrido et al. 2023,
        "RankMe"). Not centred: centring a collapsed cloud would measure the rank of its noise.
      uniformity: log of the mean of exp(-2 |zi - zj|^2) over pairs (Wang & Isola 2020, section 4.1); 0 collapsed.
      n: number of images, the ceiling of the rank.

    Args:
      features: float [N, D], N >= 2, one row an image; 512 or more held-out images make a steady reading.

    Returns:
      The readings; NaN where the features are not finite.
    """
    features = np.asarray(features, np.float64)
    n, d = features.shape
    if not np.isfinite(features).all():
        return dict.fromkeys(("std_sqrt_d", "mean_cosine", "effective_rank", "uniformity"), float("nan")) | {"n": float(n)}
    z = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    return {
        "std_sqrt_d": float(z.std(axis=0).mean() * np.sqrt(d)),
        "mean_cosine": float((np.sum(z.sum(axis=0) ** 2) - np.sum(z**2)) / (n * (n - 1))),
        "effective_rank": _effective_rank(z),
        "uniformity": _uniformity(z),
        "n": float(n),
    }


def collapse_warning(panel: dict[str, float], dim: int) -> str | None:
    """One sentence on what is wrong with the features and what to do, or None where nothing is.

    Args:
      panel: of `collapse_panel`.
      dim: D, the length of a feature vector.
    """
    if any(np.isnan(value) for value in panel.values()):
        return "The features are not finite: lower config.pretrain.optimizer.learning_rate or set config.pretrain.optimizer.clip=1.0."
    findings = list(_findings(panel, dim))
    if not findings:
        return None
    return (
        f"The features are collapsing ({'; '.join(findings)}): lower config.pretrain.optimizer.learning_rate or lengthen its warmup, "
        "raise config.pretrain.batch, and check with inspect_data that the views of two different images still look different."
    )


def directions(vectors: np.ndarray) -> float:
    """How many directions the rows vary in, each column at variance 1: exp(entropy of the shares of their correlations' eigenvalues).
    1 where all columns are copies of one, D where none tells anything of another; columns that do not vary count for nothing, and
    where none varies it is 0. NaN where they are not finite.

    Args:
      vectors: float [N, D], one row a pixel.
    """
    vectors = np.asarray(vectors, np.float64)
    if not np.isfinite(vectors).all():
        return float("nan")
    centred = vectors - vectors.mean(axis=0)
    deviation = centred.std(axis=0)
    varying = centred[:, deviation > 1e-6 * np.abs(vectors).max(initial=1e-12)]
    if not varying.shape[1]:
        return 0.0
    standard = varying / varying.std(axis=0)
    return _entropy_of_shares(np.linalg.eigvalsh(standard.T @ standard))


def _findings(panel: dict[str, float], dim: int) -> list[str]:
    ceiling = min(dim, panel["n"])
    found = []
    if panel["std_sqrt_d"] < SMALLEST_SPREAD:
        found.append(f"their spread std*sqrt(d) is {panel['std_sqrt_d']:.4g}, healthy is above {SMALLEST_SPREAD}")
    if panel["mean_cosine"] > LARGEST_COSINE:
        found.append(f"two images have a mean cosine of {panel['mean_cosine']:.4g}, healthy is below {LARGEST_COSINE}")
    if panel["effective_rank"] < SMALLEST_RANK * ceiling:
        found.append(f"they use {panel['effective_rank']:.1f} of {ceiling:.0f} directions, healthy is above {SMALLEST_RANK * ceiling:.1f}")
    return found


def _effective_rank(z: np.ndarray) -> float:
    return _entropy_of_shares(np.linalg.svd(z, compute_uv=False))


def _entropy_of_shares(values: np.ndarray) -> float:
    values = values[values > 0]
    if not len(values):
        return 0.0
    share = values / values.sum()
    return float(np.exp(-np.sum(share * np.log(share))))


def _uniformity(z: np.ndarray) -> float:
    """In blocks of rows: memory is O(N), not O(N^2)."""
    n, total = len(z), 0.0
    squares = np.sum(z**2, axis=1)
    for start in range(0, n, 1024):
        block = slice(start, start + 1024)
        distance = np.maximum(squares[block, None] + squares[None] - 2 * z[block] @ z.T, 0.0)
        total += float(np.exp(-2 * distance).sum())
    return float(np.log((total - n) / (n * (n - 1))))  # minus n: an image is no pair with itself
