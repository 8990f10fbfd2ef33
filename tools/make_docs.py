"""Write the parts of `docs/` that follow from the code.

    .venv/bin/python tools/make_docs.py settings       # what gin files may set, from the docstrings' `Args:`
    .venv/bin/python tools/make_docs.py tensorboard    # TensorBoard's tags, from the table in ngrl/tags.py

`tests/test_documents.py` notices where that was forgotten.
"""

import argparse
import dataclasses
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[1] / "docs"
MARK = "<!-- From here on written by tools/make_docs.py; not to be edited. -->\n"

#: What gin files don't set by name.
_UNNAMED = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_KEYWORD)
#: What whoever makes an object hands to its class, so that a gin file needn't and mustn't.
_HANDED = ("name", "seed", "train_step_counter", "critic", "advantage", "normaliser", "epsilon_greedy")
_HANDED += ("retrace", "trust_region")
#: Where arguments without a default are a gin file's, and not handed over by whoever makes the object.
_NEEDED = (
    "ngrl.training.experiment",
    "ngrl.environments",
    "ngrl.optimizers",
    "ngrl.studies",
    "ngrl.examples",
    "tf_keras",
)
_GROUPS = {
    "ngrl.training.experiment": "Runs",
    "ngrl.training.configurables": "Runs",
    "ngrl.training.final_evaluation": "Runs",
    "ngrl.environments": "Environments",
    "ngrl.loops": "Loops and exploration",
    "ngrl.agents": "Agents",
    "ngrl.networks": "Networks",
    "ngrl.optimizers": "The natural gradient",
    "ngrl.solvers": "Solvers",
    "ngrl.losses": "Losses",
    "tf_keras": "Keras' own",
    "ngrl.studies": "Studies",
    "ngrl.examples": "Figures of the papers",
}


def described(target: Any) -> dict[str, str]:
    """The text of each argument in the docstring of a function, or of a class and its constructor."""
    texts = [inspect.getdoc(target)]
    if inspect.isclass(target):
        texts.append(inspect.getdoc(target.__init__))
    found: dict[str, str] = {}
    for text in texts:
        for block in re.findall(r"^(?:Args|Attributes):\n((?:[ ]{2}.*\n?|\n)+)", text or "", re.MULTILINE):
            for name, meaning in re.findall(r"^ {2}(\w+): (.*(?:\n {4}.*)*)", block, re.MULTILINE):
                found[name] = " ".join(meaning.split())
    return found


def meaning_of(target: Any, name: str) -> str:
    """What an argument means; "As in `Base`." is looked up among the bases."""
    for kind in inspect.getmro(target) if inspect.isclass(target) else (target,):
        meaning = described(kind).get(name, "")
        if meaning and not meaning.startswith(("As in ", "See `DenseNetwork`")):
            return meaning
    raise ValueError(f"{target.__qualname__} doesn't say what {name} is")


def default_text(default: Any) -> str:
    """A parameter's default as a gin file would write it."""
    import gin

    if default is gin.REQUIRED or default is inspect.Parameter.empty:
        return "needed"
    if dataclasses.is_dataclass(default):
        from ngrl.configuration import operative

        return f"`{operative._text(default)}`"
    if repr(default) == "<factory>":  # of a dataclass: here all are empty mappings
        return "`{}`"
    return f"`@{default.__name__}`" if callable(default) else f"`{default!r}`"


def rows_of(info: Any) -> Iterator[str]:
    """The rows of a configurable's table."""
    target, own = info.wrapped, info.wrapped.__module__.startswith("ngrl.")
    handed = _HANDED if inspect.isclass(target) else ()
    for name, parameter in inspect.signature(target).parameters.items():
        if name in handed or name in (info.denylist or ()) or parameter.kind in _UNNAMED:
            continue
        if parameter.default is inspect.Parameter.empty and not target.__module__.startswith(_NEEDED):
            continue
        meaning = meaning_of(target, name).replace("|", "\u2223") if own else ""  # a bar would end the cell
        yield f"| `{info.name}.{name}` | {default_text(parameter.default)} |" + (f" {meaning} |" if own else "")


def settings() -> str:
    """All settings, a table for each configurable that has some."""
    from gin import config as gin_config

    from ngrl.configuration.registration import register_all

    register_all()
    groups: dict[str, list[str]] = {group: [] for group in _GROUPS.values()}
    for _, info in sorted(gin_config._REGISTRY.items(), key=lambda item: (item[1].name != "run", item[1].name.lower())):
        module = info.wrapped.__module__
        if not module.startswith(("ngrl.", "tf_keras.")):
            continue  # TF-Agents' own
        group = next((name for prefix, name in _GROUPS.items() if f"{module}.".startswith(f"{prefix}.")), None)
        if group is None:
            raise ValueError(f"{info.name}: no group for settings of {module}")
        rows = list(rows_of(info))
        if not rows:
            continue
        summary = (inspect.getdoc(info.wrapped) or "").split("\n\n")[0].replace("\n", " ")
        own = module.startswith("ngrl.")
        head = (
            ["| setting | default | meaning |", "| --- | --- | --- |"]
            if own
            else ["| setting | default |", "| - | - |"]
        )
        groups[group] += [f"### {info.name}", "", *([summary, ""] if own else []), *head, *rows, ""]
    return "\n".join(line for group, lines in groups.items() if lines for line in (f"## {group}", "", *lines))


def page() -> str:
    """`docs/settings.md` as it should be."""
    above = (DOCS / "settings.md").read_text(encoding="utf-8").partition(MARK)[0]
    return f"{above}{MARK}\n{settings()}"


def tensorboard() -> str:
    """`docs/tensorboard.md` as it should be."""
    from ngrl.tags import TAGS

    above = (DOCS / "tensorboard.md").read_text(encoding="utf-8").partition(MARK)[0]
    rows = [
        f"| `{name}` | {tag.meaning.replace('|', chr(92) + '|')} | {tag.unit} | {'; '.join(tag.writers)} |"
        for name, tag in TAGS.items()
    ]
    return "\n".join(
        [f"{above}{MARK}", "| tag | what it is | unit | written by |", "| --- | --- | --- | --- |", *rows, ""]
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", choices=["settings", "tensorboard"])
    chosen = parser.parse_args().page
    text = page() if chosen == "settings" else tensorboard()
    (DOCS / f"{chosen}.md").write_text(text, encoding="utf-8")
