"""Inverses of K-FAC's damped factors: as they are, or by a low rank and the damping (Puiu 2022, arXiv:2206.15397).

Symbols: A [n, n] a factor, δ its damping, Q [n, r] with A ≈ QQᵀ, L the Cholesky factor of QᵀQ + δI. By Woodbury's
identity (QQᵀ + δI)⁻¹ = I/δ - HHᵀ with H = Q L⁻ᵀ / √δ [n, r]: a product with it takes 2nr multiplications, not n².
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from ngrl.solvers import blocked_cholesky
from ngrl.solvers.solution import damped
from ngrl.xla import is_traced_for_xla

_FRESH = 0.01  # the random share of what a factor is multiplied by: where it moves to must not be orthogonal to it


@dataclasses.dataclass(frozen=True)
class LowRank:
    """The symmetric matrix `scale · I - HHᵀ` [n, n], for H [n, r]."""

    root: tf.Tensor
    scale: tf.Tensor

    def before(self, value: tf.Tensor) -> tf.Tensor:
        """Itself times V [n, m]."""
        return self.scale * value - tf.matmul(self.root, tf.matmul(self.root, value, transpose_a=True))

    def after(self, value: tf.Tensor) -> tf.Tensor:
        """V [m, n] times itself."""
        return self.scale * value - tf.matmul(tf.matmul(value, self.root), self.root, transpose_b=True)

    def sketch(self, fresh: tf.Tensor) -> tf.Tensor:
        """Ω [n, r] for the next average: the directions that are above the damping, and a little of `fresh`."""
        return tf.math.divide_no_nan(self.root, tf.sqrt(self.scale)) + _FRESH * fresh


def averaged(
    roots: Sequence[tf.Tensor], rows: Sequence[tf.Tensor], sketches: Sequence[tf.Tensor], keep: tf.Tensor
) -> list[tf.Tensor]:
    """Q [n, r] of `A = keep QQᵀ + (1 - keep) XᵀX`, for each Q [n, r], X [N, n] and Ω [n, r].

    Nyström's approximation A ≈ AΩ (ΩᵀAΩ)⁻¹ (AΩ)ᵀ (Gittens & Mahoney 2013), which is A where its rank is at most r. With
    an Ω of the average before, this is a step of subspace iteration.
    """
    images, grams = [], []
    for root, batch, sketch in zip(roots, rows, sketches, strict=True):
        old, new = tf.matmul(root, sketch, transpose_a=True), tf.matmul(batch, sketch)
        images.append(keep * tf.matmul(root, old) + (1 - keep) * tf.matmul(batch, new, transpose_a=True))
        grams.append(keep * tf.matmul(old, old, transpose_a=True) + (1 - keep) * tf.matmul(new, new, transpose_a=True))
    gram = tf.stack(grams)
    # What rounding leaves of the smallest eigenvalues may be negative.
    numbers = np.finfo(gram.dtype.as_numpy_dtype)
    shift = gram.shape[-1] * numbers.eps * tf.linalg.trace(gram) + numbers.tiny
    inverses = _inverse_factors(gram, shift)
    return [
        tf.matmul(image, inverse, transpose_b=True) for image, inverse in zip(images, tf.unstack(inverses), strict=True)
    ]


def low_rank(roots: Sequence[tf.Tensor], dampings: Sequence[tf.Tensor]) -> list[LowRank]:
    """`(QQᵀ + δI)⁻¹` for each Q [n, r] and δ; not finite where δ isn't positive."""
    grams = tf.stack([tf.matmul(root, root, transpose_a=True) for root in roots])
    inverses = _inverse_factors(grams, tf.stack(dampings))
    return [
        LowRank(tf.matmul(root, inverse, transpose_b=True) / tf.sqrt(damping), 1 / damping)
        for root, inverse, damping in zip(roots, tf.unstack(inverses), dampings, strict=True)
    ]


def dampings(inputs_mean: tf.Tensor, derivatives_mean: tf.Tensor, damping: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """`π√λ` and `√λ/π` from tr A / d̄ and tr G / m (Martens & Grosse 2015, section 6.3); π = 1 where a trace is 0."""
    ratio = tf.math.divide_no_nan(inputs_mean, derivatives_mean)
    pi = tf.sqrt(tf.where(ratio > 0, ratio, tf.ones_like(ratio)))
    root = tf.sqrt(damping)
    return pi * root, root / pi


def eigenbasis(inputs: tf.Tensor, derivatives: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """U_A, U_G, and the eigenvalues s_A s_Gᵀ [d̄, m] of A ⊗ G; these are NaN where a matrix isn't finite."""
    (s_a, u_a, a_finite), (s_g, u_g, g_finite) = _eigh(inputs), _eigh(derivatives)
    # Rounding leaves small negative ones where A is singular.
    eigenvalues = tf.maximum(s_a, 0)[:, tf.newaxis] * tf.maximum(s_g, 0)
    return u_a, u_g, tf.where(a_finite & g_finite, eigenvalues, tf.constant(float("nan"), eigenvalues.dtype))


def _eigh(matrix: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Eigenvalues [n], eigenvectors [n, n], and whether the matrix [n, n] is finite; LAPACK's raises if it isn't."""
    finite = tf.reduce_all(tf.math.is_finite(matrix))
    values, vectors = tf.linalg.eigh(tf.where(finite, matrix, tf.eye(matrix.shape[0], dtype=matrix.dtype)))
    return values, vectors, finite


def dense(matrix: tf.Tensor) -> tf.Tensor:
    """The inverse of a positive definite matrix [n, n]; not finite where it isn't."""
    if is_traced_for_xla():
        return blocked_cholesky.inverse(matrix)
    factor = tf.linalg.cholesky(matrix)
    return tf.linalg.cholesky_solve(factor, tf.eye(matrix.shape[0], dtype=matrix.dtype))


def _inverse_factors(matrices: tf.Tensor, shifts: tf.Tensor) -> tf.Tensor:
    """L⁻¹ [f, r, r] of the Cholesky factors of `matrices[i] + shifts[i] I`, all in one loop under XLA."""
    matrices = damped(matrices, shifts[:, tf.newaxis])
    if is_traced_for_xla():
        return blocked_cholesky.inverse_factor(matrices)
    identity = tf.eye(matrices.shape[-1], batch_shape=[matrices.shape[0]], dtype=matrices.dtype)
    return tf.linalg.triangular_solve(tf.linalg.cholesky(matrices), identity)
