"""What an optimizer asks of a solver: one entry, whatever space the gradient is given and the system solved in.

Symbols: A [P, P] the operator, with rows R [n, P] where it has them (A = RᵀR), b [P] the gradient, x [P] the solution
of (A + λI) x = b. For a loss that depends on the parameters through a network's outputs alone, b = Rᵀc: then x lies in
the row space too, and R x [n] says all of what a step along x is predicted to do.
"""

import abc
from collections.abc import Callable
from typing import Any

import tensorflow as tf


class RightHandSide(abc.ABC):
    """A gradient b: what is known of it decides in which space a solver can work."""

    @abc.abstractmethod
    def gradient(self, operator: tf.linalg.LinearOperator) -> tf.Tensor:
        """B itself [P]."""

    def coefficients(self, operator: tf.linalg.LinearOperator) -> tf.Tensor | None:
        """The c [n] with b = Rᵀc, or None where b needn't lie in the row space."""
        del operator
        return None


class ParameterGradient(RightHandSide):
    """B as a vector of the parameters [P]."""

    def __init__(self, value: tf.Tensor):
        self._value = value

    def gradient(self, operator: tf.linalg.LinearOperator) -> tf.Tensor:
        """B itself [P]."""
        del operator
        return self._value


class OutputGradient(RightHandSide):
    """B = Jᵀu of a loss whose gradient with respect to the operator's outputs is u [B, K]."""

    def __init__(self, value: tf.Tensor):
        self._value = value

    def gradient(self, operator: tf.linalg.LinearOperator) -> tf.Tensor:
        """Jᵀu [P]."""
        return operator.vjp(self._value)

    def coefficients(self, operator: tf.linalg.LinearOperator) -> tf.Tensor:
        """The shortest c [n]."""
        return operator.row_coefficients(self._value)


class RowCombination(RightHandSide):
    """B = Rᵀc for given coefficients c [n]."""

    def __init__(self, coefficients: tf.Tensor):
        self._coefficients = coefficients

    def gradient(self, operator: tf.linalg.LinearOperator) -> tf.Tensor:
        """Rᵀc [P]."""
        return operator.row_rmatvec(self._coefficients)

    def coefficients(self, operator: tf.linalg.LinearOperator) -> tf.Tensor:
        """The coefficients c [n]."""
        del operator
        return self._coefficients


class System(abc.ABC):
    """A system that was solved, which can tell what a vector v [P] means for it.

    Both numbers follow from v and its *image*, which solving has left over for x: a product with the operator saved.

    Attributes:
      gradient_norm: ‖b‖.
    """

    gradient_norm: tf.Tensor

    @abc.abstractmethod
    def image(self, vector: tf.Tensor) -> tf.Tensor:
        """What the operator makes of v [P]."""

    @abc.abstractmethod
    def slope(self, vector: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
        """bᵀv, a scalar."""

    @abc.abstractmethod
    def curvature(self, vector: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
        """vᵀAv, a scalar."""

    @abc.abstractmethod
    def sample(self) -> tf.Tensor:
        """Numbers among which one is not finite if A holds one."""


class ParameterSystem(System):
    """`(A + λI) x = b` in the space of the parameters; the image of v is A v [P]."""

    def __init__(self, operator: tf.linalg.LinearOperator, gradient: tf.Tensor):
        self._operator, self._gradient = operator, gradient
        self.gradient_norm = tf.sqrt(tf.reduce_sum(tf.square(gradient)))

    def image(self, vector: tf.Tensor) -> tf.Tensor:
        """A v [P]."""
        return self._operator.matvec(vector)

    def slope(self, vector: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
        """bᵀv."""
        del image
        return tf.reduce_sum(self._gradient * vector)

    def curvature(self, vector: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
        """vᵀ(A v)."""
        return tf.reduce_sum(vector * image)

    def sample(self) -> tf.Tensor:
        """A b / ‖b‖ [P]."""
        return self._operator.matvec(self._gradient / self.gradient_norm)


class _RowSystem(System):
    """A system of rows R with b = Rᵀc: the image of v is R v [n], and slopes need no b, but c."""

    def __init__(self, rows: Any, coefficients: tf.Tensor, squared_norm: tf.Tensor):
        """Take what has the rows' `row_matvec`, c [n], and ‖b‖², which rounding may leave below 0."""
        self._rows, self._coefficients = rows, coefficients
        self.gradient_norm = tf.sqrt(tf.maximum(squared_norm, 0))

    def image(self, vector: tf.Tensor) -> tf.Tensor:
        """R v [n]."""
        return self._rows.row_matvec(vector)

    def slope(self, vector: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
        """bᵀv = cᵀ(R v)."""
        del vector
        return tf.reduce_sum(self._coefficients * image)

    def curvature(self, vector: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
        """vᵀAv = ‖R v‖²."""
        del vector
        return tf.reduce_sum(tf.square(image))


class RowSystem(_RowSystem):
    """`(RRᵀ + λI) z = c`, x = Rᵀz, in the space of the rows."""

    def __init__(self, operator: tf.linalg.LinearOperator, coefficients: tf.Tensor, gram: tf.Tensor):
        # ‖b‖² = cᵀ R Rᵀ c
        super().__init__(operator, coefficients, tf.reduce_sum(coefficients * tf.linalg.matvec(gram, coefficients)))
        self._gram = gram

    def sample(self) -> tf.Tensor:
        """RRᵀ [n, n]."""
        return self._gram


class RowProducts(ParameterSystem):
    """A system in the space of the parameters whose operator has rows R: the image of v is R v [n].

    Half the price of A v = Rᵀ(R v), where the solver didn't need A v itself.
    """

    def __init__(
        self,
        operator: tf.linalg.LinearOperator,
        gradient: tf.Tensor,
        row_matvec: Callable[[tf.Tensor], tf.Tensor] | None = None,
    ):
        super().__init__(operator, gradient)
        self._row_matvec = row_matvec or operator.row_matvec

    def image(self, vector: tf.Tensor) -> tf.Tensor:
        """R v [n]."""
        return self._row_matvec(vector)

    def curvature(self, vector: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
        """vᵀAv = ‖R v‖²."""
        del vector
        return tf.reduce_sum(tf.square(image))


class CombinedRows(_RowSystem):
    """Like `RowProducts`, for b = Rᵀc in the parts of a network's layers."""

    def __init__(self, layers: Any, coefficients: tf.Tensor, parts: Any):
        """Take the layers as `GaussNewton.kronecker_layers` gives them, c [n], and b as their `combine` gives it."""
        super().__init__(layers, coefficients, _squared_norm(parts))

    def sample(self) -> tf.Tensor:
        """Sums of what the rows are made of."""
        return self._rows.sample()


class FactoredModel(System):
    """`(F̂ + λI) x = b` in the parts of a network's layers, with F̂ + λI taken for the curvature itself.

    Then xᵀ(F̂ + λI)x = bᵀx and no row is needed. The image of x is `[bᵀx, sqrt(bᵀx)]`.
    """

    def __init__(self, layers: Any, parts: Any, solution: Any):
        """Take the layers as `GaussNewton.kronecker_layers` gives them, b and x as their `parts` does."""
        self._layers = layers
        self.gradient_norm = tf.sqrt(tf.maximum(_squared_norm(parts), 0))
        terms = [part.dot(found) for part, found in zip(parts[0], solution[0], strict=True)]
        terms += [tf.reduce_sum(part * found) for part, found in zip(parts[1], solution[1], strict=True)]
        slope = tf.add_n(terms)
        self.of_solution = tf.stack([slope, tf.sqrt(tf.maximum(slope, 0))])

    def image(self, vector: tf.Tensor) -> tf.Tensor:
        """Refuse: of other vectors nothing is known.

        Raises:
          ValueError: Always.
        """
        raise ValueError(
            'quadratic_model="factored" knows the curvature along its own solution alone: take momentum=0, or "exact"'
        )

    def slope(self, vector: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
        """bᵀx."""
        del vector
        return image[0]

    def curvature(self, vector: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
        """xᵀ(F̂ + λI)x."""
        del vector
        return tf.square(image[1])

    def sample(self) -> tf.Tensor:
        """Sums of what the rows are made of."""
        return self._layers.sample()


def _squared_norm(parts: Any) -> tf.Tensor:
    """‖b‖² of b in parts; rounding may leave it below 0."""
    return tf.add_n([part.squared_norm() for part in parts[0]] + [tf.reduce_sum(tf.square(part)) for part in parts[1]])
