"""Optimizers and the schedule, by name. No rate is ever scaled with the batch behind the user's back."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from medssl_jax.errors import UserError

ADAM_LARGEST_RATE = 0.1  # beyond it the rate was meant for LARS or SGD


def schedule(config: ConfigDict, steps: int) -> optax.Schedule:
    """Linear warm-up over `config.warmup * steps` steps, then a cosine to zero."""
    warmup = int(config.warmup * steps)
    start = 0.0 if warmup else config.learning_rate
    return optax.warmup_cosine_decay_schedule(start, config.learning_rate, warmup, max(steps, warmup + 1))


def build(config: ConfigDict, steps: int, head_warmup: float = 0.0, option: str = "pretrain.optimizer") -> optax.GradientTransformation:
    """The optimizer of `config` for a run of `steps`, with a rate of its own for every part (see `PartRates`); in the first
    `head_warmup` of the steps only the part `head` moves. `option` is where the config came from, for the messages.

    Raises UserError for an unknown name, and for a rate of LARS' size with Adam (published SimCLR and BYOL rates are LARS').
    """
    rule = _RULES.get(config.name)
    if rule is None:
        raise UserError(f"config.{option}.name={config.name!r} is unknown; choose one of {', '.join(_RULES)}.")
    if config.name == "adamw" and config.learning_rate > ADAM_LARGEST_RATE:
        raise UserError(
            f"config.{option}.learning_rate={config.learning_rate} is a rate for lars or sgd, not for adamw; "
            f"set it to 1e-3 or config.{option}.name to lars."
        )
    clip = _clip(config.clip) if config.clip else optax.identity()
    return optax.chain(clip, rule(config, schedule(config, steps)), _part_rates(int(head_warmup * steps)))


def _clip(most: float) -> optax.GradientTransformation:
    """optax.clip_by_global_norm to rounding, with one factor for all. Where each number is divided by the norm, XLA writes the quotients to
    memory, reads both for either moment of Adam, and goes 15 times over an array of their size instead of 11 on a CPU."""

    def update(updates: Any, params: Any = None) -> Any:
        """The updates, no longer than `most` together."""
        norm = optax.tree.norm(updates)
        return optax.tree.scale(jnp.where(norm < most, 1.0, most / norm), updates)

    return optax.stateless(update)


def _matrices(params: Any) -> Any:
    """True for kernels; biases and norm scales are neither decayed nor rescaled."""
    return jax.tree.map(lambda x: x.ndim > 1, params)


def _adamw(config: ConfigDict, rate: optax.Schedule) -> optax.GradientTransformation:
    return optax.adamw(rate, b2=config.b2, weight_decay=config.weight_decay, mask=_matrices)


def _sgd(config: ConfigDict, rate: optax.Schedule) -> optax.GradientTransformation:
    decay = optax.add_decayed_weights(config.weight_decay, mask=_matrices)
    return optax.chain(decay, optax.sgd(rate, momentum=config.momentum, nesterov=True))


def _lars(config: ConfigDict, rate: optax.Schedule) -> optax.GradientTransformation:
    """SimCLR's order: decay, trust ratio, rate, momentum (You et al. 2017, as optax and TensorFlow have it)."""
    masks: dict[str, Any] = {"weight_decay_mask": _matrices, "trust_ratio_mask": _matrices}
    return optax.lars(rate, config.weight_decay, momentum=config.momentum, **masks)


def _lars_byol(config: ConfigDict, rate: optax.Schedule) -> optax.GradientTransformation:
    """BYOL's order: momentum before the rate, so that a falling rate falls at once (Grill et al. 2020, appendix J)."""
    return optax.chain(
        optax.add_decayed_weights(config.weight_decay, mask=_matrices),
        optax.masked(optax.scale_by_trust_ratio(trust_coefficient=0.001), _matrices),
        optax.trace(config.momentum),
        optax.scale_by_learning_rate(rate),
    )


_RULES = {"adamw": _adamw, "sgd": _sgd, "lars": _lars, "lars_byol": _lars_byol}


class PartRates(NamedTuple):
    """The last link of the chain: how much of its update each part (encoder, decoder, head ...) takes. It is data, not code, so
    that runs with other rates share one compiled step."""

    step: jax.Array
    rates: dict[str, jax.Array]


def with_rates(opt_state: Any, rates: dict[str, float]) -> Any:
    """The optimizer state with the rates of the named parts changed (1 for all others)."""
    *before, last = opt_state
    known = {part: jnp.float32(rates.get(part, 1.0)) for part in last.rates}
    return (*before, last._replace(rates=known))


def _part_rates(held: int) -> optax.GradientTransformation:
    """Updates times their part's rate; all but `head` are held at 0 in the first `held` steps, while a new head settles."""

    def init(params: dict[str, Any]) -> PartRates:
        """Every part at the rate 1."""
        return PartRates(jnp.int32(0), {part: jnp.float32(1) for part in params})

    def update(updates: dict[str, Any], state: PartRates, params: Any = None) -> tuple[dict[str, Any], PartRates]:
        """The updates times their rates, and one step further."""
        opened = jnp.where(state.step < held, 0.0, 1.0)
        factor = {part: rate if part == "head" else rate * opened for part, rate in state.rates.items()}
        moved = {part: optax.tree.scale(factor[part], change) for part, change in updates.items()}
        return moved, state._replace(step=state.step + 1)

    return optax.GradientTransformation(init, update)
