"""Compiled functions for the inner loop, called with little overhead."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.eager import context

_LEAVES = (np.ndarray, np.generic, tf.Tensor)


class Compiled:
    """A function compiled for the shapes and dtypes of its first call's arguments, which all later calls must have.

    A `tf.function` compares the types of its arguments with those it knows at every call, which for a small policy
    takes twice as long as the policy itself; calling its concrete function binds them to parameters by name, which
    still takes as long. Here every array goes straight to the runtime, under the concrete function's name. That is
    TensorFlow's own, not public, interface (`tensorflow.python.eager.context`), which no other module of ngrl uses.

    Args:
      function: Takes and returns nests of tensors.
      jit_compile: Compile with XLA.
    """

    def __init__(self, function: Callable[..., Any], jit_compile: bool):
        self._function = function
        self._jit_compile = jit_compile
        self._concrete: Any = None  # kept, since the runtime forgets its name with it
        self._captures: list[tf.Tensor] = []
        self._num_results = 0
        self._structure: Any = None
        self._returns_flat = False

    def __call__(self, *arguments: Any) -> Any:
        """The function's results, tensors in the structure that it returned."""
        # Walking a nest costs about as much as the call: what is flat is taken as it is.
        flat = all(isinstance(argument, _LEAVES) for argument in arguments)
        leaves = [tf.constant(leaf) for leaf in (arguments if flat else tf.nest.flatten(arguments))]
        if self._concrete is None:
            self._concrete = self._compile(arguments, leaves)
            self._captures, self._num_results = self._concrete.captured_inputs, len(self._concrete.outputs)
        results = context.context().call_function(self._concrete.name, leaves + self._captures, self._num_results)
        return tuple(results) if self._returns_flat else tf.nest.pack_sequence_as(self._structure, results)

    def _compile(self, arguments: tuple[Any, ...], leaves: list[tf.Tensor]) -> Any:
        def on_leaves(*flat: tf.Tensor) -> list[tf.Tensor]:
            results = self._function(*tf.nest.pack_sequence_as(arguments, flat))
            self._structure = tf.nest.map_structure(lambda leaf: None, results)
            self._returns_flat = type(results) is tuple and all(isinstance(result, _LEAVES) for result in results)
            return tf.nest.flatten(results)

        compiled = tf.function(on_leaves, jit_compile=self._jit_compile, autograph=False)
        return compiled.get_concrete_function(*[tf.TensorSpec(leaf.shape, leaf.dtype) for leaf in leaves])
