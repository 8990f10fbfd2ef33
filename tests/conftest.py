"""What all tests share: Keras 2 is selected before any of them imports TensorFlow, in whatever order."""

from pathlib import Path

import pytest
from fork_server import Server

import ngrl  # noqa: F401


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """Runs `ngrl.launch` in processes of their own, for all of which TensorFlow is loaded once."""
    server = Server(tmp_path_factory.mktemp("server") / "errors.txt", [Path(__file__).with_name("support")])
    yield server
    server.close()
