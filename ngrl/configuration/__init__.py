"""Gin files: read, checked against what they configure, and bound. Knows no training and loads no TensorFlow."""

from ngrl.configuration.binding import *  # noqa: F403
from ngrl.configuration.binding import __all__ as __all__
