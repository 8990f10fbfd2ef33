"""Whole runs, in miniature."""

import functools
import json
import math
import os
import shlex
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from run_contents import rows, variables
from small_runs import train
from tensorboard.backend.event_processing import event_accumulator
from tf_agents.policies import fixed_policy

from ngrl import agents, environments, launch, loops, networks, optimizers, runs, training
from ngrl.training import evaluation, final_evaluation
from ngrl.training.progress import Progress

CARTPOLE = environments.Environment("CartPole-v1")
#: What a run exports is of no interest.
LIVE = pytest.mark.usefixtures("_live_policies")


def natural_agent(time_step_spec, action_spec, seed, learning_rate=1.0):
    network = networks.QNetwork(time_step_spec.observation, int(action_spec.maximum) + 1, (16,), seed=seed)
    optimizer = optimizers.NaturalGradient(learning_rate, damping=1.0, max_kl=0.01, momentum=0.1)
    return agents.DqnAgent(time_step_spec, action_spec, network, optimizer, gamma=0.95)


small_loop = functools.partial(
    loops.OffPolicyLoop, batch_size=16, replay_capacity=300, warmup_steps=64, updates_per_call=4, jit_compile=False
)
compiled_loop = functools.partial(small_loop, jit_compile=True)


def run(folder, steps, agent=natural_agent, env_id="CartPole-v1", loop=small_loop, **options):
    defaults = {"num_envs": 4, "log_every": 100, "checkpoint_every": 200, "episodes": 3}
    return train(folder, env_id, agent, loop, num_env_steps=steps, **{**defaults, **options})


def test_training_time_limit_is_that_of_training_alone(tmp_path):
    result = run(tmp_path / "run", 300, training_time_limit=7)
    lengths = [int(row["length"]) for row in rows(tmp_path / "run")]
    assert max(lengths) == 7  # CartPole falls after eight steps at the earliest
    assert result["evaluation"]["mean_length"] > 7
    assert json.loads((tmp_path / "run" / "policy" / "ngrl_policy.json").read_text())["env_kwargs"] == {}
    with pytest.raises(runs.RunDirectoryError, match="training_time_limit"):
        run(tmp_path / "run", 600, training_time_limit=8)


@LIVE
def test_score_of_the_same_policy_stays_where_it_is_not_to_be_played_with_again(tmp_path):
    scored = run(tmp_path / "run", 300)["evaluation"]
    assert run(tmp_path / "run", 300, episodes=0)["evaluation"]["mean"] == scored["mean"]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["final"]["evaluation"]["mean"] == scored["mean"]
    assert (tmp_path / "run" / "evaluation.json").exists()
    assert "evaluation" not in run(tmp_path / "run", 400, episodes=0)
    assert not (tmp_path / "run" / "evaluation.json").exists()  # it was of another policy


def test_score_of_the_same_policy_is_one_point_in_tensorboard(tmp_path):
    for _ in range(2):
        run(tmp_path / "run", 300)
    run(tmp_path / "run", 300, episodes=2)  # which is another score
    events = event_accumulator.EventAccumulator(str(tmp_path / "run" / "eval"))
    events.Reload()
    assert len(events.Tensors("eval/mean_reward")) == 2


def rates(root_dir):
    events = event_accumulator.EventAccumulator(str(root_dir / "train"))
    events.Reload()
    return [event.step for event in events.Tensors("perf/env_steps_per_second")]


@LIVE
def test_run_that_is_as_long_as_asked_for_says_so_and_takes_no_time(tmp_path, monkeypatch):
    notes = []
    monkeypatch.setattr(Progress, "note", lambda self, text: notes.append(text))
    before = run(tmp_path / "run", 300, episodes=0)
    logged = rates(tmp_path / "run")
    again = run(tmp_path / "run", 200, episodes=0)
    assert rates(tmp_path / "run") == logged  # no last one of 0
    assert again["env_steps"] == before["env_steps"]
    assert 0 < again["wall_s"] <= before["wall_s"]
    assert notes[-1] == "no step is made: the run is as long as was asked for"
    assert run(tmp_path / "run", 600, episodes=0)["wall_s"] > again["wall_s"]
    assert notes[-1] == f"resuming at {before['env_steps']:,} environment steps"


def test_training_time_limit_must_be_positive(tmp_path):
    with pytest.raises(ValueError, match="training_time_limit must be a positive integer, got 0"):
        run(tmp_path / "run", 300, training_time_limit=0)


def assert_same_run(one, other):
    """That two runs have the same variables, state and episodes, bit for bit."""
    (whole, whole_state), (parts, parts_state) = variables(one), variables(other)
    assert whole.keys() == parts.keys()
    for name in whole:
        np.testing.assert_array_equal(whole[name], parts[name], err_msg=name)
    assert whole_state == parts_state
    assert rows(one) == rows(other)


@LIVE
def test_interrupted_run_goes_on_bit_for_bit(tmp_path):
    """Compiled by XLA, as a user's would be; every agent's without it: `test_kills.py`."""
    for name, steps in (("whole", 600), ("parts", 300), ("parts", 600)):
        run(tmp_path / name, steps, natural_agent, "CartPole-v1", compiled_loop)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


@LIVE
def test_seed_may_be_numpys(tmp_path):
    assert run(tmp_path / "run", 100, seed=np.int64(1), episodes=0)["env_steps"] >= 100
    assert json.loads((tmp_path / "run" / "run.json").read_text())["seed"] == 1


def test_numbers_of_settings_may_be_numpys(tmp_path):
    two, forty = np.int64(2), np.int64(40)
    sizes = {"batch_size": two, "replay_capacity": forty, "warmup_steps": forty, "updates_per_call": two}
    loop = functools.partial(small_loop, **sizes, updates_per_step=np.float32(0.5))
    settings = {"num_envs": two, "frame_stack": two, "preprocessing": environments.ActionRepeat(two)}
    limits = {"training_time_limit": forty, "episodes": two, "max_episode_steps": forty}
    result = run(tmp_path / "run", np.int64(100), natural_agent, "CartPole-v1", loop, **settings, **limits)
    assert (result["evaluation"]["episodes"], result["evaluation"]["max_episode_steps"]) == (2, 40)
    described = json.loads((tmp_path / "run" / "policy" / "ngrl_policy.json").read_text())
    assert described["env_frame_stack"] == described["env_preprocessing"]["times"] == 2


@LIVE
def test_same_seed_repeats_a_run_and_another_seed_does_not(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        run(tmp_path / name, 300, seed=seed)
    assert rows(tmp_path / "a") == rows(tmp_path / "b") != rows(tmp_path / "c")


@LIVE
def test_episodes_csv_agrees_with_a_slow_recount(tmp_path):
    final = run(tmp_path, 4000)
    table = rows(tmp_path)
    assert [int(row["episode"]) for row in table] == list(range(1, len(table) + 1))
    returns = [float(row["return"]) for row in table]
    assert len(returns) >= 100
    # CartPole pays 1 a step.
    assert returns == [float(row["length"]) for row in table]
    means = [np.mean(returns[i - 100 : i]) for i in range(100, len(returns) + 1)]
    assert final["best_100_episode_mean"] == pytest.approx(max(means))
    assert final["final_100_episode_mean"] == pytest.approx(means[-1])
    assert final["episodes"] == len(table)
    assert 4000 <= final["env_steps"] < 4004
    assert final["train_steps"] == pytest.approx(final["env_steps"] - 64, abs=8)


def test_directory_holds_everything_about_the_run(tmp_path):
    final = run(tmp_path, 1000)
    content = json.loads((tmp_path / "run.json").read_text())
    assert content["status"] == "finished"
    assert content["final"] == final
    assert content["processes"][0]["versions"]["tensorflow"] == tf.__version__
    evaluation = json.loads((tmp_path / "evaluation.json").read_text())
    assert len(evaluation["returns"]) == evaluation["episodes"] == 3
    events = event_accumulator.EventAccumulator(str(tmp_path / "train"), {"tensors": 0})
    events.Reload()
    assert {
        "Metrics/AverageReturn",
        "Metrics/AverageEpisodeLength",
        "Metrics/NumberOfEpisodes",
        "Metrics/EnvironmentSteps",
        "rollout/ep_rew_mean",
        "Losses/td_loss",
        "ngrl/solver_iterations",
        "ngrl/solver_residual",
        "ngrl/damping",
        "ngrl/predicted_kl",
        "ngrl/step_norm",
        "ngrl/gradient_norm",
        "ngrl/skipped_updates",
        "perf/env_steps_per_second",
        "perf/updates_per_second",
    } <= set(events.Tags()["tensors"])
    steps = [event.step for event in events.Tensors("ngrl/predicted_kl")]
    assert steps[0] == pytest.approx(100, abs=4)
    assert len(steps) >= 9
    evaluated = event_accumulator.EventAccumulator(str(tmp_path / "eval"))
    evaluated.Reload()
    assert "eval/mean_reward" in evaluated.Tags()["tensors"]
    steps = sorted(int(path.name.removeprefix("step_")) for path in (tmp_path / "checkpoints").iterdir())
    assert steps == [pytest.approx(800, abs=4), final["env_steps"]]


@LIVE
def test_run_can_be_limited_by_episodes(tmp_path):
    final = train(tmp_path, "CartPole-v1", natural_agent, small_loop, num_episodes=7, num_envs=1, episodes=0)
    assert final["episodes"] == 7
    assert "evaluation" not in final


@LIVE
def test_directory_of_another_experiment_is_refused_and_left_alone(tmp_path):
    run(tmp_path, 200, episodes=0, config=lambda: {"Environment.env_id": "CartPole-v1", "DqnAgent.gamma": "0.95"})
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(runs.RunDirectoryError, match=r"DqnAgent.gamma \(0.95 there, 0.9 here\)"):
        run(tmp_path, 400, episodes=0, config=lambda: {"Environment.env_id": "CartPole-v1", "DqnAgent.gamma": "0.9"})
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_impossible_experiments_write_nothing(tmp_path):
    with pytest.raises(ValueError, match="one discrete action"):
        run(
            tmp_path / "a",
            100,
            env_id="Pendulum-v1",
            agent=lambda *specs, seed: agents.check_discrete_action(specs[1]),
        )
    with pytest.raises(ValueError, match="CartPool-v1"):
        run(tmp_path / "b", 100, env_id="CartPool-v1")
    with pytest.raises(ValueError, match="num_env_steps"):
        run(tmp_path / "c", None)
    with pytest.raises(ValueError, match="episodes must be an integer of at least 0, got -1"):
        run(tmp_path / "d", 100, episodes=-1)
    with pytest.raises(ValueError, match="keep_checkpoints"):
        run(tmp_path / "e", 100, keep_checkpoints=0)
    with pytest.raises(ValueError, match="can't be drawn"):
        run(tmp_path / "f", 100, env_id="ngrl/Chain-v0", capture_video=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("frame", "problem"),
    [
        (None, "got NoneType"),
        (np.zeros((4, 4, 3)), r"got float64 \(4, 4, 3\)"),
        (np.zeros((4, 4, 1), np.uint8), r"got uint8 \(4, 4, 1\)"),
    ],
)
def test_frames_that_make_no_video_are_refused_before_the_run(monkeypatch, frame, problem):
    monkeypatch.setattr("gymnasium.envs.classic_control.CartPoleEnv.render", lambda self: frame)
    with pytest.raises(ValueError, match=rf"^no video: CartPole-v1 .* uint8 \[H, W, 3\], {problem}"):
        training.evaluation.check_video(environments.Environment("CartPole-v1"))


def test_environment_that_says_nothing_of_why_it_cannot_be_drawn_is_refused_too(monkeypatch):
    def render(self):
        raise NotImplementedError

    monkeypatch.setattr("gymnasium.envs.classic_control.CartPoleEnv.render", render)
    with pytest.raises(ValueError, match=r"^no video: CartPole-v1 can't be drawn: .*NotImplementedError"):
        training.evaluation.check_video(environments.Environment("CartPole-v1"))


@LIVE
def test_checkpoints_that_vanished_are_an_error_and_not_a_fresh_start(tmp_path):
    run(tmp_path, 300, episodes=0)
    shutil.rmtree(tmp_path / "checkpoints")
    before = (tmp_path / "episodes.csv").read_bytes()
    with pytest.raises(runs.CheckpointError, match="none is left"):
        run(tmp_path, 600, episodes=0)
    assert (tmp_path / "episodes.csv").read_bytes() == before


@LIVE
def test_directory_of_other_settings_is_refused_without_any_config(tmp_path):
    run(tmp_path, 200, episodes=0)
    # As docs/python.md says.
    named = json.loads((tmp_path / "run.json").read_text())["config"]
    assert {name for name in named if not name.startswith("Environment.")} == {"run.seed", "run.optimizer"}
    with pytest.raises(runs.RunDirectoryError, match="another experiment"):
        run(tmp_path, 400, functools.partial(natural_agent, learning_rate=0.5), episodes=0)
    with pytest.raises(runs.RunDirectoryError, match="truncation_is_terminal"):
        run(tmp_path, 400, truncation_is_terminal=True, episodes=0)


@LIVE
def test_run_of_skipped_updates_stops_with_the_first_cause(tmp_path):
    # The learning rate overflows the step, and with it the solution.
    agent = functools.partial(natural_agent, learning_rate=math.inf)
    loop = functools.partial(small_loop, max_skipped_updates=20)
    with pytest.raises(loops.NonFiniteError, match=r"20 updates in a row .* its solution was not finite"):
        train(tmp_path, "CartPole-v1", _without_trust_region(agent), loop, num_env_steps=1000, num_envs=4)
    # Who runs many runs sees that this one is over, and what it had reached.
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["status"] == "diverged"
    assert len((tmp_path / "episodes.csv").read_text().splitlines()) == 1 + record["final"]["episodes"] > 1
    assert "its solution was not finite" in record["failure"]
    assert record["final"]["skipped_updates"] >= 20
    assert record["final"]["env_steps"] < 1000
    rows = (tmp_path / "episodes.csv").read_text().splitlines()
    assert record["final"]["episodes"] == len(rows) - 1
    # Run again, so far that nothing has failed yet, it has no failure.
    train(tmp_path, "CartPole-v1", _without_trust_region(agent), loop, num_env_steps=40, num_envs=4)
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["status"] == "finished"
    assert "failure" not in record


def _without_trust_region(agent):
    def build(*specs, seed):
        built = agent(*specs, seed=seed)
        built.optimizer.max_kl = None
        return built

    return build


@LIVE
def test_signal_leaves_a_checkpoint_from_which_the_run_goes_on(tmp_path):
    class Interrupting(loops.OffPolicyLoop):
        signalled = False

        def step(self):
            if self.statistics.env_steps >= 452 and not self.signalled:
                self.signalled = True
                os.kill(os.getpid(), signal.SIGTERM)
            return super().step()

    loop = functools.partial(Interrupting, **small_loop.keywords)
    with pytest.raises(training.Interrupted) as stopped:
        run(tmp_path / "parts", 1000, loop=loop, episodes=0)
    assert stopped.value.exit_code == 143
    run(tmp_path / "parts", 1000, episodes=0)
    run(tmp_path / "whole", 1000, episodes=0)
    assert rows(tmp_path / "whole") == rows(tmp_path / "parts")


class StopsEarly(Progress):
    """Asks for the end at the first report from so many steps on, and keeps what it hears."""

    def __init__(self, at, of="update"):
        self.at, self.of, self.heard, self.notes = at, of, [], []

    def hear(self, kind, env_steps, scalars):
        self.heard.append((kind, env_steps, dict(scalars)))
        if kind == self.of and env_steps >= self.at:
            self.stop_training = True

    def update(self, env_steps, episodes, scalars):
        self.hear("update", env_steps, scalars)

    def scored(self, env_steps, scalars):
        self.hear("scored", env_steps, scalars)

    def note(self, line):
        self.notes.append(line)


@pytest.mark.parametrize("of", ["update", "scored"])
@LIVE
def test_training_that_progress_stops_is_evaluated_and_goes_on_bit_for_bit(tmp_path, of):
    progress = StopsEarly(250, of)
    settings = {"every": 150, "interim_episodes": 1}
    stopped = run(tmp_path / "parts", 600, progress=progress, **settings)
    at = stopped["env_steps"]
    assert 300 <= at < 310  # where the first point from 250 on is due, and no two steps of the loop later
    assert stopped["evaluation"]["episodes"] == 3
    assert progress.notes[-1] == f"stopped at {at} environment steps, as was asked for"
    assert json.loads((tmp_path / "parts" / "run.json").read_text())["status"] == "finished"
    assert {kind for kind, *_ in progress.heard} == {"update", "scored"}
    assert all("eval/interim_mean_reward" in scalars for kind, _, scalars in progress.heard if kind == "scored")
    progress.at = 10_000  # the request doesn't last until the next call
    for name in ("parts", "whole"):
        assert run(tmp_path / name, 600, progress=progress, **settings)["env_steps"] >= 600
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


class Listening(Progress):
    """Keeps what a run warns of, and how many times training had reported its state by then."""

    def __init__(self):
        self.updates, self.warnings = 0, []

    def update(self, env_steps, episodes, scalars):
        self.updates += 1

    def warn(self, line):
        self.warnings.append((self.updates, line))


def run_in_the_wall(folder, listening, **options):
    """CliffWalking by a greedy policy that walks into the wall: a zero network prefers the first action, up."""

    def agent(*specs, seed):
        built = natural_agent(*specs, seed=seed, learning_rate=0.0)
        for variable in built.q_network.variables:
            variable.assign(tf.zeros_like(variable))
        return built

    return run(folder, 200, agent, "CliffWalking-v1", episodes=4, progress=listening, **options)


def test_run_without_a_time_limit_warns_before_training_and_its_evaluation_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "UNLIMITED_STEPS", 25)
    monkeypatch.setattr(final_evaluation, "UNLIMITED_STEPS", 25)
    listening = Listening()
    final = run_in_the_wall(tmp_path / "default", listening)
    training_warning, evaluation_warning = listening.warnings
    assert training_warning[0] == evaluation_warning[0] == 0
    assert training_warning[1].startswith("CliffWalking-v1 declares no time limit: a training episode that never ends")
    assert "evaluation breaks episodes off after 25 steps (Evaluation.max_episode_steps" in evaluation_warning[1]
    assert final["evaluation"]["returns"] == [-25.0] * 4
    for content in (
        json.loads((tmp_path / "default" / "run.json").read_text())["final"]["evaluation"],
        json.loads((tmp_path / "default" / "evaluation.json").read_text()),
    ):
        assert (content["broken_off"], content["max_episode_steps"]) == (4, 25)
    shown = launch.summary("cliff", Path("my runs/cliff"), final).splitlines()
    assert "    4 of 4 episodes were broken off after 25 steps" in shown
    scores, policy, tensorboard = shown[-3:]
    assert shlex.split(scores.replace(",", "")) == ["scores", "my runs/cliff/run.json", "my runs/cliff/episodes.csv"]
    assert shlex.split(policy) == ["policy", "my runs/cliff/policy"]
    assert shlex.split(tensorboard)[-2:] == ["--logdir", "my runs"]
    untrained = launch.summary("cliff", Path("cliff"), {**final, "train_steps": 0}).splitlines()
    assert set(untrained) - set(launch.summary("cliff", Path("cliff"), {**final, "train_steps": 1}).splitlines()) == {
        "  no update was made: the steps ended within the loop's warm-up or its first batch"
    }


@LIVE
def test_run_says_of_time_limits_only_what_concerns_it(tmp_path, monkeypatch):
    listening = Listening()
    final = run_in_the_wall(tmp_path / "bound", listening, max_episode_steps=10)
    assert len(listening.warnings) == 1  # of training
    assert final["evaluation"]["broken_off"] == 4
    listening = Listening()
    monkeypatch.setattr(evaluation, "UNLIMITED_STEPS", 12)
    final = run_in_the_wall(tmp_path / "training", listening, training_time_limit=50)
    ((_, line),) = listening.warnings
    assert "evaluation breaks episodes off" in line
    assert final["evaluation"]["returns"] == [-12.0] * 4
    listening = Listening()
    final = run_in_the_wall(tmp_path / "both", listening, kwargs={"max_episode_steps": 15})
    assert not listening.warnings
    assert (final["evaluation"]["broken_off"], final["evaluation"]["returns"]) == (0, [-15.0] * 4)
    with pytest.raises(ValueError, match="max_episode_steps must be a positive integer, got 0"):
        run_in_the_wall(tmp_path / "none", listening, max_episode_steps=0)


def test_what_is_scored_is_what_is_exported(tmp_path, monkeypatch):
    def export_another(policy, folder, description):
        always_right = fixed_policy.FixedPolicy(tf.constant(1, tf.int64), policy.time_step_spec, policy.action_spec)
        training.export_policy(always_right, folder, description)

    monkeypatch.setattr(final_evaluation, "export_policy", export_another)
    filmed = []
    monkeypatch.setattr(final_evaluation, "record_video", lambda actor, *rest: filmed.append(actor))
    final = run(tmp_path, 100, episodes=5, capture_video=True)
    always_right = training.evaluate(lambda step: np.ones(len(step.step_type), np.int64), CARTPOLE, 5)
    assert final["evaluation"]["returns"] == always_right.returns
    start = environments.load("CartPole-v1", 6).reset()
    np.testing.assert_array_equal(filmed[0](start), np.ones(6))


def test_run_ends_well_whose_environment_can_no_longer_be_drawn(tmp_path, monkeypatch):
    frames = [np.zeros((4, 4, 3), np.uint8)]
    monkeypatch.setattr(final_evaluation, "load_policy", lambda folder: (lambda step: np.ones(1, np.int64), {}))
    monkeypatch.setattr(environments.GymnasiumEnvironment, "render", lambda self: [frames.pop()])
    listening = Listening()
    final = final_evaluation.FinalEvaluation(training.Evaluation(1, capture_video=True), CARTPOLE, seed=0)
    final.film(tmp_path, listening, lambda: None)
    path, place = tmp_path / "video.gif", "CartPole-v1, member 0, step 2 of its episode"
    assert listening.warnings[0][1] == f"no {path}: {place}: it can't be drawn: pop from empty list"
    assert not path.exists()


def test_score_that_can_not_be_written_down_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(final_evaluation, "load_policy", lambda folder: (lambda step: np.ones(3, np.int64), {}))
    (tmp_path / "evaluation.json" / "occupied").mkdir(parents=True)
    listening = Listening()
    final = final_evaluation.FinalEvaluation(training.Evaluation(3, capture_video=True), CARTPOLE, seed=0)
    with pytest.raises(runs.WriteError, match=r"evaluation\.json"):
        final.play(tmp_path, 0, listening, lambda: None)
    mean = training.evaluate(lambda step: np.ones(3, np.int64), CARTPOLE, 3).summary()["mean"]
    assert f"greedy evaluation {mean:.1f} ± " in listening.warnings[0][1]
    (tmp_path / "video.gif" / "occupied").mkdir(parents=True)
    monkeypatch.setattr(final_evaluation, "load_policy", lambda folder: (lambda step: np.ones(1, np.int64), {}))
    final.film(tmp_path, listening, lambda: None)
    assert listening.warnings[1][1].startswith(f"can't write {tmp_path / 'video.gif'}")
