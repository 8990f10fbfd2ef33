"""Write `ngrl/configuration/gin_names.py`: what gin files may name, readable without TensorFlow.

    .venv/bin/python tools/gin_names.py

To be run whenever `ngrl/training/configurables.py`, or a parameter of something it registers, has changed;
`tests/configuration/test_stand_ins.py` notices where that was forgotten.
"""

import collections.abc
import inspect
import math
import types
import typing
from pathlib import Path
from typing import Any, Literal, Union

PATH = Path(__file__).resolve().parents[1] / "ngrl" / "configuration" / "gin_names.py"
_HEADER = '''\
# ruff: noqa: E501
# fmt: off
"""What gin files may name, with module, signature, and parameters that are not for gin files.

Written by tools/gin_names.py; not to be edited.
"""

'''
_PLAIN = (bool, int, float, complex, str, bytes, list, tuple, dict)
_GENERIC = {
    collections.abc.Callable: "Callable",
    collections.abc.Iterable: "Iterable",
    collections.abc.Mapping: "Mapping",
    collections.abc.Sequence: "Sequence",
    **{kind: kind.__name__ for kind in (list, tuple, dict)},
}


def annotation_text(annotation: Any) -> str:
    """An annotation as text that means the same for a literal in a gin file; "Any" where there is no such text."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in (None, type(None)):
        return "None"
    if annotation in _PLAIN or annotation in _GENERIC:
        return _GENERIC.get(annotation, getattr(annotation, "__name__", ""))
    if origin in (Union, types.UnionType):
        members = [annotation_text(member) for member in arguments]
        return "Any" if "Any" in members else " | ".join(members)
    if origin is Literal:
        return f"Literal[{', '.join(map(repr, arguments))}]"
    if origin is collections.abc.Callable:
        return "Callable"  # a literal is never one, whatever it takes
    if origin in _GENERIC:
        parts = ", ".join("..." if part is Ellipsis else annotation_text(part) for part in arguments)
        return f"{_GENERIC[origin]}[{parts}]" if parts else _GENERIC[origin]
    if inspect.isclass(annotation) and _is_opaque(annotation):
        return annotation.__name__
    return "Any"


def _is_opaque(kind: type) -> bool:
    """Whether it is certain that no literal is an instance: a class of ngrl's or Keras' own, and no protocol."""
    own = kind.__module__.split(".")[0] in ("ngrl", "keras", "tf_keras")
    return own and not getattr(kind, "_is_protocol", False) and not issubclass(kind, (*_PLAIN, Exception))


def _default_text(default: Any) -> str:
    """A default as text, "..." where it is no literal or there is none: it only serves to know it again in a file."""
    if isinstance(default, float) and not math.isfinite(default):
        return "..."
    return repr(default) if isinstance(default, (bool, int, float, str, tuple, type(None))) else "..."


def signature_text(info: Any) -> tuple[str, list[str]]:
    """The parameters of a configurable as text, and which of them are not for gin files."""
    from ngrl.configuration import reader
    from ngrl.configuration.annotations import parameter_annotations

    known, _ = reader.settable_parameters(info)
    parameters = list(reader._signature(info).parameters.values())
    if inspect.isclass(info.wrapped):
        parameters = [] if reader.constructor(info) is object.__init__ else parameters[1:]
    resolved = parameter_annotations(reader.constructor(info))
    parts, hidden = [], []
    for parameter in parameters:
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            continue
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            parts.append(f"**{parameter.name}")
            continue
        if parameter.name not in known:
            hidden.append(parameter.name)
        text = annotation_text(resolved.get(parameter.name, Any))
        default = _default_text(parameter.default)
        parts.append(f"{parameter.name}{'' if text == 'Any' else f': {text}'} = {default}")
    return ", ".join(parts), hidden


def module_text() -> str:
    """The whole module."""
    from gin import config as gin_config

    from ngrl.examples import configurables as _examples  # noqa: F401  (registers them with gin)
    from ngrl.studies import configurables as _experiments  # noqa: F401  (the same)
    from ngrl.training import configurables as _configurables  # noqa: F401  (the same)

    own, others = {}, []
    for selector, info in gin_config._REGISTRY.items():
        if selector.startswith("ngrl."):
            own[selector] = (info.wrapped.__module__, *signature_text(info))
        elif selector.startswith("tf_agents."):
            others.append(selector)
    lines = [_HEADER, "CONFIGURABLES: dict[str, tuple[str, str, tuple[str, ...]]] = {\n"]
    for selector, (module, signature, hidden) in sorted(own.items()):
        lines.append(f"    {selector!r}: ({module!r}, {signature!r}, {tuple(hidden)!r}),\n")
    lines.append(
        "}\n\n# TF-Agents' own, whose parameters are looked at when TF-Agents is loaded.\nOTHERS: tuple[str, ...] = (\n"
    )
    lines += [f"    {selector!r},\n" for selector in sorted(others)]
    return "".join([*lines, ")\n"])


if __name__ == "__main__":
    PATH.write_text(module_text(), encoding="utf-8")
