"""Output metrics M: the curvature of a loss with respect to a network's outputs.

For a network with outputs y [B, K], `GaussNewton` forms F = (1/Σw) Σ_i w_i J_iᵀ M_i J_i. With M the Fisher
information of the distribution that the outputs parameterise, F is that of the network's parameters and
equals the Hessian of KL(π_old ‖ π) at θ_old (Pascanu & Bengio 2013, section 4; Knight & Lerner 2018, eqs. 7
and 8).

Each metric also knows a factor L [K, R] of every example, M_i = L_i L_iᵀ. It makes the rows L_iᵀ J_i of the
scaled Jacobian that dual solvers use.
"""

import abc
import dataclasses
from collections.abc import Callable

import tensorflow as tf

from ngrl.checks import check_number
from ngrl.seeding import GENERATOR


class OutputMetric(abc.ABC):
    """A positive semi-definite [K, K] matrix per example, M_i = L_i L_iᵀ with L_i [K, R].

    Every method takes the outputs y [B, K] at θ_old. Metrics are immutable.
    """

    def check(self, outputs: tf.Tensor) -> None:
        """Raise a ValueError if this metric can't belong to `outputs` [B, K]."""
        del outputs

    def position_weights(self, outputs: tf.Tensor) -> tf.Tensor | None:
        """What each of L positions of an example counts for in the mean, [B, L] of sum 1; None: all alike."""
        del outputs
        return None

    def num_rows(self, num_outputs: int) -> int:
        """R, the number of Jacobian rows per example with K = `num_outputs`."""
        return num_outputs

    @abc.abstractmethod
    def matvec(self, outputs: tf.Tensor, vector: tf.Tensor) -> tf.Tensor:
        """M u for u [B, K]: [B, K]."""

    @abc.abstractmethod
    def factor_matvec(self, outputs: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        """L r for r [B, R]: [B, K]."""

    @abc.abstractmethod
    def factor_rmatvec(self, outputs: tf.Tensor, vector: tf.Tensor) -> tf.Tensor:
        """Lᵀ u for u [B, K]: [B, R]."""

    @abc.abstractmethod
    def factor_solve(self, outputs: tf.Tensor, vector: tf.Tensor) -> tf.Tensor:
        """The shortest c [B, R] with L c = u, for u [B, K] in the range of M."""

    @abc.abstractmethod
    def factor(self, outputs: tf.Tensor) -> tf.Tensor:
        """Lᵀ of every example: [B, R, K]."""

    def sample(self, outputs: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Scores ∂ log p(t | y)/∂y of targets t drawn from the model's distribution, E[s sᵀ] = M: [B, K].

        Here those of a Gaussian, `L ε`.

        Args:
          outputs: y [B, K].
          seed: Two integers, as of `tf.random.stateless_normal`: the same give the same.
        """
        rows = self.factor(outputs)
        noise = tf.random.stateless_normal(tf.shape(rows)[:2], seed, dtype=outputs.dtype, alg=GENERATOR)
        return tf.linalg.matvec(rows, noise, transpose_a=True)


class _DiagonalMetric(OutputMetric):
    """A metric with L = diag(ℓ), R = K."""

    @abc.abstractmethod
    def _root(self, outputs: tf.Tensor) -> tf.Tensor:
        """ℓ, of a shape that broadcasts to [B, K]."""

    def matvec(self, outputs: tf.Tensor, vector: tf.Tensor) -> tf.Tensor:
        return tf.square(self._root(outputs)) * vector

    def factor_matvec(self, outputs: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        return self._root(outputs) * rows

    def factor_rmatvec(self, outputs: tf.Tensor, vector: tf.Tensor) -> tf.Tensor:
        return self._root(outputs) * vector

    def factor_solve(self, outputs: tf.Tensor, vector: tf.Tensor) -> tf.Tensor:
        # Where ℓ = 0 the range of M holds u = 0 only, and c = 0 is its shortest preimage.
        return tf.math.divide_no_nan(vector, self._root(outputs) * tf.ones_like(outputs))

    def factor(self, outputs: tf.Tensor) -> tf.Tensor:
        return tf.linalg.diag(self._root(outputs) * tf.ones_like(outputs))


@dataclasses.dataclass(frozen=True, eq=False)
class SquaredError(_DiagonalMetric):
    """The metric of the loss ½ β² ‖y - t‖²: a Gaussian of variance 1/β² (Knight & Lerner, eq. 7).

    M = β² I, or M = β² e_a e_aᵀ with chosen outputs a: the loss of Q-learning has a residual only at the
    action that was taken, so that one row per example suffices.

    Attributes:
      beta: the inverse standard deviation β > 0.
      chosen: None, or the chosen outputs, integers [B] in [0, K).
    """

    beta: float = 1.0
    chosen: tf.Tensor | None = None

    def __post_init__(self) -> None:
        check_number("beta", self.beta, "(0, inf)")
        if self.chosen is not None:
            chosen = tf.convert_to_tensor(self.chosen)
            if not chosen.dtype.is_integer:
                raise ValueError(f"chosen must hold integers, got {chosen.dtype.name}")
            if chosen.dtype not in (tf.uint8, tf.int8, tf.int32, tf.int64):  # of others there are no one-hot vectors
                chosen = tf.cast(chosen, tf.int64)
            object.__setattr__(self, "chosen", chosen)

    def check(self, outputs: tf.Tensor) -> None:
        if self.chosen is None:
            return
        batch, num_outputs = outputs.shape
        if not self.chosen.shape.is_compatible_with([batch]):
            raise ValueError(f"chosen must have shape [{batch}], got {self.chosen.shape}")
        values = tf.get_static_value(self.chosen)
        if values is not None and values.size and not 0 <= values.min() <= values.max() < num_outputs:
            raise ValueError(f"chosen must lie in [0, {num_outputs}), got {values.min()} to {values.max()}")

    def num_rows(self, num_outputs: int) -> int:
        return num_outputs if self.chosen is None else 1

    def _root(self, outputs: tf.Tensor) -> tf.Tensor:
        if self.chosen is None:
            return tf.constant(self.beta, outputs.dtype)
        on = tf.constant(self.beta, outputs.dtype)
        return tf.one_hot(self.chosen, outputs.shape[-1], on, tf.zeros_like(on), dtype=outputs.dtype)

    def factor_matvec(self, outputs: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        return self._root(outputs) * rows  # with chosen outputs: [B, K] · [B, 1]

    def factor_rmatvec(self, outputs: tf.Tensor, vector: tf.Tensor) -> tf.Tensor:
        product = self._root(outputs) * vector
        return product if self.chosen is None else tf.reduce_sum(product, axis=-1, keepdims=True)

    def factor_solve(self, outputs: tf.Tensor, vector: tf.Tensor) -> tf.Tensor:
        return self.factor_rmatvec(outputs, vector) / tf.constant(self.beta**2, outputs.dtype)

    def factor(self, outputs: tf.Tensor) -> tf.Tensor:
        if self.chosen is None:
            return super().factor(outputs)
        return self._root(outputs)[:, tf.newaxis, :]


@dataclasses.dataclass(frozen=True)
class Bernoulli(_DiagonalMetric):
    """The Fisher information of K independent Bernoulli variables.

    With p the probabilities, M = diag(p (1 - p)) if the outputs are logits, and diag(1 / (p (1 - p))) if they
    are p itself (Knight & Lerner 2018, eq. 8). Where such an output has reached 0 or 1, its entry is 0:
    together with the slope of the sigmoid in front, 1 / (p (1 - p)) becomes p (1 - p).

    Attributes:
      from_logits: whether the outputs are logits (the default) or probabilities.
    """

    from_logits: bool = True

    def _root(self, outputs: tf.Tensor) -> tf.Tensor:
        if self.from_logits:
            # sqrt(p (1 - p)) = exp(½ (log p + log(1 - p))) keeps its relative accuracy far out
            return tf.exp((tf.math.log_sigmoid(outputs) + tf.math.log_sigmoid(-outputs)) / 2)
        variance = tf.maximum(outputs * (1 - outputs), 0)
        return tf.where(variance > 0, tf.math.rsqrt(variance), 0)

    def sample(self, outputs: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        p = tf.sigmoid(outputs) if self.from_logits else outputs
        drawn = tf.random.stateless_uniform(tf.shape(p), seed, dtype=p.dtype, alg=GENERATOR) < p
        score = tf.cast(drawn, p.dtype) - p
        return score if self.from_logits else score * tf.square(self._root(outputs))


@dataclasses.dataclass(frozen=True)
class Categorical(OutputMetric):
    """The Fisher information of a categorical variable with respect to its logits.

    M = diag(p) - p pᵀ = L Lᵀ with L = diag(√p) - p √pᵀ, p = softmax(y).
    """

    @staticmethod
    def _sqrt_p(outputs: tf.Tensor) -> tf.Tensor:
        return tf.exp(tf.nn.log_softmax(outputs) / 2)

    def matvec(self, outputs: tf.Tensor, vector: tf.Tensor) -> tf.Tensor:
        p = tf.nn.softmax(outputs)
        return p * (vector - _sum(p * vector))

    def factor_matvec(self, outputs: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        sqrt_p = self._sqrt_p(outputs)
        return sqrt_p * (rows - sqrt_p * _sum(sqrt_p * rows))

    def factor_rmatvec(self, outputs: tf.Tensor, vector: tf.Tensor) -> tf.Tensor:
        sqrt_p = self._sqrt_p(outputs)
        return sqrt_p * (vector - _sum(tf.square(sqrt_p) * vector))

    def factor_solve(self, outputs: tf.Tensor, vector: tf.Tensor) -> tf.Tensor:
        # The range of M holds the u with Σ_k u_k = 0, where c = u/√p. What rounding has added to Σ_k u_k
        # goes: it would become a part along √p, the null space of L.
        sqrt_p = self._sqrt_p(outputs)
        return tf.math.divide_no_nan(vector, sqrt_p) - sqrt_p * _sum(vector)

    def factor(self, outputs: tf.Tensor) -> tf.Tensor:
        sqrt_p = self._sqrt_p(outputs)
        p = tf.square(sqrt_p)
        return tf.linalg.diag(sqrt_p) - sqrt_p[:, :, tf.newaxis] * p[:, tf.newaxis, :]

    def sample(self, outputs: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        drawn = tf.argmax(_gumbel(outputs, seed), axis=-1)
        return tf.one_hot(drawn, outputs.shape[-1], dtype=outputs.dtype) - tf.nn.softmax(outputs)


@dataclasses.dataclass(frozen=True)
class MultiCategorical(OutputMetric):
    """The Fisher information of independent categorical variables whose logits are side by side, [B, A_1 + … + A_n].

    M is block-diagonal, with a block of `Categorical` for each variable.

    Attributes:
      sizes: A_1 to A_n.
    """

    sizes: tuple[int, ...]

    def check(self, outputs: tf.Tensor) -> None:
        if not outputs.shape[-1:].is_compatible_with([sum(self.sizes)]):
            raise ValueError(f"outputs must be [B, {sum(self.sizes)}] for {self.sizes} logits, got {outputs.shape}")

    def matvec(self, outputs: tf.Tensor, vector: tf.Tensor) -> tf.Tensor:
        return self._joined(Categorical.matvec, outputs, vector)

    def factor_matvec(self, outputs: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        return self._joined(Categorical.factor_matvec, outputs, rows)

    def factor_rmatvec(self, outputs: tf.Tensor, vector: tf.Tensor) -> tf.Tensor:
        return self._joined(Categorical.factor_rmatvec, outputs, vector)

    def factor_solve(self, outputs: tf.Tensor, vector: tf.Tensor) -> tf.Tensor:
        return self._joined(Categorical.factor_solve, outputs, vector)

    def factor(self, outputs: tf.Tensor) -> tf.Tensor:
        placed, before = [], 0
        for part, size in zip(self._split(outputs), self.sizes, strict=True):
            after = sum(self.sizes) - before - size
            placed.append(tf.pad(Categorical().factor(part), [[0, 0], [0, 0], [before, after]]))
            before += size
        return tf.concat(placed, axis=1)

    def sample(self, outputs: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        drawn = _gumbel(outputs, seed)
        scores = [
            tf.one_hot(tf.argmax(part, axis=-1), size, dtype=outputs.dtype)
            for part, size in zip(self._split(drawn), self.sizes, strict=True)
        ]
        return tf.concat(scores, axis=-1) - self._joined(lambda _, part: tf.nn.softmax(part), outputs)

    def _split(self, values: tf.Tensor) -> list[tf.Tensor]:
        return tf.split(values, self.sizes, axis=-1)

    def _joined(self, method: Callable[..., tf.Tensor], *values: tf.Tensor) -> tf.Tensor:
        """What a method of `Categorical` gives for each variable's part of the values, side by side."""
        parts = zip(*map(self._split, values), strict=True)
        return tf.concat([method(Categorical(), *part) for part in parts], axis=-1)


@dataclasses.dataclass(frozen=True)
class DiagonalGaussian(_DiagonalMetric):
    """The Fisher information of D independent Gaussians with outputs (μ, log σ) [B, 2D]: diag(1/σ², 2)."""

    def check(self, outputs: tf.Tensor) -> None:
        if outputs.shape[-1] % 2:
            raise ValueError(f"outputs must be [B, 2D] for means and log standard deviations, got {outputs.shape}")

    def _root(self, outputs: tf.Tensor) -> tf.Tensor:
        _, log_std = tf.split(outputs, 2, axis=-1)
        return tf.concat([tf.exp(-log_std), tf.fill(tf.shape(log_std), tf.sqrt(tf.cast(2, outputs.dtype)))], axis=-1)

    def sample(self, outputs: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        _, log_std = tf.split(outputs, 2, axis=-1)
        noise = tf.random.stateless_normal(tf.shape(log_std), seed, dtype=outputs.dtype, alg=GENERATOR)
        return tf.concat([noise * tf.exp(-log_std), tf.square(noise) - 1], axis=-1)


@dataclasses.dataclass(frozen=True, eq=False)
class OverTime(OutputMetric):
    """One metric for each of L steps of a sequence, whose outputs are side by side, y [B, L·K].

    M_i is block-diagonal, with the blocks (B w_it/Σw) M_it: the mean over B sequences is that over steps weighted by w.

    Attributes:
      metric: the metric of one step, for outputs [N, K].
      weights: w [B, L] >= 0, not all of them 0 where F isn't to be 0.
    """

    metric: OutputMetric
    weights: tf.Tensor

    def check(self, outputs: tf.Tensor) -> None:
        batch, steps = self.weights.shape
        if outputs.shape[0] != batch or outputs.shape[1] % steps:
            raise ValueError(f"outputs must be [{batch}, {steps}·K] for weights {[batch, steps]}, got {outputs.shape}")
        self.metric.check(self._steps(outputs))

    def position_weights(self, outputs: tf.Tensor) -> tf.Tensor:
        """w_it/Σw."""
        weights = tf.cast(self.weights, outputs.dtype)
        return tf.math.divide_no_nan(weights, tf.reduce_sum(weights))

    def num_rows(self, num_outputs: int) -> int:
        steps = self.weights.shape[1]
        return steps * self.metric.num_rows(num_outputs // steps)

    def matvec(self, outputs: tf.Tensor, vector: tf.Tensor) -> tf.Tensor:
        return self._joined(tf.square(self._root(outputs)) * self.metric.matvec(*self._split(outputs, vector)))

    def factor_matvec(self, outputs: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        return self._joined(self._root(outputs) * self.metric.factor_matvec(*self._split(outputs, rows)))

    def factor_rmatvec(self, outputs: tf.Tensor, vector: tf.Tensor) -> tf.Tensor:
        return self._joined(self._root(outputs) * self.metric.factor_rmatvec(*self._split(outputs, vector)))

    def factor_solve(self, outputs: tf.Tensor, vector: tf.Tensor) -> tf.Tensor:
        solved = self.metric.factor_solve(*self._split(outputs, vector))
        return self._joined(tf.math.divide_no_nan(solved, self._root(outputs) * tf.ones_like(solved)))

    def factor(self, outputs: tf.Tensor) -> tf.Tensor:
        batch, steps = self.weights.shape
        blocks = self.metric.factor(self._steps(outputs)) * self._root(outputs)[..., tf.newaxis]
        blocks = tf.reshape(blocks, [batch, steps, 1, *blocks.shape[1:]])
        # [B, t, s, R, K], 0 where t ≠ s
        placed = blocks * tf.eye(steps, dtype=outputs.dtype)[:, :, tf.newaxis, tf.newaxis]
        rows = steps * blocks.shape[3]
        return tf.reshape(tf.transpose(placed, [0, 1, 3, 2, 4]), [batch, rows, outputs.shape[1]])

    def sample(self, outputs: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        return self._joined(self._root(outputs) * self.metric.sample(self._steps(outputs), seed))

    def _root(self, outputs: tf.Tensor) -> tf.Tensor:
        """√(B w_it/Σw), [N, 1]."""
        return tf.reshape(tf.sqrt(self.weights.shape[0] * self.position_weights(outputs)), [-1, 1])

    def _steps(self, values: tf.Tensor) -> tf.Tensor:
        """[B, L·K] as [N, K], N = B·L."""
        batch, steps = self.weights.shape
        return tf.reshape(values, [batch * steps, values.shape[1] // steps])

    def _split(self, *values: tf.Tensor) -> list[tf.Tensor]:
        return [self._steps(value) for value in values]

    def _joined(self, values: tf.Tensor) -> tf.Tensor:
        """[N, K] as [B, L·K]."""
        batch, steps = self.weights.shape
        return tf.reshape(values, [batch, steps * values.shape[1]])


def _gumbel(outputs: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Outputs with Gumbel noise, the largest of which is distributed by softmax(y)."""
    uniform = tf.random.stateless_uniform(tf.shape(outputs), seed, dtype=outputs.dtype, alg=GENERATOR)
    return outputs - tf.math.log(-tf.math.log(uniform))


def _sum(values: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(values, axis=-1, keepdims=True)
