"""Schedules, statistics, checkpoints, the run's directory."""

import io
import json
import math
import os

import numpy as np
import pytest
import tensorflow as tf

from ngrl.loops import EpisodeStatistics, ExponentialEpsilon, LinearEpsilon, LoopState
from ngrl.runs import CheckpointError, RunDirectory, RunDirectoryError
from ngrl.runs.directory import move_aside
from ngrl.runs.episodes import Episode, EpisodeLog, EpisodeTail
from ngrl.training import CheckpointStore
from ngrl.training.progress import Terminal


def test_epsilon_schedules_by_hand():
    linear = LinearEpsilon(1.0, 0.1, 100)
    assert [linear(n, 0) for n in (0, 50, 100, 500)] == pytest.approx([1.0, 0.55, 0.1, 0.1])
    episodes = ExponentialEpsilon(1.0, 0.02, 0.5)
    assert [episodes(10**6, n) for n in (0, 1, 3, 50)] == [1.0, 0.5, 0.125, 0.02]
    assert ExponentialEpsilon(0.8, 0.0, 0.5, per="step")(2, 10**6) == 0.2
    for wrong in ({"start": 0.1, "end": 0.5}, {"decay": 0.0}, {"per": "day"}):
        with pytest.raises(ValueError, match="must"):
            ExponentialEpsilon(**wrong)


def test_statistics_equal_a_slow_recount():
    generator = np.random.default_rng(0)
    statistics, finished, current = EpisodeStatistics(3), [], [[], [], []]
    steps, counted = 0, []
    for _ in range(2000):
        rewards, moved = generator.normal(size=3), generator.random(3) < 0.9
        ended = moved & (generator.random(3) < 0.1)
        expected = []
        steps += moved.sum()
        for member in range(3):
            if moved[member]:
                current[member].append(rewards[member])
            if ended[member]:
                expected.append((sum(current[member]), len(current[member]), steps))
                current[member] = []
        reported = statistics.add(rewards, moved, ended)
        np.testing.assert_allclose(np.array(reported).reshape(-1, 3), np.array(expected).reshape(-1, 3))
        finished += expected
        counted.append((rewards, moved, ended))
    at_once, reported = EpisodeStatistics(3), []
    for first in range(0, 2000, 500):
        reported += at_once.add_many(*(np.array(part) for part in zip(*counted[first : first + 500], strict=True)))
    assert at_once.state() == statistics.state()  # to the last bit
    np.testing.assert_allclose(np.array(reported), finished)
    returns = [r for r, *_ in finished]
    means = [np.mean(returns[i - 100 : i]) for i in range(100, len(returns) + 1)]
    assert statistics.episodes == len(finished)
    np.testing.assert_allclose(statistics.average_return, means[-1])
    np.testing.assert_allclose(statistics.best_average, max(means))
    restored = EpisodeStatistics(3)
    restored.restore(json.loads(json.dumps(statistics.state())))
    assert restored.state() == statistics.state()


def test_best_average_needs_a_hundred_episodes():
    statistics, one = EpisodeStatistics(1), np.ones(1, bool)
    for _ in range(99):
        statistics.add(np.ones(1), one, one)
    assert math.isnan(statistics.best_average)
    statistics.add(np.ones(1), one, one)
    assert statistics.best_average == 1.0


def test_a_return_that_is_nan_takes_no_best_average_away(tmp_path):
    statistics, one, tail = EpisodeStatistics(1), np.ones(1, bool), EpisodeTail(tmp_path / "episodes.csv")
    rows = ["episode,env_steps,train_steps,return,length,wall_s"]
    for number, episode_return in enumerate([5.0] * 100 + [math.nan] + [1.0] * 100, start=1):
        statistics.add(np.array([episode_return]), one, one)
        rows.append(f"{number},{number},0,{episode_return},1,0.1")
    (tmp_path / "episodes.csv").write_text("\n".join(rows) + "\n")
    tail.read()
    assert (statistics.best_average, statistics.best_at_env_steps) == (5, 100)
    assert tail.figures()["best"] == 5


def test_episode_log_is_cut_back_on_resume(tmp_path):
    path = tmp_path / "episodes.csv"
    log = EpisodeLog(path)
    log.write(Episode(1, 10, 5, 1.5, 10, 0.1))
    size = log.sync()
    log.write(Episode(2, 20, 15, 2.5, 10, 0.2))
    log.close()
    log = EpisodeLog(path, size)
    log.write(Episode(2, 30, 25, 3.5, 20, 0.3))
    log.close()
    assert path.read_text().splitlines() == [
        "episode,env_steps,train_steps,return,length,wall_s",
        "1,10,5,1.5,10,0.1",
        "2,30,25,3.5,20,0.3",
    ]


class Module(tf.Module):
    def __init__(self, value, size=3):
        super().__init__()
        self.v = tf.Variable(tf.fill([size], float(value)))


def state(number):
    return LoopState({"number": number}, {"array": np.arange(number)})


def corrupt(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
@pytest.mark.parametrize("name", ["arrays.npz", "variables.data-00000-of-00001", "state.json", "manifest.json"])
def test_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, damage, name):
    module, warnings = Module(1), []
    store = CheckpointStore(tmp_path, module, keep=2, warn=warnings.append)
    store.save(10, state(4))
    module.v.assign([2.0, 2.0, 2.0])
    newest = store.save(20, state(5))
    target = newest / name
    if damage == "flip":
        corrupt(target)
    elif damage == "truncate":
        target.write_bytes(target.read_bytes()[:-1])
    else:
        target.unlink()
    restored = store.restore_latest()
    assert restored.values == {"number": 4}
    np.testing.assert_array_equal(restored.arrays["array"], np.arange(4))
    np.testing.assert_array_equal(module.v, [1.0, 1.0, 1.0])
    assert len(warnings) == 1
    assert "step_0000000020" in warnings[0]


def test_a_block_of_the_checkpoint_before_is_linked_not_written_again(tmp_path):
    first, second = np.arange(3, dtype=np.uint8), np.arange(4, dtype=np.uint8)
    store = CheckpointStore(tmp_path, Module(1))
    store.save(10, LoopState({}, {}, {"old": first}))
    never = np.zeros(3, np.uint8)  # what is there under that name isn't looked at
    folder = store.save(20, LoopState({}, {}, {"old": never, "new": second}))
    assert {path.name: path.stat().st_nlink for path in folder.glob("*.npy")} == {"old.npy": 2, "new.npy": 1}
    other = CheckpointStore(tmp_path, Module(1))
    found = other.restore_latest().blocks
    np.testing.assert_array_equal(found["old"], first)
    np.testing.assert_array_equal(found["new"], second)
    folder = other.save(30, LoopState({}, {}, {"new": never, "newer": second}))  # as does a resumed run
    assert {path.name: path.stat().st_nlink for path in folder.glob("*.npy")} == {"new.npy": 2, "newer.npy": 1}
    corrupt(folder / "newer.npy")
    warned = []
    assert CheckpointStore(tmp_path, Module(1), warn=warned.append).restore_latest().blocks.keys() == {"old", "new"}
    assert "newer.npy has changed since it was written" in warned[0]


def test_a_block_is_written_where_files_cannot_be_linked(tmp_path, monkeypatch):
    def link(*_):
        raise OSError("no links here")

    monkeypatch.setattr("os.link", link)
    store = CheckpointStore(tmp_path, Module(1))
    for step in (10, 20):
        store.save(step, LoopState({}, {}, {"block": np.arange(3)}))
    np.testing.assert_array_equal(store.restore_latest().blocks["block"], np.arange(3))


def test_checkpoint_that_nobody_restored_makes_room_for_one_of_its_step(tmp_path):
    for number in (1, 2):
        CheckpointStore(tmp_path, Module(number)).save(7, state(number))
    module = Module(0)
    assert CheckpointStore(tmp_path, module).restore_latest().values == {"number": 2}
    np.testing.assert_array_equal(module.v, [2.0, 2.0, 2.0])


def test_only_damaged_checkpoints_are_an_error_and_none_at_all_is_a_fresh_start(tmp_path):
    store = CheckpointStore(tmp_path / "c", Module(1))
    assert store.restore_latest() is None
    corrupt(store.save(10, state(1)) / "arrays.npz")
    with pytest.raises(CheckpointError, match="no whole checkpoint"):
        store.restore_latest()


def test_checkpoint_of_other_variables_is_refused(tmp_path):
    CheckpointStore(tmp_path, Module(1, size=3)).save(1, state(1))
    with pytest.raises(CheckpointError, match="another network"):
        CheckpointStore(tmp_path, Module(1, size=4)).restore_latest()


def test_old_checkpoints_and_litter_go(tmp_path):
    store = CheckpointStore(tmp_path, Module(1), keep=2)
    (tmp_path / "writing_0000000001").mkdir()
    for step in (1, 2, 3):
        store.save(step, state(1))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_0000000002", "step_0000000003"]


def test_old_checkpoint_that_can_not_be_removed_ends_no_run(tmp_path, monkeypatch):
    store = CheckpointStore(tmp_path, Module(1), keep=1)
    store.save(1, state(1))
    with monkeypatch.context() as undone:
        undone.setattr(os, "rmdir", lambda *_, **__: (_ for _ in ()).throw(PermissionError(1, "not permitted")))
        store.save(2, state(1))
    store.save(3, state(1))
    assert [path.name for path in tmp_path.iterdir()] == ["step_0000000003"]


def test_checkpoint_that_cannot_be_written_names_its_path_and_keeps_the_one_before(tmp_path, monkeypatch):
    store = CheckpointStore(tmp_path, Module(1), keep=1)
    store.save(1, state(1))

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(CheckpointError, match=r"step_0000000002 .*bytes written.*No space left"):
        store.save(2, state(2))
    assert [path.name for path in tmp_path.iterdir()] == ["step_0000000001"]
    assert store.restore_latest().values == {"number": 1}


def test_second_process_on_one_directory_is_refused(tmp_path):
    first = RunDirectory(tmp_path / "run", {})
    with pytest.raises(RunDirectoryError, match="in use by process"):
        RunDirectory(tmp_path / "run", {})
    with pytest.raises(RunDirectoryError, match="in use by process"):
        move_aside(tmp_path / "run")
    first.close()
    RunDirectory(tmp_path / "run", {}).close()


def test_foreign_directories_and_files_are_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunDirectoryError, match="holds files, but no run"):
        RunDirectory(tmp_path, {})
    with pytest.raises(RunDirectoryError, match="is a file"):
        RunDirectory(tmp_path / "notes.txt", {})
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_length_and_reporting_may_change_between_a_run_and_its_continuation(tmp_path):
    directory = RunDirectory(tmp_path, {"run.num_env_steps": "10", "run.seed": "0"})
    directory.write(status="training")
    directory.close()
    RunDirectory(tmp_path, {"run.num_env_steps": "20", "run.seed": "0"}).close()
    with pytest.raises(RunDirectoryError, match=r"run.seed \(0 there, 1 here\)"):
        RunDirectory(tmp_path, {"run.num_env_steps": "20", "run.seed": "1"})


@pytest.mark.parametrize(("before", "gone"), [(1000, 1024), (2000, 1500)])
@pytest.mark.parametrize("known_from", ["final", "checkpoint"])
def test_length_that_a_run_is_beyond_is_refused_and_nothing_is_written(tmp_path, before, gone, known_from):
    """It would be reported as one of that length; that a run goes beyond its own by part of a batch is no matter."""
    directory = RunDirectory(tmp_path, {"run.num_env_steps": str(before)})
    directory.write(**({"final": {"env_steps": gone, "episodes": 7}} if known_from == "final" else {}))
    if known_from == "checkpoint":
        (tmp_path / "checkpoints" / f"step_{gone:010d}").mkdir(parents=True)
    directory.close()
    written = (tmp_path / "run.json").read_bytes()
    RunDirectory(tmp_path, {"run.num_env_steps": str(before)}).close()
    RunDirectory(tmp_path, {"run.num_env_steps": "1500"}).close()
    with pytest.raises(
        RunDirectoryError, match=rf"holds {gone:,} environment steps, more than run.num_env_steps = 999:"
    ):
        RunDirectory(tmp_path, {"run.num_env_steps": "999"})
    if known_from == "final":
        with pytest.raises(RunDirectoryError, match=r"holds 7 episodes, more than run.num_episodes = 6:"):
            RunDirectory(tmp_path, {"run.num_env_steps": str(before), "run.num_episodes": "6"})
    assert (tmp_path / "run.json").read_bytes() == written


def test_moving_aside_keeps_every_earlier_run(tmp_path):
    for expected in ("run.1", "run.2"):
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "run.lock").touch()
        assert move_aside(tmp_path / "run").name == expected
    assert move_aside(tmp_path / "run") is None


def test_what_is_no_run_is_not_moved_aside(tmp_path):
    (tmp_path / "thesis").mkdir()
    assert move_aside(tmp_path / "thesis") is None
    (tmp_path / "thesis" / "chapter.txt").write_text("mine")
    with pytest.raises(RunDirectoryError, match="no run of ngrl's"):
        move_aside(tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter.txt").exists()


def test_saving_a_step_again_never_leaves_a_moment_without_checkpoint(tmp_path, monkeypatch):
    module = Module(1)
    CheckpointStore(tmp_path, module, keep=1).save(1, state(1))
    store = CheckpointStore(tmp_path, module, keep=1)
    store.restore_latest()

    def killed(*args, **kwargs):
        raise AssertionError("must not touch the checkpoint")

    monkeypatch.setattr("shutil.rmtree", killed)
    assert store.save(1, state(1)).name == "step_0000000001"


@pytest.mark.parametrize("size", [0, 10])
def test_episode_log_that_lost_rows_is_an_error(tmp_path, size):
    path = tmp_path / "episodes.csv"
    if size:
        path.write_bytes(b"x" * size)
    with pytest.raises(CheckpointError, match="shorter than the checkpoint says"):
        EpisodeLog(path, 100)


class TerminalStream(io.StringIO):
    def isatty(self):
        return True


# As in a run whose first hundred episodes are not over.
SCALARS = {
    "Metrics/AverageReturn": 12.5,
    "Metrics/Best100AverageReturn": math.nan,
    "ngrl/epsilon": 0.25,
    "ngrl/damping": 1.0,
}


@pytest.mark.parametrize(
    ("limits", "start", "update", "percentage"),
    [
        ((1000, None), (0, 0), (1003, 9), "100%"),
        ((1000, None), (1003, 9), (1003, 9), "100%"),
        ((None, 20), (0, 0), (500, 23), "100%"),
        ((None, 20), (500, 23), (500, 23), "100%"),
        ((1000, 20), (0, 0), (500, 23), " 50%"),
    ],
)
def test_progress_bar_bears_going_beyond_its_end(limits, start, update, percentage):
    stream = TerminalStream()
    terminal = Terminal("name", stream)
    terminal.start(*limits, *start)
    terminal.update(*update, SCALARS)
    terminal.stop()
    shown = stream.getvalue()
    assert percentage in shown
    for part in ("mean100 12.5", "best100 –", "ε 0.250", "λ 1", f"{update[1]} episodes"):
        assert part in shown


def test_progress_without_a_terminal_is_plain_lines():
    stream = io.StringIO()
    terminal = Terminal("name", stream, interval=0.0)
    terminal.start(1000, None, 0, 0)
    terminal.update(500, 3, SCALARS)
    terminal.note("a note")
    terminal.warn("beware")
    terminal.stop()
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("name: 500 steps, ")
    assert lines[1:] == ["name: a note", "name: warning: beware"]
