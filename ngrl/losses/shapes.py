"""What the losses ask of the shapes that they are given."""

import tensorflow as tf


def check_alike(*tensors: tf.Tensor) -> None:
    """One shape for all: [N] against [N, 1] would broadcast to [N, N], a silent error."""
    shape = tf.TensorShape(tensors[0].shape)
    for tensor in tensors[1:]:
        shape.assert_is_compatible_with(tensor.shape)


def check_steps(*tensors: tf.Tensor) -> None:
    """All are [T, B] and alike."""
    tensors[0].shape.assert_has_rank(2)
    check_alike(*tensors)
