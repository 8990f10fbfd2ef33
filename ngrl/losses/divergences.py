"""Kullback-Leibler divergences between policies, in closed form from logits and log σ.

All are in nats, one number a state: [..., A] or [..., D] to [...]. In rounding a divergence of nearly equal policies
may come out as small as −1e-7 (float32).
"""

import tensorflow as tf


def kl_categorical(logits_p: tf.Tensor, logits_q: tf.Tensor) -> tf.Tensor:
    """`KL(p ‖ q) = Σ_a p_a (log p_a − log q_a)`; logits [..., A] to [...] (Kullback & Leibler 1951).

    An action impossible under p (logit −inf) adds 0; one possible under p and impossible under q makes it infinite.
    """
    log_p, log_q = _log_softmax(logits_p, logits_q)
    return _expectation(log_p, log_p - log_q)


def symmetric_kl_categorical(logits_p: tf.Tensor, logits_q: tf.Tensor) -> tf.Tensor:
    """`½ (KL(p ‖ q) + KL(q ‖ p))`; logits [..., A] to [...] (Knight & Lerner, eq. 3)."""
    log_p, log_q = _log_softmax(logits_p, logits_q)
    return 0.5 * (_expectation(log_p, log_p - log_q) + _expectation(log_q, log_q - log_p))


def kl_diagonal_gaussian(mean_p: tf.Tensor, log_std_p: tf.Tensor, mean_q: tf.Tensor, log_std_q: tf.Tensor) -> tf.Tensor:
    """`KL(p ‖ q) = Σ_d (log σ_q − log σ_p + (σ_p² + (μ_p − μ_q)²) / (2σ_q²) − ½)`; [..., D] to [...].

    For Δμ = 1 it is 5.5556 at σ = 0.3 and 0.055556 at σ = 3; the 0.81661 and 0.023481 that van Heeswijk (2022)
    prints for these pairs are not this divergence.

    Args:
      mean_p: μ_p [..., D].
      log_std_p: log σ_p [..., D], or [D] when it does not depend on the state.
      mean_q: μ_q [..., D].
      log_std_q: log σ_q, as log σ_p.
    """
    _check_gaussians(mean_p, log_std_p, mean_q, log_std_q)
    distance = (mean_p - mean_q) * tf.exp(-log_std_q)
    # With d = log σ_p − log σ_q: ½ ((exp 2d − 1) − 2d) + ½ ((μ_p − μ_q)/σ_q)², no term of which is negative.
    log_scale = 2 * (log_std_p - log_std_q)
    return tf.reduce_sum(0.5 * (tf.math.expm1(log_scale) - log_scale + tf.square(distance)), axis=-1)


def symmetric_kl_diagonal_gaussian(
    mean_p: tf.Tensor, log_std_p: tf.Tensor, mean_q: tf.Tensor, log_std_q: tf.Tensor
) -> tf.Tensor:
    """`½ (KL(p ‖ q) + KL(q ‖ p))`; arguments as `kl_diagonal_gaussian` (Knight & Lerner, eq. 3)."""
    forward = kl_diagonal_gaussian(mean_p, log_std_p, mean_q, log_std_q)
    return 0.5 * (forward + kl_diagonal_gaussian(mean_q, log_std_q, mean_p, log_std_p))


def _log_softmax(logits_p: tf.Tensor, logits_q: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    logits_p.shape.with_rank_at_least(1)
    logits_q.shape.assert_has_rank(logits_p.shape.rank)
    logits_q.shape.assert_is_compatible_with(logits_p.shape)
    return tf.nn.log_softmax(logits_p), tf.nn.log_softmax(logits_q)


def _expectation(log_p: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """`Σ_a p_a x_a`, where p_a = 0 adds 0 whatever x_a is; [..., A] to [...]."""
    p = tf.exp(log_p)
    return tf.reduce_sum(p * tf.where(p > 0, values, tf.zeros_like(values)), axis=-1)


def _check_gaussians(mean_p: tf.Tensor, log_std_p: tf.Tensor, mean_q: tf.Tensor, log_std_q: tf.Tensor) -> None:
    mean_q.shape.assert_has_rank(mean_p.shape.rank)
    mean_q.shape.assert_is_compatible_with(mean_p.shape)
    for log_std in (log_std_p, log_std_q):
        mean_p.shape.assert_is_compatible_with(tf.broadcast_static_shape(mean_p.shape, log_std.shape))
