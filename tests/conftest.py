"""What all tests share: Keras 2 is selected before any of them imports TensorFlow, in whatever order."""

import ngrl  # noqa: F401
