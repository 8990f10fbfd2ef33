"""How weights enter a network: each use of them is linear in the weights, and knows its rows of the Jacobian.

A use computes z from a layer's inputs and its weights. With G [B, R, ...] the derivatives of an example's R rows by z,
the rows of the weights follow without another pass through the network:

    linear        z_p = a_p W + b           row of W: Σ_p a_p ⊗ G_p      p: positions, steps of time, calls of a layer
    scale, shift  z_p = γ ∘ x_p + β         row of γ: Σ_p x_p ∘ G_p      row of β: Σ_p G_p
    a whole layer z = layer(inputs)         row: the vector-Jacobian product of that layer alone
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from ngrl.curvature.flatten import flatten
from ngrl.curvature.jacobian import vectorised
from ngrl.curvature.network_check import check_dtypes, describe_layer
from ngrl.xla import is_traced_for_xla

#: Rows [B, R, size of the variable], and whose they are.
ExplicitRows = list[tuple[tf.Variable, tf.Tensor]]


class Use(abc.ABC):
    """One use of weights in a forward pass.

    Attributes:
      weights: the variables used.
      outputs: z, the tensors whose derivatives the rows need; set by `forward`.
    """

    weights: tuple[tf.Variable, ...]
    outputs: list[tf.Tensor]

    @abc.abstractmethod
    def forward(self) -> Any:
        """z, as the rest of the network needs it."""

    @abc.abstractmethod
    def rows(self, gradients: Sequence[tf.Tensor]) -> ExplicitRows:
        """The rows for G [B, R, *shape of z], one tensor for each of `outputs`."""


class Vectors:
    """Inputs a [B, p, d] of a linear use.

    `columns`, if it is given, finds them anew as [B, d, p].
    """

    def __init__(self, values: tf.Tensor, columns: Callable[[], tf.Tensor] | None = None) -> None:
        self.values, self.columns = values, columns
        self.positions, self.size = values.shape[1:]

    #: What a product of two inputs costs, in multiplications.
    @property
    def product_cost(self) -> int:
        return self.size

    def matmul(self, kernel: tf.Tensor) -> tf.Tensor:
        """A W for W [d, m]: [B, p, m]."""
        product = tf.matmul(tf.reshape(self.values, [-1, self.size]), kernel)
        return product if self.positions == 1 else tf.reshape(product, [-1, self.positions, kernel.shape[1]])

    def gram(self) -> tf.Tensor:
        """A aᵀ: [B·p, B·p]."""
        flat = tf.reshape(self.values, [-1, self.size])
        return tf.matmul(flat, flat, transpose_b=True)

    def outer(self, gradients: tf.Tensor) -> tf.Tensor:
        """Σ_p a_p ⊗ G_p for G [B, R, p, m]: [B, R, d, m]."""
        rows, outputs = gradients.shape[1], gradients.shape[3]
        if rows == 1:
            return self._transposed_times(gradients[:, 0])[:, tf.newaxis]
        # aᵀ [B, d, p] times [B, p, R·m]
        stacked = tf.reshape(tf.transpose(gradients, [0, 2, 1, 3]), [-1, self.positions, rows * outputs])
        product = self._transposed_times(stacked)
        return tf.transpose(tf.reshape(product, [-1, self.size, rows, outputs]), [0, 2, 1, 3])

    def _transposed_times(self, stacked: tf.Tensor) -> tf.Tensor:
        """aᵀ g for g [B, p, n]: [B, d, n].

        XLA's products of a batch of matrices take several times as long where the left one is transposed, more than
        it takes to find the columns anew. TensorFlow's own don't.
        """
        if self.columns is not None and is_traced_for_xla():
            return tf.matmul(self.columns(), stacked)
        return tf.matmul(self.values, stacked, transpose_a=True)

    def collect(self, gradients: tf.Tensor) -> tf.Tensor:
        """Σ_i,p a_ip ⊗ g_ip for g [B, p, m]: [d, m]."""
        flat = tf.reshape(gradients, [-1, gradients.shape[-1]])
        return tf.matmul(tf.reshape(self.values, [-1, self.size]), flat, transpose_a=True)

    def dense(self, dtype: tf.DType) -> tf.Tensor:
        """The numbers themselves [B, p, d]."""
        del dtype
        return self.values

    def take(self, examples: tf.Tensor) -> Vectors:
        """Those of some examples [c] alone."""
        return Vectors(tf.gather(self.values, examples))

    def join(self, others: Sequence[Vectors]) -> Vectors:
        """These positions and, behind them, those of others."""
        return Vectors(tf.concat([self.values, *[other.values for other in others]], axis=1)) if others else self


class OneHots:
    """Inputs e_k [B, p, d] of a linear use that picks the row k of its kernel, kept as k [B, p]."""

    product_cost = 1

    def __init__(self, indices: tf.Tensor, size: int) -> None:
        self.indices, self.size = indices, size
        self.positions = indices.shape[1]

    def matmul(self, kernel: tf.Tensor) -> tf.Tensor:
        """The rows k of W [d, m]: [B, p, m]."""
        return tf.gather(kernel, self.indices)

    def gram(self) -> tf.Tensor:
        """1 where two are the same: [B·p, B·p]."""
        flat = tf.reshape(self.indices, [-1])
        return tf.equal(flat[:, tf.newaxis], flat[tf.newaxis])

    def outer(self, gradients: tf.Tensor) -> tf.Tensor:
        """As of `Vectors`."""
        return Vectors(self.dense(gradients.dtype)).outer(gradients)

    def dense(self, dtype: tf.DType) -> tf.Tensor:
        """As of `Vectors`."""
        return tf.one_hot(self.indices, self.size, dtype=dtype)

    def collect(self, gradients: tf.Tensor) -> tf.Tensor:
        """As of `Vectors`."""
        flat = tf.reshape(gradients, [-1, gradients.shape[-1]])
        return tf.math.unsorted_segment_sum(flat, tf.reshape(self.indices, [-1]), self.size)

    def take(self, examples: tf.Tensor) -> OneHots:
        """As of `Vectors`."""
        return OneHots(tf.gather(self.indices, examples), self.size)

    def join(self, others: Sequence[OneHots]) -> OneHots:
        """As of `Vectors`."""
        return OneHots(tf.concat([self.indices, *[other.indices for other in others]], axis=1), self.size)


class Linear(Use):
    """z_p = a_p W + b; W is the kernel reshaped to [d, m] or, transposed, to [m, d]."""

    def __init__(
        self,
        kernel: tf.Variable,
        bias: tf.Variable | None,
        inputs: tf.Tensor | OneHots,
        transposed: bool = False,
        columns: Callable[[], tf.Tensor] | None = None,
    ) -> None:
        """Take inputs a [B, ..., d], or one-hot ones, and what finds them as [B, d, positions].

        `bias` may be of any shape of m numbers.
        """
        self.kernel, self.bias, self.transposed = kernel, bias, transposed
        self.weights = (kernel,) if bias is None else (kernel, bias)
        self.between = () if isinstance(inputs, OneHots) else tuple(inputs.shape[1:-1])
        if isinstance(inputs, OneHots):
            self.inputs: Vectors | OneHots = inputs
        else:
            positions = 1
            for size in self.between:
                positions *= size
            self.inputs = Vectors(tf.reshape(inputs, [-1, positions, inputs.shape[-1]]), columns)

    def forward(self) -> tf.Tensor:
        """Z [B, ..., m]."""
        kernel = tf.convert_to_tensor(self.kernel)
        if self.transposed:
            kernel = tf.transpose(tf.reshape(kernel, [-1, self.inputs.size]))
        else:
            kernel = tf.reshape(kernel, [self.inputs.size, -1])
        z = self.inputs.matmul(kernel)
        if self.bias is not None:
            z += tf.reshape(tf.convert_to_tensor(self.bias), [-1])
        if not isinstance(self.inputs, OneHots):
            z = tf.reshape(z, [-1, *self.between, kernel.shape[1]])
        self.outputs = [z]
        return z

    def positioned(self, gradients: Sequence[tf.Tensor]) -> tf.Tensor:
        """G [B, R, p, m] of G [B, R, ..., m]."""
        (g,) = gradients
        return tf.reshape(g, [-1, g.shape[1], self.inputs.positions, g.shape[-1]])

    def rows(self, gradients: Sequence[tf.Tensor]) -> ExplicitRows:
        """Σ_p a_p ⊗ G_p, and Σ_p G_p for a bias."""
        return linear_rows(self, self.inputs, self.positioned(gradients))


def linear_rows(use: Linear, inputs: Vectors | OneHots, gradients: tf.Tensor) -> ExplicitRows:
    """The rows of a kernel and its bias for all inputs a and G [B, R, p, m] that they had."""
    kernel = inputs.outer(gradients)
    if use.transposed:
        kernel = tf.transpose(kernel, [0, 1, 3, 2])
    found = [(use.kernel, flatten_rows(kernel))]
    if use.bias is not None:
        found.append((use.bias, tf.reduce_sum(gradients, axis=2)))
    return found


class ScaleShift(Use):
    """z = γ ∘ x + β over the axes `axes` of x, in which γ and β have their sizes; either may be None."""

    def __init__(
        self, scale: tf.Variable | None, shift: tf.Variable | None, inputs: tf.Tensor, axes: Sequence[int] = (-1,)
    ) -> None:
        """Take inputs x [B, ...]."""
        self.scale, self.shift, self.inputs = scale, shift, inputs
        self.weights = tuple(weight for weight in (scale, shift) if weight is not None)
        rank = inputs.shape.rank
        self.axes = sorted(axis % rank for axis in axes)
        self.shape = [inputs.shape[axis] if axis in self.axes else 1 for axis in range(rank)]

    def forward(self) -> tf.Tensor:
        """z, of x's shape."""
        z = self.inputs
        if self.scale is not None:
            z *= tf.reshape(tf.convert_to_tensor(self.scale), self.shape)
        if self.shift is not None:
            z += tf.reshape(tf.convert_to_tensor(self.shift), self.shape)
        self.outputs = [z]
        return z

    def rows(self, gradients: Sequence[tf.Tensor]) -> ExplicitRows:
        """Σ_p x_p ∘ G_p and Σ_p G_p, p all other axes."""
        (g,) = gradients
        others = [axis + 1 for axis in range(1, self.inputs.shape.rank) if axis not in self.axes]
        found = []
        if self.scale is not None:
            found.append((self.scale, flatten_rows(tf.reduce_sum(g * self.inputs[:, tf.newaxis], axis=others))))
        if self.shift is not None:
            found.append((self.shift, flatten_rows(tf.reduce_sum(g, axis=others))))
        return found


class Grouped(Use):
    """z_p,gm = Σ_k,c a_p,kgc W_k,c,gm: every group g of channels with filters of its own.

    Depthwise convolutions are those with one channel a group; their kernel is [..., g, m].
    """

    def __init__(self, kernel: tf.Variable, patches: tf.Tensor, groups: int) -> None:
        """Take patches [B, ..., k, C]."""
        self.kernel, self.weights = kernel, (kernel,)
        self.between = tuple(patches.shape[1:-2])
        places, channels = patches.shape[-2:]
        self.patches = tf.reshape(patches, [tf.shape(patches)[0], -1, places, groups, channels // groups])
        self.shape = [places, channels // groups, groups, kernel.shape.num_elements() // (places * channels)]

    def forward(self) -> tf.Tensor:
        """Z [B, ..., g·m]."""
        kernel = tf.reshape(tf.convert_to_tensor(self.kernel), self.shape)
        z = tf.einsum("bpkgc,kcgm->bpgm", self.patches, kernel)
        z = tf.reshape(z, [-1, *self.between, self.shape[2] * self.shape[3]])
        self.outputs = [z]
        return z

    def rows(self, gradients: Sequence[tf.Tensor]) -> ExplicitRows:
        """Σ_p a_p,kgc G_p,gm."""
        (g,) = gradients
        positioned = tf.reshape(g, [tf.shape(g)[0], g.shape[1], -1, *self.shape[2:]])
        rows = tf.einsum("bpkgc,brpgm->brkcgm", self.patches, positioned)
        return [(self.kernel, tf.reshape(rows, [-1, g.shape[1], self.kernel.shape.num_elements()]))]


class LayerCall(Use):
    """z = layer(inputs) of a layer without a rule: its rows by a tape over this layer alone, example by example."""

    def __init__(
        self,
        layer: tf.keras.layers.Layer,
        call: Callable[..., Any],
        weights: tuple[tf.Variable, ...],
        arguments: tuple[tuple[Any, ...], dict[str, Any]],
    ) -> None:
        """Take the layer's call and the arguments it was given, in which tensors [B, ...] hold one entry an example."""
        self.layer, self.call, self.weights, self.arguments = layer, call, weights, arguments

    def forward(self) -> Any:
        """What the layer returns."""
        args, kwargs = self.arguments
        # Not the inputs themselves, which other layers may have too.
        outputs = tf.nest.map_structure(_fresh, self.call(*args, **kwargs))
        self.outputs = _floats(outputs)
        return outputs

    def rows(self, gradients: Sequence[tf.Tensor]) -> ExplicitRows:
        """G_iᵀ ∂z_i/∂w, from one forward pass an example."""
        leaves = tf.nest.flatten(self.arguments)
        examples = {place: leaf for place, leaf in enumerate(leaves) if tf.is_tensor(leaf) and leaf.shape.rank}

        def one_example(parts: Any) -> tf.Tensor:
            entries, cotangents = parts
            placed = [entries[place][tf.newaxis] if place in entries else leaf for place, leaf in enumerate(leaves)]
            args, kwargs = tf.nest.pack_sequence_as(self.arguments, placed)
            with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
                tape.watch(self.weights)
                outputs = _floats(self.call(*args, **kwargs))
            found = []
            for row in range(gradients[0].shape[1]):
                cotangent = [g[row][tf.newaxis] for g in cotangents]
                pulled = tape.gradient(outputs, self.weights, cotangent, tf.UnconnectedGradients.ZERO)
                found.append(flatten(pulled))
            return tf.stack(found)

        try:
            rows = vectorised(one_example, (examples, list(gradients)), gradients[0].dtype)
        except Exception as error:
            check_dtypes(self.layer)
            raise ValueError(
                f"{describe_layer(self.layer)} has no rule in ngrl.curvature.rules and can't be differentiated one "
                f"example at a time ({type(error).__name__}): register a rule for it, or build it of Keras' own layers"
            ) from error
        sizes = [weight.shape.num_elements() for weight in self.weights]
        return list(zip(self.weights, tf.split(rows, sizes, axis=2), strict=True))


def flatten_rows(values: tf.Tensor) -> tf.Tensor:
    """[B, R, ...] as [B, R, size]."""
    size = values.shape[2:].num_elements()
    return tf.reshape(values, [-1, values.shape[1], size])


def _fresh(value: Any) -> Any:
    return tf.identity(value) if tf.is_tensor(value) else value


def _floats(outputs: Any) -> list[tf.Tensor]:
    return [leaf for leaf in tf.nest.flatten(outputs) if tf.is_tensor(leaf) and leaf.dtype.is_floating]
