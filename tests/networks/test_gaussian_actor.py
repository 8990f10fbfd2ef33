"""GaussianActor: a policy whose parameters are μ and σ themselves."""

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts
from tf_agents.trajectories import trajectory

from ngrl import agents, networks, optimizers, solvers

OBSERVATION = tensor_spec.TensorSpec([1], tf.float32)
ACTION = tensor_spec.BoundedTensorSpec([1], tf.float32, -1e9, 1e9)


def make(**options):
    return networks.GaussianActor(OBSERVATION, ACTION, **{"mean": 10.0, "std": 14.0, **options})


def test_distribution_is_the_same_for_every_observation_and_has_two_parameters():
    actor = make()
    actor.create_variables()
    distribution, _ = actor(tf.constant([[0.0], [1e6], [-3.0]]))
    np.testing.assert_allclose(distribution.mean(), np.full((3, 1), 10.0))
    np.testing.assert_allclose(distribution.stddev(), np.full((3, 1), 14.0), rtol=1e-6)
    assert [float(variable[0]) for variable in actor.trainable_weights] == [10.0, 14.0]


def episodes(actions):
    """One-step episodes [B, 2] that pay −a²."""
    column = np.zeros((len(actions), 2), np.int32)
    actions = np.stack([actions, np.zeros_like(actions)], axis=1)[..., np.newaxis].astype(np.float32)
    return trajectory.Trajectory(
        step_type=tf.constant(column + [0, 2]),
        observation=tf.zeros([*column.shape, 1]),
        action=tf.constant(actions),
        policy_info={"drawn_action": tf.constant(actions)},
        next_step_type=tf.constant(column + [2, 0]),
        reward=tf.constant(-(actions[..., 0] ** 2)),
        discount=tf.zeros(column.shape),
    )


def test_natural_step_is_the_plain_one_times_the_analytic_inverse_fisher():
    """F⁻¹ = diag(σ², σ²/2), by which the paper explains its Fig. 4."""
    changes = []
    for kind, optimizer in (
        (agents.ReinforceAgent, tf.keras.optimizers.SGD(0.075)),
        (agents.NpgAgent, optimizers.NaturalGradient(0.075, solvers.Cholesky(), damping=0.0)),
    ):
        agent = kind(ts.time_step_spec(OBSERVATION), ACTION, make(), optimizer)
        agent.train(episodes(np.random.default_rng(0).normal(10, 14, 64)))
        changes.append([float(agent.actor_network.mean[0]) - 10, float(agent.actor_network.std[0]) - 14])
    plain, natural = np.array(changes)
    assert (plain < 0).all()
    np.testing.assert_allclose(natural, plain * [14**2, 14**2 / 2], rtol=1e-2)  # 14 and 10 are rounded to 1e-6


def test_std_stays_above_its_bound_and_is_set_back_onto_it():
    actor = make(min_log_std=-2.0)
    actor.std.assign([-1.0])
    np.testing.assert_allclose(actor.distribution_parameters(tf.zeros([1, 1])), [[10.0, -2.0]], rtol=1e-6)
    actor.project()
    np.testing.assert_allclose(actor.std, [np.exp(-2.0)], rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"std": 0.0}, r"^std must be positive and finite, got 0\.0"),
        ({"std": -1.0}, r"^std must be positive and finite, got -1\.0"),
        ({"mean": float("nan")}, "^mean must be finite, got nan"),
        ({"std": 0.001}, r"not below min_log_std \(-5\.0\)"),
    ],
)
def test_arguments_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_discrete_actions_are_refused():
    with pytest.raises(ValueError, match="discrete"):
        networks.GaussianActor(OBSERVATION, tensor_spec.BoundedTensorSpec([], tf.int64, 0, 1))
