"""Whether two sets of settings are one experiment. Settings are compared as values: `1` is `1.0`, a list a tuple."""

import ast
import re
from collections.abc import Callable, Mapping, Set
from typing import Any

from ngrl import renamed

#: Gives the default of a setting as text; None where it has none.
Default = Callable[[str], str | None]

#: The settings that say how long a run is.
LENGTH = ("run.num_env_steps", "run.num_episodes")
#: What may differ between a run and its continuation: how long it goes on or waits, and what is reported or kept.
#: Macros are no settings of their own, so that one may serve any of these.
FREE_TO_CHANGE = frozenset(
    (
        *LENGTH,
        "run.log_every",
        "run.checkpoint_every",
        "run.keep_checkpoints",
        "run.evaluation",
        "Evaluation.episodes",
        "Evaluation.max_episode_steps",
        "Evaluation.capture_video",
        "Evaluation.every",
        "Evaluation.interim_episodes",
        "AsyncEnvironments.timeout",
        "RayEnvironments.actors",
        "RayEnvironments.address",
        "RayEnvironments.cpus",
        "RayEnvironments.timeout",
        "RayEnvironments.max_replacements",
    )
)
_REFERENCE = re.compile(r"@[\w./]+(\(\))?")


def no_default(name: str) -> None:
    """The default of settings that nothing is known of."""
    del name


def differences(
    saved: Mapping[str, str],
    here: Mapping[str, str],
    default: Default = no_default,
    saved_complete: bool = True,
    here_complete: bool = True,
    free: Set[str] = FREE_TO_CHANGE,
) -> list[str]:
    """Settings that make two experiments different, each as `name (value there, value here)`.

    A name that one side lacks has the value of an outer scope there, or else today's default. Where one side holds
    bindings alone, only the names of the complete one count, for a binding may be read by nothing.

    Args:
      saved: A run's settings, name to value as text.
      here: The settings to compare them with.
      default: Gives today's defaults.
      saved_complete: Whether `saved` holds all that was in force, defaults included, and not bindings alone.
      here_complete: The same of `here`.
      free: The names, without their scopes, that make no difference.
    """
    saved, here = renamed.current(saved), renamed.current(here)
    names = {*saved, *here}
    if saved_complete != here_complete:
        names = set(saved if saved_complete else here)
    found = []
    for name in sorted(names):
        there, now = setting(saved, name, default), setting(here, name, default)
        if name.rpartition("/")[2] not in free and not same(there, now):
            found.append(f"{name} ({there or 'unset'} there, {now or 'unset'} here)")
    return found


def setting(settings: Mapping[str, str], name: str, default: Default) -> str | None:
    """The value of a setting as text: its own, that of an outer scope, the default; None where there is none."""
    *scopes, bare = name.split("/")
    for count in range(len(scopes), -1, -1):
        if (text := settings.get("/".join([*scopes[:count], bare]))) is not None:
            return text
    return default(name)


def number(text: str | None) -> int | None:
    """A setting's text as a whole number; None where it is none."""
    value = None if text is None else _value(text)
    return value if type(value) is int else None


def same(one: str | None, other: str | None) -> bool:
    """Whether two texts stand for the same value."""
    return one == other or (one is not None and other is not None and _value(one) == _value(other))


def _value(text: str) -> Any:
    """What a text stands for, in a form that can be compared; the text itself where it is no literal."""
    for candidate in (text, _REFERENCE.sub(lambda reference: repr(reference[0]), text)):
        try:
            return _comparable(ast.literal_eval(candidate))
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
    return text


def _comparable(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_comparable(item) for item in value)
    if isinstance(value, dict):
        return {key: _comparable(item) for key, item in value.items()}
    return (bool, value) if isinstance(value, bool) else value  # in Python True is 1
