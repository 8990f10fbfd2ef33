"""The configuration of a run, from gin files: what is wrong with one is said in a line, before anything runs.

Gin itself notices a misspelt name, but reports it over several lines, and takes a value of any type. Here
files are first read and every name in them looked up (`reader`); then the values in force are checked
against the type annotations of what they configure (`annotations`); then they are bound.

What files may name says so itself (`ngrl.configurable`) and is registered with gin first (`registration`).
"""

import contextlib
import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import gin
from gin import config as gin_config

from ngrl import seeding
from ngrl.checks import check_number
from ngrl.configuration import annotations, registration
from ngrl.configuration.annotations import nearest
from ngrl.configuration.reader import (
    MACRO,
    Binding,
    ConfigurationError,
    Key,
    Reader,
    constructor,
    is_of_keras,
    is_stand_in,
    named,
    outward,
    settable_parameters,
)
from ngrl.messages import first_line

__all__ = [
    "MACRO",
    "Binding",
    "ConfigurationError",
    "Key",
    "bindings",
    "identity_of",
    "is_macro",
    "lacks_value",
    "locations",
    "macro_value",
    "name_of",
    "one_line",
    "parse",
    "read",
    "replaced",
    "resolve",
]

# How gin begins its RuntimeError of a parameter that is `gin.REQUIRED`.
_MISSING = re.compile(r"Required bindings for `([^`]+)` not provided in config: (.*)")

# What `ngrl.training.configurables.main` runs.
_ENTRY: Key = ("", "ngrl.main", "entry")

# Where each binding in gin's configuration was made, and what values were bound before; gin 0.5 doesn't keep it.
_locations: dict[Key, str] = {}
_replaced: list[Any] = []


def parse(
    gin_files: Sequence[str],
    gin_bindings: Sequence[str],
    allow_gin_import: Sequence[str] = (),
    entry_options: Mapping[str, str] | None = None,
) -> None:
    """Reads gin files and then single bindings into gin's configuration; later ones win.

    The configuration isn't locked afterwards: some modules register with gin when they are first imported.

    Args:
      gin_files: As in `read`, and so are the rest.
      gin_bindings: Bindings as a file would hold them.
      allow_gin_import: Modules outside ngrl that files may import.
      entry_options: Options of the command line.

    Raises:
      ConfigurationError: As in `read`. Nothing has been bound then.
    """
    checked = read(gin_files, gin_bindings, allow_gin_import, entry_options)
    if not gin_config._CONFIG:  # it has been cleared
        _locations.clear()
        _replaced.clear()
    for binding in checked:
        *called, parameter = binding.key
        bound = gin_config._CONFIG.get(tuple(called), {})
        if parameter in bound:
            _replaced.append(bound[parameter])
        gin.bind_parameter(binding.key, binding.value)
        _locations.pop(binding.key, None)  # the last comes last
        _locations[binding.key] = binding.where


def read(
    gin_files: Sequence[str],
    gin_bindings: Sequence[str],
    allow_gin_import: Sequence[str] = (),
    entry_options: Mapping[str, str] | None = None,
    where: str = "",
    reader: Reader | None = None,
) -> list[Binding]:
    """Reads gin files and then single bindings, and checks them all; binds nothing. Loads TensorFlow.

    Args:
      gin_files: Paths, relative to the current folder. An `include` is looked for beside the including file,
        in the two folders above it, and in the current folder.
      gin_bindings: Bindings as a file would hold them, such as `run.seed=1`.
      allow_gin_import: Modules outside ngrl that files may import.
      entry_options: Options of the command line that set a parameter of whatever `main.entry` names, or one that is
        named whole, to a value as a file would hold it: `{"seed": "1", "Evaluation.capture_video": "True"}`. They win
        over everything else.
      where: How messages name the place of `gin_bindings`; by default as options of the command line.
      reader: Reads with what is registered now in place of all that files may name.

    Returns:
      The bindings in the order in which they take effect.

    Raises:
      ConfigurationError: A file or an included file is missing or can't be parsed; a name, a parameter or a
        macro doesn't exist, or a macro serves nothing; a value has the wrong type; an import isn't allowed.
    """
    if reader is None:
        registration.register_all()
        reader = Reader(allow_gin_import)
    for name in gin_files:
        reader.read_file(name)
    of_files = len(reader.bindings)
    for text in gin_bindings:
        reader.read_binding(text, where and f"{where}: {text}")
    single = {binding.key: binding for binding in reader.bindings[of_files:]}
    entry = _entry({binding.key: binding for binding in reader.bindings})
    for option, value in (entry_options or {}).items():
        name = option if "." in option else f"{entry}.{option}"
        reader.read_binding(f"{name} = {value}", where=f"--{option.rpartition('.')[2]}")
        twice = single.get(reader.bindings[-1].key)
        if twice is not None and repr(twice.value) != "%gin.REQUIRED":
            raise ConfigurationError(f"{twice.where}: {reader.bindings[-1].where} sets {name} too: give one of them")
    in_force = {binding.key: binding for binding in reader.bindings}
    _check_macros(reader, in_force)
    _check_scopes(reader, in_force)
    for binding in in_force.values():
        _check_value(binding, in_force)
    return reader.bindings


def bindings() -> dict[str, str]:
    """What is bound, as text: `{"run.seed": "1", ...}`, macros too, sorted by name."""
    found = {
        name_of((*called, parameter)): repr(value)
        for called, bound in gin_config._CONFIG.items()
        for parameter, value in bound.items()
    }
    return dict(sorted(found.items()))


def identity_of(read_bindings: Iterable[Binding]) -> dict[str, str]:
    """What these bind, as text, with the values of macros in their place: a macro's own name changes nothing."""
    in_force = {binding.key: binding for binding in read_bindings}
    found = {
        name_of(key): repr(resolve(binding.value, in_force)) for key, binding in in_force.items() if key[1] != MACRO
    }
    return dict(sorted(found.items()))


def locations() -> dict[Key, str]:
    """Where each binding that `parse` made was made, in the order in which they took effect."""
    return {key: where for key, where in _locations.items() if key[2] in gin_config._CONFIG.get(key[:2], {})}


def replaced() -> list[Any]:
    """Values that `parse` bound and that a later binding of the same name has replaced."""
    return list(_replaced)


def one_line(error: BaseException) -> str:
    """An error raised while configurables were called, in one line.

    Gin adds several lines to the message of every error that passes through a configurable. They are dropped,
    and the innermost configurable is named instead; and the place where a parameter was bound, if the message
    speaks of that parameter.
    """
    message, *suffixes = re.split(r"\n  (?=No values supplied by Gin|In call to configurable )", str(error))
    message = first_line(message) or type(error).__name__
    if isinstance(error, KeyError):
        message = f"no {message}"
    called = [re.match(r"In call to configurable '([^']+)'", suffix) for suffix in suffixes]
    name = next((match.group(1) for match in called if match), "")
    missing = _MISSING.match(message)
    if missing:
        name = missing.group(1)
    else:
        functions = {name, *(getattr(info.wrapped, "__name__", name) for info in named(name))}
        alternatives = "|".join(re.escape(function) for function in functions)
        missing = re.search(rf"\b({alternatives})(?:\.__init__)?\(\) missing .+ arguments?: (.*)", message)
    if missing and name:
        parameters = re.findall(r"'(\w+)'", missing.group(2))
        advice = ", ".join(f"{name}.{parameter}" for parameter in parameters)
        return f"{name} needs a value for {' and '.join(parameters)}: bind {advice}"
    where = _location_in_message(name, message)
    if message.startswith(f"{name}: "):
        name = ""  # a part that names itself is not named twice
    return ": ".join(part for part in (where, name, message) if part)


def lacks_value(error: BaseException) -> bool:
    """Whether a configurable was called without a parameter that a file has to bind."""
    return isinstance(error, RuntimeError) and _MISSING.match(str(error)) is not None


class _Unresolved(Exception):
    """A macro without a value."""


def _entry(in_force: dict[Key, Binding]) -> str:
    """What `main` runs, as a file names it: `run`, unless `main.entry` says otherwise."""
    binding = in_force.get(_ENTRY)
    if binding is not None:
        # What can't be resolved, or isn't a function, is refused with all other wrong values.
        with contextlib.suppress(_Unresolved):
            value = resolve(binding.value, in_force)
            if isinstance(value, annotations.Given | annotations.Made) and not value.text.endswith(")"):
                return value.text.removeprefix("@")
    return "run"


def _check_macros(reader: Reader, in_force: dict[Key, Binding]) -> None:
    """Refuses macros that nothing uses: most are misspelt, or parameters without their configurable."""
    bound_before = gin_config.iterate_references(gin_config._CONFIG, to=gin_config.get_configurable("gin.macro"))
    used = reader.delegate.macros.union("/".join(reference.scopes) for reference in bound_before)
    for binding in reader.bindings:
        if binding.key[1] != MACRO or binding.name in used:
            continue
        meant = [other.name for key, other in in_force.items() if key[2] == binding.name]
        hint = f'; did you mean "{meant[0]}"?' if meant else nearest(binding.name, used)
        raise ConfigurationError(f'{binding.where}: nothing uses the macro "{binding.name}"{hint}')


def _check_scopes(reader: Reader, in_force: dict[Key, Binding]) -> None:
    """Refuses bindings of ngrl's own in a scope that no reference names: most are misspelt."""
    if reader.has_imported:
        return
    bound_before = gin_config.iterate_references(gin_config._CONFIG)
    named_before = (scope for reference in bound_before for scope in outward("/".join(reference.scopes)))
    scopes = reader.delegate.scopes.union(named_before)
    for binding in in_force.values():
        scope, selector, _ = binding.key
        if scope and scope not in scopes and selector.startswith("ngrl."):
            name = name_of(binding.key)
            raise ConfigurationError(
                f'{binding.where}: nothing reads {name}: no value refers to the scope "{scope}"{nearest(scope, scopes)}'
            )


def _check_value(binding: Binding, in_force: dict[Key, Binding]) -> None:
    """Refuses values that the annotated type of the parameter excludes."""
    try:
        value = resolve(binding.value, in_force)
    except _Unresolved as error:
        raise ConfigurationError(f"{binding.where}: {error.args[0]}") from None
    if value is gin.REQUIRED:
        raise ConfigurationError(f"{binding.where}: {binding.name} still needs a value in place of %gin.REQUIRED")
    _, selector, name = binding.key
    if selector == MACRO:
        return
    if binding.key == _ENTRY and isinstance(value, annotations.Given) and inspect.isclass(value.target):
        raise ConfigurationError(
            f"{binding.where}: {binding.name} must be a function that takes a run's context, as @run, got {value}"
        )
    info = gin_config._REGISTRY[selector]
    try:
        if name == "seed" and isinstance(value, int):
            seeding.check_seed(value, binding.name)
        if "learning_rate" in name and is_of_keras(info) and isinstance(value, int | float):
            check_number(binding.name, value, "[0, inf)")
    except ValueError as error:
        raise ConfigurationError(f"{binding.where}: {error}") from None
    parameter = settable_parameters(info)[0].get(name)
    annotation = annotations.parameter_annotations(constructor(info)).get(name, Any)
    if annotation is Any and name != "name" and is_of_keras(info):
        # Numbers, schedules, ...: no optimizer or schedule of Keras takes a text.
        if not isinstance(value, str):
            return
        annotation = float
    if annotations.fits(value, annotation) or (parameter and repr(parameter.default) == repr(value)):
        return
    origin = f" (through {binding.value})" if is_macro(binding.value) else ""
    raise ConfigurationError(f"{binding.where}: {binding.name} {annotations.explain(value, annotation)}{origin}")


def resolve(value: Any, in_force: dict[Key, Binding], inside: tuple[str, ...] = ()) -> Any:
    """The value with macros and constants filled in and other references as `Given` or `Made`.

    Raises:
      _Unresolved: A macro isn't defined, or is defined by itself.
    """
    if isinstance(value, gin_config.ConfigurableReference):
        name = "/".join(value.scopes)
        target = value.configurable.wrapped
        if target is gin_config._retrieve_constant:
            return gin_config._CONSTANTS[name]
        if not is_macro(value):
            if value.evaluate or is_stand_in(target):
                return annotations.Made(repr(value), annotations.made_type(target))
            return annotations.Given(repr(value), target)
        if name in inside:
            raise _Unresolved(f"the macro %{name} is defined by itself")
        return resolve(macro_value(name, in_force), in_force, (*inside, name))
    if isinstance(value, list | tuple):
        return type(value)(resolve(item, in_force, inside) for item in value)
    if isinstance(value, dict):
        return {key: resolve(item, in_force, inside) for key, item in value.items()}
    return value


def is_macro(value: Any) -> bool:
    """Whether a value is `%name` for a macro."""
    is_reference = isinstance(value, gin_config.ConfigurableReference)
    return is_reference and value.evaluate and value.configurable.wrapped is gin_config.macro


def macro_value(name: str, in_force: dict[Key, Binding]) -> Any:
    """What a macro has been bound to, there or in gin's configuration.

    Raises:
      _Unresolved: It isn't defined.
    """
    for scope in outward(name)[:-1]:
        if (binding := in_force.get((scope, MACRO, "value"))) is not None:
            return binding.value
        if "value" in (bound := gin_config._CONFIG.get((scope, MACRO), {})):
            return bound["value"]
    names = [binding.name for binding in in_force.values() if binding.key[1] == MACRO]
    names += [constant for constant, _ in gin_config._CONSTANTS.items()]
    raise _Unresolved(f"no macro %{name}{nearest(name, names)}")


def name_of(key: Key) -> str:
    """The shortest name of what is bound."""
    scope, selector, parameter = key
    shortest = f"{gin_config._REGISTRY.minimal_selector(selector)}.{parameter}"
    return scope if selector == MACRO else f"{scope}/{shortest}".lstrip("/")


def _location_in_message(name: str, message: str) -> str | None:
    """Where the text was bound that a message quotes, or else a parameter that it names.

    Parameters of configurable `name` come first; another's counts where it is called by no word of everyday. Keys of a
    dictionary that the message repeats are no parameters that it speaks of.
    """
    found: dict[int, str] = {}
    for (scope, selector, parameter), where in _locations.items():
        bound = gin_config._CONFIG.get((scope, selector), {})
        if parameter not in bound:
            continue
        value, is_own = bound[parameter], selector.split(".")[-1] == name
        if isinstance(value, str) and re.search(rf"['\"`]{re.escape(value)}['\"`]", message):
            found.setdefault(0 if is_own else 1, where)
        elif re.search(rf"(?<![\w'.]){parameter}=", message):
            found.setdefault(1, where)  # the message repeats the binding
        elif re.search(rf"\b{parameter}\b(?!':)", message) and (is_own or "_" in parameter):
            found.setdefault(2 if is_own else 3, where)
    return found[min(found)] if found else None
