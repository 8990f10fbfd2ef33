"""Natural-gradient training with Keras' own `compile` and `fit`."""

from ngrl.keras.model import NaturalGradientModel

__all__ = ["NaturalGradientModel"]
