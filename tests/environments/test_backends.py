"""Settings of an environment, and what steps its members: an object, ngrl's own or one from elsewhere."""

import dataclasses
import re
import sys
from pathlib import Path

import gin
import numpy as np
import pytest
from fork_server import play_live_policies
from run_contents import assert_identical, rows, variables
from tf_agents.environments import utils

from ngrl import configuration, training
from ngrl.environments import (
    ActionRepeat,
    AsyncEnvironments,
    Backend,
    Environment,
    EnvpoolEnvironments,
    RayEnvironments,
    SyncEnvironments,
)
from ngrl.environments.vector import SyncVector
from ngrl.environments.workers import WorkerVector
from ngrl.seeding import Stream
from ngrl.training import RunContext, configurables, evaluation

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def corridors(tmp_path_factory):
    """The backend of the page about extending ngrl: its module, imported from a folder of the user's."""
    (text,) = re.findall(
        r'^```python title="my_backend\.py"\n(.*?)^```$',
        (ROOT / "docs" / "extending.md").read_text(encoding="utf-8"),
        re.DOTALL | re.MULTILINE,
    )
    folder = tmp_path_factory.mktemp("corridors")
    (folder / "my_backend.py").write_text(text, encoding="utf-8")
    sys.path.insert(0, str(folder))
    import my_backend

    yield my_backend
    sys.path.remove(str(folder))
    del sys.modules["my_backend"], Backend._by_name["corridors"]
    gin.config._REGISTRY.pop("my_backend.CorridorEnvironments")


@pytest.mark.parametrize(
    ("backend", "made"), [(SyncEnvironments(), SyncVector), (AsyncEnvironments(timeout=5.0), WorkerVector)]
)
def test_backend_steps_the_members_and_the_name_stands_for_its_default(load, backend, made):
    env = load("CartPole-v1", 2, seed=3, backend=backend)
    named = load("CartPole-v1", 2, seed=3, backend=backend.name)
    assert type(env._vector) is type(named._vector) is made
    np.testing.assert_array_equal(env.reset().observation, named.reset().observation)


@pytest.mark.parametrize("timeout", [0.0, -1.0, float("nan"), "1"])
def test_timeout_out_of_its_range_is_refused(timeout):
    with pytest.raises(ValueError, match="timeout must be "):
        AsyncEnvironments(timeout=timeout)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_envs": 0}, "num_envs must be a positive integer, got 0"),
        ({"training_time_limit": 0}, "training_time_limit must be a positive integer, got 0"),
    ],
)
def test_settings_out_of_their_range_are_refused(wrong, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        Environment("CartPole-v1", **wrong)


def test_unknown_backend_is_answered_with_the_known_ones():
    with pytest.raises(
        ValueError, match=r"backend must be one of sync, async, ray, envpool, compiled, got 'dask'.*allow_gin"
    ):
        Backend.named("dask")


def test_evaluation_has_the_environments_own_limit_and_meaning_of_it():
    settings = Environment(
        "CartPole-v1",
        kwargs={"max_episode_steps": 90},
        backend=AsyncEnvironments(timeout=7.0),
        training_time_limit=20,
        truncation_is_terminal=True,
        check_finite=False,
    )
    played = settings.for_evaluation(3, render_mode="rgb_array")
    assert played == Environment(
        "CartPole-v1",
        3,
        {"max_episode_steps": 90, "render_mode": "rgb_array"},
        AsyncEnvironments(timeout=7.0),
        check_finite=False,
    )
    assert not Environment.described(settings.describe()).check_finite
    assert Environment.described({"env_id": "CartPole-v1"}).check_finite
    for given, limit in ((settings, 20), (played, 90)):
        env = dataclasses.replace(given, backend=SyncEnvironments()).load()
        assert env.time_limit == limit
        env.close()


@pytest.mark.parametrize("backend", [SyncEnvironments(), AsyncEnvironments(), EnvpoolEnvironments(), RayEnvironments()])
def test_described_settings_come_back(backend):
    settings = Environment("Pendulum-v1", 5, {"g": 9.0}, backend, training_time_limit=10)
    description = settings.describe()
    assert description == {"env_id": "Pendulum-v1", "env_kwargs": {"g": 9.0}, "env_backend": backend.name}
    assert Environment.described(description) == Environment("Pendulum-v1", 8, {"g": 9.0}, backend)
    assert Environment.described({"env_id": "a"}) == Environment("a")  # of before it was written down
    through = dataclasses.replace(settings, check_finite=False, frame_stack=2, preprocessing=ActionRepeat(3))
    kept = Environment("b", check_finite=False, frame_stack=2, preprocessing=ActionRepeat(3))
    assert through.elsewhere("b") == kept


def test_environment_of_a_backend_from_elsewhere_keeps_the_boundaries_of_episodes(load, corridors):
    def walk(action, **kwargs):
        """Fields, step types, rewards and discounts of one member's first twelve steps."""
        env = load("Corridor", 1, seed=1, backend="corridors", **kwargs)
        steps = [env.reset(), *(env.step(np.full(1, action)) for _ in range(11))]
        return [(s.observation.argmax(), s.step_type[0], s.reward[0], s.discount[0]) for s in steps]

    start, *_ = walk(1)
    distance = corridors.LAST - int(start[0])
    ahead = [(start[0] + k, 1, 0.0, 1.0) for k in range(1, distance)]
    assert walk(1)[: distance + 1] == [(start[0], 0, 0.0, 1.0), *ahead, (corridors.LAST, 2, 1.0, 0.0)]
    assert walk(1)[distance + 1][1:] == (0, 0.0, 1.0)
    assert [step[1:] for step in walk(0, max_episode_steps=3)[:5]] == [
        (0, 0.0, 1.0),
        (1, 0.0, 1.0),
        (1, 0.0, 1.0),
        (2, 0.0, 1.0),
        (0, 0.0, 1.0),
    ]
    utils.validate_py_environment(load("Corridor", 3, backend="corridors"), episodes=4)


def test_state_of_a_backend_from_elsewhere_comes_back(load, corridors):
    rng = np.random.default_rng(0)
    actions = rng.integers(2, size=(200, 3))
    whole, parts = (load("Corridor", 3, seed=seed, backend="corridors") for seed in (4, 5))
    whole.reset()
    for action in actions[:77]:
        whole.step(action)
    parts.set_state(whole.get_state())
    for action in actions[77:]:
        for one, other in zip(whole.step(action), parts.step(action), strict=True):
            np.testing.assert_array_equal(one, other)
    evaluated = load("Corridor", 3, seed=4, backend="corridors", stream=Stream.EVALUATION_EPISODES)
    assert not np.array_equal(
        [evaluated.reset().observation for _ in range(3)],
        [load("Corridor", 3, seed=4, backend="corridors").reset().observation for _ in range(3)],
    )


def test_run_on_a_backend_from_elsewhere_is_resumed_bit_for_bit_and_its_policy_plays_there(
    corridors, tmp_path, monkeypatch
):
    """All by names in gin; `tests/test_documents.py` runs the page's own commands."""

    def run(name, steps):
        lines = ["Environment.backend = @CorridorEnvironments()", "Environment.env_id = 'Corridor'"]
        lines += [f"run.num_env_steps = {steps}", "run.checkpoint_every = 100", "Evaluation.episodes = 2"]
        lines += [
            "OffPolicyLoop.warmup_steps = 64",
            "OffPolicyLoop.batch_size = 16",
            "OffPolicyLoop.jit_compile = False",
            "ExponentialDecay.decay_rate = 0.999",
        ]
        gin.clear_config()
        try:
            configuration.parse(
                [str(ROOT / "gin" / "base" / "ngdqn.gin")], [*lines, "ExponentialDecay.decay_rate = 0.999"]
            )
            return configurables.run(RunContext(tmp_path / name, config=configuration.bindings))
        finally:
            gin.clear_config()

    with monkeypatch.context() as patch:
        play_live_policies(patch.setattr)
        run("parts", 300)
        final = run("parts", 600)
    whole = run("whole", 600)
    assert_identical(variables(tmp_path / "whole"), variables(tmp_path / "parts"))
    assert rows(tmp_path / "whole") == rows(tmp_path / "parts")
    assert final["evaluation"] == whole["evaluation"]
    actor, description = training.load_policy(tmp_path / "whole" / "policy")
    assert description["env_backend"] == "corridors"
    settings = Environment.described(description)
    assert settings.backend == corridors.CorridorEnvironments()
    assert training.evaluate(actor, settings, 2, seed=0).returns == whole["evaluation"]["returns"]


def test_backend_from_elsewhere_draws_its_own_video(corridors, tmp_path):
    class Drawn(corridors.Corridors):
        def render(self):
            return [np.full((4, 4, 3), 25 * self._at[0], np.uint8)]

    class DrawnEnvironments(Backend):
        def make(self, env_id, num_envs, seed, kwargs, stream):
            assert kwargs.pop("render_mode") == "rgb_array"
            return Drawn(num_envs, seed, stream, **kwargs)

    settings = Environment("Corridor", backend=DrawnEnvironments())
    evaluation.check_video(settings)
    assert evaluation.record_video(lambda step: np.ones(1, np.int64), settings, tmp_path / "video.gif") is None
    assert (tmp_path / "video.gif").read_bytes()[:3] == b"GIF"
    plain = Environment("Corridor", backend=corridors.CorridorEnvironments())
    with pytest.raises(ValueError, match=r"^no video: Corridor can't be drawn: .*render_mode"):
        evaluation.check_video(plain)


def test_video_of_ngrls_own_backends_is_of_gymnasiums_environment_in_this_process():
    for backend in (SyncEnvironments(), AsyncEnvironments(), EnvpoolEnvironments(), RayEnvironments()):
        assert backend.for_video() == SyncEnvironments()


def test_settings_identify_a_run_in_python_but_not_how_long_a_worker_may_take():
    first = Environment("CartPole-v1", backend=AsyncEnvironments(timeout=5.0)).identity()
    again = Environment("CartPole-v1", backend=AsyncEnvironments(timeout=6.0)).identity()
    assert first == again
    for changed in ({"num_envs": 4}, {"kwargs": {"a": 1}}, {"backend": SyncEnvironments()}, {"check_finite": False}):
        base = {"backend": AsyncEnvironments()}
        assert Environment("CartPole-v1", **{**base, **changed}).identity() != first
