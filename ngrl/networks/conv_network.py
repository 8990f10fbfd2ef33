"""Convolutions for images, to be put before a network's Dense layers."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import tensorflow as tf

from ngrl import seeding
from ngrl.checks import check_choice, check_count, check_number
from ngrl.configurable import configurable
from ngrl.networks.activation import Activation
from ngrl.patches import PatchConv2D

_LAYERS = tf.keras.layers


@configurable
@dataclasses.dataclass(frozen=True)
class ConvNetwork:
    """Settings of a trunk of convolutions: `trunk=ConvNetwork(...)` of a network, each of which makes its own.

    Pixels come on a scale of [0, 1], whichever their dtype. An image may be [H, W], [H, W, C] or [C, H, W], and a stack
    of S such images [S, ...], as gymnasium's `FrameStackObservation` makes it; layers see it as [H, W, channels].
    Convolutions are products of patches and a matrix (`ngrl.patches`), under which a natural-gradient step costs about
    what one of Adam's does.

    Args:
      conv_layers: Filters, kernel size and stride of each convolution; by default those of Mnih et al. (2015), for
        images of 84 × 84 pixels.
      activation: Name of the Keras activation after each.
      padding: "valid", or "same" for outputs as large as the inputs divided by the stride.
      layer_norm: Normalise the channels at each position before the activation (Ba, Kiros & Hinton 2016).
      initial_scale: The kernels' initial variance times their fan-in: 2 after He et al. (2015).
      data_format: Where an image of three axes has its channels; None takes the first axis for them where it is
        the shortest.

    Raises:
      ValueError: An argument is out of its range.
    """

    conv_layers: Sequence[tuple[int, int, int]] = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
    activation: Activation = "relu"
    padding: Literal["valid", "same"] = "valid"
    layer_norm: bool = False
    initial_scale: float = 2.0
    data_format: Literal["channels_first", "channels_last"] | None = None

    def __post_init__(self) -> None:
        triples = [layer for layer in self.conv_layers if isinstance(layer, Sequence) and len(layer) == 3]
        if not triples or len(triples) != len(self.conv_layers):
            raise ValueError(f"conv_layers must hold (filters, kernel, stride) of each, got {self.conv_layers!r}")
        for triple in triples:
            for name, value in zip(("filters", "a kernel's size", "a stride"), triple, strict=True):
                check_count(f"conv_layers: {name}", value)
        check_number("initial_scale", self.initial_scale, "(0, inf)")
        check_choice("padding", self.padding, ("valid", "same"))
        check_choice("data_format", self.data_format, ("channels_first", "channels_last", None))

    def make(self, owner: str, spec: Any, seed: int, stream: seeding.Stream) -> tf.keras.Sequential:
        """The layers, from scaled observations [B, ...] to the last convolution's outputs [B, h, w, filters].

        Args:
          owner: The network that they are for, for messages.
          spec: Spec of the observations.
          seed: The run's seed.
          stream: The owner's stream of weights.

        Raises:
          ValueError: Observations are no image, or one that is smaller than a kernel.
        """
        layers, shape = self._channels_last(owner, spec)
        sizes = shape[:2]
        for number, (filters, kernel, stride) in enumerate(self.conv_layers):
            if self.padding == "valid" and min(sizes) < kernel:
                raise ValueError(
                    f"{owner}: convolution {number + 1} of ConvNetwork.conv_layers has a kernel of {kernel} × {kernel} "
                    f"for {sizes[0]} × {sizes[1]} pixels (images are {shape[0]} × {shape[1]}): take a smaller kernel "
                    "or stride, or fewer convolutions"
                )
            sizes = [-(-(size - (kernel - 1 if self.padding == "valid" else 0)) // stride) for size in sizes]
            layers.append(
                PatchConv2D(
                    filters,
                    kernel,
                    stride,
                    self.padding,
                    activation=None if self.layer_norm else self.activation,
                    kernel_initializer=tf.keras.initializers.VarianceScaling(
                        self.initial_scale,
                        "fan_in",
                        "truncated_normal",
                        seed=seeding.integer(seed, seeding.Stream.TRUNK_WEIGHTS, int(stream), number),
                    ),
                )
            )
            if self.layer_norm:
                layers += [_LAYERS.LayerNormalization(), _LAYERS.Activation(self.activation)]
        return tf.keras.Sequential([tf.keras.Input(tf.nest.flatten(spec)[0].shape), *layers], name="conv_network")

    def _channels_last(self, owner: str, spec: Any) -> tuple[list[tf.keras.layers.Layer], list[int]]:
        """Layers without weights that bring an image to [H, W, channels], and that shape."""
        flat = tf.nest.flatten(spec)
        shape = list(flat[0].shape)
        if len(flat) != 1 or not 2 <= len(shape) <= 4:
            found = f"of shape {tuple(shape)}" if len(flat) == 1 else f"{len(flat)} arrays"
            raise ValueError(
                f"{owner}: ConvNetwork is for images [H, W], [H, W, C], [C, H, W] or stacks of them [S, ...]; the "
                f"observations are {found}"
            )
        if len(shape) == 2:
            return [_LAYERS.Reshape((*shape, 1))], [*shape, 1]
        frame = shape[-3:]
        first = frame[0] < min(frame[1:]) if self.data_format is None else self.data_format == "channels_first"
        if len(shape) == 4:
            last = [*(frame[1:] if first else frame[:2]), frame[0 if first else 2] * shape[0]]
            return [_LAYERS.Permute((3, 4, 2, 1) if first else (2, 3, 4, 1)), _LAYERS.Reshape(last)], last
        return ([_LAYERS.Permute((2, 3, 1))], [*shape[1:], shape[0]]) if first else ([], shape)
