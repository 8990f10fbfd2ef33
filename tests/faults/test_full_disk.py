"""A disk that is full, a real one: one line with path and bytes, nothing lost, and the same command goes on."""

import re
import signal

import pytest
import tensorflow as tf
from chaos import differences, litter
from experiments import arguments

from ngrl.loops import LoopState
from ngrl.runs import CheckpointError, WriteError
from ngrl.runs.episodes import Episode, EpisodeLog
from ngrl.runs.events import EventFile
from ngrl.runs.files import write_json
from ngrl.training import CheckpointStore
from ngrl.training.context import RunContext
from ngrl.training.recording import recording

ROOMY = 64 << 20
STEPS = 1_200
SELDOM = "OffPolicyLoop.updates_per_step=0.25"


def fill(disk, leave=0):
    """Write until the disk has only `leave` bytes of room."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
        file.truncate(max(0, file.tell() - leave))
    return ballast


def write_many(*functions):
    """More than fits the 4 kB that a file may still have."""
    for _ in range(1000):
        for function in functions:
            function()


def newest(folder):
    return max((int(path.name[5:]) for path in (folder / "checkpoints").glob("step_*")), default=0)


def test_run_on_a_full_disk_ends_with_path_and_bytes_and_goes_on_when_there_is_room(start, tmpfs, tmp_path):
    assert start(*arguments("ngdqn", "CartPole-v1", "whole", SELDOM, steps=STEPS), export=False).wait() == 0
    disk = tmpfs(ROOMY)
    command = arguments("ngdqn", "CartPole-v1", disk / "run", SELDOM, steps=STEPS)
    run = start(*command, export=False)
    run.wait_until(lambda: newest(disk / "run") >= 200)
    run.stop()
    ballast = fill(disk)
    run.go_on()
    assert run.wait() == 1
    assert re.match(rf"ngrl.launch: can't write {disk.name}/run/\S+ \(.*bytes free\): .*No space left", run.lines[-1])
    assert not any("Traceback" in line for line in run.lines)
    saved = newest(disk / "run")
    assert 200 <= saved < STEPS
    # Still full: told again, and nothing is made worse.
    again = start(*command, export=False)
    assert again.wait() == 1
    assert "No space left" in again.lines[-1]
    assert newest(disk / "run") == saved
    ballast.unlink()
    last = start(*command, export=False)
    assert last.wait() == 0, last.lines
    assert any(f"resuming at {saved:,} environment steps" in line for line in last.lines)
    assert not differences(tmp_path / "whole", disk / "run")
    assert not litter(disk / "run")


def test_export_onto_a_full_disk_ends_with_path_and_bytes_and_is_repeated(start, tmpfs):
    disk = tmpfs(ROOMY)
    command = arguments("ngdqn", "CartPole-v1", disk / "run")
    run = start(*command)
    run.wait_until(lambda: newest(disk / "run") >= 400)
    run.stop()
    ballast = fill(disk, leave=8192)  # room for run.json
    run.go_on()
    assert run.wait() == 1
    assert re.match(rf"ngrl.launch: can't write {disk.name}/run/policy \([\d,]+ bytes written, ", run.lines[-1])
    assert "No space left" in run.lines[-1]
    assert not litter(disk / "run")
    ballast.unlink()
    assert start(*command).wait() == 0
    assert (disk / "run" / "policy_collect" / "saved_model.pb").exists()


@pytest.mark.parametrize("room", [0, 4096, 32768])
def test_checkpoint_that_does_not_fit_names_path_and_bytes_and_the_one_before_restores(tmpfs, room):
    disk = tmpfs(4 << 20)
    module = tf.Module()
    module.v = tf.Variable(tf.fill([20_000], 1.0))
    store = CheckpointStore(disk / "checkpoints", module, keep=1)
    store.save(1, LoopState({"number": 1}, {}))
    module.v.assign(tf.fill([20_000], 2.0))
    fill(disk, room)
    with pytest.raises(
        CheckpointError, match=r"can't write .*step_0000000002 \([\d,]+ bytes written, [\d,]+ bytes free\)"
    ):
        store.save(2, LoopState({"number": 2}, {}))
    assert [path.name for path in (disk / "checkpoints").iterdir()] == ["step_0000000001"]
    assert CheckpointStore(disk / "checkpoints", module, keep=1).restore_latest().values == {"number": 1}
    assert module.v.numpy().tolist() == [1.0] * 20_000


def test_episodes_csv_that_does_not_fit_is_told_with_its_path(tmpfs):
    disk = tmpfs(1 << 20)
    log = EpisodeLog(disk / "episodes.csv")
    log.write(Episode(1, 10, 5, 1.5, 10, 0.1))
    kept = log.sync()
    fill(disk)
    with pytest.raises(WriteError, match=r"can't write .*/episodes.csv \([\d,]+ bytes free\): No space left"):
        write_many(lambda: log.write(Episode(2, 20, 15, 2.5, 10, 0.2)))
    assert (disk / "episodes.csv").read_bytes()[:kept].endswith(b"1,10,5,1.5,10,0.1\n")


def test_event_files_that_do_not_fit_are_told_with_their_folder(tmpfs):
    disk = tmpfs(1 << 20)
    events = EventFile(disk / "train")
    events.scalars({"a": 1.0}, 1)
    fill(disk)
    with pytest.raises(WriteError, match=r"can't write .*/train \([\d,]+ bytes free\): .*No space left"):
        write_many(lambda: events.scalars({"a": 1.0}, 2))
    with pytest.raises(WriteError, match="/eval"):
        EventFile(disk / "eval")


def test_table_and_picture_of_an_entry_that_do_not_fit_are_told_with_their_paths(tmpfs):
    disk = tmpfs(1 << 20)
    with recording(RunContext(disk / "run"), {}) as record:
        record.table("numbers", ("number",), [(1,)])
        fill(disk)
        with pytest.raises(WriteError, match=r"can't write .*/numbers.csv \([\d,]+ bytes free\): No space left"):
            record.table("numbers", ("number",), ((number,) for number in range(10_000)))
        with pytest.raises(WriteError, match=r"can't write .*No space left"):
            record.pictures({"picture": b"x" * 100_000})
        assert (disk / "run" / "numbers.csv").read_text() == "number\n1\n"
        assert not (disk / "run" / "picture.png").exists()


def test_json_file_that_does_not_fit_keeps_its_old_content(tmpfs):
    disk = tmpfs(1 << 20)
    write_json(disk / "run.json", {"old": 1})
    fill(disk)
    with pytest.raises(WriteError, match=r"can't write .*/run.json \(.*bytes free\): No space left"):
        write_json(disk / "run.json", {"new": "x" * 100_000})
    assert (disk / "run.json").read_text() == '{\n "old": 1\n}\n'
    assert sorted(path.name for path in disk.iterdir()) == ["ballast", "run.json"]


def test_signal_on_a_full_disk_tells_of_the_disk_and_not_of_a_checkpoint(start, tmpfs):
    disk = tmpfs(ROOMY)
    run = start(*arguments("trpo", "CartPole-v1", disk / "run", "run.checkpoint_every=100000000", steps=10**9))
    run.wait_until(lambda: (disk / "run" / "episodes.csv").exists())
    fill(disk)
    assert run.kill(signal.SIGTERM) == 1
    assert "No space left" in run.lines[-1]
