"""What an agent asks of an update, and what all of its parts share."""

import inspect
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from on_policy_reference import BOX, OBSERVATION, SPEC, experience, make_actor, make_critic

from ngrl import agents, networks, optimizers, solvers
from ngrl.networks import encoding

ROOT = Path(__file__).parents[2]


class Nothing(agents.PolicyUpdate):
    """Changes nothing, and keeps what it was given."""

    def __call__(self, policy, batch):
        self.given = batch
        zero = tf.zeros([])
        return zero, optimizers.GradientStats(zero, zero, zero)


def make(actor, critic=None):
    update = Nothing(tf.keras.optimizers.SGD(0.1))
    return agents.OnPolicyAgent(SPEC, BOX, actor, update, critic)


@pytest.mark.parametrize("std", ["state_independent", "state_dependent"])
def test_an_update_encodes_each_observation_once(monkeypatch, std):
    """Policy, critic and normaliser, before the update, in it and after it, share what was encoded."""
    normaliser = networks.ObservationNormaliser(OBSERVATION)
    actor = networks.ActorNetwork(OBSERVATION, BOX, (4,), std=std, normaliser=normaliser)
    agent = make(actor, make_critic(normaliser=normaliser))
    seen, encode = [], encoding.encode_observation
    monkeypatch.setattr(encoding, "encode_observation", lambda *given: seen.append(given) or encode(*given))
    normalised = []
    call = networks.ObservationNormaliser.__call__
    monkeypatch.setattr(
        networks.ObservationNormaliser, "__call__", lambda self, x: normalised.append(x) or call(self, x)
    )
    batch = experience("gaussian")
    agent.train(batch)
    assert len(seen) == len(normalised) == 1
    used = batch.step_type.numpy()[:, :-1] != 2
    rows = batch.observation.numpy()[:, :-1][used]
    np.testing.assert_allclose(normaliser.moments.mean, rows.mean(axis=0), rtol=1e-5)


def test_critic_with_a_normaliser_of_its_own_encodes_for_itself():
    one, other = (networks.ObservationNormaliser(OBSERVATION) for _ in range(2))
    other.update(tf.constant([[5.0, 5.0, 5.0], [7.0, 7.0, 7.0]]), tf.ones(2))
    actor = networks.ActorNetwork(OBSERVATION, BOX, (4,), normaliser=one)
    agent, batch = make(actor, make_critic(normaliser=other)), experience("gaussian")
    values = agent.critic.network(tf.reshape(batch.observation, [-1, 3]))[0]
    agent.train(batch)
    found = tf.transpose(agent.update.given.steps.values)
    np.testing.assert_allclose(found, tf.reshape(values, found.shape), rtol=1e-4, atol=1e-6)


def test_kfac_that_lacks_what_it_needs_is_refused_before_the_first_update():
    empirical = optimizers.NaturalGradient(solver=solvers.Kfac(kind="empirical"))
    agents.NaturalUpdate(empirical)
    with pytest.raises(ValueError, match="set fisher_every=1"):
        agents.NaturalUpdate(empirical, fisher_every=2)
    with pytest.raises(ValueError, match="take momentum=0"):
        optimizers.NaturalGradient(solver=solvers.Kfac(quadratic_model="factored"), momentum=0.9)


def test_old_way_of_making_an_agent_is_answered_with_the_new_one():
    with pytest.raises(ValueError, match=r"OnPolicyAgent: update must be a PolicyUpdate such as NaturalUpdate\(optim"):
        agents.OnPolicyAgent(SPEC, BOX, make_actor("gaussian"), tf.keras.optimizers.SGD())
    with pytest.raises(ValueError, match="Nothing: optimizer must be a "):
        Nothing(0.1)
    optimizer = optimizers.NaturalGradient()
    with pytest.raises(ValueError, match="CompatibleUpdate: entropy_weight must be 0"):
        agents.NacAgent(SPEC, BOX, make_actor("gaussian", ()), optimizer, entropy_weight=0.1)


def test_kinds_of_optimizers_are_told_apart_in_one_place():
    done = subprocess.run(
        ["grep", "-rn", r"isinstance(.*NaturalGradient", ROOT / "ngrl" / "agents"], capture_output=True, text=True
    )
    assert len(done.stdout.splitlines()) == 1


def test_agents_take_15_arguments_at_most():
    for name in agents.__all__:
        target = getattr(agents, name)
        if callable(target):
            assert len(inspect.signature(target).parameters) <= 15, name
