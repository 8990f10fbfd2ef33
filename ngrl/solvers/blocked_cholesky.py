"""A Cholesky solve made of matrix products, for XLA, which has no LAPACK on the CPU.

XLA expands `tf.linalg.cholesky` into loops over single columns: about a hundred times as long as LAPACK for 128 rows.
"""

import tensorflow as tf

_BLOCK = 32
_MOST_BLOCKS = 8  # they are unrolled, and XLA takes its time for each


def solve(matrix: tf.Tensor, rhs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Solves `A x = b` by `A = L Lᵀ`, block column by block column, and a step of iterative refinement.

    Of L only the blocks below the diagonal are kept, and the inverses W of those on it: then all is products. What the
    inverses cost in accuracy the refinement brings back (Higham 2002, chapters 12 and 14): the backward error
    `||b - A x|| / (||A|| ||x|| + ||b||)` is below 2 eps, as LAPACK's is.

    Args:
      matrix: A, symmetric, [n, n], n >= 1 known when traced.
      rhs: b [n].

    Returns:
      x [n], and the pivots, the squares of L's diagonal [n]. From a pivot on that isn't positive both are worthless:
      not finite, or not positive.
    """
    factor, pivots = _factorise(matrix)
    value = _substitute(factor, rhs)
    value += _substitute(factor, rhs - tf.linalg.matvec(matrix, value))
    return value, pivots


def inverse(matrix: tf.Tensor) -> tf.Tensor:
    """`A⁻¹ = L⁻ᵀ L⁻¹` [n, n] of a symmetric matrix, n known when traced; not finite where a pivot isn't positive."""
    lower = inverse_factor(matrix)
    return tf.matmul(lower, lower, transpose_a=True)


def inverse_factor(matrix: tf.Tensor) -> tf.Tensor:
    """L⁻¹ [..., n, n] of symmetric matrices `A = L Lᵀ` [..., n, n], their shape known when traced."""
    rest, rows = tf.eye(matrix.shape[-1], batch_shape=matrix.shape[:-2], dtype=matrix.dtype), []
    for diagonal, panel in _factorise(matrix)[0]:
        # L X = I, from above
        width = diagonal.shape[-1]
        rows.append(tf.matmul(diagonal, rest[..., :width, :]))
        rest = rest[..., width:, :] - tf.matmul(panel, rows[-1])
    return tf.concat(rows, axis=-2)


def _factorise(matrix: tf.Tensor) -> tuple[list[tuple[tf.Tensor, tf.Tensor]], tf.Tensor]:
    """W_i and L_i of each block column, and the pivots [..., n]."""
    size = matrix.shape[-1]
    block = max(_BLOCK, -(-size // _MOST_BLOCKS))
    factor, pivots, rest = [], [], matrix
    for start in range(0, size, block):
        width = min(block, size - start)
        inverse, pivot = _invert_factor(rest[..., :width, :width])
        # L_i = A_i W_iᵀ,  A ← A - L_i L_iᵀ
        panel = tf.matmul(rest[..., width:, :width], inverse, transpose_b=True)
        rest = rest[..., width:, width:] - tf.matmul(panel, panel, transpose_b=True)
        factor.append((inverse, panel))
        pivots.append(pivot)
    return factor, tf.concat(pivots, axis=-1)


def _substitute(factor: list[tuple[tf.Tensor, tf.Tensor]], rhs: tf.Tensor) -> tf.Tensor:
    """`(L Lᵀ)⁻¹ b` [n], with W_i and L_i of each block column."""
    halfway = []
    for inverse, panel in factor:
        # L y = b, from above:  y_i = W_i b_i,  b ← b - L_i y_i
        width = inverse.shape[0]
        halfway.append(tf.linalg.matvec(inverse, rhs[:width]))
        rhs = rhs[width:] - tf.linalg.matvec(panel, halfway[-1])
    value = rhs  # empty by now
    for (inverse, panel), y in zip(reversed(factor), reversed(halfway), strict=True):
        # Lᵀ x = y, from below:  x_i = W_iᵀ (y_i - L_iᵀ x)
        rest = y - tf.linalg.matvec(panel, value, transpose_a=True)
        value = tf.concat([tf.linalg.matvec(inverse, rest, transpose_a=True), value], axis=0)
    return value


def _invert_factor(matrix: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """L⁻¹ [..., b, b] of `A = L Lᵀ`, and the pivots [..., b].

    Elimination takes [A I] to D^(1/2) [Lᵀ L⁻¹], D the pivots.
    """
    size = matrix.shape[-1]
    rows = tf.range(size)

    def eliminate(column: tf.Tensor, both: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        row = both[..., column, :]
        pivot = row[..., column, tf.newaxis]
        factors = tf.where(rows > column, both[..., column] / pivot, tf.zeros([size], both.dtype))
        return column + 1, both - factors[..., tf.newaxis] * row[..., tf.newaxis, :]

    identity = tf.eye(size, batch_shape=matrix.shape[:-2], dtype=matrix.dtype)
    both = tf.concat([matrix, identity], axis=-1)
    _, both = tf.while_loop(lambda column, _: column < size - 1, eliminate, (tf.constant(0), both))
    pivots = tf.linalg.diag_part(both[..., :size])
    return both[..., size:] / tf.sqrt(pivots)[..., tf.newaxis], pivots
