"""An experiment that is built as a run builds it, and not run."""

import gin
import pytest

from ngrl import configuration
from ngrl.configuration import operative
from ngrl.training import RunContext, configurables


class _BuiltError(BaseException):
    """Everything has been built; nothing is to be run."""


def settled(files, bindings=()):
    """What identifies an experiment once it has been built, and the lines about settings that nothing reads."""
    gin.clear_config()
    configuration.parse([str(path) for path in files], list(bindings))
    found, lines = {}, []

    def config():
        found.update(operative.settled(lines.append))
        raise _BuiltError

    with pytest.raises(_BuiltError):
        configurables.main(RunContext("nowhere", config=config))
    return found, lines
