"""What the integers of an observation stand for: categories, or quantities on a scale.

TF-Agents describes gymnasium's Discrete, MultiDiscrete and integer Box by one kind of spec, and of a spec only shape,
dtype, bounds and name outlive the way from an environment to a network. An integer of its own is a category and an
array of integers holds quantities (pixels, counts), unless the spec's name ends otherwise.
"""

from typing import Any

_CATEGORIES, _QUANTITIES = "/categories", "/quantities"


def categories(name: str) -> str:
    """The name of a spec whose integers are categories, whatever its shape."""
    return name + _CATEGORIES


def quantities(name: str) -> str:
    """The name of a spec whose integers are quantities, whatever its shape."""
    return name + _QUANTITIES


def holds_quantities(spec: Any) -> bool:
    """Whether a spec's name says that its integers are quantities."""
    return (spec.name or "").endswith(_QUANTITIES)


def holds_categories(spec: Any) -> bool:
    """Whether the integers of a spec are categories."""
    name = spec.name or ""
    return name.endswith(_CATEGORIES) or (len(spec.shape) == 0 and not holds_quantities(spec))
