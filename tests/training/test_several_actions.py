"""Whole runs where an action is several choices at once: MultiDiscrete and MultiBinary."""

import contextlib
import functools
import re
import shutil
from pathlib import Path

import matching_environment
import numpy as np
import pytest
import small_on_policy
import tensorflow as tf
from matching_environment import ACTIONS, ENV_ID
from small_runs import train

from ngrl import agents, environments, loops, networks, optimizers, solvers, training
from ngrl.training.evaluation import describe_specs

ROOT = Path(__file__).parents[2]
STEPS = {"reinforce": 12_000, "npg": 12_000, "ppo": 4_000}


@pytest.mark.usefixtures("_live_policies")
@pytest.mark.parametrize("kind", small_on_policy.AGENTS)
def test_agent_learns_each_choice(tmp_path, kind):
    """Of two elements chance gets 1/3 and 1/2, 8.3 an episode of ten steps; the best policy gets both, 20."""
    build = functools.partial(small_on_policy.build_agent, kind=kind)
    loop = functools.partial(loops.OnPolicyLoop, batch_size=128)
    steps = STEPS.get(kind, 6_000)
    final = train(tmp_path, ENV_ID, build, loop, num_env_steps=steps, num_envs=4, episodes=10)
    assert final["skipped_updates"] == 0
    assert final["evaluation"]["mean"] > 18


def compatible(time_step_spec, action_spec, seed):
    actor = networks.ActorNetwork(time_step_spec.observation, action_spec, (), seed=seed)
    optimizer = optimizers.NaturalGradient(0.5, max_kl=0.1)
    return agents.NacAgent(time_step_spec, action_spec, actor, optimizer, seed=seed)


def kronecker_factored(time_step_spec, action_spec, seed):
    actor = networks.ActorNetwork(time_step_spec.observation, action_spec, (8,), seed=seed)
    critic = agents.Critic(networks.ValueNetwork(time_step_spec.observation, (8,)), tf.keras.optimizers.Adam(0.01))
    optimizer = optimizers.NaturalGradient(0.5, solver=solvers.Kfac(), damping=0.01, max_kl=0.03)
    return agents.AcktrAgent(time_step_spec, action_spec, actor, optimizer, critic, seed=seed)


@pytest.mark.usefixtures("_live_policies")
@pytest.mark.parametrize("build", [compatible, kronecker_factored])
def test_agents_with_a_curvature_of_their_own_learn_them_too(tmp_path, build):
    loop = functools.partial(loops.OnPolicyLoop, batch_size=128)
    final = train(tmp_path, ENV_ID, build, loop, num_env_steps=12_000, num_envs=4, episodes=10)
    assert final["skipped_updates"] == 0
    assert final["evaluation"]["mean"] > 18


@pytest.mark.parametrize("actions", ACTIONS)
@pytest.mark.parametrize("on_host", [False, True])
def test_run_is_exported_and_played_with_elsewhere(tmp_path, actions, on_host):
    """The environment asserts that its space contains each action."""
    build = functools.partial(small_on_policy.build_agent, kind="trpo")
    loop = functools.partial(loops.OnPolicyLoop, batch_size=128, act_on_host=on_host, jit_compile=False)
    kwargs = {"actions": actions, "as_floats": on_host}
    final = train(tmp_path, ENV_ID, build, loop, num_env_steps=1_500, num_envs=4, episodes=10, kwargs=kwargs)
    policy, _ = training.load_policy(tmp_path / "policy")
    played = training.evaluate(policy, environments.Environment(ENV_ID, kwargs=kwargs), 10)
    assert played.summary()["mean"] == final["evaluation"]["mean"]
    chance = sum(1 / count for count in np.ravel(getattr(ACTIONS[actions], "nvec", [2, 2, 2])))
    assert final["evaluation"]["mean"] > 10 * chance


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dqn_cartpole_v1", "DqnAgent needs one discrete action counted from 0, "),
        ("acer_cartpole_v1", "ACER takes one discrete action or a vector of real numbers, "),
    ],
)
def test_agents_of_one_action_refuse_several_in_a_line(command, tmp_path, name, message):
    (tmp_path / "matching.gin").write_text(
        f"import matching_environment\ninclude 'gin/{name}.gin'\nEnvironment.env_id = '{ENV_ID}'\n"
    )
    (tmp_path / "gin").symlink_to(ROOT / "gin")
    shutil.copy(matching_environment.__file__, tmp_path)
    options = [
        "--gin_file=matching.gin",
        "--allow_gin_import=matching_environment",
        f"--root_dir={tmp_path / 'run'}",
        "--noprogress",
    ]
    result = command("launch", *options, cwd=tmp_path)
    assert result.returncode == 2
    found = r"the environment has actions of shape \(2,\) and dtype int64, 0 to 2, 0 to 1[^\n]*\n"
    assert re.fullmatch(rf"ngrl.launch: \w+: {message}{found}", result.stderr)


def test_policy_is_not_played_where_other_numbers_of_choices_are():
    with contextlib.closing(environments.load(ENV_ID)) as here:
        specs = describe_specs(here)
    specs["action"]["last"] = [1, 2]
    message = r"the policy was built for actions .*\[1, 2\].*, test/Matching-v0 has .*\[2, 1\]"
    with pytest.raises(ValueError, match=message):
        training.evaluate(lambda step: np.zeros((1, 2)), environments.Environment(ENV_ID), 1, specs=specs)
