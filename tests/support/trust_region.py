"""Optimizers that take TRPO's step, and the ways to run it."""

import tensorflow as tf

from ngrl import solvers
from ngrl.optimizers import BacktrackingLineSearch, NaturalGradient

MODES = {
    "eager": lambda function: function,
    "graph": tf.function,
    "xla": lambda function: tf.function(function, jit_compile=True),
}


def trpo(max_kl=0.5, damping=0.0, line_search=None, **options):
    """`NaturalGradient` with KL-sized steps, an exact solve and a line search, unless told otherwise."""
    options.setdefault("learning_rate", None)
    options.setdefault("solver", solvers.Cholesky())
    line_search = BacktrackingLineSearch() if line_search is None else line_search
    return NaturalGradient(damping=damping, max_kl=max_kl, line_search=line_search, **options)
