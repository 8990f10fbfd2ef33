"""Installing: what make says, what is installed, and what ngrl says of an environment that it isn't made for."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools import check_installed

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def clone(tmp_path):
    """A folder with what `make install` needs, and an empty folder `bin` to serve as PATH."""
    for name in ("Makefile", "setup.py", "requirements.lock", "tools/install.sh"):
        target = tmp_path / name
        target.parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, target)
    (tmp_path / "bin").mkdir()
    return tmp_path


def make(clone, target):
    program = shutil.which("make")
    if program is None:
        pytest.skip("make is not installed")
    return subprocess.run(
        [program, target],
        cwd=clone,
        env={"PATH": str(clone / "bin"), "HOME": str(clone)},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("target", ["install", "lunar", "test"])
def test_make_without_python_says_what_to_install_in_one_line(clone, target):
    done = make(clone, target)
    assert done.returncode != 0
    (line,) = (done.stdout + done.stderr).splitlines()
    assert "needs Python 3.10, 3.11, 3.12 or 3.13" in line
    assert "uv" in line
    assert not (clone / ".venv").exists()


def test_make_passes_over_pythons_of_other_versions(clone):
    other = clone / "bin" / "python3"
    other.write_text("#!/bin/sh\nexit 1\n")  # as the version check ends on any other Python
    other.chmod(0o755)
    assert "needs Python 3.10, 3.11, 3.12 or 3.13" in make(clone, "install").stderr


def test_failed_installation_shows_the_end_of_its_log_and_is_begun_afresh(clone):
    for name in ("awk", "date", "mkdir", "rm", "sh", "tail"):
        (clone / "bin" / name).symlink_to(shutil.which(name))
    uv = clone / "bin" / "uv"
    uv.write_text('#!/bin/sh\necho "called with $*"\necho "no network" >&2\nexit 3\n')
    uv.chmod(0o755)
    for _ in range(2):
        done = make(clone, "install")
        assert done.returncode != 0
        assert done.stdout == "Installing into .venv failed:\n"
        assert "called with venv" in done.stderr
        assert "no network" in done.stderr
        assert not (clone / ".venv" / ".installed").exists()


def test_make_help_lists_every_target():
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    declared = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert [line.split()[1] for line in done.stdout.splitlines()] == declared.group(1).split()


def test_install_names_the_python_that_it_took(clone):
    for name in ("awk", "date", "mkdir", "rm", "sh", "tail"):
        (clone / "bin" / name).symlink_to(shutil.which(name))
    (clone / "bin" / "python3.12").write_text(FAKE_PYTHON)
    (clone / "bin" / "python3.12").chmod(0o755)
    done = make(clone, "install")
    assert done.stderr == ""
    assert re.fullmatch(
        r"Installing into \.venv with Python 3\.12\.9 \(log: \.venv/install\.log\) \.\.\. done in \d+ s\n", done.stdout
    )
    assert (clone / ".venv" / ".installed").exists()
    calls = (clone / "calls").read_text().splitlines()
    assert [
        call for call in calls if "-r requirements.lock" in call and "--no-deps" in call and "--require-hashes" in call
    ]
    assert not [call for call in calls if " install " in call and "--no-deps" not in call]


# Stands in for a Python 3.12 and for that of the environment it makes; writes down how it is called.
FAKE_PYTHON = """#!/bin/sh
echo "$*" >>"$HOME/calls"
case "$*" in
"-m venv "*)
    mkdir -p "$3/bin"
    while read -r line; do echo "$line"; done <"$0" >"$3/bin/python"
    : >"$3/bin/pip"
    /bin/chmod +x "$3/bin/python" "$3/bin/pip" ;;
*platform*) echo 3.12.9 ;;
esac
"""


def test_only_the_known_complaints_about_installed_packages_pass():
    known = [
        "tf-agents 0.19.0 requires gym, which is not installed.",
        "tf-agents 0.19.0 has requirement typing-extensions==4.5.0, but you have typing-extensions 4.16.0.",
        "tf_agents 0.19.0 has requirement tensorflow_probability~=0.23.0, but you have tensorflow-probability 0.25.0.",
    ]
    faults = [
        "tf-agents 0.19.0 requires cloudpickle, which is not installed.",
        "tensorflow 2.21.0 has requirement gym>=1, but you have gym 0.23.0.",
        "something else",
    ]
    assert check_installed.unexpected([*known, *faults]) == faults
    assert check_installed.unexpected(known) == []


def test_every_allowed_complaint_is_about_a_pin_of_tf_agents_and_has_a_reason():
    for (who, _), reason in check_installed.ALLOWED.items():
        assert who == "tf-agents"
        assert len(reason.split()) > 4


def run(*arguments, **environment):
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    path = os.pathsep.join(filter(None, [environment.pop("first", ""), str(ROOT)]))
    return subprocess.run(
        [sys.executable, *arguments],
        env={**inherited, "PYTHONPATH": path},
        cwd=environment.pop("cwd", ROOT),
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("package", "release", "says"),
    [
        ("numpy", "1.25.2", "numpy >=1.26,<3.0, but 1.25 is installed"),
        ("numpy", "3.0.0", "numpy >=1.26,<3.0, but 3.0 is installed"),
        ("tf_keras", "2.20.1", "tf-keras >=2.21,<2.22, but 2.20 is installed"),
        ("tf_agents", "0.20.0rc1", "tf-agents >=0.19,<0.20, but 0.20 is installed: pip install --no-deps"),
        ("gymnasium", "0.29.1", "gymnasium >=1.2,<1.5, but 0.29 is installed"),
    ],
)
def test_import_beside_another_release_is_refused_in_one_line(tmp_path, package, release, says):
    (tmp_path / f"{package}-{release}.dist-info").mkdir()
    imported = run("-c", "import ngrl", first=str(tmp_path))
    assert imported.stderr.splitlines()[-1].startswith(f"ImportError: ngrl needs {says}")
    started = run("-m", "ngrl.launch", "--help", first=str(tmp_path))
    assert started.returncode == 1
    (line,) = started.stderr.splitlines()
    assert line.startswith(f"ngrl: ngrl needs {says}")


@pytest.mark.parametrize("version", [(3, 9), (3, 14)])
def test_other_pythons_are_told_which_are_supported(version):
    done = run("-c", f"import sys; sys.version_info = {(*version, 0, 'final', 0)}\nimport ngrl")
    last = done.stderr.splitlines()[-1]
    assert last == f"ImportError: ngrl needs Python 3.10, 3.11, 3.12 or 3.13, and this is {version[0]}.{version[1]}"


MISSING = "TF-Agents is not installed: pip install --no-deps tf-agents==0.19.0"


@pytest.mark.parametrize(
    "arguments",
    [
        ["launch", "--gin_file=gin/ngdqn_lunar.gin"],
        ["sweep", "--study=launch/paper.gin", "--dry_run"],
        ["evaluate", "--policy_dir=ngrl"],
    ],
)
def test_commands_without_tf_agents_say_in_one_line_what_to_install(arguments):
    done = run(
        "-c",
        f"import sys; sys.modules['tf_agents'] = None\nfrom ngrl import __main__\nsys.exit(__main__.main({arguments}))",
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"ngrl.{arguments[0]}: {MISSING}\n")


def test_import_without_tf_agents_says_what_to_install_and_the_numerics_need_none():
    done = run(
        "-c", "import sys; sys.modules['tf_agents'] = None\nimport ngrl.optimizers, ngrl.keras\nimport ngrl.agents"
    )
    assert done.stderr.splitlines()[-1] == f"ImportError: {MISSING}"
    assert "line 3, in <module>" in done.stderr


def test_gym_is_left_alone_where_it_was_imported_before():
    done = run(
        "-c",
        "import sys, types; sys.modules['gym'] = gym = types.ModuleType('gym')\n"
        "from ngrl import _tf_agents\nassert sys.modules['gym'] is gym",
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("first", ["ngrl.training.export", "tf_agents.agents"])
def test_tf_agents_is_imported_without_gym_whatever_asks_for_it_first(first):
    done = run("-W", "default", "-c", f"import sys, ngrl, {first}\nassert 'tf_agents' in sys.modules")
    assert done.returncode == 0, done.stderr
    assert "SyntaxWarning" not in done.stderr
    assert "Gym has been" not in done.stderr


def test_gym_of_tf_agents_multiprocessing_says_what_to_install():
    from tf_agents.system import system_multiprocessing

    from ngrl import _tf_agents  # noqa: F401

    assert "gym" not in sys.modules
    with pytest.raises(ImportError, match=r"pip install gym==0\.23\.0"):
        _ = system_multiprocessing.gym.envs


def test_ngrl_hands_its_arguments_to_the_command_named_first():
    assert run("-m", "ngrl").stdout == run("-m", "ngrl", "--help").stdout
    assert run("-m", "ngrl", "launch", "--help").stdout.startswith("usage: ngrl.launch")
    unknown = run("-m", "ngrl", "lunch")
    assert unknown.returncode == 2
    assert (
        unknown.stderr
        == "ngrl: no command 'lunch'; there are launch, evaluate, sweep, report (python -m ngrl --help)\n"
    )
    assert run("-m", "ngrl", "launch", "--gin_file=nothing.gin").returncode == 2
    assert re.fullmatch(r"ngrl \d+\.\d+\.\d+\n", run("-m", "ngrl", "--version").stdout)


def test_pythons_that_are_not_there_are_skipped_by_name(clone):
    for name in ("bash", "date", "dirname", "mktemp", "rm"):
        (clone / "bin" / name).symlink_to(shutil.which(name))
    own = clone / ".venv" / "bin" / "python"
    own.parent.mkdir(parents=True)
    own.write_text("#!/bin/sh\necho 3.11\n")  # also when asked to build the wheel
    own.chmod(0o755)
    shutil.copy(ROOT / "tools" / "pythons.sh", clone / "tools")
    done = subprocess.run(
        [clone / "tools" / "pythons.sh"],
        env={"PATH": str(clone / "bin"), "HOME": str(clone)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [line for line in done.stdout.splitlines() if line.startswith("Python")] == [
        "Python 3.10 (requirements-oldest.lock): SKIPPED, found neither as python3.10 nor under pyenv",
        "Python 3.11: that of .venv",
        "Python 3.12 (requirements.lock): SKIPPED, found neither as python3.12 nor under pyenv",
        "Python 3.13 (requirements.lock): SKIPPED, found neither as python3.13 nor under pyenv",
    ]
