"""Whether XLA will compile what is traced, for choices of what is faster."""

import tensorflow as tf
from tensorflow.python.ops import control_flow_util


def is_traced_for_xla() -> bool:
    """Whether the ops made now belong to a `tf.function(jit_compile=True)`, or to a function within one.

    TensorFlow tells it nowhere in public, and doesn't trace anew for XLA a function within that it has traced before;
    nor is it known where XLA compiles unasked (TF_XLA_FLAGS). Choose by it what is faster, not what is right.
    """
    return not tf.executing_eagerly() and control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())
