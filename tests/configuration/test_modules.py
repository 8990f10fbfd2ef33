"""Modules of the user's own: every command takes them by the same option, from the same places."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("command", ["launch", "sweep", "evaluate"])
def test_every_command_takes_modules_of_ones_own(command):
    parser = importlib.import_module(f"ngrl.{command}").build_parser()
    required = {"launch": ["--gin_file=x"], "sweep": ["--study=x"], "evaluate": ["--policy_dir=x"]}[command]
    options = parser.parse_args([*required, "--allow_gin_import=one", "--allow_gin_import=two"])
    assert options.allow_gin_import == ["one", "two"]


@pytest.mark.parametrize("tool", ["scores.py", "chaos.py"])
def test_tools_that_run_experiments_take_them_too(tool):
    command = [sys.executable, str(ROOT / "tools" / tool), "--help"]
    assert "--allow_gin_import MODULE" in subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_module_in_the_working_folder_is_found_by_a_command_that_does_not_look_there(tmp_path):
    (tmp_path / "toy_of_mine.py").write_text("value = 3\n")
    code = (
        "import sys; from pathlib import Path; from ngrl import modules\n"
        "sys.path[:] = [path for path in sys.path if path not in ('', str(Path.cwd()))]\n"
        "assert modules.load('toy_of_mine').value == 3\n"
        "assert not {'tensorflow', 'gin'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "No module named 'toy_of_mine'"),
        ("raise ValueError('mine\\nagain')", "mine (toy_of_mine.py:1)"),
        ("import sys\nsys.exit()", "SystemExit (toy_of_mine.py:2)"),
        ("import nothing_of_the_name", "No module named 'nothing_of_the_name' (toy_of_mine.py:1)"),
    ],
)
def test_evaluate_says_in_a_line_that_a_module_cannot_be_imported(command, tmp_path, content, expected):
    if content:
        (tmp_path / "toy_of_mine.py").write_text(content)
    done = command("evaluate", "--policy_dir=.", "--allow_gin_import=toy_of_mine", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == f'ngrl.evaluate: cannot import "toy_of_mine": {expected}\n'
