"""The README's code runs, and each of its commands is run here or by the targets of the Makefile that CI uses."""

import re
import shlex
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
FILES = dict(re.findall(r"\(`(my_\w+\.(?:py|gin))`\):\n\n```\w+\n(.*?)```", README, re.DOTALL))
SHORT = ["--gin_bindings=run.num_env_steps=1500", "--gin_bindings=run.eval_episodes=2", "--noprogress"]


def commands():
    lines = "".join(text for language, text in BLOCKS if language == "bash").splitlines()
    return [line.split("#")[0].strip() for line in lines if line.strip()]


def launches():
    return [line for line in commands() if "ngrl.launch" in line]


@pytest.fixture
def folder(tmp_path):
    """A folder like a clone's root that also holds the files the README shows."""
    (tmp_path / "gin").symlink_to(ROOT / "gin")
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    gins = [text for language, text in BLOCKS if language == "gin"]
    (tmp_path / "my_network.gin").write_text(next(text for text in gins if "my_network" in text), encoding="utf-8")
    return tmp_path


def test_every_command_is_of_a_kind_that_is_run():
    """`make` targets by CI or the suite's other tests; the rest below."""
    known = ("make lunar", "make test", ".venv/bin/tensorboard", ".venv/bin/python -m ngrl.")
    for line in commands():
        assert line.startswith(known), line
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:^|`)make ([a-z-]+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("line", launches())
def test_launch_commands_train(line, folder):
    arguments = shlex.split(line)[1:]
    result = subprocess.run(
        [sys.executable, *arguments, *SHORT], cwd=folder, capture_output=True, text=True, check=False, timeout=280
    )
    assert result.returncode == 0, result.stderr
    assert "greedy evaluation" in result.stdout


@pytest.mark.parametrize("code", [text for language, text in BLOCKS if language == "python" and "import ngrl" in text])
def test_python_examples_run(code, tmp_path):
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_tensorboard_command_serves_a_run(tmp_path):
    line = next(line for line in commands() if "tensorboard" in line)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "runs").mkdir()
    program = Path(sys.executable).with_name("tensorboard")
    arguments = [str(program), *shlex.split(line)[1:], "--port", str(port), "--host", "127.0.0.1"]
    server = subprocess.Popen(arguments, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 90
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as page:
                    assert b"TensorBoard" in page.read()
                break
            except OSError:
                assert time.monotonic() < deadline
                assert server.poll() is None
                time.sleep(0.5)
    finally:
        server.terminate()
        server.wait(timeout=30)


def test_pictures_and_files_named_exist():
    for path in re.findall(r"!\[.*?\]\((.*?)\)", README) + re.findall(r"`(tests/[\w/]+\.py)`", README):
        assert (ROOT / path).is_file(), path
