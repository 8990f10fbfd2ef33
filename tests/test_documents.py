"""The code of README.md and docs/ runs; each command there is run here, by other tests, or by CI's `make` targets."""

import os
import re
import runpy
import shlex
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import NamedTuple

import gin
import pytest
from fork_server import play_live_policies

from ngrl import configuration
from ngrl.training import RunContext, configurables

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in PAGES}
#: A page's files carry their name as the title of their block.
FENCE = re.compile(r'^```(\w+)(?: title="([\w./]+)")?\n(.*?)^```$', re.DOTALL | re.MULTILINE)
SHORT = ("run.num_env_steps=300", "Evaluation.episodes=1")
KINDS = (
    "make lunar",
    "make test",
    "make docs",
    ".venv/bin/tensorboard",
    ".venv/bin/python -m ngrl.",
    ".venv/bin/python tools/scores.py gin/",
)
#: What lets each loop learn within some hundred steps.
SHORT_LOOPS = {
    "OffPolicyLoop": ("warmup_steps=200", "batch_size=16", "jit_compile=False"),
    "OnPolicyLoop": ("batch_size=128", "jit_compile=False"),
    "TrajectoryReplayLoop": ("num_steps=4", "warmup_steps=100", "jit_compile=False"),
}


class Block(NamedTuple):
    """A block of code, the page that shows it, and the name of its file, if it has one."""

    page: str
    language: str
    title: str | None
    text: str


BLOCKS = [
    Block(page, language, title or None, text)
    for page, markdown in TEXTS.items()
    for language, title, text in FENCE.findall(markdown)
]
FILES = {block.title: block.text for block in BLOCKS if block.title}
COMMANDS = list(
    dict.fromkeys(
        line.split("#")[0].strip()
        for block in BLOCKS
        if block.language == "bash"
        for line in block.text.replace("\\\n", " ").splitlines()
        if line.strip()
    )
)
LAUNCHES = [line for line in COMMANDS if "ngrl.launch" in line]
#: Experiments that no command on a page launches are run for a few steps.
EXPERIMENTS = [
    block
    for block in BLOCKS
    if block.language == "gin" and not (block.title and any(block.title in line for line in LAUNCHES))
]
SCRIPTS = [block for block in BLOCKS if block.language == "python" and not block.title]


def name_of(block):
    return f"{block.page}-{block.title or BLOCKS.index(block)}"


def shortened(file):
    """Bindings with which the experiment of a gin file learns within some hundred steps."""
    text = file.read_text(encoding="utf-8")
    named = re.search(r"^run\.loop = @(\w+)", text, re.MULTILINE)
    if named:
        return [*SHORT, *(f"{named[1]}.{setting}" for setting in SHORT_LOOPS[named[1]])]
    included = re.findall(r"^include '(.+)'", text, re.MULTILINE)
    paths = (next(path for path in (file.parent / name, ROOT / name) if path.is_file()) for name in included)
    return next((found for path in paths if (found := shortened(path))), None)


@pytest.fixture
def folder(tmp_path):
    """A folder like a clone's root that also holds the files the pages show."""
    (tmp_path / "gin").symlink_to(ROOT / "gin")
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_blocks_are_all_seen_and_a_name_is_one_file():
    for page, markdown in TEXTS.items():
        assert len(re.findall(r"^\s*```", markdown, re.MULTILINE)) == 2 * sum(block.page == page for block in BLOCKS), (
            page
        )
    for block in BLOCKS:
        assert block.title is None or block.text == FILES[block.title], f"{block.page}: {block.title}"


def test_readme_is_short():
    assert len(TEXTS["README.md"].splitlines()) <= 150


def test_every_command_is_of_a_kind_that_is_run():
    """`make` targets by CI or the suite's other tests; the rest below."""
    for line in COMMANDS:
        assert line.startswith(KINDS), line
        for path in re.findall(r"(?:gin|launch|tools)/[\w/]+\.(?:gin|py)", line):
            assert (ROOT / path).is_file(), line
    makefile = (ROOT / "Makefile").read_text()
    named = [line.removeprefix("make ") for line in COMMANDS if line.startswith("make ")]
    named += [target for markdown in TEXTS.values() for target in re.findall(r"`make\s+([a-z-]+)", markdown)]
    for target in named:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"make {target}"


@pytest.mark.parametrize("line", LAUNCHES)
def test_launch_commands_train(line, folder, command):
    python, option, module, *arguments = shlex.split(line)
    assert (python, option, module) == (".venv/bin/python", "-m", "ngrl.launch")
    (file,) = (word.removeprefix("--gin_file=") for word in arguments if word.startswith("--gin_file="))
    short = [f"--gin_bindings={binding}" for binding in shortened(folder / file)]
    result = command("launch", *arguments, *short, "--noprogress", cwd=folder)
    assert result.returncode == 0, result.stderr
    assert ("no problem found" if "--dry_run" in arguments else "greedy evaluation") in result.stdout


def test_exported_policy_acts_without_ngrl(folder, command):
    assert "ngrl" not in re.sub("ngrl_policy.json", "", FILES["act.py"] + FILES["acting.py"])
    short = [f"--gin_bindings={binding}" for binding in shortened(folder / "my_task.gin")]
    arguments = ("--gin_file=my_task.gin", "--allow_gin_import=my_task", "--noprogress", *short)
    trained = command("launch", *arguments, cwd=folder)
    assert trained.returncode == 0, trained.stderr
    result = subprocess.run([sys.executable, "act.py"], cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert re.fullmatch(r"return -\d+\.\d\n", result.stdout)


def test_check_of_an_environment_prints_what_the_page_shows(folder):
    command = [sys.executable, "check_my_task.py"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    (shown,) = (block.text for block in BLOCKS if block.text.startswith("Corridor-v0: no problem found"))
    speed = r"[\d,]+ steps a second"
    assert re.sub(speed, "", result.stdout) == re.sub(speed, "", shown)


@pytest.mark.parametrize("block", SCRIPTS, ids=name_of)
def test_python_examples_run(block, script, tmp_path):
    assert "import ngrl" in block.text
    (tmp_path / "example.py").write_text(block.text, encoding="utf-8")
    result = script(tmp_path / "example.py", cwd=tmp_path)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("block", EXPERIMENTS, ids=name_of)
def test_experiments_run(block, folder, monkeypatch):
    monkeypatch.chdir(folder)
    play_live_policies(monkeypatch.setattr)
    Path("experiment.gin").write_text(block.text, encoding="utf-8")
    gin.clear_config()
    try:
        configuration.parse(["experiment.gin"], shortened(folder / "experiment.gin"))
        final = configurables.run(RunContext(folder / "run"))
        operative = gin.operative_config_str()
    finally:
        gin.clear_config()
    assert final["env_steps"] >= 300
    assert final["train_steps"] > 0
    for name in re.findall(r"^([\w/.]+) = ", block.text, re.MULTILINE):
        assert f"{name} = " in operative, f"{name} is bound, but without effect"


def test_tensorboard_command_serves_a_run(tmp_path):
    line = next(line for line in COMMANDS if "tensorboard" in line)
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


@pytest.mark.parametrize("page", TEXTS)
def test_pictures_pages_and_files_named_exist(page):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", FENCE.sub("", TEXTS[page])):
        if "://" not in target:
            assert (ROOT / page).parent.joinpath(target).is_file(), target
    for path in re.findall(r"`((?:tests|tools|ngrl|gin|docs|launch)/[\w/.-]+\.\w+)[`:]", TEXTS[page]):
        assert (ROOT / path).is_file(), path


def test_site_lists_every_page():
    """`make docs` refuses a page that is listed and missing; this one refuses a page that is missing in the list."""
    listed = re.findall(r": ([\w/.-]+\.md)$|- ([\w/.-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    pages = {page.removeprefix("docs/") for page in TEXTS} - {"README.md"}
    assert pages <= {"".join(pair) for pair in listed}


def test_settings_page_is_what_the_docstrings_say():
    page = runpy.run_path(str(ROOT / "tools" / "make_docs.py"))["page"]
    assert TEXTS["docs/settings.md"] == page(), "run tools/make_docs.py settings"


def test_tensorboard_page_is_the_table_of_tags():
    page = runpy.run_path(str(ROOT / "tools" / "make_docs.py"))["tensorboard"]
    assert TEXTS["docs/tensorboard.md"] == page(), "run tools/make_docs.py tensorboard"


def test_figures_of_the_readme_are_those_of_the_results():
    """README.md shows a few of the results; docs/results.md is where they are kept."""
    rows = re.findall(r"\| (\S+) \| \*\*(\S+)\*\* \| (\S+) \|$", TEXTS["README.md"], re.MULTILINE)
    assert rows
    for env_steps, score, published in rows:
        row = rf"^\|.*\| {env_steps} \|.*\*\*{score}\*\*.*\| {published}(?!\w).*\|$"
        assert re.search(row, TEXTS["docs/results.md"], re.MULTILINE), score
