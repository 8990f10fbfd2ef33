"""Rules: for each kind of layer, how its weights enter. A module registers its rules when it is imported."""

from ngrl.curvature.rules import convolution, dense, normalisation, recurrent
from ngrl.curvature.rules.registry import NoRuleError, Recorder, Rule, find_rule, layer_rule

__all__ = [
    "NoRuleError",
    "Recorder",
    "Rule",
    "convolution",
    "dense",
    "find_rule",
    "layer_rule",
    "normalisation",
    "recurrent",
]
