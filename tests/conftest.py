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
def forked(server, tmp_path_factory):
    """Runs a command of ngrl's, or a script, as `subprocess.run` would in a new process, but sooner."""
    folder = tmp_path_factory.mktemp("commands")

    def run(what, arguments, cwd):
        out, err = folder / "stdout", folder / "stderr"
        argv = [str(argument) for argument in arguments]
        code = server.ask(wait=server.ask(**what, argv=argv, cwd=str(cwd), output=str(out), errors=str(err)))
        return subprocess.CompletedProcess(argv, code, out.read_text(), err.read_text())

    return run


@pytest.fixture(scope="session")
def command(forked):
    """`python -m ngrl.<module> ...`."""
    return lambda module, *arguments, cwd: forked({"command": module}, arguments, cwd)


@pytest.fixture(scope="session")
def script(forked):
    """`python <path> ...`, where TensorFlow and ngrl may have been loaded before."""
    return lambda path, *arguments, cwd: forked({"script": str(path)}, arguments, cwd)
