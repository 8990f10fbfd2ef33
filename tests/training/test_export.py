import contextlib
import json
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
import tensorflow as tf
from gymnasium.envs.registration import EnvSpec
from PIL import Image, ImageSequence
from tf_agents.policies import fixed_policy
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts
from tutorial import run_block

from ngrl import agents, networks, training
from ngrl.environments import Backend, Environment
from ngrl.environments.spaces import action_converter
from ngrl.training import evaluation, final_evaluation
from ngrl.training.export import as_actor

CARTPOLE = Environment("CartPole-v1")
EIGHT = tensor_spec.TensorSpec([8], tf.float32)
CLIFF = Environment("CliffWalking-v1")
_PLAIN_TENSORFLOW = """
import sys
import numpy as np
import tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
observations = np.load(sys.argv[2])
count = len(observations)
step = {"discount": tf.ones(count), "reward": tf.zeros(count), "step_type": tf.ones(count, tf.int32)}
action = model.signatures["action"]
names = action.structured_input_signature[1]
step["observation"] = tf.constant(observations)
actions = action(**{name: step[name.split("_", 2)[2]] for name in names})["action"].numpy()
loaded = [name for name in sys.modules if name.split(".")[0] in ("ngrl", "tf_agents", "tensorflow_probability")]
assert not loaded, loaded
np.save(sys.argv[3], actions)
"""


def make_agent(observation=EIGHT):
    action = tensor_spec.BoundedTensorSpec([], tf.int64, 0, 3)
    network = networks.QNetwork(observation, 4, (32, 16), seed=7)
    optimizer = tf.keras.optimizers.Adam()
    return agents.DqnAgent(ts.time_step_spec(observation), action, network, optimizer)


def time_steps(observations):
    count = len(observations)
    return ts.TimeStep(np.ones(count, np.int32), np.zeros(count, np.float32), np.ones(count, np.float32), observations)


def test_exported_policy_acts_alike_in_a_process_with_tensorflow_alone(tmp_path):
    agent = make_agent()
    observations = np.random.default_rng(0).normal(size=(1000, 8)).astype(np.float32)
    live = as_actor(agent.policy)(time_steps(observations))
    assert len(set(live.tolist())) == 4
    training.export_policy(agent.policy, tmp_path / "policy", {"env_id": "LunarLander-v3"})
    np.save(tmp_path / "observations.npy", observations)
    command = [sys.executable, "-c", _PLAIN_TENSORFLOW]
    arguments = [str(tmp_path / name) for name in ("policy", "observations.npy", "actions.npy")]
    result = subprocess.run([*command, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "actions.npy"), live)


def test_loaded_policy_acts_alike_and_remembers_its_environment(tmp_path):
    agent = make_agent()
    observations = np.random.default_rng(1).normal(size=(50, 8)).astype(np.float32)
    training.export_policy(agent.policy, tmp_path / "policy", {"env_id": "LunarLander-v3"})
    actor, description = training.load_policy(tmp_path / "policy")
    assert description == {"env_id": "LunarLander-v3"}
    np.testing.assert_array_equal(actor(time_steps(observations)), as_actor(agent.policy)(time_steps(observations)))


def test_policy_of_a_dict_with_any_keys_is_exported(tmp_path):
    keys = ["X", "a b", "a_b", "plain", "x", "é", "/"]
    agent = make_agent({key: tensor_spec.TensorSpec([2], tf.float32) for key in keys})
    rng = np.random.default_rng(2)
    step = time_steps(np.zeros([50]))._replace(observation={key: rng.normal(size=[50, 2]).astype("f") for key in keys})
    live = as_actor(agent.policy)(step)
    assert len(set(live.tolist())) > 1
    training.export_policy(agent.policy, tmp_path / "policy", {})
    np.testing.assert_array_equal(training.load_policy(tmp_path / "policy")[0](step), live)
    signature = tf.saved_model.load(str(tmp_path / "policy")).signatures["action"]
    names = [name for name in signature.structured_input_signature[1] if "observation" in name]
    assert len(names) == len(keys)
    assert "arg_0_observation_plain" in names


def test_a_policy_of_ngrl_0_1_names_its_backend_as_it_is_called_now(tmp_path):
    agent = make_agent()
    training.export_policy(agent.policy, tmp_path / "policy", {"env_id": "a", "env_backend": "gymnasium"})
    assert training.load_policy(tmp_path / "policy")[1] == {"env_id": "a", "env_backend": "sync"}


def test_what_is_no_policy_is_refused(tmp_path):
    with pytest.raises(training.PolicyError, match="no SavedModel"):
        training.load_policy(tmp_path)
    tf.saved_model.save(tf.Module(), str(tmp_path))
    with pytest.raises(training.PolicyError, match="no TF-Agents policy"):
        training.load_policy(tmp_path)


def test_policy_in_a_run_is_named_and_damaged_weights_are_told_in_a_line(tmp_path):
    training.export_policy(make_agent().policy, tmp_path / "policy", {"env_id": "LunarLander-v3"})
    with pytest.raises(training.PolicyError, match=r"holds no SavedModel; is .*/policy meant\?$"):
        training.load_policy(tmp_path)
    (data,) = (tmp_path / "policy" / "variables").glob("variables.data*")
    data.write_bytes(data.read_bytes()[:-100])
    with pytest.raises(training.PolicyError, match=r"/policy is no TF-Agents policy, or damaged: ") as caught:
        training.load_policy(tmp_path / "policy")
    assert "\n" not in str(caught.value)


def test_export_takes_the_place_of_an_older_one(tmp_path):
    for number in range(2):
        training.export_policy(make_agent().policy, tmp_path / "policy", {"env_id": "a", "seed": number})
    assert training.load_policy(tmp_path / "policy")[1]["seed"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["policy"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "can't read .*ngrl_policy.json"),
        ("[]", "it isn't what an export writes"),
        ('{"env_kwargs": 3}', "it isn't what an export writes"),
        ('{"specs": {"observation": {}}}', "it isn't what an export writes"),
        ('{"specs": null}', "it isn't what an export writes"),
    ],
)
def test_damaged_description_is_told_in_a_line(tmp_path, content, message):
    (tmp_path / "saved_model.pb").touch()
    (tmp_path / "ngrl_policy.json").write_text(content)
    with pytest.raises(training.PolicyError, match=message) as caught:
        training.load_policy(tmp_path)
    assert "\n" not in str(caught.value)


def test_evaluation_counts_each_environments_share_and_repeats():
    def random_actor(step):
        return (np.abs(step.observation[:, 0] * 1e4).astype(np.int64)) % 2

    first = training.evaluate(random_actor, CARTPOLE, episodes=7, seed=1, num_envs=3)
    again = training.evaluate(random_actor, CARTPOLE, episodes=7, seed=1, num_envs=3)
    other = training.evaluate(random_actor, CARTPOLE, episodes=7, seed=2, num_envs=3)
    assert first == again != other
    assert len(first.returns) == 7
    assert first.returns == [float(length) for length in first.lengths]
    summary = first.summary()
    assert summary["mean"] == pytest.approx(np.mean(first.returns))
    assert (summary["min"], summary["max"]) == (min(first.returns), max(first.returns))


UP, RIGHT, DOWN = 0, 1, 2


def cliff_of(max_episode_steps):
    return Environment("CliffWalking-v1", kwargs={"max_episode_steps": max_episode_steps})


def into_the_wall(step):
    """CliffWalking's start is at the left border; each step costs 1, and no episode ends."""
    return np.full(len(step.step_type), UP)


class AlongTheCliff:
    """The shortest way: up, eleven steps to the right, down, which ends the episode."""

    def __init__(self):
        self.steps = 0

    def __call__(self, step):
        self.steps = 0 if step.step_type[0] == ts.StepType.FIRST else self.steps + 1
        return np.full(len(step.step_type), ([UP] + 11 * [RIGHT] + [DOWN])[min(self.steps, 12)])


@pytest.mark.parametrize("backend", ["sync", "async"])
def test_episodes_that_never_end_are_broken_off_and_counted(backend):
    cliff = Environment("CliffWalking-v1", backend=Backend.named(backend))
    result = training.evaluate(into_the_wall, cliff, 5, num_envs=2, max_episode_steps=20)
    assert result.returns == [-20.0] * 5
    assert result.lengths == [20] * 5
    summary = result.summary()
    assert (summary["broken_off"], summary["max_episode_steps"], summary["episodes"]) == (5, 20, 5)


def test_environments_without_a_time_limit_have_a_bound_by_default(monkeypatch):
    monkeypatch.setattr(evaluation, "UNLIMITED_STEPS", 30)
    result = training.evaluate(into_the_wall, CLIFF, 2)
    assert (result.lengths, result.broken_off, result.max_episode_steps) == ([30, 30], 2, 30)
    limited = training.evaluate(into_the_wall, cliff_of(40), 2)
    assert (limited.lengths, limited.broken_off, limited.max_episode_steps) == ([40, 40], 0, None)


def test_episode_that_ends_with_its_last_step_is_not_broken_off():
    for bound, broken_off in ((14, 0), (13, 0), (12, 1)):
        result = training.evaluate(AlongTheCliff(), CLIFF, 1, max_episode_steps=bound)
        assert (result.returns, result.broken_off) == ([-min(bound, 13)], broken_off)


def test_bound_never_lengthens_an_environments_own_limit():
    result = training.evaluate(into_the_wall, cliff_of(9), 1, max_episode_steps=50)
    assert (result.lengths, result.broken_off, result.max_episode_steps) == ([9], 0, None)
    result = training.evaluate(into_the_wall, cliff_of(50), 1, max_episode_steps=9)
    assert (result.lengths, result.broken_off, result.max_episode_steps) == ([9], 1, 9)
    result = training.evaluate(into_the_wall, cliff_of(9), 1, max_episode_steps=9)
    assert (result.lengths, result.broken_off, result.max_episode_steps) == ([9], 0, None)
    with pytest.raises(ValueError, match="max_episode_steps must be a positive integer, got 0"):
        training.evaluate(into_the_wall, CLIFF, 1, max_episode_steps=0)


def test_video_of_an_episode_that_never_ends_is_broken_off(tmp_path, monkeypatch):
    path = tmp_path / "movies" / "wall.gif"
    assert evaluation.record_video(into_the_wall, CLIFF, path, max_episode_steps=6) == 6
    with Image.open(path) as video:  # every other step for 40 ms; equal frames are joined
        assert sum(frame.info["duration"] for frame in ImageSequence.Iterator(video)) == 3 * 40
    assert [entry.name for entry in path.parent.iterdir()] == ["wall.gif"]
    monkeypatch.setattr(evaluation, "UNLIMITED_VIDEO_STEPS", 14)
    assert evaluation.record_video(into_the_wall, CLIFF, path) == 14
    assert evaluation.record_video(AlongTheCliff(), CLIFF, path) is None


class Still(gymnasium.Env):
    """Stays where it is, whatever the actions."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (3,), np.float32)

    def __init__(self, action_space):
        self.action_space = action_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(3, np.float32), {}

    def step(self, action):
        assert self.action_space.contains(action)
        return np.zeros(3, np.float32), 0.0, False, False, {}


@pytest.mark.parametrize(
    "space",
    [
        gymnasium.spaces.Discrete(4, start=5),
        gymnasium.spaces.MultiDiscrete([[2, 3]], start=[[-1, 5]], dtype=np.int8),
        gymnasium.spaces.MultiBinary(3),
        gymnasium.spaces.Box(np.array([[-0.1, 0.1]]), np.array([[0.7, np.inf]]), dtype=np.float64),
        gymnasium.spaces.Box(-0.1, 0.1, (2, 2), np.float16),
    ],
    ids=str,
)
def test_tutorials_code_acts_as_the_environment_wants_it(tmp_path, monkeypatch, space):
    """Actions of the code that docs/tutorial.md shows are those that ngrl's own environments hand on."""
    monkeypatch.setitem(gymnasium.registry, "test/Still-v0", EnvSpec("test/Still-v0", lambda: Still(space)))
    environment = Environment("test/Still-v0")
    with contextlib.closing(environment.load()) as played:
        specs = [tensor_spec.from_spec(spec()) for spec in (played.time_step_spec, played.action_spec)]
        largest = np.broadcast_to(specs[1].maximum, specs[1].shape)
        policy = fixed_policy.FixedPolicy(largest.astype(specs[1].dtype.as_numpy_dtype), *specs)
        described = final_evaluation.FinalEvaluation(training.Evaluation(), environment, 0).describe(played)
        training.export_policy(policy, tmp_path / "policy", json.loads(json.dumps(described)))
    action = run_block("acting.py", tmp_path)["load"](tmp_path / "policy")(np.zeros(3), True)
    assert space.contains(action)
    np.testing.assert_array_equal(action, action_converter(space, 1, "Still")(largest[np.newaxis])[0])


def test_tutorials_code_takes_a_number_for_an_observation(tmp_path):
    observation = tensor_spec.BoundedTensorSpec([], tf.int64, 0, 15)
    action = tensor_spec.BoundedTensorSpec([], tf.int64, 0, 3)
    policy = agents.DqnAgent(
        ts.time_step_spec(observation), action, networks.QNetwork(observation, 4, (8,)), tf.keras.optimizers.Adam()
    ).policy
    training.export_policy(policy, tmp_path / "policy", {"actions": {"start": 0, "dtype": "int64"}})
    act = run_block("acting.py", tmp_path)["load"](tmp_path / "policy")
    live = as_actor(policy)(time_steps(np.arange(16)))
    assert [act(number, False) for number in range(16)] == live.tolist()


def test_exported_policys_distribution_fails_when_it_is_called(tmp_path):
    training.export_policy(make_agent().policy, tmp_path / "policy", {})
    model = tf.saved_model.load(str(tmp_path / "policy"))
    with pytest.raises(tf.errors.InvalidArgumentError, match="offers actions, not their distribution"):
        model.distribution(tf.nest.map_structure(tf.constant, time_steps(np.zeros((2, 8), np.float32))), ())
