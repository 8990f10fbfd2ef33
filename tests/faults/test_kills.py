"""A run that SIGKILL ended, at any moment, goes on with the same command as if it had never been killed."""

import json
import random
import re
import signal
import subprocess
import sys

import pytest
import tensorflow as tf
from chaos import contents, differences, litter
from experiments import AGENTS, ROOT, arguments
from tensorboard.backend.event_processing import event_accumulator

from ngrl.training import CheckpointStore

EXTENDING = (ROOT / "docs" / "extending.md").read_text()


# NGDQN on CartPole is what is killed ten times below.
@pytest.mark.parametrize(("number", "agent"), [*enumerate(name for name in AGENTS if name != "ngdqn")])
def test_killed_run_is_bit_equal_to_one_that_was_not(start, tmp_path, number, agent):
    """Every other one is killed inside a save, the rest between two, at moments drawn for each."""
    env_id = AGENTS[agent].env_id
    assert start(*arguments(agent, env_id, "whole"), export=False).wait() == 0
    draw = random.Random(f"{agent} {env_id}")
    die = ["step", draw.randint(30, 70)] if number % 2 else ["save", draw.randint(2, 3), draw.randint(3, 12)]
    killed = arguments(agent, env_id, "killed")
    assert start(*killed, die=die, export=False).wait() == -signal.SIGKILL
    last = start(*killed, export=False)
    assert last.wait() == 0, last.lines
    assert any("resuming at " in line for line in last.lines)
    assert not differences(tmp_path / "whole", tmp_path / "killed")
    assert not litter(tmp_path / "killed")


def test_killed_run_with_an_update_of_a_users_own_remembers_what_it_averaged(start, tmp_path):
    """The update of docs/extending.md, whose variable lives in checkpoints and in no exported policy."""
    for title, text in re.findall(r'^```\w+ title="(my_update\.\w+)"\n(.*?)^```$', EXTENDING, re.DOTALL | re.MULTILINE):
        (tmp_path / title).write_text(text)
    (tmp_path / "gin").symlink_to(ROOT / "gin")
    small = ("run.num_env_steps=400", "run.checkpoint_every=100", "OnPolicyLoop.batch_size=64", "run.log_every=64")
    small += ("OnPolicyLoop.jit_compile=False", "Critic.epochs=1", "Environment.num_envs=4", "Evaluation.episodes=1")
    argv = ["--gin_file=my_update.gin", "--allow_gin_import=my_update", *(f"--gin_bindings={one}" for one in small)]
    whole, killed = ([*argv, f"--root_dir={name}"] for name in ("whole", "killed"))
    assert start(*whole).wait() == 0
    assert start(*killed, die=["step", 60]).wait() == -signal.SIGKILL
    last = start(*killed)
    assert last.wait() == 0, last.lines
    assert any("resuming at " in line for line in last.lines)
    assert not differences(tmp_path / "whole", tmp_path / "killed")
    averages = {name: value for name, value in contents(tmp_path / "killed").items() if "diagonal" in name}
    assert averages
    assert all((value > 0).all() for value in averages.values())
    for policy in ("policy", "policy_collect"):
        exported = tf.train.load_checkpoint(str(tmp_path / "killed" / policy / "variables" / "variables"))
        assert not any("diagonal" in name for name in exported.get_variable_to_shape_map())
    events = event_accumulator.EventAccumulator(str(tmp_path / "killed" / "train"), {"tensors": 0}).Reload()
    assert {"ngrl/mean_curvature", "ngrl/kl"} <= set(events.Tags()["tensors"])


@pytest.mark.parametrize("keep", [1, 2])
def test_save_killed_at_any_of_its_file_operations_leaves_a_whole_checkpoint(start, tmp_path, keep):
    folder = tmp_path / "checkpoints"
    for step in range(1, keep + 1):
        assert start(save=[str(folder), step, keep]).wait() == 0
    newest, operation, outcomes = keep, 0, []
    while True:
        killed = start(save=[str(folder), newest + 1, keep], die=["save", 1, operation])
        survived = killed.wait() == 0
        assert survived or killed.code == -signal.SIGKILL
        assert len(list(folder.iterdir())) <= keep + 1
        module = tf.Module()
        module.v = tf.Variable(0.0)
        state = CheckpointStore(folder, module, keep).restore_latest()
        assert state.values["step"] == state.arrays["step"] == module.v.numpy() in (newest, newest + 1)
        outcomes.append(int(module.v.numpy()) - newest)
        newest, operation = int(module.v.numpy()), operation + 1
        if survived:
            break
    assert operation > 12
    # First without, then with the new checkpoint: it appears at one operation, as a whole.
    assert sorted(outcomes) == outcomes
    assert 0 < sum(outcomes) < len(outcomes)
    assert len(list(folder.iterdir())) == keep


def test_run_killed_ten_times_is_bit_equal_and_leaves_no_litter(tmp_path):
    """The tool of CONTRIBUTING in short: at any time, from the start of the process to the export of the policies."""
    command = [sys.executable, str(ROOT / "tools" / "chaos.py"), str(ROOT / "gin" / "ngdqn_cartpole_v1.gin")]
    command += ["--forked", "--kills", "10", "--interval", "50", "--runs", str(tmp_path)]
    # Without XLA, whose compiling each process would repeat, an update is slow: there are few.
    for binding in ("jit_compile=False", "warmup_steps=100", "updates_per_step=0.25"):
        command += ["--gin_bindings", f"OffPolicyLoop.{binding}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["kills"] == 10
    assert report["identical"]
    assert report["inside_a_save"] >= 3
    assert report["resumes_exact"] == report["resumes_seen"] >= 5
    assert report["most_intervals_done_again"] < 1.2  # an interval, and the step of the environments that ended it
    assert report["most_checkpoints"] <= 3
    assert not report["litter"]
