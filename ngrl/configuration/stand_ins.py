"""Checks gin files before TensorFlow is loaded, which takes seconds that nobody wants to wait for a misspelt name.

The names that files may use are those of classes that need TensorFlow. `gin_names` holds their signatures as text;
here each becomes a function with that signature and nothing in it, which stands in for the class while files are read
and their values checked by the very code that does it again, with the classes themselves, when they are bound. What
depends on the classes (which one another takes) or on what a file imports is left to that second time.
"""

import collections.abc
import contextlib
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from gin import config as gin_config
from gin import config_parser, selector_map

from ngrl.configuration import binding as configuration
from ngrl.configuration import gin_names
from ngrl.configuration.reader import ConfigurationError, Reader

__all__ = ["ConfigurationError", "check", "stand_in"]


def check(
    gin_files: Sequence[str],
    gin_bindings: Sequence[str],
    allow_gin_import: Sequence[str] = (),
    entry_options: Mapping[str, str] | None = None,
) -> None:
    """Reads files and bindings as `configuration.parse` will; binds and imports nothing.

    Args:
      gin_files: As in `configuration.parse`, and so are the rest.
      gin_bindings: Single bindings.
      allow_gin_import: Modules outside ngrl that files may import.
      entry_options: Options of the command line that set a parameter of whatever `main.entry` names.

    Raises:
      ConfigurationError: `configuration.parse` would raise it too.
    """
    with contextlib.suppress(_Undecided), _registered():
        configuration.read_with(_EarlyReader(allow_gin_import), gin_files, gin_bindings, entry_options)


class _Undecided(Exception):
    """A file imports a module, which may register any name."""


class _EarlyReader(Reader):
    def _import_allowed(self, statement: config_parser.ImportStatement) -> None:
        raise _Undecided


class _Names(dict[str, Any]):
    """Names in annotations: Python's own, and classes that no literal in a gin file is an instance of."""

    def __missing__(self, name: str) -> type:
        return self.setdefault(name, type(name, (), {}))


@contextlib.contextmanager
def _registered() -> Iterator[None]:
    """Let gin know the stand-ins, and nothing else but what is gin's own."""
    before, registry = gin_config._REGISTRY, selector_map.SelectorMap()
    for selector, info in before.items():
        if selector.startswith("gin."):
            registry[selector] = info
    for selector, (module, signature, hidden) in gin_names.CONFIGURABLES.items():
        registry[selector] = _configurable(selector, stand_in(module, signature), hidden)
    for selector in gin_names.OTHERS:
        registry[selector] = _configurable(selector, stand_in("", "**anything"), ())
    gin_config._REGISTRY = registry
    try:
        yield
    finally:
        gin_config._REGISTRY = before


def _configurable(selector: str, function: Callable[..., Any], hidden: Sequence[str]) -> gin_config.Configurable:
    module, _, name = selector.rpartition(".")
    return gin_config.Configurable(function, function, name, module, None, None, hidden, selector)


def stand_in(module: str, signature: str) -> Callable[..., Any]:
    """A function of a signature that is given as text, said to be of a module."""
    names = _Names(vars(__builtins__) if not isinstance(__builtins__, dict) else __builtins__)
    names |= {name: getattr(collections.abc, name) for name in ("Callable", "Iterable", "Mapping", "Sequence")}
    names |= {"Any": Any, "Literal": typing.Literal}
    exec(f"def function({signature}): ...", {}, names)  # a text of ngrl's own, see gin_names
    function = names["function"]
    function.is_stand_in = True
    function.__module__ = module
    return function
