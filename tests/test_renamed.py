"""Settings that had another name: answered in files with the new one, read in records of before."""

import json
from pathlib import Path

import gin
import pytest

from ngrl import configuration, renamed
from ngrl.configuration import ConfigurationError, stand_ins
from ngrl.runs.identity import differences

ROOT = Path(__file__).parents[1]
BACKENDS = "Environment.backend = @SyncEnvironments(), @AsyncEnvironments(), @EnvpoolEnvironments() or another"
OLD = {
    "run.env_id = 'CartPole-v1'": "Environment.env_id",
    "run.num_envs = 4": "Environment.num_envs",
    "run.env_kwargs = None": "Environment.kwargs",
    "run.env_backend = 'sync'": BACKENDS,
    "run.env_timeout = 1.0": "AsyncEnvironments.timeout",
    "run.training_time_limit = 9": "Environment.training_time_limit",
    "run.truncation_is_terminal = True": "Environment.truncation_is_terminal",
    "run.check_finite = False": "Environment.check_finite",
    "run.eval_episodes = 3": "Evaluation.episodes",
    "run.eval_max_episode_steps = 3": "Evaluation.max_episode_steps",
    "run.capture_video = True": "Evaluation.capture_video",
    "solver_comparison.env_id = 'CartPole-v1'": "Environment.env_id",
    "solver_comparison.num_envs = 4": "Environment.num_envs",
}


@pytest.mark.parametrize("text", OLD)
def test_old_name_is_answered_with_the_new_one_in_a_line(text, tmp_path):
    (tmp_path / "x.gin").write_text(f"\n{text}\n")
    configurable, _, parameter = text.partition(" = ")[0].partition(".")
    for check in (stand_ins.check, configuration.parse):
        with pytest.raises(ConfigurationError) as caught:
            check([str(tmp_path / "x.gin")], [])
        _, said = str(caught.value).split("x.gin:2: ")
        assert said == f'no parameter "{parameter}" on {configurable}: it is now {OLD[text]}'


def test_every_new_name_is_one():
    for text, new in OLD.items():
        name = new.partition(" = ")[0]
        try:
            value = "@SyncEnvironments()" if name == "Environment.backend" else text.partition(" = ")[2]
            configuration.parse([], [f"{name} = {value}"])
        finally:
            gin.clear_config()


def test_record_of_before_is_the_same_experiment():
    before = {
        "run.env_id": "'LunarLander-v3'",
        "run.env_backend": "'async'",
        "run.env_timeout": "120.0",
        "run.num_envs": "8",
        "run.eval_episodes": "100",
        "run.seed": "7",
    }
    now = {
        "run.environment": "@Environment()",
        "run.evaluation": "@Evaluation()",
        "Environment.env_id": "'LunarLander-v3'",
        "Environment.backend": "@AsyncEnvironments()",
        "Environment.num_envs": "8",
        "AsyncEnvironments.timeout": "60.0",
        "Evaluation.episodes": "3",
        "run.seed": "7",
    }
    assert differences(before, now) == differences(now, before) == []
    other = {**now, "Environment.num_envs": "4", "Environment.backend": "@SyncEnvironments()"}
    assert differences(before, other) == [
        "Environment.backend (@AsyncEnvironments() there, @SyncEnvironments() here)",
        "Environment.num_envs (8 there, 4 here)",
    ]


@pytest.mark.parametrize("path", sorted(ROOT.glob("results/*/*/run.json")), ids=lambda path: path.parent.name)
def test_records_that_come_with_ngrl_name_their_environment(path):
    config = renamed.current(json.loads(path.read_text(encoding="utf-8"))["config"])
    classic = {"CartPole-v0", "CartPole-v1", "Acrobot-v1", "Pendulum-v1", "LunarLander-v3", "ngrl/LunarLander-v2"}
    robots = {"Hopper-v5", "Walker2d-v5", "HalfCheetah-v5", "Ant-v5", "Swimmer-v5"}
    games = {f"MinAtar/{game}-v1" for game in ("Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders")}
    assert config["Environment.env_id"].strip("'") in classic | robots | games
    assert not any(renamed.present_name(*name.split(".", 1)) for name in config if name.startswith("run."))
