"""Checkpoints that are damaged, lost, of another kind, or a stranger's (docs/reliability.md)."""

import ast
import json
import random
import shutil

import numpy as np
import pytest
import tensorflow as tf
from chaos import differences
from experiments import ROOT, arguments
from small_on_policy import make

from ngrl.loops import LoopState
from ngrl.runs import CheckpointError, RunDirectory, RunDirectoryError
from ngrl.runs.directory import move_aside
from ngrl.training import CheckpointStore, checkpoints


def flip(path, bit):
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(bytes(content))


def damage_flip(path, draw):
    flip(path, draw.randrange(8 * path.stat().st_size))


def damage_truncate(path, draw):
    path.write_bytes(path.read_bytes()[: draw.randrange(path.stat().st_size)])


def damage_remove(path, draw):
    path.unlink()


def sign(folder):
    """Write a manifest that says that everything in a checkpoint is as it should be."""
    (folder / "manifest.json").unlink()
    checkpoints._write_manifest(folder, int(folder.name[5:]), {})


FILES = ("arrays.npz", "manifest.json", "state.json", "variables.data-00000-of-00001", "variables.index")


@pytest.fixture(scope="module")
def finished(server, tmp_path_factory):
    """A run of 400 steps and, beside it, one of 600 steps that was never interrupted."""
    folder = tmp_path_factory.mktemp("ngdqn")
    for name, steps in (("short", 400), ("whole", 600)):
        argv = arguments("ngdqn", "CartPole-v1", folder / name, steps=steps)
        pid = server.ask(argv=argv, cwd=str(folder), output=str(folder / "output.txt"), export=False)
        assert server.ask(wait=pid) == 0, (folder / "output.txt").read_text()
    return folder


@pytest.mark.parametrize("damage", [damage_flip, damage_truncate, damage_remove])
def test_run_with_a_damaged_checkpoint_warns_falls_back_and_ends_the_same(start, tmp_path, finished, damage):
    draw = random.Random(f"ngdqn {damage.__name__}")
    shutil.copytree(finished / "short", tmp_path / "run")
    older, newest = sorted((tmp_path / "run" / "checkpoints").glob("step_*"))
    damage(newest / draw.choice(FILES), draw)
    run = start(*arguments("ngdqn", "CartPole-v1", "run", steps=600), export=False)
    assert run.wait() == 0, run.lines
    warning, resumed = (next(line for line in run.lines if text in line) for text in ("warning", "resuming"))
    assert f"checkpoint run/checkpoints/{newest.name} is damaged (" in warning
    assert f"resuming at {int(older.name[5:]):,} environment steps" in resumed
    assert not differences(finished / "whole", tmp_path / "run")


class Module(tf.Module):
    def __init__(self, value=0.0):
        super().__init__()
        self.v = tf.Variable(tf.fill([3], value))


@pytest.fixture
def two(tmp_path):
    """A folder with a checkpoint of 1s and a newer one of 2s; the newer one."""
    store = CheckpointStore(tmp_path / "checkpoints", Module(1.0), keep=2)
    store.save(1, LoopState({"number": 1}, {"numbers": np.arange(1)}))
    store = CheckpointStore(tmp_path / "checkpoints", Module(2.0), keep=2)
    return store.save(2, LoopState({"number": 2}, {"numbers": np.arange(2)}))


def restored(folder):
    """What the weights and the state of the newest whole checkpoint say, which must agree."""
    module = Module()
    state = CheckpointStore(folder, module).restore_latest()
    assert module.v.numpy().tolist() == [state.values["number"]] * 3
    assert len(state.arrays["numbers"]) == state.values["number"]
    return state.values["number"]


def test_flipped_bit_of_a_manifest_is_noticed_or_changes_nothing(two):
    path = two / "manifest.json"
    whole = path.read_bytes()
    for bit in range(0, 8 * len(whole), 3):  # every byte, and each of its bits in some
        flip(path, bit)
        if not checkpoints._problem(two):
            assert json.loads(path.read_text()) == json.loads(whole), bit  # a space for another
        path.write_bytes(whole)
    assert not checkpoints._problem(two)


@pytest.mark.parametrize("name", FILES)
def test_flipped_bit_of_the_newest_checkpoint_gives_the_one_before(two, name):
    draw, path = random.Random(name), two / name
    whole = path.read_bytes()
    for _ in range(20):
        damage_flip(path, draw)
        if name != "manifest.json" or checkpoints._problem(two):
            assert restored(two.parent) == 1
        path.write_bytes(whole)
    assert restored(two.parent) == 2


def test_damaged_checkpoint_goes_with_the_next_save_and_the_whole_one_stays(two):
    flip(two / "state.json", 3)
    store = CheckpointStore(two.parent, Module(), keep=1)
    store.restore_latest()
    assert two.exists()
    store.save(1000, LoopState({"number": 3}, {}))
    assert [path.name for path in two.parent.iterdir()] == ["step_0000001000"]
    # Saved at an earlier step than the damaged one's.
    flip(store.save(2000, LoopState({"number": 4}, {})) / "state.json", 3)
    with pytest.raises(CheckpointError, match="no whole checkpoint"):
        CheckpointStore(two.parent, Module(), keep=1).restore_latest()


def test_save_at_an_earlier_step_than_a_damaged_checkpoints_is_the_one_that_stays(two):
    flip(two / "state.json", 3)
    two.rename(two.with_name("step_0000000009"))
    store = CheckpointStore(two.parent, Module(), keep=1)
    store.restore_latest()
    store.save(3, LoopState({"number": 0}, {"numbers": np.arange(0)}))
    assert [path.name for path in two.parent.iterdir()] == ["step_0000000003"]


@pytest.mark.parametrize("content", ["", "garbled \0", 'model_checkpoint_path: "elsewhere/ckpt-9"\n'])
def test_state_file_of_tensorflow_is_never_read(two, content):
    (two.parent / "checkpoint").write_text(content)
    assert restored(two.parent) == 2


@pytest.mark.parametrize("content", [None, "", "{", "[]"])
def test_run_whose_record_is_lost_is_refused_and_never_begun_from_zero(tmp_path, two, content):
    directory = RunDirectory(tmp_path / "run", {"run.seed": "0"})
    directory.write(status="training")
    directory.close()
    shutil.move(two.parent, tmp_path / "run" / "checkpoints")
    record = tmp_path / "run" / "run.json"
    record.unlink() if content is None else record.write_text(content)
    with pytest.raises(RunDirectoryError, match=r"run\.json"):
        RunDirectory(tmp_path / "run", {"run.seed": "0"})
    assert restored(tmp_path / "run" / "checkpoints") == 2
    assert move_aside(tmp_path / "run").name == "run.1"  # as --noresume does


def test_checkpoint_of_another_schema_version_is_refused_by_number(two):
    for version, signed in ((1, False), (3, True)):
        manifest = json.loads((two / "manifest.json").read_text())
        manifest["schema_version"] = version
        del manifest["own_sha256"]
        if signed:
            manifest["own_sha256"] = checkpoints._own_checksum(manifest)
        (two / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(CheckpointError, match=f"has schema version {version}, this ngrl reads 2: resume with"):
            CheckpointStore(two.parent, Module()).restore_latest()
        (two / "manifest.json").write_text(json.dumps({**manifest, "own_sha256": ""}))


def test_checkpoint_of_another_network_is_refused_with_the_names_that_differ(tmp_path):
    def build(kind, hidden):
        agent, loop = make(kind, "CartPole-v1", agent_options={"hidden": hidden})
        return CheckpointStore(tmp_path, agent), loop

    store, loop = build("npg", (8,))
    store.save(1, loop.state())
    with pytest.raises(
        CheckpointError, match=r"belongs to another network or optimizer: .*\[4, 8\] there, \[4, 9\] here"
    ):
        build("npg", (9,))[0].restore_latest()
    with pytest.raises(CheckpointError, match=r"missing there, .* and \d+ more"):
        build("npg", (8, 8))[0].restore_latest()
    with pytest.raises(CheckpointError, match=r"_optimizer\S* \(.* there, missing here\)|missing there"):
        build("ppo", (8,))[0].restore_latest()


def test_state_of_another_loop_is_refused_by_name(start, tmp_path, finished):
    shutil.copytree(finished / "short", tmp_path / "run")
    for checkpoint in (tmp_path / "run" / "checkpoints").glob("step_*"):
        state = json.loads((checkpoint / "state.json").read_text())
        del state["replay"]
        (checkpoint / "state.json").write_text(json.dumps(state))
        sign(checkpoint)
    run = start(*arguments("ngdqn", "CartPole-v1", "run", steps=600), export=False)
    assert run.wait() == 1
    assert run.lines[-1] == "ngrl.launch: run: the checkpoint is of another loop: it lacks 'replay'"


def test_checkpoints_neither_write_nor_read_pickles(two):
    store = CheckpointStore(two.parent, Module())
    with pytest.raises(TypeError, match="objects holds Python objects: checkpoints hold no pickle"):
        store.save(3, LoopState({}, {"objects": np.array([object()])}))
    np.savez(two / "arrays.npz", evil=np.array([object()], dtype=object))
    sign(two)
    with pytest.raises(CheckpointError, match=r"step_0000000002 holds what ngrl has not written: .*allow_pickle=False"):
        store.restore_latest()


def test_nothing_in_ngrl_unpickles():
    """Ray's actors and worker processes alone, whose every message from the run's own process is a pickle."""
    told_by_the_run = {ROOT / "ngrl" / "environments" / name for name in ("ray_actors.py", "workers.py")}
    for path in {*(ROOT / "ngrl").rglob("*.py")} - told_by_the_run:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
                assert not names & {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}, path
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("np.load", "numpy.load"):
                assert "allow_pickle=False" in ast.unparse(node), path
