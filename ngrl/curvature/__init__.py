"""Curvature: what F is, as `tf.linalg.LinearOperator` subclasses over the flat parameter vector."""

from ngrl import _autograph  # noqa: F401
from ngrl.curvature.dense_stack import DenseStack
from ngrl.curvature.empirical_fisher import EmpiricalFisher
from ngrl.curvature.flatten import flatten, num_parameters, unflatten
from ngrl.curvature.gauss_newton import GaussNewton
from ngrl.curvature.kronecker import KroneckerFactored, KroneckerLayers
from ngrl.curvature.layer_jacobian import LayeredNetwork
from ngrl.curvature.metrics import (
    Bernoulli,
    Categorical,
    DiagonalGaussian,
    MultiCategorical,
    OutputMetric,
    OverTime,
    SquaredError,
)
from ngrl.curvature.network_check import check_network, describe_layer, layers_of
from ngrl.curvature.unchanged import is_unchanged

__all__ = [
    "Bernoulli",
    "Categorical",
    "DenseStack",
    "DiagonalGaussian",
    "EmpiricalFisher",
    "GaussNewton",
    "KroneckerFactored",
    "KroneckerLayers",
    "LayeredNetwork",
    "MultiCategorical",
    "OutputMetric",
    "OverTime",
    "SquaredError",
    "check_network",
    "describe_layer",
    "flatten",
    "is_unchanged",
    "layers_of",
    "num_parameters",
    "unflatten",
]
