"""Descents on the parameters of a Gaussian, with the metric of one's choice: the mathematics of `maximum_likelihood`.

Symbols as there: θ = (μ, σ) [2], f(θ) the negative log-likelihood of points x [N], summed over them, G [2, 2] a metric,
F the Fisher information, β the step size. Everything is float64.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from ngrl import losses, seeding
from ngrl.checks import check_count, check_optional_number
from ngrl.curvature import EmpiricalFisher
from ngrl.examples.gaussian import Gaussian
from ngrl.loops import NonFiniteError
from ngrl.optimizers import NaturalGradient, SkipCause
from ngrl.solvers import Cholesky

#: G [2, 2] at a variable θ = (μ, σ) [2], for the step of that number.
Metric: TypeAlias = Callable[[tf.Variable, tf.Tensor], tf.linalg.LinearOperator]

#: KL(target ‖ fitted) in nats below which the target counts as reached: of the order of ten times what 1,000 points
#: leave undecided (about 2 parameters / 2,000 = 0.001).
REACHED_KL = 0.01

_DTYPE = tf.float64
_REASONS = {
    SkipCause.LOSS: "its loss is not finite",
    SkipCause.GRADIENT: "its gradient is not finite",
    SkipCause.CURVATURE_PRODUCT: "its metric is singular (for a Fisher matrix of samples, take more of them)",
    SkipCause.SOLUTION: "its length is not finite",
}


def log_likelihoods(theta: tf.Tensor, data: tf.Tensor) -> tf.Tensor:
    """`log N(x_i; μ, σ²)` in nats; θ = (μ, σ) [..., 2] and data [N] to [..., N]."""
    # One Gaussian of dimension 1 for every θ and every point: [..., N, 1].
    shape = tf.TensorShape([*theta.shape[:-1], *data.shape, 1])
    mean = tf.broadcast_to(theta[..., :1, tf.newaxis], shape)
    log_std = tf.math.log(theta[..., 1:, tf.newaxis])
    return losses.diagonal_gaussian_log_prob(mean, log_std, tf.broadcast_to(data[:, tf.newaxis], shape))


def negative_log_likelihood(theta: tf.Tensor, data: tf.Tensor) -> tf.Tensor:
    """`f(θ) = −Σ_i log N(x_i; μ, σ²)` in nats; θ = (μ, σ) [..., 2] and data [N] to [...]."""
    return -tf.reduce_sum(log_likelihoods(theta, data), axis=-1)


def fisher_diagonal(theta: tf.Tensor) -> tf.Tensor:
    """The Fisher information of (μ, σ), `diag(1/σ², 2/σ²)`: θ [..., 2] to its diagonal [..., 2]."""
    inverse_variance = 1 / tf.square(theta[..., 1])
    return tf.stack([inverse_variance, 2 * inverse_variance], axis=-1)


def euclidean(theta: tf.Variable, step: tf.Tensor) -> tf.linalg.LinearOperator:
    """G = I, with which Algorithm 1 is gradient descent."""
    del step
    return tf.linalg.LinearOperatorDiag(tf.ones_like(theta), is_self_adjoint=True, is_positive_definite=True)


def analytic_fisher(theta: tf.Variable, step: tf.Tensor) -> tf.linalg.LinearOperator:
    """G = F in closed form."""
    del step
    return tf.linalg.LinearOperatorDiag(
        fisher_diagonal(tf.convert_to_tensor(theta)), is_self_adjoint=True, is_positive_definite=True
    )


def sampled_fisher(num_samples: int, seed: int) -> Metric:
    """`G = 1/N Σ_i ∇log p_θ(x_i) ∇log p_θ(x_i)ᵀ` with x_i ~ p_θ, drawn anew in every step (Algorithm 2).

    Args:
      num_samples: N, at least 2: fewer make a singular G.
      seed: Seed of the samples; those of a step depend on it and the step's number alone.

    Raises:
      ValueError: There are fewer than 2 samples.
    """
    check_count("fisher_samples", num_samples, 2)
    key = seeding.key(seed, seeding.Stream.FISHER_SAMPLES)

    def metric(theta: tf.Variable, step: tf.Tensor) -> tf.linalg.LinearOperator:
        noise = tf.random.stateless_normal([num_samples], seeding.at(key, step), dtype=_DTYPE, alg="philox")
        samples = tf.stop_gradient(theta[0] + theta[1] * noise)
        return fisher_of_samples(theta, samples)

    return metric


def fisher_of_samples(theta: tf.Variable, samples: tf.Tensor, weights: tf.Tensor | None = None) -> EmpiricalFisher:
    """`Σ_i w_i ∇log p_θ(x_i) ∇log p_θ(x_i)ᵀ / Σ_i w_i` for samples [N] of the model p_θ, θ = (μ, σ) [2]."""
    return EmpiricalFisher(lambda x: -log_likelihoods(theta, x), [theta], samples, weights)


@dataclasses.dataclass(frozen=True)
class Descent:
    """One way of descending.

    Attributes:
      name: Its name in files.
      label: Its name for people.
      metric: G.
      step_size: A fixed β, or None.
      max_kl: ε for β = √(2ε / gᵀGg), or None.

    Raises:
      ValueError: Not exactly one of `step_size` and `max_kl` is given, or it isn't positive and finite.
    """

    name: str
    label: str
    metric: Metric
    step_size: float | None = None
    max_kl: float | None = None

    def __post_init__(self) -> None:
        if (self.step_size is None) == (self.max_kl is None):
            raise ValueError(f"{self.name} needs either step_size or max_kl")
        for name in ("step_size", "max_kl"):
            check_optional_number(name, getattr(self, name), "(0, inf)")


@dataclasses.dataclass(frozen=True)
class Trajectory:
    """Where a descent went in T steps.

    Attributes:
      descent: How it was made.
      theta: (μ, σ) before the first step and after each, [T + 1, 2].
      negative_log_likelihood: f there, in nats, [T + 1].
      gradient_norm: ‖∇f‖ there, [T + 1].
      kl_to_target: KL(target ‖ fitted) there, in nats, [T + 1].
      step_kl: KL(before ‖ after) in nats of the step that led there, [T + 1]; NaN at the start.
    """

    descent: Descent
    theta: np.ndarray
    negative_log_likelihood: np.ndarray
    gradient_norm: np.ndarray
    kl_to_target: np.ndarray
    step_kl: np.ndarray

    @property
    def reached_at(self) -> int | None:
        """The first step after which the target was reached; None if it never was."""
        steps = np.flatnonzero(self.kl_to_target <= REACHED_KL)
        return int(steps[0]) if steps.size else None

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """Rows of `trajectories.csv`."""
        for step, (mu, sigma) in enumerate(self.theta.tolist()):
            columns = (self.negative_log_likelihood, self.gradient_norm, self.kl_to_target, self.step_kl)
            yield (self.descent.name, step, mu, sigma, *(float(column[step]) for column in columns))

    def scalars(self, step: int) -> dict[str, float]:
        """TensorBoard's tags and values at a step."""
        return {
            "Losses/negative_log_likelihood": float(self.negative_log_likelihood[step]),
            "ngrl/gradient_norm": float(self.gradient_norm[step]),
            "mle/mu": float(self.theta[step, 0]),
            "mle/sigma": float(self.theta[step, 1]),
            "mle/kl_to_target": float(self.kl_to_target[step]),
            "mle/step_kl": float(self.step_kl[step]),
        }


def draw_points(target: Gaussian, num_points: int, seed: int) -> np.ndarray:
    """Points of the target, float64 [num_points].

    Raises:
      ValueError: There are fewer than 2 points, and the likelihood of one has no maximum; or the seed is out of range.
    """
    check_count("num_points", num_points, 2)
    return seeding.generator(seed, seeding.Stream.POINTS).normal(target.mean, target.std, num_points)


def descend(data: np.ndarray, start: Gaussian, target: Gaussian, descent: Descent, num_steps: int) -> Trajectory:
    """Fit a Gaussian to points.

    Args:
      data: The points [N].
      start: Where to start.
      target: What to measure the distance to.
      descent: How to go down.
      num_steps: T.

    Returns:
      Where it went.

    Raises:
      ValueError: `data` isn't a vector, holds a number that is not finite, or has no two different points, so that
        its likelihood has no maximum; `num_steps` is not positive.
      NonFiniteError: The descent left σ > 0, or met a singular metric or a number that is not finite.
    """
    data = np.asarray(data, np.float64)
    if data.ndim != 1:
        raise ValueError(f"data must have shape [N], got {list(data.shape)}")
    if not np.isfinite(data).all():
        first = int(np.flatnonzero(~np.isfinite(data))[0])
        raise ValueError(f"data must be finite, but point {first} is {data[first]}")
    if np.unique(data).size < 2:
        raise ValueError("data need at least two different points: otherwise no σ > 0 is the most likely")
    check_count("num_steps", num_steps)
    theta, loss, gradient_norm, skip_cause = _follow(tf.constant(data), start, descent, num_steps)
    _check_path(descent, theta, skip_cause)
    fitted = tf.constant(theta)
    return Trajectory(
        descent,
        theta,
        loss,
        gradient_norm,
        _kl(tf.constant([target.mean, target.std], _DTYPE), fitted),
        np.concatenate([[math.nan], _kl(fitted[:-1], fitted[1:])]),
    )


def _follow(
    data: tf.Tensor, start: Gaussian, descent: Descent, num_steps: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """θ [T + 1, 2], f [T + 1], ‖∇f‖ [T + 1], and why steps were skipped [T]."""
    theta = tf.Variable([start.mean, start.std], dtype=_DTYPE)
    optimizer = NaturalGradient(learning_rate=descent.step_size, max_kl=descent.max_kl, damping=0.0, solver=Cholesky())

    def loss_and_gradient() -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            loss = negative_log_likelihood(theta, data)
        return loss, tape.gradient(loss, theta)

    @tf.function
    def follow() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        points = tf.TensorArray(_DTYPE, num_steps + 1)
        values = tf.TensorArray(_DTYPE, num_steps + 1)
        causes = tf.TensorArray(tf.float32, num_steps)
        for step in tf.range(num_steps):
            loss, gradient = loss_and_gradient()
            points = points.write(step, theta)
            values = values.write(step, tf.stack([loss, tf.norm(gradient)]))
            stats = optimizer.apply_natural_gradient([(gradient, theta)], descent.metric(theta, step), loss=loss)
            causes = causes.write(step, stats.skip_cause)
        loss, gradient = loss_and_gradient()
        points = points.write(num_steps, theta)
        values = values.write(num_steps, tf.stack([loss, tf.norm(gradient)]))
        return points.stack(), values.stack(), causes.stack()

    points, values, causes = (tensor.numpy() for tensor in follow())
    return points, values[:, 0], values[:, 1], causes


def _check_path(descent: Descent, theta: np.ndarray, skip_cause: np.ndarray) -> None:
    """Refuse a descent that left the Gaussians: no later point of it means anything."""
    outside = ~(np.isfinite(theta).all(axis=1) & (theta[:, 1] > 0))
    bad = np.flatnonzero(outside | np.append(skip_cause != 0, False))
    if bad.size:
        step = int(bad[0])
        if not outside[step]:
            raise NonFiniteError(
                f"{descent.label}: step {step + 1} was impossible, {_REASONS[SkipCause(int(skip_cause[step]))]}"
            )
        smaller = "step_size" if descent.max_kl is None else "max_kl"
        mu, sigma = theta[step]
        raise NonFiniteError(
            f"{descent.label}: step {step} came to μ = {mu:.4g}, σ = {sigma:.4g}, which is no Gaussian; "
            f"make {smaller} smaller"
        )


def _kl(p: tf.Tensor, q: tf.Tensor) -> np.ndarray:
    """KL(p ‖ q) in nats; p (μ, σ) [2] or as q [..., 2], to [...]."""
    p = tf.broadcast_to(p, q.shape)
    return losses.kl_diagonal_gaussian(p[..., :1], tf.math.log(p[..., 1:]), q[..., :1], tf.math.log(q[..., 1:])).numpy()


def gradient_field(data: np.ndarray, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`∇f` and `F⁻¹∇f` at parameters θ = (μ, σ) [..., 2], both [..., 2] (Fig. 3).

    Raises:
      ValueError: A σ is not positive.
    """
    if not (theta[..., 1] > 0).all():
        raise ValueError("the gradient field needs σ > 0 everywhere")
    points = tf.constant(theta, _DTYPE)
    with tf.GradientTape() as tape:
        tape.watch(points)
        loss = negative_log_likelihood(points, tf.constant(data, _DTYPE))
    gradient = tape.gradient(loss, points)
    natural = tf.linalg.LinearOperatorDiag(fisher_diagonal(points)).solvevec(gradient)
    return gradient.numpy(), natural.numpy()


def fisher_agreement(at: Gaussian, num_samples: int, seed: int) -> dict[str, Any]:
    """How far the sampled Fisher matrix is from the analytic one.

    Args:
      at: θ.
      num_samples: N, at least 2.
      seed: Seed of the samples.

    Returns:
      `analytic` and `sampled` [2, 2], `num_samples`, `relative_error` = ‖F^-½ S F^-½ − I‖ / ‖I‖ (Frobenius), which
      doesn't depend on the parameters, and `expected_error` = √(13/N), its root mean square for Gaussian samples.

    Raises:
      ValueError: There are fewer than 2 samples.
    """
    theta = tf.Variable([at.mean, at.std], dtype=_DTYPE)
    step = tf.constant(0)
    analytic = analytic_fisher(theta, step).to_dense().numpy()
    sampled = sampled_fisher(num_samples, seed)(theta, step).to_dense().numpy()
    root = np.sqrt(np.diag(analytic))
    error = np.linalg.norm(sampled / np.outer(root, root) - np.eye(2)) / math.sqrt(2)
    return {
        "analytic": analytic.tolist(),
        "sampled": sampled.tolist(),
        "num_samples": num_samples,
        "relative_error": float(error),
        "expected_error": math.sqrt(13 / num_samples),
    }
