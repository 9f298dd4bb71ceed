"""Losses of places within images: patches, regions and clusters (Local Discrimination, arXiv 2012.09333 and 2108.09440).

Vectors lie along the last axis and may have any length; N patches, K clusters, D dimensions. float32 inside.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from medssl_jax.losses.contrastive import unit

SMALLEST = 1e-7  # of 1 - P, before its logarithm
NOISE = 1e-3  # variance of a neighbourhood, in units of the image's range, that is no contrast
THIN = 1e-3  # share of a neighbourhood below which a phase has no mean worth the name
EMPTY = 1e-30  # of a probability, before its logarithm


def patch_discrimination(vectors: jax.Array, temperature: float, ignored: jax.Array | None = None) -> jax.Array:
    """Rows i and (i + N/2) mod N are one place, all others are other places (L_PD; the instance features of arXiv 1904.03436).

    P(j|i) = exp(u_i . u'_j / t) / sum of the same over k != i; the mean over i of -log P(i+|i) - sum over j not in {i, i+} of
    log(1 - P(j|i)). u' carries no gradient, as published: it flows through the first factor alone.

    Args:
      vectors: [N, D], N even. For mixup [u(x3); t], t the mixed vectors without gradient.
      temperature: t.
      ignored: bool [N, N], pairs (i, j) left out of both sums; a row's positive is never left out.
    """
    count = len(vectors)
    u = unit(vectors)
    positive = jnp.roll(jnp.eye(count, dtype=bool), count // 2, axis=1)
    out = jnp.eye(count, dtype=bool)
    out = out if ignored is None else (out | ignored) & ~positive
    # float32 throughout: an accelerator's default would round the cosines to about 1e-3, and the temperature divides that
    similarity = jnp.matmul(u, jax.lax.stop_gradient(u).T, precision=jax.lax.Precision.HIGHEST) / temperature
    log_p = jax.nn.log_softmax(jnp.where(out, -jnp.inf, similarity), axis=1)
    p = jnp.exp(log_p)
    others = jnp.where(positive | out, 0.0, jnp.log1p(-jnp.minimum(p, 1 - SMALLEST)))
    return -(jnp.where(positive, log_p, 0.0).sum() + others.sum()) / count


def region_vectors(vectors: jax.Array, clusters: jax.Array) -> jax.Array:
    """What each cluster looks like in each image: the unit mean of its pixels' vectors, weighted by their share in it (z of L_LD).

    Vectors [B, H, W, D] and shares [B, H, W, K] -> [B, K, D].
    """
    shares, v = clusters.astype(jnp.float32), vectors.astype(jnp.float32)
    return unit(jnp.einsum("bhwk,bhwd->bkd", shares, v, precision=jax.lax.Precision.HIGHEST))


def region_discrimination(regions: jax.Array, temperature: float) -> jax.Array:
    """A cluster looks the same in all images and unlike the other clusters (L_LD).

    The mean over images and clusters of -log softmax over j of z[n, k] . m[j] / t at j = k, m the unit mean of z over images.
    Regions [B, K, D], unit vectors; at chance ln K.
    """
    prototypes = unit(regions.mean(0))
    similarity = jnp.einsum("bkd,jd->bkj", regions, prototypes, precision=jax.lax.Precision.HIGHEST) / temperature
    chosen = jnp.diagonal(jax.nn.log_softmax(similarity), axis1=1, axis2=2)
    return -chosen.mean()


def cluster_entropy(clusters: jax.Array) -> jax.Array:
    """The mean over pixels and clusters of the entropy of 'in it or not', in bits (L_ent): 0 where every pixel has one cluster.

    Shares [..., K], at least 0, with the sum 1.
    """
    p = clusters.astype(jnp.float32)
    return _bits(p).mean() + _bits(1 - p).mean()


def _bits(p: jax.Array) -> jax.Array:
    return -p * jnp.log2(jnp.maximum(p, EMPTY))


def cluster_mass(clusters: jax.Array) -> jax.Array:
    """q [K], the share of all pixels that each cluster holds. Shares [..., K]."""
    return clusters.astype(jnp.float32).reshape(-1, clusters.shape[-1]).mean(0)


def effective_clusters(mass: jax.Array) -> jax.Array:
    """exp of the entropy of q [K]: K where all are alike, 1 where one holds everything."""
    return jnp.exp(-(mass * jnp.log(jnp.maximum(mass, EMPTY))).sum())


def cluster_balance(mass: jax.Array) -> jax.Array:
    """sum of q_k ln(K q_k): 0 where the K clusters hold alike, ln K where one holds everything. The published losses hardly notice
    that collapse; this term does (ours). q [K] with the sum 1.
    """
    return (mass * jnp.log(jnp.maximum(len(mass) * mass, EMPTY))).sum()


def cluster_floor(mass: jax.Array, share: float = 0.25) -> jax.Array:
    """How far clusters are below `share` of an equal part, summed: for a target that is small by nature (ours). q [K] with the sum 1."""
    return jnp.maximum(0.0, share / len(mass) - mass).sum()


def cluster_agreement(first: jax.Array, second: jax.Array) -> jax.Array:
    """Symmetric cross-entropy of the clusters of the same places in two views, the target without gradient (ours, after PiCIE).

    Shares [..., K] each, place by place.
    """

    def towards(target: jax.Array, given: jax.Array) -> jax.Array:
        """Cross-entropy of the given shares under the target's, the mean over places."""
        log = jnp.log(jnp.maximum(given.astype(jnp.float32), SMALLEST))
        return -(jax.lax.stop_gradient(target.astype(jnp.float32)) * log).sum(-1).mean()

    return (towards(first, second) + towards(second, first)) / 2


def local_fit(images: jax.Array, share: jax.Array, inside: jax.Array, sigma: float, tone: str = "any") -> jax.Array:
    """How much of the contrast around every pixel two phases leave unexplained: 0 where each is of one value, 1 where they tell nothing.

    Chan and Vese's fit (2001) with the means of a Gaussian neighbourhood in place of the whole image's, and in units of the
    neighbourhood's variance, so that a faint vessel counts as much as a bright one: the mean over pixels of the sum over both phases of
    p (I - m)^2, m the phase's own mean, by the neighbourhood's (I - m)^2, squares summed over channels. Pixels outside count nowhere.

    Args:
      images: [B, H, W, C] in [0, 1].
      share: p of the one phase [B, H, W, 1], from 0 to 1; the other has the rest.
      inside: [B, H, W, 1], 1 in the field of view and 0 outside of it.
      sigma: of the neighbourhood, in pixels.
      tone: "dark" or "bright" where the phase of `share` is so, beside the rest: the other way round it explains nothing. Else "any".
    """
    x, seen = images.astype(jnp.float32), inside.astype(jnp.float32)
    p, rest = seen * share, seen * (1 - share)
    around, first, second = (_local_mean(x, part, sigma) for part in (seen, p, rest))
    if tone != "any":
        limit, other = (jnp.minimum, jnp.maximum) if tone == "dark" else (jnp.maximum, jnp.minimum)
        first, second = limit(first, around), other(second, around)
    parts = ((share, first), (1 - share, second))
    left = sum(part * jnp.square(x - mean).sum(-1, keepdims=True) for part, mean in parts)
    contrast = jnp.square(x - around).sum(-1, keepdims=True)
    means = _local_mean(jnp.concatenate([jnp.asarray(left), contrast], axis=-1), seen, sigma)
    unexplained = (means[..., :1] + NOISE) / (means[..., 1:] + NOISE)
    return (seen * unexplained).sum() / jnp.maximum(seen.sum(), 1)


def _local_mean(x: jax.Array, weight: jax.Array, sigma: float) -> jax.Array:
    """Weighted by `weight` [B, H, W, 1] and a Gaussian; where there is hardly any weight, near 0."""
    rows, columns = (_gaussian(side, sigma) for side in x.shape[1:3])
    total, mass = (jnp.einsum("ih,bhwc,jw->bijc", rows, part, columns) for part in (weight * x, weight))
    return total / (mass + THIN)


def _gaussian(side: int, sigma: float) -> jax.Array:
    place = jnp.arange(side, dtype=jnp.float32)
    weight = jnp.exp(-jnp.square(place[:, None] - place[None]) / (2 * sigma**2))
    return weight / weight.sum(1, keepdims=True)
