"""Registers with gin what of ngrl gin files may name, and Keras' own."""

import importlib
from collections.abc import Callable
from typing import Any

import gin

from ngrl.configuration import sources

# What gin calls with the bound arguments, by name; the originals know nothing of gin.
_wrapped: dict[str, Callable[..., Any]] = {}


def register_all() -> None:
    """Registers everything that hasn't been. Imports the modules that define it, TensorFlow too."""
    for name, module in sources.names().items():
        if name not in _wrapped:
            configured(getattr(importlib.import_module(module), name))


def configured(target: Callable[..., Any]) -> Callable[..., Any]:
    """A function or class that gin files may name, as gin calls it: with what is bound."""
    name = target.__name__
    if name not in _wrapped:
        _wrapped[name] = gin.external_configurable(target, name=name, module="ngrl")
    return _wrapped[name]
