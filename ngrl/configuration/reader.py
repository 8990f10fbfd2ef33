"""Reads gin files: gin's own parser, with every name looked up and every include found.

A file is data: it may import ngrl's modules and no others, unless the user allows them by name. What it may
name must have been registered with gin before. Nothing is bound here: `binding` does that.
"""

import functools
import inspect
import os
import re
import tokenize
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gin import config as gin_config
from gin import config_parser

from ngrl import modules, packaged
from ngrl.configuration.annotations import nearest
from ngrl.messages import first_line, reason
from ngrl.renamed import present_name

MACRO = "gin.macro"  # what gin calls the configurable behind `name = value` and `%name`
Key = tuple[str, str, str]  # scope, complete name of the configurable, parameter

# An include is looked for beside the including file and in folders above it, this many in all, then in the
# current one, then among what comes with ngrl.
_FOLDERS_SEARCHED = 3


class ConfigurationError(Exception):
    """What is wrong with a gin file or a binding: one line, which begins with `file:line` if there is one."""


class Binding(NamedTuple):
    """One `scope/name.parameter = value` as read."""

    key: Key
    name: str  # as the file spells it, for messages
    value: Any
    where: str


class Fault(Exception):
    """What is wrong, where the caller knows the place."""


class _Unknown(NamedTuple):
    """Stands in a value for a reference to something that doesn't exist."""

    message: str


class _Delegate(gin_config.ParserDelegate):
    """Makes the references in values, and notes which macros they name."""

    def __init__(self) -> None:
        super().__init__()
        self.macros: set[str] = set()
        self.scopes: set[str] = set()

    def configurable_reference(self, scoped_selector: str, evaluate: bool) -> Any:
        """What `@scope/name` or `@scope/name()` stands for."""
        *scopes, selector = scoped_selector.split("/")
        self.scopes.update(outward("/".join(scopes)))
        try:
            complete = find(selector).selector
        except Fault as error:
            return _Unknown(f"@{scoped_selector}: {error.args[0]}")
        if len(gin_config._REGISTRY.matching_selectors(selector)) == 1:
            complete = selector  # keep the short name for the operative configuration
        return gin_config.ConfigurableReference("/".join([*scopes, complete]), evaluate)

    def macro(self, name: str) -> Any:
        """What `%name` stands for: a macro or a constant."""
        try:
            reference = super().macro(name)
        except ValueError as error:
            return _Unknown(reason(error))
        # A macro also takes the value of those whose scope it lies in: %a/b that of %a.
        self.macros.update(outward(name))
        return reference


class Reader:
    """Reads files and command-line bindings, in order, into a list."""

    def __init__(self, allow_gin_import: Sequence[str]):
        self.bindings: list[Binding] = []
        self.delegate = _Delegate()
        self.has_imported = False  # modules that aren't ngrl's, which may call things in scopes of theirs
        self._allowed = ("ngrl", *allow_gin_import)
        self._open_files: list[Path] = []

    def read_file(self, name: str) -> None:
        """Reads a file named on the command line."""
        path = packaged.find(name).absolute()
        if not path.is_file():
            raise ConfigurationError(_no_file(name, path, [Path.cwd(), Path.cwd() / "gin", packaged.ROOT]))
        self._read_path(path)

    def read_binding(self, text: str, where: str = "") -> None:
        """Reads a binding from the command line; `where` names its option, by default --gin_bindings."""
        quote = '"' if "'" in text else "'"
        place = where or f"--gin_bindings {quote}{' '.join(text.split())}{quote}"
        self._read_text(text, lambda line: place, [Path.cwd(), packaged.ROOT])

    def _read_path(self, path: Path) -> None:
        shown = _shown(path)
        try:
            text = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError:
            raise ConfigurationError(f"{shown}: is not a text file") from None
        except OSError as error:
            raise ConfigurationError(f"{shown}: {error.strerror}") from None
        self._open_files.append(path.resolve())
        folders = [*path.parents[:_FOLDERS_SEARCHED], Path.cwd(), packaged.ROOT]
        self._read_text(text, lambda line: f"{shown}:{line}", folders)
        self._open_files.pop()

    def _read_text(self, text: str, locate: Callable[[int], str], folders: list[Path]) -> None:
        for statement in _statements(text, self.delegate, locate):
            where = locate(statement.location.line_num)
            try:
                if isinstance(statement, config_parser.IncludeStatement):
                    self._include(statement.filename, folders)
                elif isinstance(statement, config_parser.ImportStatement):
                    self._import(statement)
                elif isinstance(statement, config_parser.BlockDeclaration):
                    find(statement.selector)
                else:
                    self.bindings.append(_binding(statement, where))
            except Fault as error:
                raise ConfigurationError(f"{where}: {error.args[0]}") from None

    def _include(self, name: str, folders: list[Path]) -> None:
        path = next((folder / name for folder in folders if os.path.isfile(folder / name)), None)
        if path is None:
            raise Fault(_no_file(name, folders[0] / name, folders))
        if path.resolve() in self._open_files:
            raise Fault(f'include "{name}" comes back to a file that is still being read')
        self._read_path(path)

    def _import(self, statement: config_parser.ImportStatement) -> None:
        module = statement.module
        if not any(module == allowed or module.startswith(f"{allowed}.") for allowed in self._allowed):
            raise Fault(
                f'import of "{module}" refused: a gin file may import only ngrl\'s modules '
                f"(--allow_gin_import={module} allows it)"
            )
        self._import_allowed(statement)

    def _import_allowed(self, statement: config_parser.ImportStatement) -> None:
        try:
            modules.load(statement.module)
        except ImportError as error:
            raise Fault(str(error)) from None
        gin_config._IMPORTS.add(statement)
        self.has_imported |= statement.module.split(".")[0] != "ngrl"


def outward(scope: str) -> list[str]:
    """The scope and all that it lies in, the outermost, which has no name, last: "a/b", "a", ""."""
    parts = scope.split("/") if scope else []
    return ["/".join(parts[:count]) for count in range(len(parts), -1, -1)]


def _statements(text: str, delegate: _Delegate, locate: Callable[[int], str]) -> Iterator[Any]:
    """The statements in gin's form; what it can't parse becomes a ConfigurationError."""
    line, lines = 1, text.splitlines()
    try:
        parser = config_parser.ConfigParser(text, delegate)
        while True:
            if not parser._statements_queue:
                parser._skip_whitespace_and_comments()
                line = parser.current_token.start[0]
            statement = parser.parse_statement()
            if statement is None:
                return
            yield statement
    except (tokenize.TokenError, StopIteration):
        message = "a bracket or string is never closed"
    except RecursionError:
        message = "nested too deeply"
    except SyntaxError as error:
        line, message = error.lineno or line, _syntax_message(error)
    except TypeError as error:  # a key of a dictionary that can be none
        message = str(error)
    source = lines[line - 1].strip() if line <= len(lines) else ""
    raise ConfigurationError(f"{locate(line)}: syntax error: {message}{f', in: {source}' if source else ''}")


def _syntax_message(error: SyntaxError) -> str:
    """What gin's parser found wrong, with a hint at the usual slips."""
    bare = re.search(r"Failed to parse token '(\w+)'", error.msg)
    if bare:
        word = bare.group(1)
        literal = {"true": "True", "false": "False", "none": "None", "null": "None"}.get(word.lower())
        return f"{word} is no value; write " + (literal or f'"{word}" for a string, @{word} or %{word}')
    message = first_line(error.msg).rstrip(".")
    return message[:1].lower() + message[1:]


def find(selector: str, parameter: str = "") -> Any:
    """The configurable of that name; of several, the one that is ngrl's own.

    Args:
      selector: The name, or enough of its end.
      parameter: What a file binds of it, for the message to a former name.

    Raises:
      Fault: There is none, or more than one.
    """
    matches = gin_config._REGISTRY.matching_selectors(selector)
    own = [match for match in matches if match.startswith("ngrl.")]
    if len(matches) > 1 and len(own) == 1:
        matches = own
    former = present_name(selector.removeprefix("ngrl."), parameter)
    # A module of the user's own may have taken the name since; TF-Agents has had some of them all the time.
    if former and all(match.startswith("tf_agents.") for match in matches):
        raise Fault(f'no configurable "{selector}": it is now {former}')
    if len(matches) > 1:
        raise Fault(f'"{selector}" is ambiguous: write {" or ".join(sorted(matches))}')
    if not matches:
        # Not the many that TF-Agents registers.
        every = [info.name for _, info in gin_config._REGISTRY.items() if not info.selector.startswith("tf_agents.")]
        hint = nearest(selector.split(".")[-1], every)
        raise Fault(f'no configurable "{selector}"{hint}')
    return gin_config._REGISTRY[matches[0]]


def named(name: str) -> list[Any]:
    """The configurables registered under exactly that name."""
    return [info for _, info in gin_config._REGISTRY.items() if info.name == name]


def _binding(statement: config_parser.BindingStatement, where: str) -> Binding:
    """A binding whose names all exist.

    Raises:
      Fault: A name doesn't exist.
    """
    scope, selector, parameter, value, _ = statement
    for leaf in _leaves(value):
        if isinstance(leaf, _Unknown):
            raise Fault(leaf.message)
    if not parameter:  # `name = value` defines a macro
        name = f"{scope}/{selector}" if scope else selector
        return Binding((name, MACRO, "value"), name, value, where)
    info = find(selector, parameter)
    known, any_name = settable_parameters(info)
    former = present_name(info.name, parameter) if info.selector.startswith("ngrl.") else None
    if former:
        raise Fault(f'no parameter "{parameter}" on {info.name}: it is now {former}')
    if parameter not in known and not any_name:
        hidden = parameter in _signature(info).parameters
        problem = f'parameter "{parameter}" of {info.name} is not for gin files' if hidden else ""
        raise Fault(problem or f'no parameter "{parameter}" on {info.name}{nearest(parameter, known)}')
    key = (scope, info.selector, parameter)
    try:
        gin_config.ParsedBindingKey.parse(key)
    except ValueError as error:  # what gin refuses beyond this, so that binding can't fail later
        raise Fault(reason(error)) from None
    return Binding(key, f"{info.name}.{parameter}", value, where)


def is_of_keras(info: Any) -> bool:
    """Whether a configurable is one of Keras' own, which carry no type annotations."""
    return info.wrapped.__module__.startswith(("keras.", "tf_keras."))


def is_stand_in(target: Any) -> bool:
    """Whether a configurable only has the name and parameters of one (`ngrl.configuration.stand_ins`)."""
    return getattr(target, "is_stand_in", False)


def constructor(info: Any) -> Callable[..., Any]:
    """The function whose parameters a configurable takes."""
    target = info.wrapped
    return inspect.unwrap(gin_config._find_class_construction_fn(target) if inspect.isclass(target) else target)


# A study reads thousands of bindings of the same few functions.
_signature_of = functools.lru_cache(1024)(inspect.signature)


def _signature(info: Any) -> inspect.Signature:
    """Its signature, with **anything where it has none."""
    try:
        return _signature_of(constructor(info))
    except (TypeError, ValueError):  # some builtins
        return inspect.Signature([inspect.Parameter("anything", inspect.Parameter.VAR_KEYWORD)])


def settable_parameters(info: Any) -> tuple[dict[str, inspect.Parameter], bool]:
    """The parameters that gin may set, by name, and whether others are taken too."""
    parameters = list(_signature(info).parameters.values())
    if inspect.isclass(info.wrapped):
        parameters = parameters[1:]  # self or cls
        if constructor(info) is object.__init__:
            return {}, False
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    known = {
        parameter.name: parameter
        for parameter in parameters
        if parameter.kind in by_name
        and (not info.allowlist or parameter.name in info.allowlist)
        and parameter.name not in (info.denylist or ())
    }
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    # Keras takes **kwargs to refuse them itself, later and with a traceback.
    return known, takes_any and not is_of_keras(info)


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list) or type(value) is tuple:
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def _no_file(name: str, path: Path, folders: Iterable[Path]) -> str:
    """That a file isn't there, with the nearest that is."""
    if os.path.isdir(path):
        return f'"{name}" is a folder, not a gin file'
    there = []
    for folder in folders:
        found = [*folder.glob("*.gin"), *folder.glob("*/*.gin"), *folder.glob("gin/*/*.gin")]
        there += [str(file.relative_to(folder)) for file in sorted(found)]
    return f'no file "{name}"{nearest(name, there)}'


def _shown(path: Path) -> str:
    """A path as messages show it: relative to the current folder if it lies there."""
    shown = os.path.relpath(path)
    return str(path) if shown.startswith(os.pardir) else shown
