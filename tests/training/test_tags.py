"""What runs write to TensorBoard is what `ngrl.tags` declares: no tag outside the table, none that nobody writes."""

import functools
from typing import Any, NamedTuple

import numpy as np
import pytest
import small_acer
import small_on_policy
import tensorflow as tf
from small_runs import train
from tensorboard.backend.event_processing import event_accumulator

from ngrl import agents, loops, networks, optimizers, tags
from ngrl.curvature import GaussNewton
from ngrl.examples.descent import Descent, Trajectory
from ngrl.keras import NaturalGradientModel

PLAIN = "a plain optimizer"
pytestmark = pytest.mark.usefixtures("_live_policies")


def declared(*writers):
    return {name for name, tag in tags.TAGS.items() if set(writers) & set(tag.writers)}


def written(folder):
    events = event_accumulator.EventAccumulator(str(folder), {"tensors": 0}).Reload()
    return set(events.Tags()["tensors"])


def dqn_agent(time_step_spec, action_spec, seed, natural=True, kind=agents.DqnAgent):
    network = networks.QNetwork(time_step_spec.observation, int(action_spec.maximum) + 1, (), seed=seed)
    search = optimizers.BacktrackingLineSearch() if natural == "searching" else None
    optimizer = optimizers.NaturalGradient(1.0, damping=1.0, max_kl=0.01, line_search=search)
    return kind(time_step_spec, action_spec, network, optimizer if natural else tf.keras.optimizers.Adam(1e-3))


DQN_LOOP = functools.partial(loops.OffPolicyLoop, batch_size=16, warmup_steps=16, jit_compile=False)
ON_POLICY_LOOP = functools.partial(loops.OnPolicyLoop, batch_size=64, jit_compile=False)
ACER_LOOP = functools.partial(loops.TrajectoryReplayLoop, num_steps=8, warmup_steps=100, jit_compile=False)
NOT_MEASURED = {"ngrl/line_search_kl", "ngrl/reduction_ratio"}
RUNS = {
    "NGDQN": (dqn_agent, DQN_LOOP, declared(tags.DQN, tags.NATURAL) - NOT_MEASURED),
    "DQN": (functools.partial(dqn_agent, natural=False), DQN_LOOP, declared(tags.DQN)),
    **{
        kind: (
            functools.partial(small_on_policy.build_agent, kind=kind),
            ON_POLICY_LOOP,
            declared(tags.ON_POLICY, *([tags.NATURAL] if natural else [])) - absent,
        )
        for kind, natural, absent in (
            ("reinforce", False, set()),
            ("npg", True, {"ngrl/line_search_kl"}),
            ("trpo", True, set()),
            ("ppo", False, set()),
        )
    },
    "PQN": (
        lambda *specs, seed: dqn_agent(*specs, seed, natural=False, kind=agents.PqnAgent),
        ON_POLICY_LOOP,
        declared(tags.DQN),
    ),
    "ACER": (small_acer.build_agent, ACER_LOOP, declared(tags.ACER)),
}


@pytest.mark.parametrize("name", RUNS)
def test_run_writes_its_tags_and_no_others(name, tmp_path):
    agent, loop, expected = RUNS[name]
    # Episodes have 20 steps: 100 of them, so that there is a best mean.
    train(
        tmp_path, "ngrl/Identity-v0", agent, loop, num_episodes=104, num_envs=4, log_every=100, episodes=1, every=2000
    )
    assert written(tmp_path / "train") == expected | declared(tags.RUN)
    assert written(tmp_path / "eval") == declared(tags.EVALUATION, tags.INTERIM)


def test_run_on_images_writes_pictures_of_them(tmp_path):
    pytest.importorskip("minatar")
    loop = functools.partial(loops.OffPolicyLoop, warmup_steps=1000, jit_compile=False)
    agent = functools.partial(dqn_agent, natural=False)
    train(tmp_path, "MinAtar/Breakout-v1", agent, loop, num_env_steps=40, num_envs=1, log_every=20, episodes=0)
    events = event_accumulator.EventAccumulator(str(tmp_path / "train"), {"tensors": 0}).Reload()
    assert declared(tags.IMAGES) == {tags.OBSERVATION} <= set(events.Tags()["tensors"])
    pictures = events.Tensors(tags.OBSERVATION)
    assert [event.step for event in pictures] == [20, 40]
    width, height, png = tf.make_ndarray(pictures[0].tensor_proto)
    assert (int(width), int(height)) == (4 * 80, 80)  # four kinds of objects
    assert tf.io.decode_png(png).shape == (80, 320, 3)


def test_every_declared_tag_has_a_writer_that_is_tested_here():
    by_runs = set().union(*(expected for _, _, expected in RUNS.values()))
    assert by_runs | declared(tags.RUN, tags.EVALUATION, tags.INTERIM, tags.MLE, tags.IMAGES) == set(tags.TAGS)
    assert declared(tags.KERAS) <= by_runs | declared(tags.RUN)
    for tag in tags.TAGS.values():
        assert tag.writers
        assert bool(tag.label) == bool(tag.form)
    meanings = [tag.meaning for tag in tags.TAGS.values()]
    assert len(set(meanings)) == len(meanings)


@pytest.mark.parametrize("searches", [True, False])
def test_keras_logs_are_the_tags_without_their_prefix(searches):
    search = optimizers.BacktrackingLineSearch() if searches else None
    inputs = tf.keras.Input([2])
    model = NaturalGradientModel(inputs, tf.keras.layers.Dense(1)(inputs))
    model.compile(optimizers.NaturalGradient(0.5, damping=1.0, max_kl=0.1, line_search=search), "mse")
    history = model.fit(np.ones([4, 2], np.float32), np.ones([4, 1], np.float32), epochs=1, verbose=0).history
    absent = set() if searches else {"ngrl/line_search_kl", "ngrl/backtracks", "ngrl/reduction_ratio"}
    assert {f"ngrl/{name}" for name in history if name != "loss"} == declared(tags.KERAS) - absent


def test_example_writes_its_tags():
    measured = [np.zeros(2)] * 4
    trajectory = Trajectory(Descent.__new__(Descent), np.zeros([2, 2]), *measured)
    assert trajectory.scalars(0).keys() == declared(tags.MLE)


class SurpriseExtra(NamedTuple):
    """Wraps another extra."""

    inner: Any
    surprise: tf.Tensor

    @property
    def optimizer(self):
        return self.inner.optimizer

    def scalars(self, loss):
        return {**self.inner.scalars(loss), "mine/surprise": self.surprise}


class SurprisedAgent(agents.DqnAgent):
    """An agent from elsewhere, with a number of its own."""

    def zero_extra(self):
        return SurpriseExtra(super().zero_extra(), tf.zeros([]))

    def _train(self, experience, weights=None):
        info = super()._train(experience, weights)
        return info._replace(extra=SurpriseExtra(info.extra, info.extra.td_error + 1))


def test_agent_from_elsewhere_may_write_tags_of_its_own(tmp_path):
    agent = functools.partial(dqn_agent, kind=SurprisedAgent)
    train(tmp_path, "ngrl/Identity-v0", agent, DQN_LOOP, num_env_steps=200, num_envs=4, log_every=100, episodes=0)
    assert "mine/surprise" not in tags.TAGS
    assert {"mine/surprise", "ngrl/predicted_kl"} <= written(tmp_path / "train")


def test_predicted_divergence_and_measured_one_have_different_tags():
    """½ Δθᵀ F Δθ of a linear network under the squared error is what the outputs really move by."""
    weights = tf.Variable([[1.0], [2.0]])
    inputs = tf.constant([[1.0, 0.5], [0.0, 1.0], [2.0, 1.0]])
    optimizer = optimizers.NaturalGradient(0.5, damping=0.1)
    optimizer.build([weights])
    operator = GaussNewton(lambda x: x @ weights, [weights], inputs)
    before = operator.outputs
    stats = optimizer.apply_output_gradient(before / 3, operator)
    moved = 0.5 * np.mean(np.square(inputs @ weights - before))
    assert float(stats.scalars()["predicted_kl"]) == pytest.approx(moved, rel=1e-4)
    assert "kl" not in stats.scalars()
