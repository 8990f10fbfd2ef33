"""How a run comes by its directory: through links, in the working folder, beside an earlier run."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from ngrl.messages import reason
from ngrl.runs import directory, read_record
from ngrl.runs.directory import RunDirectoryError, move_aside
from ngrl.training.context import DryRunOver, RunContext
from ngrl.training.progress import Progress


def open_and_write(root_dir, number, noresume=False):
    """A run in the directory, as an entry does it; the name under which it wrote."""
    context = RunContext(root_dir, noresume, config_text=lambda: f"number = {number}\n")
    with context.open(lambda: {"number": number}) as directory:
        directory.write(status="finished")
        return directory.path


def number_in(folder):
    return (folder / "operative_config.gin").read_text()


@pytest.fixture
def earlier(tmp_path):
    """A folder that holds a run, with a folder in it."""
    path = tmp_path / "run"
    open_and_write(path, 1)
    (path / "train").mkdir()
    return path


def test_new_run_in_the_working_folder_leaves_the_folder_in_its_place(earlier, monkeypatch):
    monkeypatch.chdir(earlier)
    folder = os.stat(".").st_ino
    open_and_write(".", 2, noresume=True)
    assert Path.cwd() == earlier
    assert os.stat(".").st_ino == folder
    assert number_in(earlier) == "number = 2\n"
    assert number_in(earlier.with_name("run.1")) == "number = 1\n"
    assert (earlier.with_name("run.1") / "train").is_dir()
    assert (earlier.with_name("run.1") / "run.lock").exists()


def test_new_run_in_a_folder_above_the_working_folder_leaves_it_in_its_place(earlier, monkeypatch):
    monkeypatch.chdir(earlier / "train")
    folder = earlier.stat().st_ino
    open_and_write("..", 2, noresume=True)
    assert earlier.stat().st_ino == folder
    assert number_in(earlier) == "number = 2\n"
    assert number_in(earlier.with_name("run.1")) == "number = 1\n"


def test_new_run_behind_a_link_is_where_the_link_leads(earlier):
    link = earlier.with_name("latest")
    link.symlink_to("run")
    open_and_write(link, 2, noresume=True)
    assert link.is_symlink()
    assert number_in(link) == number_in(earlier) == "number = 2\n"
    assert number_in(earlier.with_name("run.1")) == "number = 1\n"


def test_link_to_a_folder_that_is_yet_to_be_is_followed(tmp_path):
    (tmp_path / "latest").symlink_to("run7")
    open_and_write(tmp_path / "latest", 1)
    assert number_in(tmp_path / "run7") == "number = 1\n"


def test_links_in_a_circle_are_refused_in_a_line(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(RunDirectoryError, match="a is a link that leads nowhere"):
        open_and_write(tmp_path / "a", 1)


def test_directory_is_named_from_the_working_folder_where_it_lies_in_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert open_and_write("runs/x", 1) == tmp_path / "runs" / "x"
    with pytest.raises(RunDirectoryError) as refused:
        open_and_write("runs/x", 2)
    assert reason(refused.value).startswith("runs/x belongs to another experiment")
    assert number_in(tmp_path / "runs" / "x") == "number = 1\n"


def test_run_that_cannot_be_moved_is_refused_and_stays(earlier, monkeypatch):
    def busy(*paths):
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(Path, "rename", busy)
    with pytest.raises(RunDirectoryError, match=r"can't move the earlier run .* aside: Device or resource busy"):
        move_aside(earlier)
    assert number_in(earlier) == "number = 1\n"


def test_record_lists_the_processes_that_worked_on_the_run(earlier, monkeypatch):
    (first,) = json.loads((earlier / "run.json").read_text())["processes"]
    notes = []
    monkeypatch.setattr(Progress, "note", lambda self, line: notes.append(line))
    open_and_write(earlier, 1)
    assert notes == []
    monkeypatch.setattr(directory, "_git_revision", lambda: "b" * 40)
    monkeypatch.setattr(directory.ngrl, "__version__", "99.0")
    open_and_write(earlier, 1)
    (note,) = notes
    assert note.startswith("another program than the one that worked on this run before: revision ")
    assert f"→ {'b' * 10}, ngrl {first['versions']['ngrl']} → 99.0" in note
    record = json.loads((earlier / "run.json").read_text())
    assert [process["git_revision"] for process in record["processes"]] == [first["git_revision"]] * 2 + ["b" * 40]
    assert record["processes"][2]["versions"]["ngrl"] == "99.0"
    assert record["status"] == "finished"


def test_record_of_before_the_list_keeps_its_first_process(earlier):
    record = json.loads((earlier / "run.json").read_text())
    (first,) = record.pop("processes")
    first["git_revision"] = "a" * 40
    (earlier / "run.json").write_text(json.dumps({**first, **record}))
    open_and_write(earlier, 1)
    record = json.loads((earlier / "run.json").read_text())
    assert record["processes"][0] == first
    assert len(record["processes"]) == 2
    assert not set(first) & set(record)


def test_dry_run_writes_nothing_and_refuses_the_directory_of_another_experiment(earlier):
    before = {path: path.stat().st_mtime_ns for path in earlier.rglob("*")}
    for root_dir, number, noresume in ((earlier, 1, False), (earlier, 2, True), (earlier.with_name("new"), 2, False)):
        context = RunContext(root_dir, noresume, dry_run=True)
        with pytest.raises(DryRunOver), context.open(lambda number=number: {"number": number}):
            pass
    with (
        pytest.raises(RunDirectoryError, match="belongs to another experiment"),
        RunContext(earlier, dry_run=True).open(lambda: {"number": 2}),
    ):
        pass
    assert {path: path.stat().st_mtime_ns for path in earlier.rglob("*")} == before
    assert [path.name for path in earlier.parent.iterdir()] == ["run"]


def test_what_identifies_a_run_is_asked_for_before_anything_is_moved(earlier):
    def refuse():
        raise ValueError("no")

    for context, settings in (
        (RunContext(earlier, noresume=True), refuse),
        (RunContext(earlier, noresume=True, config=refuse), dict),
    ):
        with pytest.raises(ValueError, match="no"), context.open(settings):
            pass
    assert number_in(earlier) == "number = 1\n"


def test_numpys_numbers_identify_a_run_as_pythons_do(tmp_path):
    settings = {"a": {"rate": np.float32(0.5), "n": (np.int64(3), [np.bool_(True)])}}
    with RunContext(tmp_path / "run").open(lambda: settings) as directory:
        directory.write()
    assert read_record(tmp_path / "run")["config"] == {"a": "{'rate': 0.5, 'n': (3, [True])}"}


def test_configuration_goes_before_the_settings_of_the_entry(tmp_path):
    with RunContext(tmp_path / "run", config=lambda: {"a": "1"}).open(lambda: {"b": 2}):
        pass
    with RunContext(tmp_path / "own").open(lambda: {"b": 2}) as directory:
        directory.write()
        assert directory.read()["config"] == {"b": "2"}
    with RunContext(tmp_path / "own", config=lambda: {"b": "2"}).open(dict):
        pass
    with (
        pytest.raises(RunDirectoryError, match=r"b \(2 there, 3 here\)"),
        RunContext(tmp_path / "own", config=lambda: {"b": "3"}).open(lambda: {"b": 2}),
    ):
        pass


def test_directory_is_where_it_was_asked_for_whatever_becomes_of_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    context = RunContext("run")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    with context.open(lambda: {"number": 1}) as directory:
        monkeypatch.chdir("/")
        directory.write(status="finished")
    assert read_record(tmp_path / "run")["status"] == "finished"
