"""Compiled functions for the inner loop, called with little overhead."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.python.eager import context
from tensorflow.python.framework.constant_op import convert_to_eager_tensor

from ngrl import seeding

_LEAVES = (np.ndarray, np.generic, tf.Tensor)

Builder = Callable[[list[tf.Tensor]], Any]


class _Traced(NamedTuple):
    """A concrete function that may serve other variables than those it was traced with."""

    concrete: Any
    build: Builder
    places: list[int]  # which of its owner's variables each captured input is


_shared: dict[Any, _Traced] | None = None


@contextlib.contextmanager
def sharing() -> Iterator[None]:
    """Within, loops that differ in their seed alone share what is compiled: the first one's functions serve all.

    A function is shared that captured nothing but its owner's variables and in which no stream's key is a constant; the
    others are compiled for each loop, as outside.
    """
    global _shared
    _shared = {}
    try:
        yield
    finally:
        _shared = None


def tracked_variables(root: tf.Module) -> list[tf.Variable]:
    """All variables that a checkpoint of `root` would hold, in an order that follows from how it was made."""
    return [found for found in tf.train.TrackableView(root).descendants() if isinstance(found, tf.Variable)]


class Compiled:
    """A function compiled for the shapes and dtypes of its first call's arguments, which all later calls must have.

    A `tf.function` compares the types of its arguments with those it knows at every call, which for a small policy
    takes twice as long as the policy itself; calling its concrete function binds them to parameters by name, which
    still takes as long. Here every array goes straight to the runtime, under the concrete function's name. That is
    TensorFlow's own, not public, interface (`tensorflow.python.eager.context`), which no other module of ngrl uses, and
    so is the way that an array takes there (`convert_to_eager_tensor`), which copies it as `tf.constant` does.

    Args:
      function: Takes and returns nests of tensors.
      jit_compile: Compile with XLA.
      variables: Gives all variables that the function uses, keys of streams (`seeding.key`) among them, in an order
        that doesn't depend on the seed; None for a function that is not to be shared (`sharing`).
    """

    def __init__(
        self,
        function: Callable[..., Any],
        jit_compile: bool,
        variables: Callable[[], Sequence[tf.Variable]] | None = None,
    ):
        self._function = function
        self._variables = variables
        self._jit_compile = jit_compile
        self._concrete: Any = None  # kept, since the runtime forgets its name with it
        self._captures: list[tf.Tensor] = []
        self._num_results = 0
        self._build: Builder = list

    def __call__(self, *arguments: Any) -> Any:
        """The function's results, tensors in the structure that it returned."""
        # Walking a nest costs about as much as the call: what is flat is taken as it is.
        flat = all(isinstance(argument, _LEAVES) for argument in arguments)
        eager = context.context()
        leaves = [convert_to_eager_tensor(leaf, eager) for leaf in (arguments if flat else tf.nest.flatten(arguments))]
        if self._concrete is None:
            self._concrete, self._captures = self._found(arguments, leaves)
            self._num_results = len(self._concrete.outputs)
        results = eager.call_function(self._concrete.name, leaves + self._captures, self._num_results)
        return self._build(results)

    def _found(self, arguments: tuple[Any, ...], leaves: list[tf.Tensor]) -> tuple[Any, list[tf.Tensor]]:
        """The concrete function and its captured inputs, of another loop's function where that will do."""
        if _shared is None or self._variables is None:
            concrete = self._compile(arguments, leaves)
            return concrete, concrete.captured_inputs
        variables = list(self._variables())
        described = tuple((tuple(each.shape), each.dtype) for each in (*leaves, *variables))
        key = (_code(self._function), self._jit_compile, described)
        if key in _shared:
            traced = _shared[key]
            self._build = traced.build
            return traced.concrete, [variables[place].handle for place in traced.places]
        constant_keys = seeding.constant_keys()
        concrete = self._compile(arguments, leaves)
        places = {id(variable.handle): place for place, variable in enumerate(variables)}
        found = [places.get(id(capture)) for capture in concrete.captured_inputs]
        known = [place for place in found if place is not None]
        if len(known) == len(found) and seeding.constant_keys() == constant_keys:
            _shared[key] = _Traced(concrete, self._build, known)
        return concrete, concrete.captured_inputs

    def _compile(self, arguments: tuple[Any, ...], leaves: list[tf.Tensor]) -> Any:
        def on_leaves(*flat: tf.Tensor) -> list[tf.Tensor]:
            results = self._function(*tf.nest.pack_sequence_as(arguments, flat))
            self._build = builder(results)
            return tf.nest.flatten(results)

        compiled = tf.function(on_leaves, jit_compile=self._jit_compile, autograph=False)
        return compiled.get_concrete_function(*[tf.TensorSpec(leaf.shape, leaf.dtype) for leaf in leaves])


def builder(example: Any) -> Builder:
    """`tf.nest.pack_sequence_as(example, …)` as a function of the leaves, in a tenth of the time.

    `tf.nest` asks at every call what each part of a nest is. Here that is asked once, and what makes each part is kept.

    Args:
      example: A nest. Tuples, named or not, and lists are made here, a nest with anything else by `tf.nest`.
    """
    structure = tf.nest.map_structure(lambda leaf: None, example)
    build = _build_by_parts(structure)
    if build is None:
        return lambda leaves: tf.nest.pack_sequence_as(structure, leaves)
    return lambda leaves: build(iter(leaves))


def _build_by_parts(structure: Any) -> Callable[[Iterator[tf.Tensor]], Any] | None:
    """What takes the leaves of a structure one by one and makes it; None where a part is of another kind."""
    if structure is None:
        return next
    kind = type(structure)
    make: Callable[[Iterator[Any]], Any] = getattr(kind, "_make", kind)
    if not issubclass(kind, tuple | list) or (make is kind and kind not in (tuple, list)):
        return None
    found = [_build_by_parts(part) for part in structure]
    parts = [part for part in found if part is not None]
    if len(parts) < len(found):
        return None
    return lambda leaves: make(part(leaves) for part in parts)


def _code(function: Callable[..., Any]) -> Any:
    """What functions have in common that were made by the same lines."""
    function = getattr(function, "__func__", function)
    return getattr(function, "__code__", None) or type(function)
