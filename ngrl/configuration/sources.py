"""What gin files may name, and its signatures, read from the sources: to import it would take TensorFlow, and seconds.

Annotations become objects as far as they decide about a literal in a gin file: a class of ngrl's or TensorFlow's is a
class of that name without instances, what Python's own library defines is itself, anything else is unknown.
"""

import ast
import builtins
import functools
import importlib
import importlib.util
import re
import sys
from collections.abc import Iterator
from inspect import Parameter, Signature
from pathlib import Path
from typing import Any

_SCHEDULES = "tf_keras.src.optimizers.schedules.learning_rate_schedule"
#: Keras' own that gin files may name, and the modules that define them.
KERAS = {
    "Adam": "tf_keras.src.optimizers.adam",
    "RMSprop": "tf_keras.src.optimizers.rmsprop",
    "SGD": "tf_keras.src.optimizers.sgd",
    "CosineDecay": _SCHEDULES,
    "ExponentialDecay": _SCHEDULES,
    "PolynomialDecay": _SCHEDULES,
    "PiecewiseConstantDecay": _SCHEDULES,
}

_MARKED = re.compile(r"^@configurable\n(?:@.*\n)*(?:class|def) (\w+)", re.MULTILINE)
#: Bases of classes that a literal may be an instance of, beside Python's built-in classes.
_PLAIN = ("Protocol", "NamedTuple", "Enum", "IntEnum")


@functools.cache
def names() -> dict[str, str]:
    """What gin files may name: Keras' own and what `ngrl.configurable` marks, with the modules that define it."""
    (root,) = _folders("ngrl")
    found = dict(KERAS)
    for path in sorted(root.rglob("*.py")):
        module = ".".join(path.relative_to(root.parent).with_suffix("").parts)
        found |= dict.fromkeys(_MARKED.findall(path.read_text(encoding="utf-8")), module)
    return found


def is_of_tf_agents(name: str) -> bool:
    """Whether TF-Agents, once imported, may register something of that name with gin."""
    registers = re.compile(rf"@gin\.configurable\b.*\n(?:[ ]*@.*\n)*[ ]*(?:class|def) {re.escape(name)}\b")
    texts = (path.read_text(encoding="utf-8") for root in _folders("tf_agents") for path in root.rglob("*.py"))
    return any(name in text and registers.search(text) for text in texts)


def signature(module: str, name: str) -> Signature:
    """The signature of a function, or of a class' constructor without `self`; a default that is no literal is `...`.

    Raises:
      KeyError: The module defines no such function or class.
    """
    source = _source(module)
    node = source.definitions[name]
    parameters = _of_class(source, node) if isinstance(node, ast.ClassDef) else _of_function(source, node.args)
    return Signature(list(parameters))


def _folders(package: str) -> list[Path]:
    """The folder of an installed package, found without importing it; none where it isn't installed."""
    spec = importlib.util.find_spec(package)
    return [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []


def _path(module: str) -> Path:
    """Where a module is, or would be."""
    package, *inner = module.split(".")
    path = _folders(package)[0].joinpath(*inner)
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


class _Unknown:
    """What isn't looked at: as an annotation it takes every value."""

    def __getattr__(self, name: str) -> "_Unknown":
        if name.startswith("__"):  # Python's own questions
            raise AttributeError(name)
        return self

    def __or__(self, other: Any) -> "_Unknown":
        return self

    __ror__ = __getitem__ = __or__


class _Opaque(type):
    """Classes that no literal is an instance of, and TensorFlow's modules, which hold such."""

    def __getattr__(cls, name: str) -> "_Opaque":
        if name.startswith("__"):
            raise AttributeError(name)
        return _Opaque(name, (), {})


class _Source:
    """A module as text; `source[name]` and `source.name` are what a name in it stands for in annotations."""

    def __init__(self, module: str):
        self.definitions: dict[str, Any] = {}  # name to the syntax tree of a class, a function or a value
        self._imports: dict[str, tuple[str, str]] = {}  # name to module and name there, "" for the module itself
        body = ast.parse(_path(module).read_text(encoding="utf-8")).body
        for node in [*body, *(inner for outer in body if isinstance(outer, ast.If) for inner in outer.body)]:
            match node:
                case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                    self.definitions[name] = node
                case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                    self.definitions[name] = node.value
                case ast.Import(names=aliases):
                    self._imports |= {alias.asname or alias.name: (alias.name, "") for alias in aliases}
                case ast.ImportFrom(module=origin, names=aliases):
                    self._imports |= {alias.asname or alias.name: (origin or "", alias.name) for alias in aliases}

    def find(self, name: str) -> "tuple[_Source, Any] | None":
        """The syntax tree behind a name, with the module of ngrl's that it stands in; None where it is another's."""
        if name in self.definitions:
            return self, self.definitions[name]
        module, original = self._imports.get(name, ("", ""))
        is_own = module.partition(".")[0] == "ngrl" and original and not _path(f"{module}.{original}").exists()
        return _source(module).find(original) if is_own else None

    def __getitem__(self, name: str) -> Any:
        if found := self.find(name):
            source, node = found
            if not isinstance(node, ast.ClassDef):
                return source.meaning(node)
            bases = [re.sub(r"\[.*|.*\.", "", ast.unparse(base)) for base in node.bases]
            return _Unknown() if any(b in _PLAIN or hasattr(builtins, b) for b in bases) else _Opaque(name, (), {})
        module, original = self._imports.get(name, ("builtins", name))
        package = module.partition(".")[0]
        if package == "ngrl":
            return _source(f"{module}.{original}" if original else module)
        if package == "tensorflow":
            return _Opaque(original or module, (), {})
        if package in sys.stdlib_module_names:
            imported = importlib.import_module(module)
            return getattr(imported, original) if original else imported
        return _Unknown()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self[name]

    def meaning(self, node: Any) -> Any:
        """What the syntax tree of an annotation stands for; `Any` where there is none."""
        if node is None:
            return Any
        text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ast.unparse(node)
        try:  # ngrl's own text, which Python would evaluate when the module is imported
            return eval(text, {}, self)  # type: ignore[arg-type]
        except (AttributeError, SyntaxError, TypeError):
            return _Unknown()


_source = functools.cache(_Source)


def _of_class(source: _Source, node: ast.ClassDef) -> Iterator[Parameter]:
    """The parameters of a class' constructor, wherever it inherits it from, without `self`."""
    for inner in node.body:
        if isinstance(inner, ast.FunctionDef) and inner.name == "__init__":
            yield from list(_of_function(source, inner.args))[1:]
            return
    if any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        for field in node.body:
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                yield _parameter(source, field.target.id, Parameter.KEYWORD_ONLY, field.annotation, field.value)
        return
    for base in node.bases[:1]:
        found = source.find(base.id) if isinstance(base, ast.Name) else None
        if found:
            yield from _of_class(*found)
        elif ast.unparse(base) != "abc.ABC":
            yield Parameter("anything", Parameter.VAR_KEYWORD)


def _of_function(source: _Source, arguments: ast.arguments) -> Iterator[Parameter]:
    """The parameters that are given by place or name, and `**anything`."""
    unnamed, positional = arguments.posonlyargs, [*arguments.posonlyargs, *arguments.args]
    defaults = [*[None] * (len(positional) - len(arguments.defaults)), *arguments.defaults]
    for argument, default in zip(positional, defaults, strict=True):
        kind = Parameter.POSITIONAL_ONLY if argument in unnamed else Parameter.POSITIONAL_OR_KEYWORD
        yield _parameter(source, argument.arg, kind, argument.annotation, default)
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        yield _parameter(source, argument.arg, Parameter.KEYWORD_ONLY, argument.annotation, default)
    if arguments.kwarg:
        yield Parameter(arguments.kwarg.arg, Parameter.VAR_KEYWORD)


def _parameter(source: _Source, name: str, kind: Any, annotation: Any, default: Any) -> Parameter:
    try:
        value = Parameter.empty if default is None else ast.literal_eval(default)
    except ValueError:  # no literal: a default only serves to know it again in a file
        value = ...
    return Parameter(name, kind, default=value, annotation=source.meaning(annotation))
