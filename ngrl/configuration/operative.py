"""What of the configuration is in force once everything has been built, defaults included, and what nothing reads.

Gin notes what each configurable was called with. To that are added defaults that are functions or classes, which gin
leaves out, and what will be called later because a value in force refers to it (`@huber` is first called in training).
"""

import contextlib
import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from gin import config as gin_config

from ngrl.configuration import binding as configuration
from ngrl.configuration.reader import ConfigurationError, Fault, Key, find, outward, settable_parameters
from ngrl.configuration.registration import register_all

#: Scope and complete name of a configurable.
_Called = tuple[str, str]

_GINS_OWN = "gin."
_TF_AGENTS = "tf_agents."
_OWN = "ngrl."


def settled(warn: Callable[[str], None]) -> dict[str, str]:
    """What identifies the experiment, once everything has been built: `identity`.

    Args:
      warn: Is told in a line of settings in files that nothing reads.

    Raises:
      ConfigurationError: A setting of the command line is read by nothing.
    """
    idle = unread()
    for key, where in idle.items():
        if where.startswith("--"):
            raise ConfigurationError(f"{where}: nothing reads it{_overriding(key)}")
    if idle:
        listed = [f"{configuration.name_of(key)} ({where}{_overriding(key)})" for key, where in idle.items()]
        warn(f"nothing reads {', '.join(listed)}")
    return identity()


def identity() -> dict[str, str]:
    """What is in force, as text: `{"run.seed": "1", ...}`, with the values of macros in their place, sorted by name."""
    found = {}
    for (scope, selector), values in _in_force().items():
        bound = _bindings(scope, selector)
        for parameter, value in values.items():
            # The rest of TF-Agents' defaults are those of its version.
            if parameter in bound or not selector.startswith(_TF_AGENTS):
                found[configuration.name_of((scope, selector, parameter))] = _text(value)
    return dict(sorted(found.items()))


def default(name: str) -> str | None:
    """The default of a setting, `scope/configurable.parameter`, as `identity` has it; None where there is none."""
    register_all()
    selector, _, parameter = name.rpartition("/")[2].rpartition(".")
    try:
        value = settable_parameters(find(selector))[0][parameter].default
    except (Fault, KeyError):
        return None
    return None if _is_missing(value) else _text(value)


def unread() -> dict[Key, str]:
    """Bindings of ngrl's own configurables that nothing reads or will read, with their places.

    In files those are left out that a later setting has replaced, by leaving their configurable out or in an inner
    scope: what includes a file may choose anew.
    """
    in_force = _in_force()
    read = {
        (holder, selector, parameter)
        for (scope, selector), values in in_force.items()
        for parameter in values
        for holder in _holders(scope, selector, parameter)[:1]
    }
    given_up = _given_up(in_force)

    def reaches(called: Iterable[_Called], scope: str, selector: str) -> bool:
        return any(name == selector and scope in outward(inner) for inner, name in called)

    order = {key: number for number, key in enumerate(configuration.locations())}
    found = {}
    for key, where in configuration.locations().items():
        scope, selector, _ = key
        if key in read or not selector.startswith(_OWN):
            continue
        if not where.startswith("--"):
            is_replaced = [order.get(other, -1) > order[key] for other in _inner(key)]
            is_called = reaches(in_force, scope, selector)
            if (is_replaced and all(is_replaced)) if is_called else reaches(given_up, scope, selector):
                continue
        found[key] = where
    return found


def _in_force() -> dict[_Called, dict[str, Any]]:
    """What each configurable has been called with, or will be, by scope and name."""
    noted = gin_config._OPERATIVE_CONFIG.items()
    found = {called: dict(values) for called, values in noted if not called[1].startswith(_GINS_OWN)}
    pending = list(found)
    while pending:
        called = pending.pop()
        if called not in found:
            found[called] = _expected(*called)
        bound = _bindings(*called)
        for parameter, value in _functions(called[1]).items():
            if parameter not in bound:  # else the caller gave it
                found[called].setdefault(parameter, value)
        pending += [other for other in _references(found[called].values(), called[0]) if other not in found]
    return found


def _given_up(in_force: dict[_Called, dict[str, Any]]) -> set[_Called]:
    """What would have been called, had no value been replaced by a later one or a default by a value."""
    pending = list(_references(configuration.replaced(), ""))
    for called, values in in_force.items():
        defaults = _functions(called[1])
        pending += _references([defaults[parameter] for parameter in defaults if parameter in values], called[0])
    found: set[_Called] = set()
    while pending:
        called = pending.pop()
        if called not in found:
            found.add(called)
            values = {**_functions(called[1]), **_bindings(*called)}
            pending += _references(values.values(), called[0])
            pending += _references(_functions(called[1]).values(), called[0])
    return found


def _expected(scope: str, selector: str) -> dict[str, Any]:
    """What a configurable will be called with, as far as the caller gives nothing."""
    literal = {
        name: parameter.default
        for name, parameter in settable_parameters(gin_config._REGISTRY[selector])[0].items()
        if not _is_missing(parameter.default) and gin_config._is_literally_representable(parameter.default)
    }
    return {**literal, **_bindings(scope, selector)}


def _is_missing(value: Any) -> bool:
    return value is inspect.Parameter.empty or value is gin_config.REQUIRED


def _functions(selector: str) -> dict[str, Any]:
    """The defaults of a configurable that are registered functions or classes."""
    parameters = settable_parameters(gin_config._REGISTRY[selector])[0]
    return {name: parameter.default for name, parameter in parameters.items() if _registered(parameter.default)}


def _registered(value: Any) -> Any:
    """The configurable that a function or class is, itself or as gin calls it; None if it is none."""
    if not callable(value) or value is inspect.Parameter.empty:
        return None
    every = (info for _, info in gin_config._REGISTRY.items())
    return next((info for info in every if value is info.wrapped or value is info.wrapper), None)


def _bindings(scope: str, selector: str) -> dict[str, Any]:
    """What is bound for a configurable that is called in a scope: inner scopes win."""
    found: dict[str, Any] = {}
    for outer in reversed(outward(scope)):
        found |= gin_config._CONFIG.get((outer, selector), {})
    return found


def _holders(scope: str, selector: str, parameter: str) -> list[str]:
    """The scopes in which a parameter is bound for such a call, the one that wins first."""
    return [outer for outer in outward(scope) if parameter in gin_config._CONFIG.get((outer, selector), {})]


def _inner(key: Key) -> list[Key]:
    """The bindings of the same parameter in scopes within that of a binding."""
    scope, selector, parameter = key
    return [
        (inner, selector, parameter)
        for (inner, name), bound in gin_config._CONFIG.items()
        if name == selector and parameter in bound and inner != scope and scope in outward(inner)
    ]


def _overriding(key: Key) -> str:
    """Which bindings win over one that nothing reads."""
    names = sorted(configuration.name_of(inner) for inner in _inner(key))
    return f"; {', '.join(names)} {'overrides' if len(names) == 1 else 'override'} it" if names else ""


def _references(values: Iterable[Any], scope: str) -> Iterator[_Called]:
    """What values refer to, macros followed. A reference without scope is called in the scope that it is read in."""
    for value in values:
        if isinstance(value, gin_config.ConfigurableReference):
            if configuration.is_macro(value):
                yield from _references([configuration.macro_value("/".join(value.scopes), {})], scope)
            elif not value.configurable.selector.startswith(_GINS_OWN):
                yield ("/".join(value.scopes) or scope, value.configurable.selector)
        elif isinstance(value, list | tuple):
            yield from _references(value, scope)
        elif isinstance(value, dict):
            yield from _references([*value.keys(), *value.values()], scope)
        else:
            info = _registered(value)
            if info is not None and value is info.wrapper:  # the original itself is called without gin
                yield (scope, info.selector)


def _text(value: Any) -> str:
    """A value as a gin file would hold it."""
    info = _registered(value)
    if info is not None:
        return f"@{gin_config._REGISTRY.minimal_selector(info.selector)}"
    info = _registered(type(value))
    with contextlib.suppress(TypeError):  # it needs arguments
        if info is not None and value == type(value)():
            return f"@{gin_config._REGISTRY.minimal_selector(info.selector)}()"
    return repr(configuration.resolve(value, {}))
