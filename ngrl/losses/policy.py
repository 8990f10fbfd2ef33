"""Policy-gradient losses and the distributions they need: pure functions, one per published equation.

Losses take one number a step, any rank alike: [T, B] or a flat minibatch [N]. They are weighted means, and a step of
weight 0 (a reset, padding) counts for nothing, whatever it holds. Log-probabilities, ratios and entropies come from
logits and log σ, never from probabilities.
"""

import math

import numpy as np
import tensorflow as tf

from ngrl.losses.shapes import check_alike
from ngrl.losses.td import weighted_mean

# The standard deviation of equal numbers, relative to their size, is below this many units of rounding.
_CONSTANT_TOLERANCE = 16.0


def categorical_log_prob(logits: tf.Tensor, actions: tf.Tensor) -> tf.Tensor:
    """`log π(a) = z_a − log Σ_j exp z_j`; logits z [..., A] and integer actions [...] to [...]."""
    actions.shape.assert_has_rank(logits.shape.rank - 1)
    if actions.dtype not in (tf.int32, tf.int64):
        actions = tf.cast(actions, tf.int64)
    return -tf.nn.sparse_softmax_cross_entropy_with_logits(labels=actions, logits=logits)


def diagonal_gaussian_log_prob(mean: tf.Tensor, log_std: tf.Tensor, actions: tf.Tensor) -> tf.Tensor:
    """`log π(a) = −Σ_d (½ ((a_d − μ_d)/σ_d)² + log σ_d + ½ log 2π)`; [..., D] to [...].

    Args:
      mean: μ [..., D].
      log_std: log σ [..., D], or [D] when it does not depend on the state.
      actions: a [..., D].
    """
    actions.shape.assert_has_rank(mean.shape.rank)
    actions.shape.assert_is_compatible_with(mean.shape)
    mean.shape.assert_is_compatible_with(tf.broadcast_static_shape(mean.shape, log_std.shape))
    standardised = (actions - mean) * tf.exp(-log_std)
    return -tf.reduce_sum(0.5 * tf.square(standardised) + log_std + 0.5 * math.log(2 * math.pi), axis=-1)


def categorical_entropy(logits: tf.Tensor) -> tf.Tensor:
    """`H = −Σ_a π_a log π_a` in nats; logits [..., A] to [...]. An impossible action (logit −inf) adds 0."""
    logits.shape.with_rank_at_least(1)
    log_p = tf.nn.log_softmax(logits)
    p = tf.exp(log_p)
    return -tf.reduce_sum(p * tf.where(p > 0, log_p, tf.zeros_like(log_p)), axis=-1)


def diagonal_gaussian_entropy(log_std: tf.Tensor) -> tf.Tensor:
    """`H = Σ_d (log σ_d + ½ log 2πe)` in nats; log σ [..., D] to [...]. Negative for small σ."""
    log_std.shape.with_rank_at_least(1)
    return tf.reduce_sum(log_std + 0.5 * math.log(2 * math.pi * math.e), axis=-1)


def importance_ratio(log_probs: tf.Tensor, behaviour_log_probs: tf.Tensor) -> tf.Tensor:
    """`ρ = π(a|s) / π_old(a|s) = exp(log π − log π_old)` elementwise; π_old is a constant for the gradient.

    ρ is capped at the square root of the largest number of its type (about 1e19 in float32), with gradient 0 there:
    an infinite ratio would turn PPO's clipped branch, whose gradient is 0, into 0 · ∞.
    """
    check_alike(log_probs, behaviour_log_probs)
    cap = 0.5 * math.log(log_probs.dtype.max)
    return tf.exp(tf.minimum(log_probs - tf.stop_gradient(behaviour_log_probs), cap))


def policy_gradient_loss(log_probs: tf.Tensor, advantages: tf.Tensor, weights: tf.Tensor | None = None) -> tf.Tensor:
    """`−Ê[log π(a|s) Â]`, a scalar whose gradient is the negative policy gradient (Schulman et al. 2017, eqs. 1–2).

    Args:
      log_probs: log π(a|s) of the actions taken [...].
      advantages: Â, or returns for REINFORCE [...]; constants for the gradient.
      weights: Weight of each step [...]; 0 masks it. None weighs all alike.
    """
    weights, log_probs, advantages = _mask(weights, log_probs, advantages)
    return -weighted_mean(log_probs * tf.stop_gradient(advantages), weights)


def surrogate_loss(
    log_probs: tf.Tensor, behaviour_log_probs: tf.Tensor, advantages: tf.Tensor, weights: tf.Tensor | None = None
) -> tf.Tensor:
    """`−Ê[ρ Â]`, a scalar: TRPO's objective (Schulman et al. 2015, eq. 14; L^CPI in Schulman et al. 2017, eq. 6).

    Args:
      log_probs: log π(a|s) of the actions taken [...].
      behaviour_log_probs: log π_old(a|s) of the policy that took them [...].
      advantages: Â [...]; constants for the gradient.
      weights: Weight of each step [...]; 0 masks it. None weighs all alike.
    """
    weights, log_probs, behaviour_log_probs, advantages = _mask(weights, log_probs, behaviour_log_probs, advantages)
    return -weighted_mean(importance_ratio(log_probs, behaviour_log_probs) * tf.stop_gradient(advantages), weights)


def clipped_surrogate_loss(
    log_probs: tf.Tensor,
    behaviour_log_probs: tf.Tensor,
    advantages: tf.Tensor,
    clip_ratio: float | tf.Tensor = 0.2,
    weights: tf.Tensor | None = None,
) -> tf.Tensor:
    """`−Ê[min(ρ Â, clip(ρ, 1 − ε, 1 + ε) Â)]`, a scalar (PPO, Schulman et al. 2017, eq. 7).

    Args:
      log_probs: log π(a|s) of the actions taken [...].
      behaviour_log_probs: log π_old(a|s) of the policy that took them [...].
      advantages: Â [...]; constants for the gradient.
      clip_ratio: ε.
      weights: Weight of each step [...]; 0 masks it. None weighs all alike.
    """
    weights, log_probs, behaviour_log_probs, advantages = _mask(weights, log_probs, behaviour_log_probs, advantages)
    advantages = tf.stop_gradient(advantages)
    ratio = importance_ratio(log_probs, behaviour_log_probs)
    clipped = tf.clip_by_value(ratio, 1 - clip_ratio, 1 + clip_ratio)
    return -weighted_mean(tf.minimum(ratio * advantages, clipped * advantages), weights)


def normalise_advantages(advantages: tf.Tensor, weights: tf.Tensor | None = None) -> tf.Tensor:
    """`(Â − mean) / std` with weighted moments over all steps; the shape of `advantages`, 0 at masked steps.

    The standard deviation is the population's (divided by Σw). Equal advantages (up to rounding: no action was
    better than another) become zeros. Non-finite advantages stay non-finite, for the caller's guard to see. A
    constant for every gradient.
    """
    weights, advantages = _mask(weights, tf.stop_gradient(advantages))
    # Relative to the largest, so that squares neither overflow nor vanish and equal numbers are exactly 1.
    scaled = tf.math.divide_no_nan(advantages, tf.reduce_max(tf.abs(advantages)))
    centred = scaled - weighted_mean(scaled, weights)
    std = _std(scaled, weights)
    normalised = tf.where(_is_constant(std), tf.zeros_like(centred), tf.math.divide_no_nan(centred, std))
    return tf.where(weights > 0, normalised, tf.zeros_like(normalised))


def explained_variance(returns: tf.Tensor, values: tf.Tensor, weights: tf.Tensor | None = None) -> tf.Tensor:
    """`1 − Var(G − v) / Var(G)`, a scalar: 1 for a perfect critic, 0 for a constant one, negative for worse.

    Equal returns (up to rounding) leave nothing to explain: 0.

    Args:
      returns: G [...].
      values: The critic's v [...].
      weights: Weight of each step [...]; 0 masks it. None weighs all alike.
    """
    weights, returns, values = _mask(weights, returns, values)
    scale = tf.reduce_max(tf.abs(returns))
    std = _std(tf.math.divide_no_nan(returns, scale), weights)
    residual_std = _std(tf.math.divide_no_nan(returns - values, scale), weights)
    explained = 1 - tf.square(tf.math.divide_no_nan(residual_std, std))
    return tf.where(_is_constant(std), tf.zeros_like(explained), explained)


def _mask(weights: tf.Tensor | None, *tensors: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """The weights, and the tensors with 0 where the weight is 0.

    Masked before any arithmetic: a mask applied after it would multiply a masked NaN's slope by 0, which is NaN.
    """
    weights = tf.ones_like(tensors[0]) if weights is None else tf.cast(weights, tensors[0].dtype)
    check_alike(*tensors, weights)
    return weights, *(tf.where(weights > 0, tensor, tf.zeros_like(tensor)) for tensor in tensors)


def _std(values: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """`√(Σ w (x − mean)² / Σ w)`, two passes; a scalar."""
    return tf.sqrt(weighted_mean(tf.square(values - weighted_mean(values, weights)), weights))


def _is_constant(std: tf.Tensor) -> tf.Tensor:
    """Whether numbers of size 1 with this deviation are equal up to rounding; False for NaN."""
    return std <= _CONSTANT_TOLERANCE * np.finfo(std.dtype.as_numpy_dtype).eps
