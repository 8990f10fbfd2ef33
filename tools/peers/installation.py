"""The virtual environments that hold the peers: each made once, apart from ngrl's."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

# What resolves together on Python 3.11 (Tianshou 2 needs it), by the environment that holds it. gymnasium is older than
# in requirements.lock. pip's own configuration decides where torch comes from; where that brings CUDA, PyTorch's own
# index of CPU builds, named in PIP_EXTRA_INDEX_URL, brings one that is several GB smaller.
REQUIREMENTS = {
    "torch": (
        "torch==2.13.0",
        "stable-baselines3==2.9.2",
        "sb3-contrib==2.9.2",
        "tianshou==2.0.1",
        "gymnasium[classic-control,box2d,mujoco]==1.2.3",
        "numpy==2.4.6",
    ),
    "pqn": ("torch==2.13.0", "MinAtar==1.0.15", "numpy==2.4.6"),
    "sbx": ("sbx-rl==0.28.0", "torch==2.13.0", "gymnasium[classic-control]==1.2.3"),
    "rejax": ("rejax==0.1.3", "gymnax==0.0.9"),
    "lm": ("tf-levenberg-marquardt==1.0.3", "tensorflow==2.21.0"),
    "somax": ("python-somax==1.0.1", "kfac-jax==0.0.8", "jax==0.7.2"),
}

# In the folder from the first moment, so that a folder which this tool did not make is never overwritten. It says what
# is installed only once all of it is.
MARK = ".ngrl-peers.json"


class InstallationError(Exception):
    """The peers can't be installed; the message is one line."""


def interpreter(venv: Path) -> Path:
    """The environment's Python."""
    return venv / "bin" / "python"


def content(requirements: Sequence[str]) -> dict[str, object]:
    """What the mark says of a complete environment."""
    return {"python": list(sys.version_info[:2]), "requirements": list(requirements)}


def is_complete(venv: Path, requirements: Sequence[str]) -> bool:
    """Whether the environment holds just these requirements, all installed."""
    try:
        mark = json.loads((venv / MARK).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return mark == content(requirements) and interpreter(venv).exists()


def folder(venv: Path, environment: str) -> Path:
    """Where an environment of REQUIREMENTS lies: the first in `venv` itself, the others beside it."""
    return venv if environment == next(iter(REQUIREMENTS)) else venv.with_name(f"{venv.name}-{environment}")


def ensure(venv: Path, requirements: Sequence[str]) -> Path:
    """The Python of an environment with the requirements, which is made unless it is there.

    Raises:
      InstallationError: It can't be made, or the folder holds something else.
    """
    if is_complete(venv, requirements):
        return interpreter(venv)
    if venv.exists() and not (venv.is_dir() and ((venv / MARK).exists() or not any(venv.iterdir()))):
        raise InstallationError(f"{venv} exists and is no environment of this tool: name another folder with --venv")
    print(f"installing the peers into {venv}, which takes some minutes", file=sys.stderr)
    try:
        shutil.rmtree(venv, ignore_errors=True)
        venv.mkdir(parents=True)
        (venv / MARK).write_text("{}", encoding="utf-8")
        _make(venv)
        _install(venv, requirements)
        finished = venv / f"{MARK}.new"
        finished.write_text(json.dumps(content(requirements)), encoding="utf-8")
        finished.replace(venv / MARK)
    except OSError as error:
        raise InstallationError(f"the peers can't be installed into {venv}: {error}") from error
    return interpreter(venv)


def _make(venv: Path) -> None:
    """An environment with pip: by venv, or by uv where Python comes without ensurepip."""
    commands = [[sys.executable, "-m", "venv", str(venv)]]
    if uv := shutil.which("uv"):
        commands.append([uv, "venv", "--allow-existing", "--seed", "--python", sys.executable, str(venv)])
    if not any(_logged(command, venv) == 0 for command in commands):
        raise InstallationError(
            f"{sys.executable} can't make a virtual environment: install its venv module or uv ({_log(venv)})"
        )


def _install(venv: Path, requirements: Sequence[str]) -> None:
    pip = [str(interpreter(venv)), "-m", "pip", "--disable-pip-version-check", "--no-input", "install"]
    if _logged([*pip, *requirements], venv):
        lines = _log(venv).read_text(encoding="utf-8", errors="replace").splitlines()
        errors = [line.strip() for line in lines if line.startswith("ERROR: ")] or lines[-1:]
        raise InstallationError(f"installing the peers failed: {' '.join(errors[-1:])} (log: {_log(venv)})")


def _log(venv: Path) -> Path:
    return venv / "install.log"


def _logged(command: list[str], venv: Path) -> int:
    """The command's exit code; what it prints goes to the log."""
    with _log(venv).open("ab") as log:
        return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False).returncode
