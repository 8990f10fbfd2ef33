"""Recurrent layers, unrolled: a weight's row is a sum over the steps of time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from ngrl.curvature.rules.registry import NoRuleError, Recorder, layer_rule
from ngrl.curvature.unchanged import inherits
from ngrl.curvature.uses import Linear, ScaleShift

_KERAS = tf.keras.layers
_State = list[tf.Tensor]

#: Steps that are unrolled at most. The graph grows with each.
_MOST_STEPS = 256

_CELLS = {_KERAS.SimpleRNN: _KERAS.SimpleRNNCell, _KERAS.LSTM: _KERAS.LSTMCell, _KERAS.GRU: _KERAS.GRUCell}


@layer_rule(_KERAS.SimpleRNN)
def simple_rnn(layer: Any, record: Recorder, inputs: Any, **kwargs: Any) -> Any:
    """h_t = φ(x_t W + b + h_{t−1} U)."""
    cell = layer.cell

    def step(x: tf.Tensor, state: _State) -> _State:
        return [_act(cell.activation, x + _recurrent(cell, record, state[0]))]

    return _unroll(layer, record, inputs, kwargs, cell.bias if cell.use_bias else None, step)


@layer_rule(_KERAS.LSTM)
def lstm(layer: Any, record: Recorder, inputs: Any, **kwargs: Any) -> Any:
    """c_t = f ∘ c_{t−1} + i ∘ φ(g), h_t = o ∘ φ(c_t), for gates i, f, g, o of x_t W + b + h_{t−1} U."""
    cell = layer.cell

    def step(x: tf.Tensor, state: _State) -> _State:
        h, c = state
        i, f, g, o = tf.split(x + _recurrent(cell, record, h), 4, axis=-1)
        gate = cell.recurrent_activation
        c = gate(f) * c + gate(i) * _act(cell.activation, g)
        return [gate(o) * _act(cell.activation, c), c]

    return _unroll(layer, record, inputs, kwargs, cell.bias if cell.use_bias else None, step)


@layer_rule(_KERAS.GRU)
def gru(layer: Any, record: Recorder, inputs: Any, **kwargs: Any) -> Any:
    """h_t = z ∘ h_{t−1} + (1 − z) ∘ h̃_t, the reset gate r before or after the product with U (Cho et al. 2014)."""

    def step(x: tf.Tensor, state: _State) -> _State:
        return [_gru_step(layer.cell, record, x, state[0])]

    return _unroll(layer, record, inputs, kwargs, _gru_bias(layer.cell), step)


@layer_rule(_KERAS.GRUCell)
def gru_cell(cell: Any, record: Recorder, inputs: Any, states: Any, training: bool | None = None) -> Any:
    """One step of `gru`: for networks that unroll their cell themselves, the calls of which are put together."""
    del training
    if cell.dropout or cell.recurrent_dropout or not tf.is_tensor(inputs) or inputs.shape.rank != 2:
        raise NoRuleError
    (h,) = tf.nest.flatten(states)
    h = _gru_step(cell, record, record(Linear(cell.kernel, _gru_bias(cell), inputs)), h)
    return h, [h] if tf.nest.is_nested(states) else h


def _gru_bias(cell: Any) -> tf.Variable | None:
    """The bias of x_t W alone; one that both products have is shifted in `_gru_step`."""
    return cell.bias if cell.use_bias and not cell.reset_after else None


def _gru_step(cell: Any, record: Recorder, x: tf.Tensor, h: tf.Tensor) -> tf.Tensor:
    """h_t [B, u] from x_t W (+ b) [B, 3u] and h_{t−1} [B, u]."""
    inner = _recurrent(cell, record, h)
    if cell.reset_after and cell.use_bias:
        # One variable [2, 3u] holds the biases of both products: each is shifted by its row.
        x, inner = tf.unstack(_shift_both(cell, record, x, inner), axis=1)
    x_z, x_r, x_h = tf.split(x, 3, axis=-1)
    u_z, u_r, u_h = tf.split(inner, 3, axis=-1)
    z, r = cell.recurrent_activation(x_z + u_z), cell.recurrent_activation(x_r + u_r)
    inside = r * u_h if cell.reset_after else _recurrent(cell, record, r * h)[:, 2 * cell.units :]
    return z * h + (1 - z) * _act(cell.activation, x_h + inside)


def _act(activation: Callable[[tf.Tensor], tf.Tensor] | None, z: tf.Tensor) -> tf.Tensor:
    return z if activation is None else activation(z)


def _recurrent(cell: Any, record: Recorder, h: tf.Tensor) -> tf.Tensor:
    """H U for h [B, u]."""
    return record(Linear(cell.recurrent_kernel, None, h))


def _shift_both(cell: Any, record: Recorder, x: tf.Tensor, inner: tf.Tensor) -> tf.Tensor:
    """Both products of a GRU, each with its biases: [B, 2, 3u]."""
    return record(ScaleShift(None, cell.bias, tf.stack([x, inner], axis=1), (1, 2)))


def _unroll(
    layer: Any,
    record: Recorder,
    inputs: Any,
    kwargs: dict[str, Any],
    bias: tf.Variable | None,
    step: Callable[[tf.Tensor, _State], _State],
) -> Any:
    """What the layer returns, for `step` from x_t W + b and the state before to the state, whose first part is h."""
    if kwargs.get("mask") is not None or layer.stateful or not tf.is_tensor(inputs):
        raise NoRuleError
    cells = [_CELLS[kind] for kind in _CELLS if isinstance(layer, kind)]
    if not any(inherits(layer.cell, cell, "__call__", "call") for cell in cells):
        raise NoRuleError
    if layer.cell.dropout or layer.cell.recurrent_dropout or inputs.shape.rank != 3:
        raise NoRuleError
    if not inputs.shape[1:].is_fully_defined() or not 0 < inputs.shape[1] <= _MOST_STEPS:
        raise NoRuleError
    state = kwargs.get("initial_state")
    if state is None:
        state = layer.get_initial_state(inputs)
    state = list(tf.nest.flatten(state))
    x = tf.unstack(record(Linear(layer.cell.kernel, bias, inputs)), axis=1)
    outputs = []
    for x_t in reversed(x) if layer.go_backwards else x:
        state = step(x_t, state)
        outputs.append(state[0])
    output = tf.stack(outputs, axis=1) if layer.return_sequences else outputs[-1]
    return [output, *state] if layer.return_state else output
