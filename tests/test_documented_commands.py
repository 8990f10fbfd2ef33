"""Each command of the documents, the Makefile and the tools' own help is understood as it stands, and has a short run.

What `RUN_BY` lists is run by the test beside it; a tool, a module or a target that it lacks fails here. Commands are
not run as they stand, which would take days: their arguments are parsed by the program itself.
"""

import argparse
import importlib
import re
import runpy
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOOLS = ROOT / "tools"
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

#: What runs each program in a version of seconds: a test, or where it says so CI itself.
RUN_BY = {
    "ngrl.launch": "test_commands.py::test_launch_prints_its_own_lines_and_nothing_of_libraries",
    "ngrl.evaluate": "test_commands.py::test_evaluate_ends_with_a_json_line_that_is_also_beside_the_policy",
    "ngrl.sweep": "test_sweep.py::test_dry_run_tells_how_each_trial_stands_and_the_commands_of_a_shard",
    "ngrl.report": "test_report.py::test_directories_that_hold_no_finished_run_are_named_and_the_rest_goes_on",
    "tools/bench.py": "test_tools.py::test_every_part_of_bench_measures_and_its_ratios_are_printed_as_json",
    "tools/bench_compiled.py": "test_tools.py::test_every_part_of_bench_measures_and_its_ratios_are_printed_as_json",
    "tools/bench_cores.py": "test_tools.py::test_every_part_of_bench_measures_and_its_ratios_are_printed_as_json",
    "tools/bench_kfac.py": "test_tools.py::test_every_part_of_bench_measures_and_its_ratios_are_printed_as_json",
    "tools/bench_memory.py": "test_tools.py::test_memory_of_an_update_is_what_xla_plans_for_it",
    "tools/bench_pixels.py": "test_tools.py::test_every_part_of_bench_measures_and_its_ratios_are_printed_as_json",
    "tools/bench_ray.py": "environments/test_ray_environments.py::test_bench_compares_actors_with_one_process",
    "tools/bench_recurrent.py": "test_tools.py::test_every_part_of_bench_measures_and_its_ratios_are_printed_as_json",
    "tools/bench_rounds.py": "test_tools.py::test_rounds_of_bench_take_turns",
    "tools/chaos.py": "faults/test_kills.py::test_run_killed_ten_times_is_bit_equal_and_leaves_no_litter",
    "tools/check_installed.py": "test_install.py",
    "tools/compare_kfac_jax.py": "test_tools.py::test_comparison_with_kfac_jax_says_in_one_line_what_it_lacks",
    "tools/compare_peers.py": "test_compare_peers.py::test_only_selects_rows_and_refuses_what_matches_none",
    "tools/fingerprint.py": "test_tools.py::test_fingerprints_of_two_like_runs_are_the_same",
    "tools/fork_server.py": "faults/conftest.py",
    "tools/install.sh": "test_install.py",
    "tools/keras_digits.py": "keras/test_keras_digits.py",
    "tools/keras_regression.py": "keras/test_keras_regression.py",
    "tools/make_docs.py": "test_documents.py::test_settings_page_is_what_the_docstrings_say",
    "tools/mkdocs_hooks.py": "make docs",
    "tools/peer_scores.py": "test_peer_scores.py::test_a_run_is_kept_and_not_run_again",
    "tools/pendulum_optimum.py": "test_pendulum_optimum.py",
    "tools/plot_runs.py": "test_tools.py::test_scores_prints_a_table_and_plot_runs_draws_the_curves",
    "tools/plot_toy.py": "test_plot_toy.py",
    "tools/pythons.sh": "test_install.py",
    "tools/scores.py": "test_tools.py::test_scores_prints_a_table_and_plot_runs_draws_the_curves",
    "tools/peers/contestants.py": "test_compare_peers.py",
    "tools/peers/installation.py": "test_compare_peers.py",
    "tools/peers/networks.py": "test_compare_peers.py",
    "tools/peers/ngrl_steps_worker.py": "test_compare_peers.py",
    "tools/peers/ngrl_worker.py": "test_compare_peers.py",
    "tools/peers/report.py": "test_compare_peers.py",
    "tools/peers/rows.py": "test_compare_peers.py",
    "tools/peers/tf_agents_worker.py": "test_compare_peers.py",
    "tools/peers/worker_protocol.py": "test_compare_peers.py",
    # These need the peers' own packages.
    "tools/peers/kfac_jax_worker.py": "",
    "tools/peers/lm_worker.py": "",
    "tools/peers/pqn_scores_worker.py": "test_peer_scores.py::test_pqns_targets_are_mixtures_of_its_n_step_returns",
    "tools/peers/rejax_worker.py": "",
    "tools/peers/sb3_scores_worker.py": "",
    "tools/peers/sb3_worker.py": "",
    "tools/peers/sbx_worker.py": "",
    "tools/peers/somax_worker.py": "",
    "tools/peers/tianshou_worker.py": "",
}
#: Other people's programs.
FOREIGN = ("pytest", "mypy", "http.server", "pip", "ruff", "mkdocs", "tensorboard", "jupyter", "ipykernel", "build")
#: How a command begins that stands in no block.
_START = r"(?:\.venv/bin/|python |make |ngrl (?:launch|evaluate|sweep|report) )"


def commands_of(text):
    """The commands in a page or a docstring: in blocks, indented, and within lines."""
    fenced = re.findall(r"^ *```(?:bash|sh|console)[^\n]*\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    rest = re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE)
    lines = [line for block in fenced for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(rf"^ {{4,}}({_START}.*)$", rest.replace("\\\n", " "), re.MULTILINE)
    lines += re.findall(rf"`({_START}[^`]+)`", rest)
    for line in lines:
        try:
            words = shlex.split(line.strip().removeprefix("$ "), comments=True)
        except ValueError as error:
            raise ValueError(f"no command: {line}") from error
        if words:
            yield words


def program_of(words):
    """The module, tool or target that a command starts, and its arguments.

    None for what is no program of ours, and for a command without arguments, which is the program's name.
    """
    if words[0] == "make":
        return f"make {words[1]}", words[2:]
    if Path(words[0]).name == "ngrl":
        return (f"ngrl.{words[1]}", words[2:]) if words[2:] else None
    if Path(words[0]).name.startswith("python") and len(words) > 1:
        if words[1] == "-m":
            return (words[2], words[3:]) if re.match(r"ngrl\.\w", words[2]) and words[3:] else None
        if words[1].startswith("tools/"):
            return words[1], words[2:]
    return None


def test_both_ways_to_start_a_command_are_one_program():
    for start in (["ngrl", "launch"], [".venv/bin/ngrl", "launch"], ["python", "-m", "ngrl.launch"]):
        assert program_of(start) is None
        assert program_of([*start, "--list"]) == ("ngrl.launch", ["--list"])
    assert program_of(["ngrl", "lunch", "x.gin"])[0] not in RUN_BY
    assert COMMANDS["ngrl.launch", ("--list",)] == "docs/install.md"


def documented():
    texts = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in DOCUMENTS}
    for path in sorted(TOOLS.rglob("*.py")):
        docstring = re.match(r'"""(.*?)"""', path.read_text(encoding="utf-8"), re.DOTALL)
        texts[str(path.relative_to(ROOT))] = docstring[1] if docstring else ""
    found = {}
    for place, text in texts.items():
        for words in commands_of(text):
            program = program_of(words)
            if program is not None:
                found.setdefault((program[0], tuple(program[1])), place)
    return found


COMMANDS = documented()
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.MULTILINE)


class ParsedError(Exception):
    """The arguments were understood."""


def test_commands_are_found_wherever_they_stand():
    text = """`make bench ARGS='--rounds 2'` and `.venv/bin/python -m ngrl.report
--runs a --out b`:

    .venv/bin/python tools/chaos.py x.gin --kills 3  # thrice

```bash
make lunar    # trains
.venv/bin/python tools/scores.py a.gin \\
  --seeds 0
```
"""
    assert sorted(commands_of(text)) == [
        [".venv/bin/python", "-m", "ngrl.report", "--runs", "a", "--out", "b"],
        [".venv/bin/python", "tools/chaos.py", "x.gin", "--kills", "3"],
        [".venv/bin/python", "tools/scores.py", "a.gin", "--seeds", "0"],
        ["make", "bench", "ARGS=--rounds 2"],
        ["make", "lunar"],
    ]
    assert len(COMMANDS) > 40


def test_every_program_has_a_short_run():
    tools = {str(path.relative_to(ROOT)) for pattern in ("*.py", "*.sh") for path in TOOLS.rglob(pattern)}
    commands = {f"ngrl.{name}" for name in ("launch", "evaluate", "sweep", "report")}
    assert set(RUN_BY) == tools | commands
    for program, runner in RUN_BY.items():
        file, _, name = runner.partition("::")
        if file.endswith(".py"):
            text = (ROOT / "tests" / file).read_text(encoding="utf-8")
            assert f"def {name}(" in text or not name, runner
            assert program.removeprefix("ngrl.").rpartition("/")[2].partition(".")[0] in text, runner


@pytest.mark.parametrize(
    ("program", "arguments"), [key for key in COMMANDS if not key[0].startswith("make ")], ids=lambda part: str(part)
)
def test_documented_arguments_are_understood(program, arguments, monkeypatch):
    assert program in RUN_BY, COMMANDS[program, arguments]
    arguments = [argument for argument in arguments if argument != "…"]
    if program.startswith("ngrl."):
        parser = importlib.import_module(program).build_parser()
        if "--list" in arguments:
            with pytest.raises(SystemExit, match=r"^0$"):
                parser.parse_args(arguments)
        else:
            parser.parse_args(arguments)
        return
    if "argparse" not in (ROOT / program).read_text(encoding="utf-8"):
        assert not arguments
        return
    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(self, args=None, namespace=None):
        parse(self, args, namespace)
        raise ParsedError

    monkeypatch.chdir(ROOT)  # commands are given there
    monkeypatch.syspath_prepend(str(TOOLS))
    monkeypatch.setattr("sys.argv", [program, *arguments])
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
    with pytest.raises(ParsedError):
        runpy.run_path(str(ROOT / program), run_name="__main__")


def test_documented_targets_exist():
    for (program, _), place in COMMANDS.items():
        if program.startswith("make "):
            assert program.removeprefix("make ") in TARGETS, place


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
@pytest.mark.parametrize("target", TARGETS)
def test_targets_run_programs_that_have_a_short_run(target):
    # What is installed is not looked at: only what the target itself would run is wanted.
    command = ["make", "-n", "-o", "install", target, "ARGS=--seed=3"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    for line in result.stdout.splitlines():
        words = line.split()
        started = re.match(r"(?:\w+=\S+ )*\.venv/bin/(\S+)(?: (-m) (\S+)| (tools/\S+))?", line)
        if started and started[4]:
            assert started[4] in RUN_BY
        elif started:
            name = started[3] or started[1]
            assert name in RUN_BY or name in FOREIGN, line
        else:
            assert (
                words[0] in ("awk", "sh", "uv", "rm", "find", "make", ":") or "make" in words[0] or "=" in words[0]
            ), line
