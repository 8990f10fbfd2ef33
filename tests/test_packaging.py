"""The package as a whole: what may import what, what is installed, and what make says when it can't."""

import ast
import itertools
import os
import re
import runpy
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import setuptools
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from ngrl import _releases, packaged

ROOT = Path(__file__).resolve().parent.parent
NUMERICS = ("curvature", "solvers", "losses", "optimizers")

# What each part of ngrl may import of ngrl. `_tf_agents` is TF-Agents, imported quietly.
ALLOWED = {
    "configurable": set(),  # serves whoever gin files may name
    "_autograph": set(),  # serves whoever writes for graphs
    "curvature": {"curvature", "_autograph", "seeding", "losses", "checks", "patches", "xla"},
    "solvers": {"solvers", "_autograph", "seeding", "losses", "checks", "configurable", "xla"},
    "losses": {"losses", "_autograph", "checks", "curvature", "solvers", "configurable"},
    "optimizers": {*NUMERICS, "checks", "configurable"},
    "keras": {*NUMERICS, "keras", "checks"},
    "patches": set(),  # serves whoever convolves
    "xla": set(),  # serves whoever chooses what is faster there
    "checks": set(),  # serves whoever takes arguments
    "seeding": set(),  # serves whoever draws random numbers
    "networks": {
        "networks",
        "_autograph",
        "checks",
        "messages",
        "seeding",
        "_tf_agents",
        "specs",
        "configurable",
        "patches",
    },
    "environments": {
        "environments",
        "checks",
        "cluster",
        "configurable",
        "messages",
        "seeding",
        "signals",
        "_tf_agents",
        "specs",
    },
    "replay": {"replay", "checks", "seeding", "_tf_agents"},
    "agents": {*NUMERICS, "agents", "networks", "replay", "checks", "seeding", "_tf_agents", "configurable"},
}
ALLOWED["cluster"] = {"messages"}  # serves whoever needs Ray
ALLOWED["specs"] = set()  # what environments say to networks
ALLOWED["packaged"] = set()  # serves whoever reads an experiment
ALLOWED["modules"] = {"messages"}  # serves whoever takes modules of a user's own
ALLOWED["renamed"] = set()  # serves whoever reads names of before
ALLOWED["tags"] = set()  # serves whoever writes, shows or explains a number
ALLOWED["threads"] = {"checks"}  # serves whoever starts a process
ALLOWED["figures"] = set()  # serves whoever draws
ALLOWED["terminal"] = {"messages", "signals", "_releases"}  # serves the commands
ALLOWED["messages"] = set()  # serves whoever tells of an error, or of a number of things
ALLOWED["signals"] = set()  # serves whoever is stopped
ALLOWED["configuration"] = {
    "configuration",
    "checks",
    "messages",
    "modules",
    "packaged",
    "renamed",
    "seeding",
    "configurable",
}
ALLOWED["runs"] = {"runs", "messages", "renamed"}
ALLOWED["loops"] = {
    "loops",
    "runs",
    "tags",
    "optimizers",
    "replay",
    "seeding",
    "checks",
    "messages",
    "_tf_agents",
    "configurable",
}
ALLOWED["reports"] = {"reports", "messages", "runs", "figures", "renamed", "seeding"}
_BELOW_TRAINING = set(ALLOWED) - {"reports", "figures", "threads", "terminal"}
ALLOWED["training"] = {"training", *_BELOW_TRAINING, "_tf_agents"}
ALLOWED["studies"] = {
    "checks",
    "studies",
    "cluster",
    "configuration",
    "messages",
    "packaged",
    "runs",
    "seeding",
    "tags",
    "threads",
    "training",
    "configurable",
}
ALLOWED["examples"] = {"examples", "figures", *ALLOWED["training"]}
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
TF_AGENTS = "tf-agents==0.19.0"
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


def functions_of(path):
    """Name, number of parameters and number of lines without the docstring of each function of a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            taken = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            yield node.name, len([name for name in taken if name not in ("self", "cls")]), lines


@pytest.mark.parametrize("path", sorted((ROOT / "ngrl").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_functions_are_short_and_take_few_arguments(path):
    for name, taken, lines in functions_of(path):
        most = 12 if (path.name, name) == ("experiment.py", "run") else 15
        assert taken <= most, f"{name} takes {taken} arguments"
        assert lines <= 57, f"{name} has {lines} lines"


def test_every_part_has_a_rule():
    parts = {path.stem for path in (ROOT / "ngrl").iterdir() if path.suffix == ".py" or path.is_dir()}
    assert (
        parts - {"__init__", "__main__", "__pycache__", "_importing", "_releases", "_tf_agents"}
        <= set(ALLOWED) | COMMANDS
    )


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


def test_importing_ngrl_after_tensorflow_selects_keras_2_while_keras_is_unused():
    done = python(
        "import tensorflow as tf, ngrl\n"
        "from tensorflow.keras import layers\n"
        "print(tf.keras.Model.__module__.split('.')[0], layers.Dense.__module__.split('.')[0])"
    )
    assert done.stdout == "tf_keras tf_keras\n", done.stderr


def test_importing_ngrl_after_keras_3_was_used_says_what_to_do():
    done = python("import tensorflow\nfrom tensorflow.keras import layers\nimport ngrl")
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


@pytest.fixture(scope="module", params=["requirements.lock", "requirements-oldest.lock"])
def lock(request):
    """The name of a lock."""
    return request.param


@pytest.fixture(scope="module")
def pins(lock):
    """Canonical name -> pinned requirements, of a lock; several where Pythons differ."""
    found = {}
    for line in (ROOT / lock).read_text().splitlines():
        if line and not line.startswith(("#", " ")):
            requirement = Requirement(line.removesuffix("\\"))
            found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


@pytest.mark.parametrize("python_version", PYTHONS)
def test_lock_holds_what_setup_asks_for(setup_arguments, lock, pins, python_version):
    if lock == "requirements-oldest.lock" and python_version != PYTHONS[0]:
        pytest.skip("the oldest set is for the oldest Python")
    assert python_version in SpecifierSet(setup_arguments["python_requires"])
    extras = setup_arguments["extras_require"]
    environment = {"python_version": python_version, "python_full_version": f"{python_version}.0"}
    for text in [*setup_arguments["install_requires"], *extras["dev"], *extras["docs"], TF_AGENTS]:
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
        assert version in wanted.specifier, f"{text}, but {lock} has {version}"


def test_setup_packages_the_data_that_reports_read(setup_arguments):
    patterns = setup_arguments["package_data"]["ngrl.reports"]
    data = {path.name for path in (ROOT / "ngrl").rglob("*.json")}
    assert data == {"published.json"}
    assert data == set(patterns)


def test_setup_admits_the_supported_pythons_alone(setup_arguments):
    admitted = SpecifierSet(setup_arguments["python_requires"])
    assert [version for version in ("3.9", *PYTHONS, "3.14") if version in admitted] == list(PYTHONS)


def test_releases_are_refused_by_the_ranges_of_setup(setup_arguments):
    wanted = {Requirement(text).name: Requirement(text) for text in setup_arguments["install_requires"]}
    wanted["tf-agents"] = Requirement("tf-agents>=0.19,<0.20")
    for name, (first, end) in _releases.SUPPORTED.items():
        for (major, minor), admitted in ((first, True), ((first[0], first[1] - 1), False), (end, False)):
            assert (f"{major}.{minor}.999" in wanted[name].specifier) is admitted, (name, major, minor)


def test_tf_agents_is_no_requirement_since_pip_would_refuse_its_pins(setup_arguments):
    required = [*setup_arguments["install_requires"], *itertools.chain(*setup_arguments["extras_require"].values())]
    assert "tf-agents" not in {Requirement(text).name for text in required}
    assert TF_AGENTS in (ROOT / "pyproject.toml").read_text()


def test_setup_packages_ngrl_and_nothing_else(setup_arguments):
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "ngrl").rglob("*.py")}
    assert set(setup_arguments["packages"]) == {".".join(folder.parts) for folder in folders}
    assert setup_arguments["entry_points"] == {"console_scripts": ["ngrl = ngrl.__main__:main"]}


def test_lock_is_hashed_and_names_no_host_or_path(lock, pins):
    text = (ROOT / lock).read_text()
    assert "://" not in text
    assert not re.search(r"(^|\s)(-e|--index-url|--extra-index-url|--find-links|file:)", text)
    assert not re.search(r"(^|\s)/", text)
    entries = re.split(r"\n(?=[a-z])", text)[1:]
    assert len(entries) == sum(map(len, pins.values()))
    assert all("--hash=sha256:" in entry for entry in entries)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A folder that holds what ngrl's wheel does."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(ROOT, source, ignore=lambda _, names: [n for n in names if n[0] == "." or n in ("runs", "build")])
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(source)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (archive,) = folder.glob("*.whl")
    zipfile.ZipFile(archive).extractall(folder / "site")
    return folder / "site"


def test_wheel_is_whole(wheel):
    files = {path.relative_to(wheel).as_posix() for path in wheel.rglob("*") if path.is_file()}
    for folder in ("gin", "launch"):
        data = {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*") if path.is_file()}
        assert data
        assert {f"ngrl/_data/{name}" for name in data} <= files
    assert {"ngrl/py.typed", "ngrl/reports/published.json"} <= files
    assert not [name for name in files if name.startswith(("gin/", "launch/", "tests/")) or "__pycache__" in name]
    assert not [name for name in files if name.startswith("ngrl/_data") and name.endswith(".py")]
    (metadata,) = wheel.glob("*.dist-info/METADATA")
    for field in ("Project-URL: ", "Classifier: Programming Language :: Python :: 3.13", "Keywords: "):
        assert field in metadata.read_text()


def test_wheel_runs_its_experiments_from_an_empty_folder(wheel, tmp_path):
    def launch(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "ngrl", "launch", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(wheel)},
            capture_output=True,
            text=True,
            timeout=120,
        )

    wrong = launch("--gin_file=gin/ngdqn_cartpole_v1.gin", "--gin_bindings=rn.seed=1")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("ngrl.launch: --gin_bindings"), wrong.stderr  # all files were read
    (tmp_path / "own.gin").write_text("include 'gin/base/ngdqn.gin'\nQNetwork.hidden_layer = (8,)\n")
    own = launch("--gin_file=own.gin")
    assert own.stderr.startswith("ngrl.launch: own.gin:2: "), own.stderr
    listed = launch("--list").stdout.splitlines()
    experiments = {path.relative_to(ROOT).as_posix() for path in (ROOT / "gin").rglob("*.gin")}
    assert {line.split()[0] for line in listed} <= experiments
    assert all(len(line.split()) > 3 for line in listed)
    names = {line.split()[0] for line in listed}
    assert {"gin/ngdqn_lunar.gin", "gin/paper/ngdqn_lunar.gin"} <= names
    assert not {"gin/base/ngdqn.gin", "gin/paper/base.gin", "gin/paper/ngdqn.gin"} & names


def test_every_experiment_of_an_environment_is_listed_and_no_shared_part():
    listed = {name for name, _ in packaged.experiments()}
    named = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "gin").rglob("*.gin")
        if re.search("(?m)^Environment.env_id", path.read_text()) and path.parent.name != "base"
    }
    assert named <= listed
    assert "gin/kfac_cartpole_v1.gin" in listed
    assert not listed & {"gin/paper/base.gin", "gin/paper/ngdqn.gin", "gin/solvers/base.gin", "gin/base/dqn.gin"}


def test_file_in_the_current_folder_goes_before_the_packaged_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "gin/ngdqn_lunar.gin"
    assert packaged.find(name) == ROOT / name
    (tmp_path / "gin").mkdir()
    (tmp_path / name).write_text("")
    assert packaged.find(name) == Path(name)
    for other in ("setup.py", "gin", "../gin/ngdqn_lunar.gin", "gin/nothing.gin"):
        assert packaged.find(other) == Path(other)


def test_the_part_of_the_suite_for_other_pythons_is_there():
    text = (ROOT / "tools" / "pythons.sh").read_text()
    part = re.findall(r"tests/[\w/.]+", re.search(r"^part=\((.*?)^\)", text, re.MULTILINE | re.DOTALL).group(1))
    assert part
    assert [path for path in part if not (ROOT / path).exists()] == []
