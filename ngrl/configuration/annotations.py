"""Whether a value from a gin file suits a parameter's type annotation, and what to say when it does not."""

import collections.abc
import difflib
import enum
import functools
import inspect
import numbers
import types
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, Union

_SEQUENCES = (
    list,
    tuple,
    collections.abc.Sequence,
    collections.abc.MutableSequence,
    collections.abc.Collection,
    collections.abc.Iterable,
)
_MAX_SHOWN = 60


@dataclass(frozen=True)
class Given:
    """A reference that hands over a function or class itself: `@name`."""

    text: str
    target: Any

    def __repr__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Made:
    """A reference that hands over what a call returns: `@name()`; `type` is None where that is not known."""

    text: str
    type: type | None

    def __repr__(self) -> str:
        return self.text


def made_type(target: Any) -> type | None:
    """The class of what calling `target` returns, where it is a class or its annotation says so."""
    if inspect.isclass(target):
        return target
    returned = parameter_annotations(target).get("return")
    return returned if inspect.isclass(returned) and returned is not type(None) else None


@functools.lru_cache(1024)
def _type_hints(function: Callable[..., Any]) -> dict[str, Any]:
    return typing.get_type_hints(function, include_extras=True)


def parameter_annotations(function: Callable[..., Any]) -> dict[str, Any]:
    """Resolved annotations of a function by parameter name; what can't be resolved is left out."""
    function = inspect.unwrap(function)
    try:
        return _type_hints(function)
    except Exception:  # a name that exists only for type checkers, for example
        raw = getattr(function, "__annotations__", {})
        return {name: annotation for name, annotation in raw.items() if not isinstance(annotation, str)}


def fits(value: Any, annotation: Any) -> bool:
    """Whether `value` is acceptable for `annotation`; True where the annotation can't be checked.

    As for a type checker, an int is a float; but a bool is no number. Lists and tuples are one thing, because
    gin files write either for any sequence; a string is never a sequence of strings.

    Args:
      value: A literal, an object, `Given` or `Made`, or lists, tuples and dicts of them.
      annotation: A type annotation.
    """
    annotation = _plain(annotation)
    origin = typing.get_origin(annotation)
    target = origin or annotation
    if any(annotation is anything for anything in (Any, object, inspect.Parameter.empty)):
        return True
    if target in (Union, types.UnionType):
        return any(fits(value, member) for member in typing.get_args(annotation))
    if isinstance(value, Made):
        return value.type is None or _makes(value.type, target, annotation)
    if target is Literal:
        return any(type(value) is type(choice) and value == choice for choice in typing.get_args(annotation))
    if annotation in (None, type(None)):
        return value is None
    if not inspect.isclass(target):
        return True
    if isinstance(value, Given):
        return _hands_over(value.target, target, annotation)
    if isinstance(value, list | tuple) and target in _SEQUENCES:
        return _items_fit(value, target, typing.get_args(annotation))
    if isinstance(value, dict) and issubclass(dict, target) and typing.get_args(annotation):
        key, item = (*typing.get_args(annotation), Any)[:2]
        return all(fits(k, key) and fits(v, item) for k, v in value.items())
    return _is_a(value, target)


def explain(value: Any, annotation: Any) -> str:
    """Why `value` does not fit: 'must be float, got "0.1", a str; write 0.1'."""
    hint = _hint(value, annotation)
    kind = "" if isinstance(value, Given | Made) or value is None else f", {_article(type(value).__name__)}"
    return f"must be {describe(annotation)}, got {show(value)}{kind}{f'; {hint}' if hint else ''}"


def show(value: Any) -> str:
    """A value as a gin file writes it, shortened."""
    if isinstance(value, Given | Made):
        return value.text
    if isinstance(value, str):
        text = '"' + value.replace("\n", "\\n") + '"'
    elif isinstance(value, list | tuple):
        items = ", ".join(show(item) for item in value)
        text = f"[{items}]" if isinstance(value, list) else f"({items}{',' if len(value) == 1 else ''})"
    elif isinstance(value, dict):
        text = "{" + ", ".join(f"{show(key)}: {show(item)}" for key, item in value.items()) + "}"
    else:
        text = " ".join(repr(value).split())
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + "..."


def describe(annotation: Any) -> str:
    """An annotation in words: 'float or None', 'a sequence of int', 'one of "chosen", "all"'."""
    annotation = _plain(annotation)
    target, arguments = typing.get_origin(annotation) or annotation, typing.get_args(annotation)
    if target in (Union, types.UnionType):
        # None last: "float or None".
        names = [describe(member) for member in sorted(arguments, key=lambda member: member is type(None))]
        return " or ".join(dict.fromkeys(names))
    if target is Literal:
        return f"one of {', '.join(show(choice) for choice in arguments)}"
    if annotation in (None, type(None)):
        return "None"
    if target in (collections.abc.Callable, typing.Callable):
        return "a function or class"
    if target in _SEQUENCES:
        if target is tuple and arguments and Ellipsis not in arguments:
            return f"a tuple of ({', '.join(describe(item) for item in arguments)})"
        return f"a sequence of {describe(arguments[0])}" if arguments else "a sequence"
    if target is type:
        return f"a subclass of {describe(arguments[0])}" if arguments else "a class"
    if inspect.isclass(target):
        if issubclass(target, enum.Enum):
            return f"one of {', '.join(f'{target.__name__}.{member.name}' for member in target)}"
        return target.__name__ if not arguments else f"{target.__name__} of {' to '.join(map(describe, arguments))}"
    return str(annotation).replace("typing.", "")


def nearest(name: str, candidates: Iterable[str], cutoff: float = 0.6) -> str:
    """'; did you mean "learning_rate"?', or nothing where no candidate is near."""
    by_folded: dict[str, str] = {}
    for candidate in candidates:
        by_folded.setdefault(candidate.lower(), candidate)
    found = difflib.get_close_matches(name.lower(), by_folded, n=1, cutoff=cutoff)
    return f'; did you mean "{by_folded[found[0]]}"?' if found else ""


def _plain(annotation: Any) -> Any:
    """The annotation without `Annotated`, `NewType` and type variables."""
    while True:
        if typing.get_origin(annotation) is Annotated:
            annotation = typing.get_args(annotation)[0]
        elif isinstance(annotation, TypeVar):
            annotation = Any if annotation.__bound__ is None else annotation.__bound__
        elif hasattr(annotation, "__supertype__"):
            annotation = annotation.__supertype__
        else:
            return annotation


def _is_protocol(target: Any) -> bool:
    return bool(getattr(target, "_is_protocol", False))


def _is_a(value: Any, target: type) -> bool:
    """Whether an object, not a container, is an instance in the sense of `fits`."""
    if isinstance(value, bool) and target is not bool and issubclass(target, numbers.Number):
        return False
    if isinstance(value, int) and target in (float, complex):
        return True
    if isinstance(value, float) and target is complex:
        return True
    if isinstance(value, str | bytes) and target in _SEQUENCES:
        return False
    if issubclass(target, enum.Enum) and not isinstance(value, bool):
        # A member of an enum that is also a str or int equals its value.
        return any(isinstance(member, type(value)) and member == value for member in target)
    try:
        return isinstance(value, target)
    except TypeError:  # a protocol that can't be checked at run time
        return True


def _items_fit(values: list[Any] | tuple[Any, ...], target: type, arguments: tuple[Any, ...]) -> bool:
    """Whether the items of a list or tuple fit those of a sequence annotation."""
    if target is tuple and arguments and Ellipsis not in arguments:
        arguments = () if arguments == ((),) else arguments
        return len(values) == len(arguments) and all(map(fits, values, arguments))
    return not arguments or all(fits(value, arguments[0]) for value in values)


def _makes(made: type, target: Any, annotation: Any) -> bool:
    """Whether instances of the class `made` fit."""
    if target is Literal:
        return any(issubclass(made, type(choice)) for choice in typing.get_args(annotation))
    if annotation in (None, type(None)):
        return made is type(None)
    if not inspect.isclass(target) or _is_protocol(target):
        return True
    if made in (int, float) and target in (float, complex):
        return True
    try:
        return issubclass(made, target)
    except TypeError:
        return True


def _hands_over(function_or_class: Any, target: type, annotation: Any) -> bool:
    """Whether a function or class itself fits."""
    if target is collections.abc.Callable:
        return callable(function_or_class)
    if target is type:
        bases = [base for base in typing.get_args(annotation) if inspect.isclass(base)]
        return inspect.isclass(function_or_class) and all(issubclass(function_or_class, base) for base in bases)
    if _is_protocol(target):
        # A function, or a class as a factory, can only be what a protocol for callables asks for.
        return any("__call__" in vars(base) for base in target.__mro__)
    try:
        return isinstance(function_or_class, target)
    except TypeError:
        return True


def _hint(value: Any, annotation: Any) -> str:
    """What to write instead, where that is plain."""
    if isinstance(value, Given):
        return f"write {value.text}()" if fits(Made("", made_type(value.target)), annotation) else ""
    if isinstance(value, Made):
        return ""
    if isinstance(value, str):
        number = _number(value)
        if number is not None and fits(number, annotation):
            return f"write {value.strip()}"
        choices = [choice for choice in _choices(annotation) if isinstance(choice, str)]
        return nearest(value, choices).removeprefix("; ")
    if isinstance(value, float) and value.is_integer() and fits(int(value), annotation):
        return f"write {int(value)}"
    if type(value) is int and value in (0, 1) and fits(bool(value), annotation):
        return f"write {bool(value)}"
    if not isinstance(value, list | tuple) and fits((value,), annotation):
        return f"write ({show(value)},)"
    return ""


def _choices(annotation: Any) -> list[Any]:
    """The choices of all `Literal`s in an annotation."""
    annotation = _plain(annotation)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return list(arguments)
    if origin in (Union, types.UnionType):
        return [choice for member in arguments for choice in _choices(member)]
    return []


def _number(text: str) -> int | float | None:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return None


def _article(word: str) -> str:
    return f"{'an' if word[:1].lower() in 'aeiou' else 'a'} {word}"
