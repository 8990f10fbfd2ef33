"""Reading gin files for the commands: everything wrong with one is said in a line, before anything runs.

gin itself notices a misspelt name, but reports it over several lines, and takes a value of any type. Here a file is
read in three steps: parse it with gin's own parser and look up every name; check the values in force against the type
annotations of what they configure; bind them. Nothing is bound if anything is wrong.

What a file may name must have been registered with gin before (`ngrl.training.configurables`). A file is data: it may
import ngrl's modules and no others, unless the user allows them by name.
"""

import importlib
import inspect
import re
import tokenize
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gin
from gin import config as gin_config
from gin import config_parser

from ngrl.training import annotations
from ngrl.training.annotations import nearest

# An include is looked for beside the including file and in the folders above it, this many in all, then in the
# current folder.
_FOLDERS_SEARCHED = 3
_MACRO = "gin.macro"
_Key = tuple[str, str, str]  # scope, complete name of the configurable, parameter

# Where each binding in gin's configuration was made; gin 0.5 doesn't keep it.
_locations: dict[_Key, str] = {}


class ConfigurationError(Exception):
    """What is wrong with a gin file or a binding, in one line that begins with `file:line` where there is one."""


class _Binding(NamedTuple):
    """One `scope/name.parameter = value` as read."""

    key: _Key
    name: str  # as the file spells it, for messages
    value: Any
    where: str


def parse(gin_files: Sequence[str], bindings: Sequence[str], allow_gin_import: Sequence[str] = ()) -> None:
    """Reads gin files and then single bindings into gin's configuration; later ones win.

    The configuration isn't locked afterwards: parts of ngrl register more with gin when they are first imported.

    Args:
      gin_files: Paths, relative to the current folder. An `include` is looked for beside the including file, in the
        two folders above it, and in the current folder.
      bindings: Bindings as a file would hold them, such as `run.seed=1`.
      allow_gin_import: Modules outside ngrl that files may import.

    Raises:
      ConfigurationError: A file or an included file is missing or can't be parsed; a name, a parameter or a macro
        doesn't exist; a value has the wrong type; an import isn't allowed. Nothing has been bound then.
    """
    reader = _Reader(allow_gin_import)
    for name in gin_files:
        reader.read_file(name)
    for text in bindings:
        reader.read_binding(text)
    in_force = {binding.key: binding for binding in reader.bindings}
    _check_macros(reader, in_force)
    for binding in in_force.values():
        _check_value(binding, in_force)
    for binding in reader.bindings:
        _bind(binding)


def operative_config() -> str:
    """The configuration as it has been used so far, defaults included, as a gin file that `parse` reads."""
    return gin.operative_config_str()


def describe() -> str:
    """What is bound and where: lines such as `run.seed = 1  (gin/base/run.gin:4)`."""
    lines = []
    for (scope, selector), parameters in gin_config._CONFIG.items():
        for parameter, value in parameters.items():
            where = _locations.get((scope, selector, parameter))
            place = f"  ({where})" if where else ""
            lines.append(f"{_full_name(scope, selector, parameter)} = {value!r}{place}")
    return "\n".join(sorted(lines))


def one_line(error: BaseException) -> str:
    """An error raised while configurables were called, in one line.

    gin adds several lines to the message of every error that passes through a configurable. They are dropped here,
    and the innermost configurable is named instead; so is the place where the parameter was bound, if the message
    speaks of one.
    """
    message, *suffixes = re.split(r"\n  (?=No values supplied by Gin|In call to configurable )", str(error))
    if isinstance(error, KeyError) and len(error.args) == 1:
        message = str(error.args[0])
    message = _first_line(message) or type(error).__name__
    called = [re.match(r"In call to configurable '([^']+)'", suffix) for suffix in suffixes]
    name = next((match.group(1) for match in called if match), None)
    needed = re.match(r"Required bindings for `([^`]+)` not provided in config: \[(.*)\]", message)
    missing = re.search(r"missing \d+ required (?:positional|keyword-only) arguments?: (.+)", message)
    if needed or missing:
        name = needed.group(1) if needed else name or message.split("(")[0]
        parameters = re.findall(r"'(\w+)'", needed.group(2) if needed else missing.group(1) if missing else "")
        return f"{name} needs a value for {' and '.join(parameters)}: bind " + ", ".join(
            f"{name}.{parameter}" for parameter in parameters
        )
    if name is None:
        return message
    where = _location_in_message(name, message)
    return f"{where}: {name}: {message}" if where else f"{name}: {message}"


class _Unknown(NamedTuple):
    """Stands in a value for a reference to something that doesn't exist."""

    message: str


class _Delegate(gin_config.ParserDelegate):
    """Makes the references in values, and notes which macros they name."""

    def __init__(self) -> None:
        super().__init__()
        self.macros: set[str] = set()

    def configurable_reference(self, scoped_selector: str, evaluate: bool) -> Any:
        """What `@scope/name` or `@scope/name()` stands for."""
        *scopes, selector = scoped_selector.split("/")
        try:
            complete = _find(selector).selector
        except LookupError as error:
            return _Unknown(f"@{scoped_selector}: {error.args[0]}")
        if len(gin_config._REGISTRY.matching_selectors(selector)) == 1:
            complete = selector  # keep the short name for the operative configuration
        return gin_config.ConfigurableReference("/".join([*scopes, complete]), evaluate)

    def macro(self, name: str) -> Any:
        """What `%name` stands for: a macro or a constant."""
        try:
            reference = super().macro(name)
        except ValueError as error:
            return _Unknown(_first_line(str(error)))
        # A macro also takes the value of those whose scope it lies in: %a/b that of %a.
        parts = name.split("/")
        self.macros.update("/".join(parts[:count]) for count in range(1, len(parts) + 1))
        return reference


class _Reader:
    """Reads files and command-line bindings, in order, into a list."""

    def __init__(self, allow_gin_import: Sequence[str]):
        self.bindings: list[_Binding] = []
        self.delegate = _Delegate()
        self._allowed = ("ngrl", *allow_gin_import)
        self._open_files: list[Path] = []

    def read_file(self, name: str) -> None:
        """Reads a file named on the command line."""
        path = Path(name).absolute()
        if not path.is_file():
            raise ConfigurationError(_no_file(name, path, [Path.cwd(), Path.cwd() / "gin"]))
        self._read_path(path)

    def read_binding(self, text: str) -> None:
        """Reads a binding from the command line."""
        quote = '"' if "'" in text else "'"
        where = f"--gin_bindings {quote}{' '.join(text.split())}{quote}"
        self._read_text(text, lambda line: where, [Path.cwd()])

    def _read_path(self, path: Path) -> None:
        shown = _shown(path)
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise ConfigurationError(f"{shown}: is not a text file") from None
        except OSError as error:
            raise ConfigurationError(f"{shown}: {error.strerror}") from None
        self._open_files.append(path.resolve())
        folders = [*path.parents[:_FOLDERS_SEARCHED], Path.cwd()]
        self._read_text(text, lambda line: f"{shown}:{line}", folders)
        self._open_files.pop()

    def _read_text(self, text: str, locate: Callable[[int], str], folders: list[Path]) -> None:
        for statement in _statements(text, self.delegate, locate):
            where = locate(statement.location.line_num)
            try:
                if isinstance(statement, config_parser.IncludeStatement):
                    self._include(statement.filename, where, folders)
                elif isinstance(statement, config_parser.ImportStatement):
                    self._import(statement)
                elif isinstance(statement, config_parser.BlockDeclaration):
                    _find(statement.selector)
                else:
                    self.bindings.append(_binding(statement, where))
            except LookupError as error:
                raise ConfigurationError(f"{where}: {error.args[0]}") from None

    def _include(self, name: str, where: str, folders: list[Path]) -> None:
        path = next((folder / name for folder in folders if (folder / name).is_file()), None)
        if path is None:
            raise LookupError(_no_file(name, folders[0] / name, folders))
        if path.resolve() in self._open_files:
            raise LookupError(f'include "{name}" comes back to a file that is still being read')
        self._read_path(path)

    def _import(self, statement: config_parser.ImportStatement) -> None:
        module = statement.module
        if not any(module == allowed or module.startswith(f"{allowed}.") for allowed in self._allowed):
            raise LookupError(
                f'import of "{module}" refused: a gin file may import only ngrl\'s modules '
                f"(--allow_gin_import={module} allows it)"
            )
        try:
            importlib.import_module(module)
        except Exception as error:
            raise LookupError(f'cannot import "{module}": {one_line(error)}') from None
        gin_config._IMPORTS.add(statement)


def _statements(text: str, delegate: _Delegate, locate: Callable[[int], str]) -> Iterator[Any]:
    """gin's statements; what it can't parse becomes a ConfigurationError."""
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
    source = lines[line - 1].strip() if line <= len(lines) else ""
    raise ConfigurationError(f"{locate(line)}: syntax error: {message}{f', in: {source}' if source else ''}")


def _syntax_message(error: SyntaxError) -> str:
    """What gin's parser found wrong, with a hint at the usual slips."""
    bare = re.search(r"Failed to parse token '(\w+)'", error.msg)
    if bare:
        word = bare.group(1)
        literal = {"true": "True", "false": "False", "none": "None", "null": "None"}.get(word.lower())
        return f"{word} is no value; write " + (literal or f'"{word}" for a string, @{word} or %{word}')
    message = _first_line(error.msg).rstrip(".")
    return message[:1].lower() + message[1:]


def _find(selector: str) -> Any:
    """The configurable of that name; of several, the one that is ngrl's own.

    Raises:
      LookupError: There is none, or more than one.
    """
    matches = gin_config._REGISTRY.matching_selectors(selector)
    own = [match for match in matches if match.startswith("ngrl.")]
    if len(matches) > 1 and len(own) == 1:
        matches = own
    if len(matches) > 1:
        raise LookupError(f'"{selector}" is ambiguous: write {" or ".join(sorted(matches))}')
    if not matches:
        every = [info for _, info in gin_config._REGISTRY.items()]
        # ngrl's names first, so that they win a tie against the many that TF-Agents registers.
        every.sort(key=lambda info: not info.selector.startswith("ngrl."))
        hint = nearest(selector.split(".")[-1], (info.name for info in every))
        raise LookupError(f'no configurable "{selector}"{hint}')
    return gin_config._REGISTRY[matches[0]]


def _binding(statement: config_parser.BindingStatement, where: str) -> _Binding:
    """A binding whose names all exist.

    Raises:
      LookupError: A name doesn't exist.
    """
    scope, selector, parameter, value, _ = statement
    for leaf in _leaves(value):
        if isinstance(leaf, _Unknown):
            raise LookupError(leaf.message)
    if not parameter:  # `name = value` defines a macro
        name = f"{scope}/{selector}" if scope else selector
        return _Binding((name, _MACRO, "value"), name, value, where)
    info = _find(selector)
    known, any_name = _parameters(info)
    if parameter not in known and not any_name:
        hidden = parameter in _signature(info).parameters
        problem = f'parameter "{parameter}" of {info.name} is not for gin files' if hidden else ""
        raise LookupError(problem or f'no parameter "{parameter}" on {info.name}{nearest(parameter, known)}')
    return _Binding((scope, info.selector, parameter), f"{info.name}.{parameter}", value, where)


def _constructor(info: Any) -> Callable[..., Any]:
    """The function whose parameters a configurable takes."""
    target = info.wrapped
    return inspect.unwrap(gin_config._find_class_construction_fn(target) if inspect.isclass(target) else target)


def _signature(info: Any) -> inspect.Signature:
    """Its signature, with **anything where it has none."""
    try:
        return inspect.signature(_constructor(info))
    except (TypeError, ValueError):  # some builtins
        return inspect.Signature([inspect.Parameter("anything", inspect.Parameter.VAR_KEYWORD)])


def _parameters(info: Any) -> tuple[dict[str, inspect.Parameter], bool]:
    """The parameters that gin may set, by name, and whether others are taken too."""
    parameters = list(_signature(info).parameters.values())
    if inspect.isclass(info.wrapped):
        parameters = parameters[1:]  # self or cls
    positional_only, *named = inspect.Parameter.POSITIONAL_ONLY, *(
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.KEYWORD_ONLY,
    )
    del positional_only
    known = {
        parameter.name: parameter
        for parameter in parameters
        if parameter.kind in named
        and (not info.allowlist or parameter.name in info.allowlist)
        and parameter.name not in (info.denylist or ())
    }
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    return known, takes_any
