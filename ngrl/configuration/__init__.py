"""Gin files: read, checked against what they configure, and bound. Knows no training.

TensorFlow is loaded with what they configure, when `parse` or `read` is called, and not before.
"""

from ngrl.configuration.binding import *  # noqa: F403
from ngrl.configuration.binding import __all__ as __all__
