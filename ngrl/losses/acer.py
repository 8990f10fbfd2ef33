"""The policy gradient of ACER (Wang et al. 2017): pure functions, one per published equation.

All come from log-probabilities, never from probabilities, so that an action which a policy never takes (log 0 = −inf)
has a defined answer. c is the level at which importance weights are truncated, ρ = π(a|x) / μ(a|x).
"""

import tensorflow as tf

from ngrl.losses.shapes import check_alike

_LEAST_LOG = -80.0


def truncated_ratio(log_ratio: tf.Tensor, truncation: float | tf.Tensor) -> tf.Tensor:
    """`ρ̄ = min(c, ρ)` [...] from log ρ [...], a constant for every gradient (Wang et al. 2017, section 3.2)."""
    return tf.stop_gradient(tf.exp(tf.minimum(log_ratio, tf.math.log(tf.cast(truncation, log_ratio.dtype)))))


def correction_weight(log_ratio: tf.Tensor, truncation: float | tf.Tensor) -> tf.Tensor:
    """`[(ρ − c) / ρ]₊ = [1 − c/ρ]₊` [...], in [0, 1), from log ρ [...]; a constant (Wang et al. 2017, section 3.2)."""
    log_level = tf.math.log(tf.cast(truncation, log_ratio.dtype))
    return tf.stop_gradient(-tf.math.expm1(tf.minimum(log_level - log_ratio, 0.0)))


def truncated_policy_objective(
    log_probs: tf.Tensor, behaviour_log_probs: tf.Tensor, advantages: tf.Tensor, truncation: float | tf.Tensor
) -> tf.Tensor:
    """`ρ̄ (Q^ret − V) log π(a|x)` [...]: its gradient is the first term of ĝ in Wang et al. 2017, section 3.3.

    An action that π never takes has ρ̄ = 0: it adds 0, and its gradient is 0.

    Args:
      log_probs: log π(a|x) of the actions taken [...].
      behaviour_log_probs: log μ(a|x) of the policy that took them [...].
      advantages: Q^ret(x, a) − V(x), or Q^opc − V [...]; constants for the gradient.
      truncation: c; infinity leaves the weights as they are.
    """
    check_alike(log_probs, behaviour_log_probs, advantages)
    ratio = truncated_ratio(log_probs - behaviour_log_probs, truncation)
    return _score_objective(ratio * tf.stop_gradient(advantages), log_probs)


def bias_correction_objective(
    log_probs: tf.Tensor,
    behaviour_log_probs: tf.Tensor,
    advantages: tf.Tensor,
    weights: tf.Tensor,
    truncation: float | tf.Tensor,
) -> tf.Tensor:
    """`Σ_j w_j [1 − c/ρ(a_j)]₊ (Q(x, a_j) − V(x)) log π(a_j|x)`, [..., J] to [...].

    Its gradient is the second term of ĝ in Wang et al. 2017, section 3.3: `E_{a ~ π}` of the same. For discrete
    actions the a_j are all actions and w_j = π(a_j|x); for continuous ones they are J draws from π and w_j = 1/J.

    Args:
      log_probs: log π(a_j|x) [..., J].
      behaviour_log_probs: log μ(a_j|x) [..., J]; −inf, an action that the behaviour never took, is corrected in full.
      advantages: Q(x, a_j) − V(x) [..., J]; constants for the gradient.
      weights: w_j [..., J]; constants. An action of weight 0 adds 0, whatever the rest says of it.
      truncation: c.
    """
    check_alike(log_probs, behaviour_log_probs, advantages, weights)
    weights = tf.stop_gradient(weights)
    log_ratio = tf.where(weights > 0, log_probs - behaviour_log_probs, tf.zeros_like(log_probs))
    coefficient = weights * correction_weight(log_ratio, truncation) * tf.stop_gradient(advantages)
    return tf.reduce_sum(_score_objective(coefficient, log_probs), axis=-1)


def trust_region_projection(gradient: tf.Tensor, kl_gradient: tf.Tensor, delta: float | tf.Tensor) -> tf.Tensor:
    """`z* = g − max(0, (kᵀg − δ) / ‖k‖²) k`, [..., K] and [..., K] to [..., K] (Wang et al. 2017, section 3.3).

    The nearest z to g with kᵀz ≤ δ. Where k = 0, as by the logits of the average policy itself, z* = g.

    Args:
      gradient: g of the objective with respect to the distribution's statistics Φ [..., K].
      kl_gradient: k of KL(f(·|Φ_average) ‖ f(·|Φ)) with respect to Φ [..., K].
      delta: δ ≥ 0.
    """
    check_alike(gradient, kl_gradient)
    excess = tf.maximum(0.0, tf.reduce_sum(kl_gradient * gradient, axis=-1, keepdims=True) - delta)
    square = tf.reduce_sum(tf.square(kl_gradient), axis=-1, keepdims=True)
    return gradient - tf.math.divide_no_nan(excess, square) * kl_gradient


def bounded_log_softmax(logits: tf.Tensor) -> tf.Tensor:
    """Log p [..., A] of logits, not below −80: that stays finite, and so does e^80, while e^−80 beside 1 is 0."""
    return tf.maximum(tf.nn.log_softmax(logits), _LEAST_LOG)


def through_softmax(slopes: tf.Tensor, log_probs: tf.Tensor) -> tf.Tensor:
    """`(diag(p) − ppᵀ) g = c − p Σ_i c_i`, c_i = p_i g_i: a gradient by p as one by its logits, [..., A].

    Args:
      slopes: c = ∂/∂log p with free entries [..., A].
      log_probs: log p [..., A].
    """
    return slopes - tf.exp(log_probs) * tf.reduce_sum(slopes, axis=-1, keepdims=True)


def probability_trust_region_projection(
    slopes: tf.Tensor, log_probs: tf.Tensor, average_log_probs: tf.Tensor, delta: float | tf.Tensor
) -> tf.Tensor:
    """z* of section 3.3 for Φ = p, the probability vector, as a gradient by the logits: `(diag(p) − ppᵀ) z*`, [..., A].

    With g_i = c_i/p_i and k_i = −q_i/p_i, the slopes of the objective and of KL(q ‖ p), z* = g − s k where
    s = max(0, (kᵀg − δ) / ‖k‖²); by the logits k is p − q. An action seldom taken has a large k: the trust region holds
    it tight, which is what sets Φ = p apart from Φ = logits. Rounding leaves an error of about eps · (max|c| + s).

    Args:
      slopes: c = ∂objective/∂log p with free entries [..., A].
      log_probs: log p of the policy [..., A], from `bounded_log_softmax`.
      average_log_probs: log q of the average policy [..., A], from the same.
      delta: δ ≥ 0.
    """
    log_ratio = average_log_probs - log_probs
    # k over its largest entry e^t, since p_i⁻² overflows: s = max(0, kᵀg e^(−2t) − δ e^(−2t)) / (‖k‖² e^(−2t)).
    top = tf.reduce_max(log_ratio, axis=-1, keepdims=True)
    product = -tf.reduce_sum(slopes * tf.exp(log_ratio - log_probs - 2 * top), axis=-1, keepdims=True)
    excess = tf.maximum(0.0, product - delta * tf.exp(-2 * top))
    length = excess / tf.reduce_sum(tf.exp(2 * (log_ratio - top)), axis=-1, keepdims=True)
    return through_softmax(slopes, log_probs) - length * (tf.exp(log_probs) - tf.exp(average_log_probs))


def stochastic_dueling(values: tf.Tensor, advantages: tf.Tensor, policy_advantages: tf.Tensor) -> tf.Tensor:
    """`Q̃(x, a) = V(x) + A(x, a) − (1/n) Σ_i A(x, u_i)`, u_i ~ π(·|x), [...] (Wang et al. 2017, section 5.1).

    Args:
      values: V(x) [...].
      advantages: A(x, a) [...].
      policy_advantages: A(x, u_i) of draws from the present policy [..., n].
    """
    check_alike(values, advantages)
    return values + advantages - tf.reduce_mean(policy_advantages, axis=-1)


def _score_objective(coefficient: tf.Tensor, log_probs: tf.Tensor) -> tf.Tensor:
    """`x log π` [...], and 0 with gradient 0 where x = 0, though log π may be −inf."""
    used = tf.not_equal(coefficient, 0)
    return tf.where(used, coefficient, 0.0) * tf.where(used, log_probs, tf.zeros_like(log_probs))
