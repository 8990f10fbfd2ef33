"""Environments that misbehave are named, with member and step; processes that hang or die too."""

import multiprocessing
import os
import pickle

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from ngrl.environments import AsyncEnvironments, EnvironmentFault, SyncEnvironments
from ngrl.environments.member import Member
from ngrl.environments.spaces import not_finite

NAME = "test/Misbehaving-v0"


def run_into(env):
    """Step two members, of which only member 1 misbehaves, until they have made 6 steps."""
    env.reset()
    for _ in range(6):
        env.step(np.array([1, 0]))


PROBLEMS = {
    "raise": r"KeyError: 'the engine\\nis broken'",
    "four values": r"ValueError: not enough values to unpack \(expected 5, got 4\)",
    "shape": r"observation has shape \(3,\), the space says \(2,\)",
    "broadcastable shape": r"observation has shape \(1,\), the space says \(2,\)",
    "dtype": r"observation has dtype <U1, the space says float32",
    "reward shape": r"reward must be one real number, got an array of shape \(2,\) and dtype float64",
    "text reward": r"reward must be one real number, got 'much' \(str\)",
    "terminated": r"terminated must be a bool, got None \(NoneType\)",
    "truncated": r"truncated must be a bool, got 'no' \(str\)",
    "nan observation": r"observation is not finite: \[0.0, nan\]",
    "nan reward": "reward is not finite: nan",
    "infinite reward": "reward is not finite: inf",
    "huge reward": "reward is not finite: -inf",
}


@pytest.mark.parametrize("backend", ["sync", "async"])
@pytest.mark.parametrize("fault", PROBLEMS)
def test_a_fault_in_a_step_names_environment_member_and_step(load, backend, fault):
    env = load(NAME, 2, backend=backend, env_kwargs={"fault": fault, "at": 3})
    with pytest.raises(EnvironmentFault, match=PROBLEMS[fault]) as caught:
        run_into(env)
    error = caught.value
    assert (error.env_id, error.member, error.step) == (NAME, 1, 3)
    assert str(error).startswith(f"{NAME}, member 1, step 3 of its episode: ")
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("reward array", (1.5, 1.0, 1)), ("terminated array", (None, 0.0, 2)), ("truncated array", (None, 1.0, 2))],
)
def test_an_array_of_one_element_counts_as_that_element_with_a_warning(load, answer, expected):
    env = load(NAME, 1, env_kwargs={"fault": answer, "at": 1})
    env.reset()
    with pytest.warns(UserWarning, match=rf"{NAME}: {answer.split()[0]} is an array of shape .*one element is taken"):
        step = env.step(np.array([0]))
    reward, discount, step_type = expected
    assert (step.discount[0], step.step_type[0]) == (discount, step_type)
    assert reward is None or step.reward[0] == reward


@pytest.mark.parametrize("backend", ["sync", "async"])
@pytest.mark.parametrize("fault", ["raise", "shape", "nan observation"])
def test_a_fault_in_a_reset_names_environment_and_member(load, backend, fault):
    env = load(NAME, 2, backend=backend, env_kwargs={"fault": fault, "at": 0})
    with pytest.raises(EnvironmentFault, match=PROBLEMS[fault]) as caught:
        env.reset()
    assert (caught.value.member, caught.value.step) == (0, 0)
    assert str(caught.value).startswith(f"{NAME}, member 0, reset: ")


@pytest.mark.parametrize(("backend", "fault"), [("sync", "nan reward"), ("async", "raise"), ("async", "exit")])
def test_the_step_named_is_the_step_of_the_episode(load, backend, fault):
    settings = {"fault": fault, "at": 2, "first_episode": 1, "max_episode_steps": 4}
    env = load(NAME, 2, backend=backend, env_kwargs=settings)
    env.reset()
    for _ in range(6):  # four steps of the first episode, the reset, one step of the second
        env.step(np.array([1, 0]))
    with pytest.raises(EnvironmentFault) as caught:
        env.step(np.array([1, 0]))
    assert (caught.value.member, caught.value.step) == (1, 2)


@pytest.mark.parametrize("backend", ["sync", "async"])
@pytest.mark.parametrize("fault", ["raise", "nan reward"])
def test_the_next_step_after_a_fault_is_a_reset(load, backend, fault):
    env = load(NAME, 2, backend=backend, env_kwargs={"fault": fault})
    with pytest.raises(EnvironmentFault):
        run_into(env)
    step = env.step(np.array([1, 1]))
    assert step.step_type.tolist() == [0, 0]
    assert step.observation.tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert env.step(np.array([1, 1])).observation.tolist() == [[1.0, 1.0], [1.0, 1.0]]


def test_check_finite_can_be_switched_off(load):
    env = load(NAME, 2, check_finite=False, fault="nan observation")
    run_into(env)
    assert env.step(np.array([1, 0])).step_type.tolist() == [1, 1]


def test_without_check_finite_0_is_taken_for_an_action_that_is_not_finite(load):
    env = load("Pendulum-v1", 2, check_finite=False)
    other = load("Pendulum-v1", 2)
    env.reset(), other.reset()
    answer = env.step(np.array([[np.nan], [np.inf]], np.float32))
    np.testing.assert_array_equal(answer.observation, other.step(np.zeros((2, 1), np.float32)).observation)


def test_a_large_observation_that_is_not_finite_is_told_in_a_few_words(load):
    space = spaces.Box(-np.inf, np.inf, (84, 84), np.float32)
    wrong = np.zeros((84, 84), np.float32)
    wrong[3, 5] = wrong[7, 1] = np.nan
    assert not_finite(wrong) == "2 of 7,056 numbers, the first at [3, 5]"
    assert not_finite(wrong[3, 4:7]) == "[0.0, nan, 0.0]"
    env = load("test/OfSpaces-v0", 1, observation_space=space)
    env.reset()
    env._vector._batch[0] = wrong
    with pytest.raises(EnvironmentFault, match=r"observation is not finite: 2 of 7,056 numbers"):
        env._accept(env.current_time_step()._replace(observation=wrong[np.newaxis]))


class Once(gymnasium.Env):
    """Can be made once, or so many times, and says so when it is closed."""

    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = spaces.Discrete(2)
    made = closed = 0

    def __init__(self, closes=True, times=1):
        if closes and Once.made == times:
            raise RuntimeError("only one of me")
        Once.made += 1
        self.closes = closes

    def close(self):
        if not self.closes:
            raise RuntimeError("the port is held")
        Once.closed += 1


@pytest.fixture
def once():
    Once.made = Once.closed = 0
    gymnasium.register("Once-v0", Once)
    yield "Once-v0"
    del gymnasium.registry["Once-v0"]


def test_an_environment_that_can_be_made_only_once_or_not_be_closed_is_told_in_a_line(load, once):
    with pytest.raises(
        EnvironmentFault,
        match=r"^Once-v0, member 0: it can't be made: RuntimeError: only one of me \(test_faults.py:\d+\)$",
    ):
        load(once, 1)
    with pytest.raises(
        ValueError, match=r"^Once-v0 can't be made with .*: RuntimeError: the port is held \(test_faults.py:\d+\)$"
    ):
        load(once, 1, env_kwargs={"closes": False})


def test_members_that_are_made_are_closed_where_another_can_not_be(load, once):
    with pytest.raises(EnvironmentFault, match=r"^Once-v0, member 2: it can't be made: "):
        load(once, 4, env_kwargs={"times": 3})
    assert Once.closed == 3  # one was made to know the spaces


def test_all_members_are_closed_and_those_told_of_that_cannot_be(load, monkeypatch):
    env = load("CartPole-v1", 3)
    said, closed = [], []
    env.on_warning(said.append)
    members = env._vector._members

    def close(member):
        closed.append(member)
        if member is not members[2]:
            raise RuntimeError("the port is held")

    monkeypatch.setattr(Member, "close", close)
    env.close()
    env.close()
    assert closed == list(members)
    said = [line.partition(" (test_faults.py:")[0] for line in said]
    assert said == [f"CartPole-v1, member {n}: it can't be closed: RuntimeError: the port is held" for n in (0, 1)]


class Growing(gymnasium.Env):
    """Each that a process makes has one action more than the one before."""

    made = 100 * os.getpid() + (multiprocessing.parent_process() is None) * 10**9  # so that processes differ too
    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self):
        Growing.made += 1
        self.action_space = spaces.Discrete(Growing.made)


@pytest.mark.parametrize(
    ("num_envs", "backend"),
    [
        (2, SyncEnvironments()),
        (3, AsyncEnvironments(workers=3)),
        (2, AsyncEnvironments(workers=1)),
        (2, SyncEnvironments(2)),
    ],
)
def test_members_with_other_spaces_than_the_first_are_told_in_a_line(load, num_envs, backend):
    gymnasium.register("Growing-v0", Growing)
    message = r"^Growing-v0, member 1: its action space is Discrete\(\d+\), that of member 0 is Discrete\(\d+\)$"
    try:
        with pytest.raises(EnvironmentFault, match=message):
            load("Growing-v0", num_envs, backend=backend)
    finally:
        del gymnasium.registry["Growing-v0"]


def test_the_cause_of_a_fault_in_this_process_is_kept(load):
    with pytest.raises(EnvironmentFault) as caught:
        run_into(load(NAME, 2, fault="raise"))
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_worker_process_that_ends_is_named(load):
    env = load(NAME, 2, backend="async", fault="exit")
    with pytest.raises(EnvironmentFault, match="its process ended with exit code 7") as caught:
        run_into(env)
    assert (caught.value.member, caught.value.step) == (1, 3)
    with pytest.raises(EnvironmentFault, match="its worker processes have ended"):
        env.reset()


def test_a_worker_process_that_hangs_is_named_and_ended(load):
    env = load(NAME, 2, backend=AsyncEnvironments(timeout=0.5), env_kwargs={"fault": "hang", "at": 2})
    processes = env._vector.processes
    with pytest.raises(EnvironmentFault, match=r"no answer within 0.5 s; its process was ended") as caught:
        run_into(env)
    assert (caught.value.member, caught.value.step) == (1, 2)
    assert not any(process.is_alive() for process in processes)


@pytest.mark.parametrize(("number", "member"), [(1, 0), (2, 0), (4, 2)])  # the first is made to know the spaces
def test_a_member_that_hangs_while_it_is_made_is_named_and_its_process_ended(load, number, member):
    before = set(multiprocessing.active_children())
    with pytest.raises(EnvironmentFault, match=r"it was not made within 2 s; its process was ended") as caught:
        load("test/SlowlyMade-v0", 3, backend=AsyncEnvironments(timeout=2.0, workers=1), number=number)
    assert (caught.value.member, caught.value.step) == (member, None)
    assert set(multiprocessing.active_children()) == before


def test_what_cannot_be_made_in_a_worker_is_told_as_in_this_process(load):
    for settings in ({"fault": 1, "unknown": 2}, {}):
        said = []
        for backend in ("sync", "async"):
            with pytest.raises(ValueError, match=f"{NAME} can't be made.*TypeError") as caught:
                load(NAME, 2, backend=backend, env_kwargs=settings)
            said.append(str(caught.value))
        assert said[0] == said[1]
    with pytest.raises(ImportError, match="needs a package that is not installed"):
        load("test/NeedsAPackage-v0", 2, backend="async")
    with pytest.raises(ValueError, match=r"observation space Text\(.*\) is not supported"):
        load("test/OfSpaces-v0", 2, backend="async", observation_space=spaces.Text(3))


def test_members_that_share_a_process_are_named_together_where_it_hangs_and_alone_where_they_fail(load):
    two = AsyncEnvironments(timeout=0.5, workers=2)
    for fault, told, place in (
        ("hang", "members 0 to 1: no answer within 0.5 s", (None, None)),
        ("raise", "member 1, step 2 of its episode: KeyError", (1, 2)),
    ):
        env = load(NAME, 4, backend=two, env_kwargs={"fault": fault, "at": 2})
        env.reset()
        env.step(np.array([1, 0, 1, 1]))
        with pytest.raises(EnvironmentFault, match=told) as caught:
            env.step(np.array([1, 0, 1, 1]))
        assert (caught.value.member, caught.value.step) == place


@pytest.mark.parametrize(
    ("fault", "misbehaves", "told", "place"),
    [
        ("raise", 1, "member 1, step 2 of its episode: KeyError", (1, 2)),
        ("raise", 3, "member 3, step 2 of its episode: KeyError", (3, 2)),
        ("exit", 3, "members 2 to 3: its process ended with exit code 7", (None, None)),
    ],
)
def test_members_on_two_cores_are_named_wherever_they_are(load, fault, misbehaves, told, place):
    env = load(NAME, 4, backend=SyncEnvironments(cores=2), env_kwargs={"fault": fault, "at": 2})
    env.reset()
    actions = np.ones(4, np.int64)
    env.step(actions)
    actions[misbehaves] = 0
    with pytest.raises(EnvironmentFault, match=told) as caught:
        env.step(actions)
    assert (caught.value.member, caught.value.step) == place
    env.close()
    assert env._vector._own._vector.closed


def test_a_fault_survives_pickling():
    fault = pickle.loads(pickle.dumps(EnvironmentFault("A-v0", 2, 5, "broke")))
    assert (str(fault), fault.member, fault.step) == ("A-v0, member 2, step 5 of its episode: broke", 2, 5)
