"""Evaluations amid training: they change nothing of it, keep the best policy, and are made up for after a stop."""

import functools
import json
import shutil
import signal
import time

import numpy as np
import pytest
import small_on_policy
from run_contents import rows, variables
from small_runs import train
from tensorboard.backend.event_processing import event_accumulator

from ngrl import agents, environments, loops, networks, optimizers
from ngrl.seeding import Stream
from ngrl.signals import Interrupted
from ngrl.training import final_evaluation, interim_evaluation
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


@pytest.mark.usefixtures("_no_export")
def test_evaluation_that_a_signal_broke_off_is_made_up_for(tmp_path, monkeypatch):
    run(tmp_path / "whole", every=150)
    play = interim_evaluation.evaluate

    def broken_off(actor, *args, **options):
        def act(step):
            signal.raise_signal(signal.SIGTERM)
            return actor(step)

        return play(act, *args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(interim_evaluation, "evaluate", broken_off)
        with pytest.raises(Interrupted):
            run(tmp_path / "parts", every=150)
    assert not (tmp_path / "parts" / "eval").exists()
    assert variables(tmp_path / "parts")[1]["statistics"]["env_steps"] < 160  # a checkpoint where it stopped
    run(tmp_path / "parts", every=150)
    whole, parts = points(tmp_path / "whole"), points(tmp_path / "parts")
    assert len(whole) == 4
    assert list(parts.values())[1:] == list(whole.values())[1:]  # the first one was due a step later


def test_resumed_run_keeps_the_best_of_before(tmp_path):
    best = run(tmp_path / "run", 600, every=100)["best_evaluation"]
    described = tmp_path / "run" / "policy_best" / "ngrl_policy.json"
    content = json.loads(described.read_text())
    content["evaluation"]["mean"] = 1e6  # as if it had been much better
    described.write_text(json.dumps(content))
    assert run(tmp_path / "run", 900, every=100)["best_evaluation"] == {**best, "mean": 1e6}
    assert len(points(tmp_path / "run")) == 9
    shutil.rmtree(tmp_path / "run" / "policy_best")
    assert run(tmp_path / "run", 1000, every=100)["best_evaluation"]["env_steps"] >= 1000


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
