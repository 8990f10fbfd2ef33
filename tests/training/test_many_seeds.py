"""Runs of several seeds in one process: compiled once, and each the run that it is alone."""

from pathlib import Path

import pytest
import small_acer
import small_on_policy
from run_contents import assert_identical, everything, rows, variables

from ngrl import launch, seeding
from ngrl.loops.compiled import Compiled, sharing

GIN = Path(__file__).parents[2] / "gin" / "ppo_cartpole_v1.gin"


@pytest.mark.parametrize(("kind", "compiled_again"), [("ppo", 0), ("acer", 1)])
def test_loops_that_share_what_is_compiled_give_the_numbers_they_give_alone(
    tmp_path, monkeypatch, kind, compiled_again
):
    """ACER's update holds the key of its draws as a constant: it alone must be compiled anew."""
    compiled, compile_ = [], Compiled._compile
    monkeypatch.setattr(Compiled, "_compile", lambda self, *args: (compiled.append(self), compile_(self, *args))[1])

    def result(seed, name):
        options = {"env_id": "CartPole-v1", "seed": seed, "env_options": {"backend": "compiled"}}
        make = small_acer.make if kind == "acer" else small_on_policy.make
        agent, loop = make(**options) if kind == "acer" else make(kind, **options)
        for _ in range(4):
            loop.step()
        assert loop.train_steps >= 4
        return everything(agent, loop, tmp_path / name)

    alone = result(1, "alone")
    with sharing():
        first = result(0, "first")
        del compiled[:]
        second = result(1, "second")
    assert len(compiled) == compiled_again
    assert_identical(second, alone)
    del compiled[:]
    assert first[1]["statistics"]["lengths"] != second[1]["statistics"]["lengths"]


def test_keys_that_a_graph_would_hold_as_constants_are_noticed():
    before = seeding.constant_keys()
    seeding.at(seeding.key(0, seeding.Stream.ACTIONS), 1)
    assert seeding.constant_keys() == before + 1


def test_seeds_of_one_command_have_their_own_runs_and_any_of_them_is_resumed_alone(command, tmp_path):
    settings = [
        "Environment.backend=@CompiledEnvironments()",
        "OnPolicyLoop.jit_compile=False",
        "Evaluation.episodes=0",
    ]
    settings += ["OnPolicyLoop.batch_size=128", "ClippedUpdate.epochs=1", "Critic.epochs=1"]

    def run(steps, *arguments, **options):
        bindings = [f"--gin_bindings={setting}" for setting in (*settings, f"run.num_env_steps={steps}")]
        arguments = ["--noprogress", f"--gin_file={GIN}", *bindings, *arguments]
        result = command("launch", *arguments, cwd=tmp_path, **options)
        assert result.returncode == 0, result.stderr
        return result.stdout

    printed = run(300, "--seeds=3,1", "--root_dir=parts", export=False)
    assert [line.split(":")[0] for line in printed.splitlines() if " episodes, " in line] == [
        "parts-seed3",
        "parts-seed1",
    ]
    run(600, "--seed=1", "--root_dir=parts-seed1", export=False)
    run(600, "--seeds=3,1", "--root_dir=whole")
    assert_identical(variables(tmp_path / "whole-seed1"), variables(tmp_path / "parts-seed1"))
    assert rows(tmp_path / "whole-seed1") == rows(tmp_path / "parts-seed1")
    assert rows(tmp_path / "whole-seed3") != rows(tmp_path / "whole-seed1")
    for name in ("run.json", "operative_config.gin", "policy/saved_model.pb", "log.txt"):
        assert (tmp_path / "whole-seed1" / name).is_file()
    assert "run.seed = 1" in (tmp_path / "whole-seed1" / "operative_config.gin").read_text()
    both = [(tmp_path / f"whole-seed{seed}" / "log.txt").read_bytes() for seed in (3, 1)]
    assert both[0] not in both[1]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--seeds=0,1", "--seed=2"], "--seed and --seeds exclude each other: name all seeds in --seeds"),
        (["--seeds=0,x"], "--seeds must be integers with commas between, as in 0,1,2, got '0,x'"),
        (["--seeds=4,5,4"], "--seeds names a seed twice: 4,5,4"),
        (["--seeds=1,-2"], "--seeds must lie between 0 and 2147483647, got -2"),
    ],
)
def test_seeds_that_are_none_are_refused_in_a_line(capsys, arguments, line):
    assert launch.main([f"--gin_file={GIN}", *arguments]) == 2
    assert capsys.readouterr().err == f"ngrl.launch: {line}\n"
