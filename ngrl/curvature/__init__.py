"""Curvature: what F is, as `tf.linalg.LinearOperator` subclasses over the flat parameter vector."""

from ngrl.curvature.dense_stack import DenseStack
from ngrl.curvature.flatten import flatten, num_parameters, unflatten
from ngrl.curvature.gauss_newton import GaussNewton
from ngrl.curvature.metrics import OutputMetric, SquaredError

__all__ = [
    "DenseStack",
    "GaussNewton",
    "OutputMetric",
    "SquaredError",
    "flatten",
    "num_parameters",
    "unflatten",
]
