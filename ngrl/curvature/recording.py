"""A forward pass in which every layer tells how it uses its weights."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from ngrl.curvature.network_check import describe_layer, layers_of
from ngrl.curvature.rules import NoRuleError, Rule, find_rule
from ngrl.curvature.uses import LayerCall, Use

_AUTOGRAPH = tf.__internal__.autograph
_BATCH_NORMALISATIONS = (
    tf.keras.layers.BatchNormalization,
    tf.keras.layers.experimental.SyncBatchNormalization,
)

# A layer's `call` is replaced while a pass is recorded: one pass at a time.
_LOCK = threading.RLock()


class _NotRecordedError(Exception):
    """A use whose derivatives aren't those of single examples, or not at hand."""


class Recording:
    """The uses of `variables` in one forward pass over a batch.

    A layer is known by its rule, or else as a whole; then the layers that it is made of aren't looked at. Weights that
    are read outside of every known layer are left over.

    Attributes:
      uses: in the order of the pass.
      tape: a persistent tape of the pass, which watches the uses' outputs.
      leftover: the variables whose uses aren't all recorded.
      unruled: descriptions of the layers that have no rule for what they were asked.
      mixing: description of a layer that mixes examples, or None.
      checks: assertions that what the uses' derivatives are computed from has to wait for.
    """

    def __init__(self, variables: Sequence[tf.Variable]) -> None:
        """Make an empty recording for `variables`."""
        self._wanted = {variable.ref() for variable in variables}
        self._batch: tf.Tensor | None = None
        self.uses: list[Use] = []
        self.unruled: list[str] = []
        self.mixing: str | None = None
        self.checks: list[tf.Operation] = []
        # Tapes notice only trainable variables being read.
        self._leftover = {variable.ref() for variable in variables if not variable.trainable}
        self._graph: Any = None
        self._access = tf.GradientTape()
        self.tape = tf.GradientTape(persistent=True, watch_accessed_variables=False)
        self._busy = False

    @property
    def leftover(self) -> set[Any]:
        """References of variables."""
        return self._leftover

    def run(self, forward: Callable[[Any], Any], modules: Iterable[tf.Module], inputs: Any) -> Any:
        """`forward(inputs)`, recorded; the inputs are a nest of tensors [B, ...]."""
        layers = [layer for module in modules for layer in _known_layers(module, self._wanted)]
        leaves = tf.nest.flatten(inputs)
        if leaves and leaves[0].shape.rank:
            self._batch = leaves[0]
        with _LOCK, contextlib.ExitStack() as stack:
            self._graph = _graph()
            for layer in layers:
                stack.enter_context(self._intercepted(layer))
            stack.enter_context(self._access)
            stack.enter_context(self.tape)
            outputs = forward(inputs)
        self._leftover |= {variable.ref() for variable in self._access.watched_variables()} & self._wanted
        return outputs

    @contextlib.contextmanager
    def _intercepted(self, layer: tf.keras.layers.Layer) -> Iterator[None]:
        if vars(layer).get("call") is not None:  # its own already, or intercepted for another module
            yield
            return
        rule = find_rule(layer) if layer.compute_dtype == layer.variable_dtype else None
        # As Keras converts the call of a layer that isn't its own.
        call = _AUTOGRAPH.tf_convert(layer.call, _AUTOGRAPH.control_status_ctx())
        thread = threading.get_ident()

        @tf.autograph.experimental.do_not_convert
        def recorded(*args: Any, **kwargs: Any) -> Any:
            if self._busy or threading.get_ident() != thread or _graph() is not self._graph:
                return call(*args, **kwargs)
            return self._call(layer, rule, call, args, kwargs)

        vars(layer)["call"] = recorded
        try:
            yield
        finally:
            del vars(layer)["call"]

    def _call(
        self,
        layer: tf.keras.layers.Layer,
        rule: Rule | None,
        call: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        before = len(self.uses)
        self._busy = True
        try:
            with self._access.stop_recording():
                if getattr(layer, "time_major", False):  # its first axis isn't the batch, whatever the sizes say
                    raise _NotRecordedError
                try:
                    if rule is not None:
                        return rule(layer, self._record, *args, **kwargs)
                except NoRuleError:
                    del self.uses[before:]
                if isinstance(layer, _BATCH_NORMALISATIONS):
                    self.mixing = describe_layer(layer)
                self.unruled.append(describe_layer(layer))
                weights = tuple(weight for weight in layer.trainable_weights if weight.ref() in self._wanted)
                return self._record(LayerCall(layer, call, weights, (args, kwargs)))
        except _NotRecordedError:
            del self.uses[before:]
            self._leftover |= {weight.ref() for weight in layer.trainable_weights} & self._wanted
            return call(*args, **kwargs)
        finally:
            self._busy = False

    def _record(self, use: Use) -> Any:
        if not all(isinstance(weight, tf.Variable) for weight in use.weights):
            raise NoRuleError  # a subclass computes them of others
        outputs = use.forward()
        if not any(weight.ref() in self._wanted for weight in use.weights):
            return outputs
        for z in use.outputs:
            self._check(z)
            self.tape.watch(z)
        self.uses.append(use)
        return outputs

    def _check(self, z: tf.Tensor) -> None:
        """Refuse an output that isn't one of each example, as where steps of time were folded into the batch."""
        if self._batch is None or _graph() is not self._graph or not z.shape.rank:
            raise _NotRecordedError
        if not z.shape[1:].is_fully_defined() or not z.shape[:1].is_compatible_with(self._batch.shape[:1]):
            raise _NotRecordedError
        if None in (z.shape[0], self._batch.shape[0]):
            same = tf.debugging.assert_equal(
                tf.shape(z)[0],
                tf.shape(self._batch)[0],
                "a layer gets another number of examples than the network: give batches of a fixed size",
            )
            self.checks.append(same)


def _known_layers(module: tf.Module, wanted: set[Any]) -> list[tf.keras.layers.Layer]:
    """The layers in a module that have a rule or wanted weights of their own.

    A network without a rule isn't looked at as a whole: that would be nothing but the general way.
    """
    known = []
    for layer in layers_of(module):
        if isinstance(layer, _BATCH_NORMALISATIONS):
            known.append(layer)
        elif find_rule(layer) is not None or isinstance(layer, tf.keras.layers.TimeDistributed):
            known += [layer] if _refs(layer) & wanted else []
        elif layer is not module:
            parts = [part for part in layers_of(layer) if part is not layer]
            known += [layer] if (_refs(layer) - {ref for part in parts for ref in _refs(part)}) & wanted else []
    return known


def _refs(layer: tf.keras.layers.Layer) -> set[Any]:
    return {weight.ref() for weight in layer.trainable_weights}


def _graph() -> Any:
    return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
