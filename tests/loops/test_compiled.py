"""Compiled functions give what the function itself gives."""

import collections
import gc
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from ngrl.loops.compiled import Compiled, builder


class Pair(NamedTuple):
    total: tf.Tensor
    parts: dict[str, tf.Tensor]


@pytest.mark.parametrize("jit_compile", [False, True])
def test_results_keep_their_structure_and_follow_arguments_and_variables(jit_compile):
    scale = tf.Variable(2.0)

    def function(rows, count):
        scale.assign_add(1.0)
        return Pair(scale * tf.reduce_sum(rows["x"]), {"count": count + 1})

    compiled = Compiled(function, jit_compile)
    for call, value in enumerate((1.0, 5.0)):
        result = compiled({"x": np.full(3, value, np.float32)}, np.int32(call))
        assert isinstance(result, Pair)
        assert result.total.numpy() == (3.0 + call) * 3 * value
        assert result.parts["count"].numpy() == call + 1
    scale.assign(9.0)
    assert compiled({"x": np.ones(3, np.float32)}, np.int32(0)).total.numpy() == 30.0


@pytest.mark.parametrize("jit_compile", [False, True])
def test_flat_results_of_arrays_and_tensors(jit_compile):
    compiled = Compiled(lambda left, right: (left - right, left * right), jit_compile)
    difference, product = compiled(np.float32(5.0), tf.constant(3.0))
    assert (difference.numpy(), product.numpy()) == (2.0, 15.0)
    # What the runtime knows by name must outlive everything else that knew it.
    gc.collect()
    assert compiled(np.float32(1.0), np.float32(1.0))[0].numpy() == 0.0


def test_function_of_nothing_but_variables():
    counter = tf.Variable(0)
    compiled = Compiled(lambda: (counter.assign_add(1),), jit_compile=False)
    assert [compiled()[0].numpy() for _ in range(3)] == [1, 2, 3]


LEAF = tf.constant(0)


@pytest.mark.parametrize(
    "example",
    [
        LEAF,
        (),
        (LEAF,),
        (LEAF, [LEAF, LEAF], ((), LEAF)),
        Pair(LEAF, (Pair(LEAF, LEAF), [LEAF])),
        Pair(LEAF, {"b": LEAF, "a": (LEAF, LEAF)}),
        ({"b": LEAF, "a": LEAF}, collections.OrderedDict(d=LEAF, c=LEAF), LEAF),
    ],
)
def test_builders_pack_as_nest_does(example):
    build, leaves = builder(example), [object() for _ in tf.nest.flatten(example)]
    packed = tf.nest.pack_sequence_as(example, leaves)
    # Nested names, lists and tuples differ from one another here, as they don't in ==.
    assert repr(build(leaves)) == repr(packed)
    assert repr(build(leaves)) == repr(packed), "builds once alone"


def test_other_sequences_are_left_to_nest():
    module = tf.Module()
    module.kept = [LEAF, (LEAF, LEAF)]  # TensorFlow wraps it
    assert repr(builder(module.kept)([1, 2, 3])) == repr(tf.nest.pack_sequence_as(module.kept, [1, 2, 3]))


def test_leaves_that_lack_are_an_error():
    with pytest.raises(RuntimeError):
        builder((LEAF, LEAF))([LEAF])
