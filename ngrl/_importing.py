"""How TF-Agents is imported, whoever of ngrl or its users does so first: without its noise, and without `gym`.

TF-Agents 0.19 has `is ()` comparisons that Python reports as SyntaxWarnings whenever it compiles the files anew, and
imports the retired `gym`, which prints a notice, has no wheel and serves nothing that ngrl uses: its place is taken
while TF-Agents is imported. Its own environments for gym can still be had where gym is installed:
`from tf_agents.environments import suite_gym`.
"""

import contextlib
import importlib.machinery
import sys
import types
import warnings
from collections.abc import Iterator, Sequence


class _Gym(types.ModuleType):
    """Stands in for gym; TF-Agents passes over the modules that really need it."""

    def __getattr__(self, name: str) -> types.ModuleType:
        raise ImportError(f"TF-Agents' gym.{name} needs gym: pip install gym==0.23.0")


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Keep gym away while importing, and what Python says of TF-Agents' old syntax."""
    stands_in = sys.modules.setdefault("gym", _Gym("gym"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        if isinstance(stands_in, _Gym):
            del sys.modules["gym"]


class _Loader(importlib.machinery.SourceFileLoader):
    def exec_module(self, module: types.ModuleType) -> None:
        with quietly():
            super().exec_module(module)


class _Finder(importlib.machinery.PathFinder):
    """Finds `tf_agents` itself, none of its parts and nothing else."""

    @classmethod
    def find_spec(
        cls, fullname: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != "tf_agents":
            return None
        spec = super().find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


def install() -> None:
    """Have Python import TF-Agents like this from now on."""
    if _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)
