"""Whole runs in an environment that is strict about its spaces: training, evaluation, export, video."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from small_on_policy import build_agent
from small_runs import train
from strict_environment import ENV_ID

from ngrl import loops, training
from ngrl.environments import Backend, Environment


@pytest.mark.parametrize("backend", ["sync", "async"])
@pytest.mark.filterwarnings("ignore:.*one element is taken")
def test_every_action_of_a_run_is_within_the_space(tmp_path, backend):
    """A policy of standard deviation 1 leaves ±0.1 nearly always: each of these steps is at a bound."""
    built = []

    def build(*specs, seed):
        built.append(build_agent(*specs, seed=seed, kind="npg", normalise=True))
        return built[-1]

    loop = functools.partial(loops.OnPolicyLoop, batch_size=96, jit_compile=False)
    options = {"num_envs": 4, "episodes": 2, "backend": Backend.named(backend), "capture_video": backend == "sync"}
    final = train(tmp_path, ENV_ID, build, loop, num_env_steps=200, **options)
    assert (final["train_steps"], final["skipped_updates"]) == (2, 0)
    # 9 pixels, 2 contacts, 2 + 4 gears, 3 floors.
    (layer,) = built[0].actor_network.layers_in_order
    assert layer.kernel.shape[0] == 9 + 2 + 6 + 3
    layer.kernel.assign(tf.zeros_like(layer.kernel))
    layer.bias.assign(tf.fill(layer.bias.shape, 100.0))
    training.export_policy(built[0].policy, tmp_path / "far", {})
    actor, _ = training.load_policy(tmp_path / "far")
    settings = Environment(ENV_ID, backend=Backend.named(backend))
    played = training.evaluate(actor, settings, episodes=2)
    np.testing.assert_allclose(played.returns, [20 * 0.4] * 2, rtol=1e-5)
    assert (tmp_path / "video.gif").exists() == (backend == "sync")
