"""What `load` refuses, in one line each, and that importing it is quiet."""

import os
import pathlib
import subprocess
import sys
import warnings

import pytest

from ngrl import environments


@pytest.mark.parametrize(
    ("env_id", "near"),
    [
        ("CartPole-v7", "CartPole-v1"),
        ("cartpole-v1", "CartPole-v1"),
        ("Acrobat-v1", "Acrobot-v1"),
        ("LunarLander-v2", "LunarLander-v3"),
        ("LunarLander-v2", "ngrl/LunarLander-v2"),
        ("ngrl/LunarLander-v3", "ngrl/LunarLander-v2"),
        ("nowhere/CartPole-v1", "CartPole-v1"),
    ],
)
def test_an_unknown_environment_is_named_with_its_nearest(env_id, near):
    with pytest.raises(ValueError, match=f"unknown environment '{env_id}'") as caught:
        environments.load(env_id)
    message = str(caught.value)
    assert near in message.split("did you mean ")[1]
    assert "\n" not in message


def test_a_name_like_nothing_is_still_named():
    with pytest.raises(ValueError, match=r"unknown environment 'Xyzzy'.*must be imported first \(--allow_gin_import"):
        environments.load("Xyzzy")


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_envs": 0}, "num_envs must be a positive integer, got 0"),
        ({"num_envs": 2.0}, r"num_envs must be a positive integer, got 2\.0"),
        ({"seed": -1}, "seed must lie between 0 and 2147483647, got -1"),
        ({"seed": "0"}, "seed must lie between 0 and 2147483647, got '0'"),
        ({"backend": "cloud"}, "backend must be one of sync, async, ray, envpool, compiled, got 'cloud'"),
        ({"colour": "red"}, "CartPole-v1 can't be made with {'colour': 'red'}: TypeError: .*'colour'"),
        ({"env_kwargs": {"colour": "red"}}, "CartPole-v1 can't be made with {'colour': 'red'}: TypeError: "),
    ],
)
@pytest.mark.parametrize("backend", ["sync", "async"])
def test_a_wrong_argument_is_named(backend, kwargs, message):
    with pytest.raises(ValueError, match=message) as caught:
        environments.load("CartPole-v1", **{"backend": backend, **kwargs})
    assert "\n" not in str(caught.value)


def test_a_name_with_a_module_in_it_imports_nothing():
    with pytest.raises(
        ValueError,
        match=r"env_id 'antigravity:CartPole-v1' names a module.*--allow_gin_import=antigravity.* name 'CartPole-v1'",
    ):
        environments.load("antigravity:CartPole-v1")
    assert "antigravity" not in sys.modules


def test_a_missing_package_is_named_with_what_to_install():
    with pytest.raises(
        ImportError, match=r"test/NeedsAPackage-v0 needs a package.*pip install 'ngrl\[envs\]'"
    ) as caught:
        environments.load("test/NeedsAPackage-v0")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("env_id", "package", "extra"), [("ALE/Pong-v5", "ale_py", "atari"), ("MinAtar/Breakout-v1", "minatar", "minatar")]
)
def test_games_without_their_package_say_what_to_install(env_id, package, extra, monkeypatch):
    monkeypatch.delitem(sys.modules, "ngrl.environments.minatar_games", raising=False)
    loaded = [name for name in sys.modules if name.startswith(f"{package}.")]  # by tests before this one
    for name in (package, *loaded):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=rf"{env_id} needs a package.*pip install 'ngrl\[{extra}\]'") as caught:
        environments.load(env_id)
    assert "\n" not in str(caught.value)


def test_envpool_not_installed_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(ImportError, match=r"backend 'envpool' needs the package envpool: pip install 'ngrl\[envs\]'"):
        environments.load("CartPole-v1", backend="envpool")


def test_environments_are_stepped_together_by_default(load):
    env = load("CartPole-v1", 2)
    assert (env.env_id, env.batch_size, env.batched, env.can_restore) == ("CartPole-v1", 2, True, True)


def test_an_environment_out_of_date_loads_without_a_notice(load):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load("CartPole-v0", 2).reset()


def run_python(*arguments):
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parents[2])},
    )


def test_importing_tf_agents_through_ngrl_prints_no_notice():
    program = "import sys, ngrl.environments as e; e.load; print('tf_agents' in sys.modules, 'gym' in sys.modules)"
    done = run_python("-W", "default", "-c", program)
    assert done.stdout == "True False\n"  # gym isn't there, nor is what stands in for it
    assert "Gym has been unmaintained" not in done.stderr
    assert "SyntaxWarning" not in done.stderr


def test_importing_the_package_alone_loads_no_tensorflow():
    program = "import ngrl.environments, sys; print('tensorflow' in sys.modules, 'tf_agents' in sys.modules)"
    assert run_python("-c", program).stdout == "False False\n"


def test_python_is_silent_about_old_syntax_only_while_tf_agents_is_imported():
    from ngrl import _importing

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with _importing.quietly():
            compile("() is ()", "old_syntax", "eval")
        with pytest.raises(SyntaxError):  # what an error-level SyntaxWarning becomes
            compile("() is ()", "old_syntax", "eval")


@pytest.mark.parametrize(
    ("env_id", "kwargs", "expected"),
    [
        ("CartPole-v1", {}, 500),
        ("CartPole-v1", {"max_episode_steps": 20}, 20),
        ("CartPole-v1", {"max_episode_steps": -1}, None),
        ("CliffWalking-v1", {}, None),
        ("CliffWalking-v1", {"max_episode_steps": 30}, 30),
    ],
)
def test_time_limit_is_the_one_that_holds(load, env_id, kwargs, expected):
    assert load(env_id, 2, env_kwargs=kwargs).time_limit == expected


def test_time_limit_is_known_of_members_in_other_processes(load):
    assert load("CartPole-v1", 2, backend="async").time_limit == 500
