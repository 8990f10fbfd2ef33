"""What all tests share: Keras 2 is selected before any of them imports TensorFlow, in whatever order."""

import subprocess
from pathlib import Path

import pytest
from fork_server import Server, play_live_policies

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

    def run(what, arguments, cwd, **options):
        out, err = folder / "stdout", folder / "stderr"
        argv = [str(argument) for argument in arguments]
        files = {"cwd": str(cwd), "output": str(out), "errors": str(err)}
        code = server.ask(wait=server.ask(**what, argv=argv, **files, **options))
        return subprocess.CompletedProcess(argv, code, out.read_text(), err.read_text())

    return run


@pytest.fixture(scope="session")
def command(forked):
    """`python -m ngrl.<module> ...`; `export=False` leaves out the export of policies."""
    return lambda module, *arguments, cwd, **options: forked({"command": module}, arguments, cwd, **options)


@pytest.fixture(scope="session")
def script(forked):
    """`python <path> ...`, where TensorFlow and ngrl may have been loaded before."""
    return lambda path, *arguments, cwd: forked({"script": str(path)}, arguments, cwd)


@pytest.fixture
def _live_policies(monkeypatch):
    """No policy is exported, which takes longer than a short run; those that would have been are played."""
    play_live_policies(monkeypatch.setattr)
