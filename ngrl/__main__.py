"""`ngrl COMMAND` and `python -m ngrl COMMAND`: the commands, each a module with a `main`, under one name."""

import importlib
import sys
from collections.abc import Sequence

COMMANDS = {
    "launch": "train as a gin file describes, evaluate and export",
    "evaluate": "play episodes with an exported policy",
    "sweep": "run a study: many experiments, settings and seeds",
    "report": "make tables and figures of run directories",
}
_USAGE = "\n".join(
    [
        "usage: ngrl COMMAND ...",
        "",
        *(f"  {name:10}{purpose}" for name, purpose in COMMANDS.items()),
        "",
        "ngrl COMMAND --help lists a command's options; ngrl --version says which ngrl this is.",
    ]
)


def main(argv: Sequence[str] | None = None) -> int:
    """Hand the arguments to the command that the first one names; its exit code, or 2 where there is none such."""
    name, *arguments = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in COMMANDS:
        return importlib.import_module(f"ngrl.{name}").main(arguments)
    if name in ("--help", "-h"):
        print(_USAGE)
        return 0
    if name == "--version":
        from ngrl import __version__

        print(f"ngrl {__version__}")
        return 0
    print(f"ngrl: no command {name!r}; there are {', '.join(COMMANDS)} (python -m ngrl --help)", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
