"""Which layers have a rule: a version of a layer's call that tells how the layer uses its weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import tensorflow as tf

from ngrl.curvature.unchanged import is_unchanged
from ngrl.curvature.uses import Use


class Recorder(Protocol):
    """What a rule is given to tell by."""

    def __call__(self, use: Use) -> Any:
        """Z of a use, which is remembered."""


Rule = Callable[..., Any]
_Rule = TypeVar("_Rule", bound=Rule)

_RULES: dict[type, tuple[Rule, tuple[str, ...]]] = {}


class NoRuleError(Exception):
    """A rule doesn't know this call of its layer; raised before anything is recorded."""


def layer_rule(*kinds: type[tf.keras.layers.Layer], unchanged: tuple[str, ...] = ()) -> Callable[[_Rule], _Rule]:
    """Register the decorated function as the rule of some kinds of layers.

    The rule is called as `rule(layer, record, *args, **kwargs)` with the arguments of the layer's `call`, and must
    return what that would. `record(use)` computes one use of weights (`ngrl.curvature.uses`) and returns its z; every
    use of a weight of the layer must go through it. Raise `NoRuleError`, before anything else, where the rule doesn't
    hold: the layer is then differentiated by itself.

    Args:
      *kinds: classes of layers. A subclass is served too, unless it overrides `call` or one of `unchanged`.
      unchanged: further methods that the rule takes for granted.
    """

    def register(rule: _Rule) -> _Rule:
        for kind in kinds:
            _RULES[kind] = (rule, ("call", *unchanged))
        return rule

    return register


def find_rule(layer: tf.keras.layers.Layer) -> Rule | None:
    """The rule of a layer, or None."""
    for kind in type(layer).__mro__:
        if kind in _RULES:
            rule, methods = _RULES[kind]
            return rule if is_unchanged(layer, kind, *methods) else None
    return None
