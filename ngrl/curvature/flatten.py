"""Between a list of tensors shaped like the variables and the one flat vector solvers work on."""

from collections.abc import Sequence

import tensorflow as tf


def num_parameters(variables: Sequence[tf.Variable]) -> int:
    """The total number P of scalars in `variables`.

    Raises:
      ValueError: a variable's shape isn't fully known.
    """
    total = 0
    for variable in variables:
        size = variable.shape.num_elements()
        if size is None:
            raise ValueError(f"variable {variable.name!r} has no static shape: {variable.shape}")
        total += size
    return total


def flatten(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """Concatenate `tensors`, each reshaped to [-1], in their order: a vector [P].

    `tf.IndexedSlices` (gradients of embeddings) become dense.

    Raises:
      ValueError: `tensors` is empty.
    """
    if not tensors:
        raise ValueError("can't flatten an empty list of tensors")
    parts = [tf.reshape(tf.convert_to_tensor(tensor), [-1]) for tensor in tensors]
    return parts[0] if len(parts) == 1 else tf.concat(parts, axis=0)


def flatten_parts(parts: Sequence[tf.Tensor | None], variables: Sequence[tf.Variable]) -> tf.Tensor:
    """As `flatten`, with zeros where a variable has no part: [P]."""
    return flatten(
        [
            tf.zeros(variable.shape, variable.dtype) if part is None else part
            for part, variable in zip(parts, variables, strict=True)
        ]
    )


def unflatten(vector: tf.Tensor, variables: Sequence[tf.Variable]) -> list[tf.Tensor]:
    """Cut `vector` [P] into tensors with the shapes of `variables`: the inverse of `flatten`.

    Raises:
      ValueError: `vector` isn't of shape [P].
    """
    total = num_parameters(variables)
    vector = tf.convert_to_tensor(vector)
    if not vector.shape.is_compatible_with([total]):
        raise ValueError(f"expected a vector of shape [{total}], got {vector.shape}")
    sizes = [variable.shape.num_elements() for variable in variables]
    parts = tf.split(vector, sizes) if len(sizes) > 1 else [vector]
    return [tf.reshape(part, variable.shape) for part, variable in zip(parts, variables, strict=True)]
