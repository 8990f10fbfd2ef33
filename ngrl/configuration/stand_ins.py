"""Checks gin files before TensorFlow is loaded, which takes seconds that nobody wants to wait for a misspelt name.

The names that files may use are those of classes that need TensorFlow. Here something with the signature that stands in
their sources takes the place of each while files are read and their values checked by the very code that does it again,
with the classes themselves, when they are bound. What depends on the classes (which one another takes), on what a file
imports or on what TF-Agents registers is left to that second time.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from gin import config as gin_config
from gin import config_parser, selector_map

from ngrl.configuration import binding as configuration
from ngrl.configuration import sources
from ngrl.configuration.reader import ConfigurationError, Reader
from ngrl.renamed import present_name

__all__ = ["ConfigurationError", "StandIn", "check"]


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
        configuration.read(gin_files, gin_bindings, entry_options=entry_options, reader=_EarlyReader(allow_gin_import))


class _Undecided(Exception):
    """A file imports a module, which may register any name, or names what TF-Agents registers."""


class _EarlyReader(Reader):
    def _import_allowed(self, statement: config_parser.ImportStatement) -> None:
        raise _Undecided


class _Names(selector_map.SelectorMap):
    def matching_selectors(self, partial_selector: str) -> list[str]:
        found = super().matching_selectors(partial_selector)
        name = partial_selector.rpartition(".")[2]
        if not found and not present_name(name) and sources.is_of_tf_agents(name):
            raise _Undecided
        return found


@contextlib.contextmanager
def _registered() -> Iterator[None]:
    """Let gin know the stand-ins, and nothing else but what is gin's own."""
    before, registry = gin_config._REGISTRY, _Names()
    for selector, info in before.items():
        if selector.startswith("gin."):
            registry[selector] = info
    for name, module in sources.names().items():
        function, selector = StandIn(name, module), f"ngrl.{name}"
        registry[selector] = gin_config.Configurable(function, function, name, "ngrl", None, None, None, selector)
    gin_config._REGISTRY = registry
    try:
        yield
    finally:
        gin_config._REGISTRY = before


class StandIn:
    """Has the name and the signature of a function or class, which is looked up when it is first asked for."""

    is_stand_in = True

    def __init__(self, name: str, module: str):
        self.__name__, self.__module__ = name, module

    @functools.cached_property
    def __wrapped__(self) -> Callable[..., Any]:
        def function() -> None: ...

        signature = sources.signature(self.__module__, self.__name__)
        function.__signature__ = signature  # type: ignore[attr-defined]
        function.__annotations__ = {name: parameter.annotation for name, parameter in signature.parameters.items()}
        return function

    def __call__(self) -> None:
        """Nothing: it is never called."""
