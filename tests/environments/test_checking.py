"""What `check_environment` finds, of environments that are right and of those that are not."""

import re

import numpy as np
import pytest
from gymnasium import spaces
from tf_agents.specs import tensor_spec
from walking_environment import Walk

from ngrl import agents, networks
from ngrl.environments import AsyncEnvironments, Environment, check_environment
from ngrl.environments import spaces as own_spaces
from ngrl.environments.checking import NOTE, PROBLEM, RIGHT, _agents_for


def found(kind, env_id="test/Walk-v0", steps=45, **kwargs):
    """What of that kind is found of an environment."""
    report = check_environment(Environment(env_id, kwargs=kwargs), steps=steps)
    assert all("\n" not in text for _, text in report.findings)
    return [text for each, text in report.findings if each == kind]


def test_a_right_environment_has_no_problem_and_every_check_says_so():
    report = check_environment("test/Walk-v0", steps=45)
    assert report.problems == ()
    first, *lines = str(report).splitlines()
    assert first == "test/Walk-v0: no problem found"
    told = [line.split(maxsplit=1)[1] for line in lines]
    assert told[:4] == [
        "spaces that ngrl takes: observation (2,) float32; one discrete action, for every agent",
        "45 steps with random actions: all answers of the spaces' kinds, finite",
        "4 episodes came to their ends, no time limit was seen",
        told[3],
    ]
    assert told[3].endswith(" steps a second in one process")
    assert told[4:] == [
        "gymnasium's checker finds nothing",
        "equal seeds and actions give equal episodes, bit for bit",
        "it can be made in a worker process, where an episode in progress goes on, bit for bit",
    ]


@pytest.mark.parametrize(
    ("does", "problem"),
    [
        ("nan", r"^test/Walk-v0, member 0, step 7 of its episode: reward is not finite: nan"),
        ("integers", r"^observation leaves the bounds of its space: 9 where they are 0 to 8$"),
        ("text", r"^test/Walk-v0: observation space Text\(.*\) is not supported; ngrl takes Box"),
        ("unknown", r"unexpected keyword argument 'unknown'"),
    ],
)
def test_a_problem_is_one_line_that_says_what_and_where(does, problem):
    (told,) = found(PROBLEM, **({"unknown": 1} if does == "unknown" else {"does": does}))
    assert re.search(problem, told), told


@pytest.mark.parametrize("backend", ["sync", "async"])
def test_what_only_a_worker_process_cannot_make_is_a_problem_where_a_run_has_workers(backend):
    environment = Environment.described(
        {"env_id": "test/Walk-v0", "env_kwargs": {"does": "stays"}, "env_backend": backend}
    )
    report = check_environment(environment, steps=45)
    kind = PROBLEM if backend == "async" else NOTE
    (told,) = [text for each, text in report.findings if each == kind]
    assert re.search(r"^test/Walk-v0 can't be made with .*: RuntimeError: no display", told), told


def test_steps_that_hang_are_ended_where_the_backend_ends_them():
    hanging = Environment("test/Walk-v0", kwargs={"does": "hangs"}, backend=AsyncEnvironments(timeout=2.0))
    (problem,) = check_environment(hanging, steps=45).problems
    assert "no answer within 2 s; its process was ended" in problem


def test_episodes_that_do_not_follow_from_seed_and_actions_are_told_with_what_that_costs():
    lost = "an interrupted run can't go on bit for bit"
    (problem,) = found(PROBLEM, "test/Forgetful-v0")
    assert problem == f"test/Forgetful-v0, episode 0, reset: equal seeds and actions gave another observation: {lost}"
    # In one process they are the same.
    (problem,) = found(PROBLEM, does="process")
    assert "replaying the episode gave another observation than was saved" in problem
    assert problem.endswith(lost)
    *_, problem = found(PROBLEM, does="remembers")
    assert problem.endswith(lost)


def test_what_ngrl_can_do_without_is_a_note():
    assert not found(PROBLEM, does="beyond")
    (note,) = [each for each in found(NOTE, does="beyond") if "gymnasium" not in each]
    assert (
        note == "observation leaves the bounds of its space, which ngrl doesn't need: 300.0 where they are 0.0 to 100.0"
    )
    (note,) = found(NOTE, length=1000)
    assert note.startswith("no episode ended within 45 steps, and no time limit was seen: give it max_episode_steps")
    assert "no episode ended within 45 steps, but the time limit is 400 steps" in found(
        RIGHT, "test/LimitedWalk-v0", length=1000
    )


def test_gymnasiums_own_checker_is_heard():
    notes = found(NOTE, does="beyond")
    assert any(each.startswith("gymnasium's checker: ") and "observation space" in each for each in notes), notes
    (problem,) = found(PROBLEM, "test/Unseeded-v0")
    assert "unexpected keyword argument 'seed'" in problem


def test_settings_are_checked_as_they_are_given():
    report = check_environment(Environment("CartPole-v1", frame_stack=3, kwargs={"max_episode_steps": 9}), steps=30)
    assert report.problems == ()
    assert "observation (3, 4) float32" in str(report)
    assert "the time limit is 9 steps" in str(report)
    compiled = Environment.described({"env_id": "CartPole-v1", "env_backend": "compiled"})
    assert check_environment(compiled, steps=30).problems == ()
    with pytest.raises(ValueError, match="steps must be a positive integer, got 0"):
        check_environment("CartPole-v1", steps=0)
    with pytest.raises(ValueError, match="a name that is registered with gymnasium, or an Environment, got Walk"):
        check_environment(Walk())


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(3),
        spaces.MultiDiscrete([2, 3]),
        spaces.MultiBinary(2),
        spaces.Box(-1.0, 1.0, (2,)),
        spaces.Box(0, 3, (2,), np.int32),
    ],
)
def test_the_agents_named_are_those_that_take_the_actions(space):
    text, spec = _agents_for(space), tensor_spec.from_spec(own_spaces.action_spec(space, "x"))

    def takes(check, *arguments):
        try:
            check(*arguments)
        except ValueError:
            return False
        return True

    observation = tensor_spec.from_spec(own_spaces.observation_spec(spaces.Box(-1.0, 1.0, (2,)), "x"))
    assert ("every agent" in text) == takes(agents.check_discrete_action, spec)
    acts = takes(networks.ActorNetwork, observation, spec)
    assert ("on-policy" in text or "every" in text) == acts
    several = acts and networks.is_discrete_action(spec) and networks.num_discrete_actions(spec) is None
    assert ("several" in text) == several
