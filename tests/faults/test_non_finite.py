"""No number that is not finite reaches a weight or a slot, of any agent, compiled or not.

What a solver, an optimizer or a line search does with such numbers on its own: tests/solvers/test_solver_contract.py,
tests/optimizers/test_natural_gradient.py, test_guard.py and test_line_search.py.
"""

import contextlib

import faulty_environments  # noqa: F401  (registers them)
import gin
import numpy as np
import pytest
import tensorflow as tf
from experiments import AGENTS, GIN
from tf_agents.specs import tensor_spec

from ngrl import configuration, environments
from ngrl.loops.compiled import Compiled

# Calls of each environment that are no resets; an on-policy batch takes 16. The batches 0, 2, 4, 6 and 8 are sound.
POISON = {25: "nan reward", 56: "infinite observation", 88: "infinite reward", 121: "nan observation"}
PLAIN = ("policy_agent.normaliser=None", "GeneralisedAdvantage.reward_normaliser=None")
COUNTERS = ("train_step", "iteration", "_epsilon")  # and what is a function of one


@pytest.fixture
def build():
    """Makes agent and loop of an experiment over poisoned environments."""
    made = contextlib.ExitStack()

    def build(name, poison, *bindings, compiled):
        gin_file, small, *_ = AGENTS[name]
        one = [
            f"OffPolicyLoop.{name}" for name in ("updates_per_call=1", "updates_per_step=0.25", "replay_capacity=64")
        ]
        one.append("TrajectoryReplayLoop.replay_ratio=0.0")
        for loop in ("OnPolicyLoop", "OffPolicyLoop", "TrajectoryReplayLoop"):
            one += [f"{loop}.jit_compile={compiled}", f"{loop}.max_skipped_updates=1000"]
        configuration.parse([f"{GIN / gin_file}.gin"], [*small, *one, *bindings])
        environment = made.enter_context(
            contextlib.closing(
                environments.load("test/Poisoned-v0", 4, check_finite=False, env_kwargs={"poison": poison})
            )
        )
        specs = [tensor_spec.from_spec(spec()) for spec in (environment.time_step_spec, environment.action_spec)]
        agent = gin.query_parameter("run.agent").scoped_configurable_fn(*specs, seed=0)
        loop = gin.query_parameter("run.loop").scoped_configurable_fn(agent, environment, seed=0)
        if not compiled:
            run_eagerly(loop)
        return agent, loop

    yield build
    made.close()
    gin.clear_config()


def run_eagerly(loop):
    """Let a loop call what it would have compiled, but for the choice of actions, without tf.function."""

    def eagerly(function):
        return lambda *arguments: function(*tf.nest.map_structure(tf.constant, arguments))

    for name, value in list(vars(loop).items()):
        if isinstance(value, Compiled) and name != "_act":
            setattr(loop, name, eagerly(value._function))


def values(agent, path):
    """Weights and slots as bytes by name; these and all else of an agent, moments of data among it, are finite."""
    reader = tf.train.load_checkpoint(tf.train.Checkpoint(agent=agent).write(str(path)))
    found = {}
    for name in reader.get_variable_to_shape_map():
        if "OBJECT_GRAPH" not in name and not any(counter in name for counter in COUNTERS):
            array = reader.get_tensor(name)
            assert np.isfinite(array).all() or "learning_rate" in name, name  # of a step that a trust region bounds
            if "moments" not in name:
                found[name] = array.tobytes()
    return found


@pytest.mark.parametrize(
    ("name", "compiled"),
    # The recurrent one takes long to compile, and isn't by its gin file.
    [(name, compiled) for name in AGENTS for compiled in (False, True) if (name, compiled) != ("recurrent", True)],
)
def test_update_that_meets_a_number_that_is_not_finite_changes_no_weight_and_no_slot(build, tmp_path, name, compiled):
    agent, loop = build(name, POISON, *PLAIN, compiled=compiled)
    batches = 9 if compiled else 5  # the first two poisons alone, where a step takes long
    assert skipped_and_changed(agent, loop, tmp_path, batches) == {(True, False), (False, True)}
    assert loop.skipped_updates >= batches // 2


def test_numbers_that_are_not_finite_reach_no_normaliser_and_are_not_clipped_by_one(build, tmp_path):
    agent, loop = build("npg", POISON, compiled=True)
    assert skipped_and_changed(agent, loop, tmp_path) == {(True, False), (False, True)}
    assert loop.skipped_updates >= 4


def skipped_and_changed(agent, loop, folder, batches=9):
    """Of each update: whether it was counted as skipped, and whether it changed a weight or a slot."""
    found, before = set(), values(agent, folder / "values")
    for _ in range(batches * 16):
        train_steps, skipped = loop.train_steps, loop.skipped_updates
        loop.step()
        if loop.train_steps == train_steps:
            continue
        assert loop.train_steps == train_steps + 1
        after = values(agent, folder / "values")
        found.add((loop.skipped_updates > skipped, before != after))
        before = after
    return found


def test_line_search_that_finds_nothing_puts_the_policy_back_and_says_so(build, tmp_path):
    # No step keeps more than this of the decrease that its gradient promises.
    strict = ("BacktrackingLineSearch.min_reduction_ratio=0.99999999", "BacktrackingLineSearch.max_backtracks=2")
    agent, loop = build("trpo", {}, *strict, compiled=True)
    before = [variable.numpy().tobytes() for variable in agent.actor_network.trainable_weights]
    while loop.train_steps < 2:
        loop.step()
    assert [variable.numpy().tobytes() for variable in agent.actor_network.trainable_weights] == before
    scalars = loop.scalars()
    assert scalars["ngrl/backtracks"] == 3
    assert scalars["ngrl/step_norm"] == scalars["ngrl/line_search_kl"] == 0
    assert scalars["ngrl/gradient_norm"] > 0
    assert loop.skipped_updates == 0
