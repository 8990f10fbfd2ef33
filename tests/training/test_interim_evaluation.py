"""Evaluations amid training: they change nothing of it, keep the best policy, and are made up for after a stop."""

import functools
import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import small_on_policy
from run_contents import rows, variables
from small_runs import train
from tensorboard.backend.event_processing import event_accumulator

from ngrl import agents, environments, loops, networks, optimizers
from ngrl.seeding import Stream
from ngrl.signals import Interrupted
from ngrl.training import evaluation, export, final_evaluation, interim_evaluation
from ngrl.training.evaluation import evaluate
from ngrl.training.export import load_policy
from ngrl.training.progress import Progress

CARTPOLE = environments.Environment("CartPole-v1")


def dqn(time_step_spec, action_spec, seed):
    network = networks.QNetwork(time_step_spec.observation, int(action_spec.maximum) + 1, (16,), seed=seed)
    optimizer = optimizers.NaturalGradient(1.0, damping=1.0, max_kl=0.01)
    return agents.DqnAgent(time_step_spec, action_spec, network, optimizer, gamma=0.95)


_OFF_POLICY = functools.partial(loops.OffPolicyLoop, batch_size=16, replay_capacity=300, warmup_steps=64)
_ON_POLICY = functools.partial(loops.OnPolicyLoop, batch_size=64)
KINDS = {
    "dqn": (dqn, functools.partial(_OFF_POLICY, updates_per_call=4, jit_compile=False)),
    "npg": (
        functools.partial(small_on_policy.build_agent, kind="npg", normalise=True),
        functools.partial(_ON_POLICY, jit_compile=False),
    ),
}


def run(folder, steps=600, kind="dqn", **options):
    agent, loop = KINDS[kind]
    defaults = {"num_envs": 4, "log_every": 100, "checkpoint_every": 200, "episodes": 0, "interim_episodes": 3}
    return train(folder, "CartPole-v1", agent, loop, num_env_steps=steps, **{**defaults, **options})


@pytest.fixture(name="_no_export")
def _no_exports(monkeypatch):
    """What a run exports is of no interest."""
    monkeypatch.setattr(interim_evaluation, "export_policy", lambda *args: None)
    monkeypatch.setattr(final_evaluation, "export_policy", lambda *args: None)


def points(folder, tag="eval/interim_mean_reward"):
    events = event_accumulator.EventAccumulator(str(folder / "eval"))
    events.Reload()
    return {event.step: float(event.tensor_proto.float_val[0]) for event in events.Tensors(tag)}


@pytest.mark.parametrize("kind", KINDS)
def test_training_is_the_same_with_and_without(tmp_path, kind):
    with_them = run(tmp_path / "with", kind=kind, every=150)
    without = run(tmp_path / "without", kind=kind)
    assert rows(tmp_path / "with") == rows(tmp_path / "without")
    (values, state), (values_without, state_without) = (variables(tmp_path / name) for name in ("with", "without"))
    assert state == state_without
    for name, value in values.items():
        np.testing.assert_array_equal(value, values_without[name], err_msg=name)
    assert "best_evaluation" in with_them
    assert "best_evaluation" not in without
    assert not (tmp_path / "without" / "policy_best").exists()
    assert all(step // 150 > (step - 64) // 150 for step in points(tmp_path / "with"))
    assert len(points(tmp_path / "with")) == 4


def test_best_policy_is_kept_and_gives_what_it_is_said_to(tmp_path):
    best = run(tmp_path / "run", every=100)["best_evaluation"]
    curve = points(tmp_path / "run")
    assert best["mean"] == pytest.approx(max(curve.values()))
    assert best["env_steps"] == next(step for step, mean in curve.items() if mean == max(curve.values()))
    assert len(set(curve.values())) > 1
    assert json.loads((tmp_path / "run" / "run.json").read_text())["final"]["best_evaluation"] == best
    policy, description = load_policy(tmp_path / "run" / "policy_best")
    assert description["evaluation"] == best
    assert description["specs"] == load_policy(tmp_path / "run" / "policy")[1]["specs"]
    played = evaluate(policy, CARTPOLE, 3, seed=0, stream=Stream.INTERIM_EPISODES)
    assert played.summary()["mean"] == best["mean"]
    assert evaluate(policy, CARTPOLE, 3, seed=0).returns != played.returns  # the final evaluation has other episodes


@pytest.mark.parametrize("every", [150, 600])
def test_evaluation_that_a_signal_broke_off_is_made_up_for(tmp_path, monkeypatch, every):
    """With the same policy: the first of several, and one that is due with the run's last step."""
    best = run(tmp_path / "whole", every=every)["best_evaluation"]
    play = interim_evaluation.evaluate

    def broken_off(actor, *args, **options):
        def act(step):
            signal.raise_signal(signal.SIGTERM)
            return actor(step)

        return play(act, *args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(interim_evaluation, "evaluate", broken_off)
        with pytest.raises(Interrupted):
            run(tmp_path / "parts", every=every)
    assert not (tmp_path / "parts" / "eval").exists()
    assert variables(tmp_path / "parts")[1]["statistics"]["env_steps"] < every + 10  # a checkpoint where it stopped
    assert run(tmp_path / "parts", every=every)["best_evaluation"] == best
    assert points(tmp_path / "parts") == points(tmp_path / "whole")
    assert len(points(tmp_path / "whole")) == 600 // every


def test_resumed_run_keeps_the_best_of_before(tmp_path):
    best = run(tmp_path / "run", 300, every=150)["best_evaluation"]
    described = tmp_path / "run" / "policy_best" / "ngrl_policy.json"
    content = json.loads(described.read_text())
    content["evaluation"]["mean"] = 1e6  # as if it had been much better
    described.write_text(json.dumps(content))
    described.parent.rename(tmp_path / "run" / "policy_best.replaced")  # as a kill may leave it
    assert run(tmp_path / "run", 450, every=150)["best_evaluation"] == {**best, "mean": 1e6}
    assert len(points(tmp_path / "run")) == 3
    shutil.rmtree(tmp_path / "run" / "policy_best")
    assert run(tmp_path / "run", 600, every=150)["best_evaluation"]["env_steps"] >= 600


@pytest.mark.usefixtures("_no_export")
def test_evaluations_begin_where_they_are_asked_for(tmp_path):
    run(tmp_path / "run", 250)
    run(tmp_path / "run", 420, every=100)
    assert [step // 100 for step in points(tmp_path / "run")] == [3, 4]


def test_mean_that_is_not_finite_is_never_the_best(tmp_path, monkeypatch):
    means = [np.nan, 5.0, np.nan, 4.0]
    scripted = lambda *args, **options: evaluation.EvaluationResult([means.pop(0)], [1])  # noqa: E731
    monkeypatch.setattr(interim_evaluation, "evaluate", scripted)
    assert run(tmp_path / "run", 600, every=150)["best_evaluation"]["mean"] == 5
    assert not means


@pytest.mark.usefixtures("_no_export")
def test_global_generators_are_left_as_they_were(tmp_path, monkeypatch):
    """An environment may draw from them, in training too."""

    def drawing(*args, **options):
        return evaluation.EvaluationResult([random.random() + np.random.random()], [1])  # noqa: NPY002

    monkeypatch.setattr(interim_evaluation, "evaluate", drawing)
    drawn = []
    for every in (None, 100):
        run(tmp_path / str(every), 250, every=every)
        drawn.append((random.random(), np.random.random()))  # noqa: NPY002
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("killed_at", ["policy.writing", "policy"])
def test_policy_survives_a_kill_while_it_is_replaced(tmp_path, monkeypatch, killed_at):
    agent, _ = small_on_policy.make("npg", "CartPole-v1")
    folder = tmp_path / "policy"
    export.export_policy(agent.policy, folder, {"number": 1})

    def rename(path, target):
        if path.name == killed_at:
            raise KeyboardInterrupt
        os.rename(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", rename)
        with pytest.raises(KeyboardInterrupt):
            export.export_policy(agent.policy, folder, {"number": 2})
    export.restore_policy(folder)
    assert load_policy(folder)[1] == {"number": 1}
    export.export_policy(agent.policy, folder, {"number": 3})
    assert load_policy(folder)[1] == {"number": 3}
    assert [path.name for path in tmp_path.iterdir()] == ["policy"]


@pytest.mark.usefixtures("_no_export")
def test_evaluation_takes_no_time_of_training(tmp_path, monkeypatch):
    notes = []
    monkeypatch.setattr(Progress, "note", lambda self, text: notes.append(text))
    play, clock, late = interim_evaluation.evaluate, time.monotonic, []

    def slow(*args, **options):
        late.append(1000.0)
        return play(*args, **options)

    monkeypatch.setattr(interim_evaluation, "evaluate", slow)
    monkeypatch.setattr("ngrl.training.experiment.time.monotonic", lambda: clock() + sum(late))
    result = run(tmp_path / "run", 300, every=100)
    assert len(late) == 3
    assert result["wall_s"] < 1000
    assert notes[0].startswith("greedy policy at 102 steps: ")
    assert notes[0].endswith(", the best so far")


@pytest.mark.parametrize(("setting", "value"), [("every", 0), ("interim_episodes", 0), ("every", 0.5)])
def test_settings_out_of_range_are_refused(tmp_path, setting, value):
    with pytest.raises(ValueError, match=f"{setting} must be a positive integer, got {value}"):
        run(tmp_path / "run", **{setting: value})
