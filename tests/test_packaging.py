"""The package as a whole: what may import what, what is installed, and what make says when it can't."""

import ast
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import setuptools
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
NUMERICS = ("curvature", "solvers", "losses", "optimizers")

# What each part of ngrl may import of ngrl. `_tf_agents` is TF-Agents, imported quietly.
ALLOWED = {
    "curvature": {"curvature", "losses"},
    "solvers": {"solvers", "losses"},
    "losses": {"losses", "curvature", "solvers"},
    "optimizers": set(NUMERICS),
    "keras": {*NUMERICS, "keras"},
    "networks": {"networks", "_tf_agents", "specs"},
    "environments": {"environments", "_tf_agents", "specs"},
    "replay": {"replay", "_tf_agents"},
    "agents": {*NUMERICS, "agents", "networks", "replay", "_tf_agents"},
}
ALLOWED["specs"] = set()  # what environments say to networks
ALLOWED["training"] = {"training", *ALLOWED, "_tf_agents"}
ALLOWED["figures"] = set()  # serves whoever draws
ALLOWED["examples"] = {"examples", *ALLOWED, "_tf_agents"}
ALLOWED["threads"] = set()  # serves whoever starts a process
ALLOWED["experiments"] = {"experiments", *ALLOWED, "_tf_agents"} - {"examples"}
ALLOWED["terminal"] = set()  # serves the commands
COMMANDS = {"launch", "evaluate", "sweep", "report"}


def part_of(module):
    """`solvers` of `ngrl.solvers.dual`; None for `ngrl` itself and for other packages."""
    names = module.split(".")
    return names[1] if names[0] == "ngrl" and len(names) > 1 else None


def imports_of(path):
    """Absolute names of all modules and names that a file imports, at any depth."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def files_of(part):
    module = ROOT / "ngrl" / f"{part}.py"
    return [module] if module.exists() else sorted((ROOT / "ngrl" / part).rglob("*.py"))


def is_within(module, package):
    return module == package or module.startswith(f"{package}.")


@pytest.mark.parametrize("folder", ["gin", "launch"])
def test_data_folders_hold_no_package_that_would_shadow_an_installed_one(folder):
    assert not (ROOT / folder / "__init__.py").exists()


@pytest.mark.parametrize("part", ALLOWED)
def test_part_imports_only_the_parts_below_it(part):
    for path in files_of(part):
        for module in imports_of(path):
            imported = part_of(module)
            if imported is not None and not imported.startswith("__version__"):
                assert imported in ALLOWED[part], f"{path.relative_to(ROOT)} imports {module}"


@pytest.mark.parametrize("part", NUMERICS)
def test_numerics_know_neither_gin_nor_tf_agents(part):
    assert files_of(part)
    for path in files_of(part):
        for module in imports_of(path):
            for forbidden in ("gin", "tf_agents", "gymnasium", "gym"):
                assert not is_within(module, forbidden), f"{path.relative_to(ROOT)} imports {module}"


@pytest.mark.parametrize("part", [*NUMERICS, "agents", "networks", "environments", "replay"])
def test_summaries_are_written_in_training_only(part):
    for path in files_of(part):
        for module in imports_of(path):
            assert not is_within(module, "tensorflow.summary"), f"{path.relative_to(ROOT)} imports {module}"
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                used = f"{node.value.id}.{node.attr}"
                assert used != "tf.summary", f"{path.relative_to(ROOT)}:{node.lineno} uses {used}"


def test_every_part_has_a_rule():
    parts = {path.stem for path in (ROOT / "ngrl").iterdir() if path.suffix == ".py" or path.is_dir()}
    assert parts - {"__init__", "__pycache__", "_tf_agents"} <= set(ALLOWED) | COMMANDS


def test_table_of_the_architecture_tells_these_rules():
    text = (ROOT / "docs" / "architecture.md").read_text()
    told = {}
    for part, imports in re.findall(r"^\| `(\w+)` \|.*\| ([^|]+) \|$", text, re.MULTILINE):
        names = set(re.findall(r"`(\w+)`", imports))
        told[part] = set(told) - names if imports.startswith("all above") else names
    rules = {part: allowed - {part, "_tf_agents"} for part, allowed in ALLOWED.items()}
    assert told == rules


def test_import_rules_see_every_form_of_import(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    path = tmp_path / "ngrl" / "solvers" / "x.py"
    path.parent.mkdir(parents=True)
    path.write_text(
        "import ngrl.agents\nfrom ngrl import training\nfrom . import dual\nfrom ..losses import td\n"
        "def f():\n    from ngrl.curvature.metrics import Bernoulli\n"
    )
    assert [part_of(module) for module in imports_of(path)] == [
        "agents",
        "training",
        "solvers",
        "losses",
        "curvature",
    ]


def python(code, **environment):
    """Runs code in a new Python; returns its completed process."""
    inherited = {name: value for name, value in os.environ.items() if name != "TF_USE_LEGACY_KERAS"}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_importing_ngrl_loads_nothing_else():
    done = python(
        "import sys, ngrl\n"
        "heavy = {'tensorflow', 'tf_agents', 'gin', 'numpy', 'gymnasium'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    assert done.returncode == 0, done.stderr


def test_importing_ngrl_first_selects_keras_2():
    done = python("import ngrl, tensorflow as tf\nprint(tf.keras.Model.__module__)")
    assert done.stdout.startswith("tf_keras"), done.stderr


def test_importing_ngrl_after_tensorflow_with_keras_3_says_what_to_do():
    done = python("import tensorflow\nimport ngrl")
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("ImportError: ngrl needs Keras 2")
    assert "TF_USE_LEGACY_KERAS=1" in done.stderr


@pytest.fixture(scope="module")
def setup_arguments():
    """What setup.py hands to setuptools."""
    captured = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setuptools, "setup", captured.update)
        runpy.run_path(str(ROOT / "setup.py"))
    return captured


@pytest.fixture(scope="module")
def pins():
    """Canonical name -> pinned requirements, of requirements.lock; two where Python 3.10 and 3.11 differ."""
    found = {}
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        if line and not line.startswith(("#", " ")):
            requirement = Requirement(line.removesuffix("\\"))
            found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


@pytest.mark.parametrize("python_version", ["3.10", "3.11"])
def test_lock_holds_what_setup_asks_for(setup_arguments, pins, python_version):
    assert python_version in SpecifierSet(setup_arguments["python_requires"])
    environment = {"python_version": python_version, "python_full_version": f"{python_version}.0"}
    for text in [*setup_arguments["install_requires"], *setup_arguments["extras_require"]["dev"]]:
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate(environment):
            continue
        held = [
            pin
            for pin in pins.get(canonicalize_name(wanted.name), [])
            if pin.marker is None or pin.marker.evaluate(environment)
        ]
        assert len(held) == 1, f"{text}: {held}"
        (version,) = (specifier.version for specifier in held[0].specifier)
        assert version in wanted.specifier, f"{text}, but requirements.lock has {version}"


def test_setup_packages_the_data_that_reports_read(setup_arguments):
    patterns = setup_arguments["package_data"]["ngrl.experiments"]
    data = {path.name for path in (ROOT / "ngrl").rglob("*.json")}
    assert data == {"published.json"}
    assert data == set(patterns)


def test_setup_refuses_pythons_that_tf_agents_cannot_run_on(setup_arguments):
    admitted = SpecifierSet(setup_arguments["python_requires"])
    assert not {"3.9", "3.12", "3.13"} & {version for version in ("3.9", "3.12", "3.13") if version in admitted}


def test_setup_packages_ngrl_and_nothing_else(setup_arguments):
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "ngrl").rglob("*.py")}
    assert set(setup_arguments["packages"]) == {".".join(folder.parts) for folder in folders}
    assert setup_arguments["entry_points"] == {"console_scripts": ["ngrl = ngrl.launch:main"]}


def test_lock_is_hashed_and_names_no_host_or_path(pins):
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text
    assert not re.search(r"(^|\s)(-e|--index-url|--extra-index-url|--find-links|file:)", text)
    assert not re.search(r"(^|\s)/", text)
    entries = re.split(r"\n(?=[a-z])", text)[1:]
    assert len(entries) == sum(map(len, pins.values()))
    assert all("--hash=sha256:" in entry for entry in entries)


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
    assert "needs Python 3.11 or 3.10" in line
    assert "uv" in line
    assert not (clone / ".venv").exists()


def test_make_passes_over_pythons_of_other_versions(clone):
    other = clone / "bin" / "python3"
    other.write_text("#!/bin/sh\nexit 1\n")  # as the version check ends on any other Python
    other.chmod(0o755)
    assert "needs Python 3.11 or 3.10" in make(clone, "install").stderr


def test_failed_installation_shows_the_end_of_its_log_and_is_begun_afresh(clone):
    for name in ("awk", "date", "mkdir", "rm", "sh", "tail"):
        (clone / "bin" / name).symlink_to(shutil.which(name))
    uv = clone / "bin" / "uv"
    uv.write_text('#!/bin/sh\necho "called with $*"\necho "no network" >&2\nexit 3\n')
    uv.chmod(0o755)
    for _ in range(2):
        done = make(clone, "install")
        assert done.returncode != 0
        assert done.stdout == "Installing into .venv (log: .venv/install.log) ... failed:\n"
        assert "called with venv" in done.stderr
        assert "no network" in done.stderr
        assert not (clone / ".venv" / ".installed").exists()


def test_make_help_lists_every_target():
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    declared = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert [line.split()[1] for line in done.stdout.splitlines()] == declared.group(1).split()
