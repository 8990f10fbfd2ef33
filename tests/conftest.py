"""What all tests share: Keras 2 is selected before any of them imports TensorFlow, in whatever order."""

import subprocess
from pathlib import Path

import pytest
from fork_server import Server

import ngrl  # noqa: F401


def pytest_collection_modifyitems(items):
    """Put what takes longest first, so that of several processes none waits for another's last test."""
    items.sort(key=lambda item: item.path.name not in ("test_sweep.py", "test_tools.py"))


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """Runs `ngrl.launch` in processes of their own, for all of which TensorFlow is loaded once."""
    server = Server(tmp_path_factory.mktemp("server") / "errors.txt", [Path(__file__).with_name("support")])
    yield server
    server.close()


@pytest.fixture(scope="session")
def command(server, tmp_path_factory):
    """Runs a command of ngrl's as `subprocess.run` would with `python -m ngrl.<module>`, but sooner."""
    folder = tmp_path_factory.mktemp("commands")

    def run(module, *arguments, cwd):
        out, err = folder / "stdout", folder / "stderr"
        argv = [str(argument) for argument in arguments]
        pid = server.ask(command=module, argv=argv, cwd=str(cwd), output=str(out), errors=str(err))
        code = server.ask(wait=pid)
        return subprocess.CompletedProcess(argv, code, out.read_text(), err.read_text())

    return run
