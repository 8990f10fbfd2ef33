"""Files appear whole or not at all."""

import csv
import json
import math

import numpy as np
import pytest

from ngrl.runs.files import remove_unfinished, unfinished, write_bytes, write_csv, write_json


def test_numbers_that_json_lacks_are_null(tmp_path):
    write_json(tmp_path / "x.json", {"mean": float("nan"), "returns": [1.5, float("inf")], "n": (1, True, None, "a")})
    content = json.loads((tmp_path / "x.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert content == {"mean": None, "returns": [1.5, None], "n": [1, True, None, "a"]}


def test_table_is_read_as_it_was_written_and_what_is_no_number_is_an_empty_cell(tmp_path):
    path = tmp_path / "table.csv"
    write_csv(
        path, ("name", "value"), [("a, b", 0.1), ("c", math.nan), ("d", None), ("e", np.float64("nan")), ("f", "")]
    )
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows == [["name", "value"], ["a, b", "0.1"], ["c", ""], ["d", ""], ["e", ""], ["f", ""]]
    assert b"\r" not in path.read_bytes()


def test_table_whose_rows_fail_leaves_the_one_before(tmp_path):
    path = tmp_path / "table.csv"
    write_csv(path, ("value",), [(1,)])

    def rows():
        yield (2,)
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        write_csv(path, ("value",), rows())
    assert path.read_text() == "value\n1\n"
    assert [entry.name for entry in tmp_path.iterdir()] == ["table.csv"]


def test_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "x"
    write_bytes(path, b"\x00\xff")
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["x"]


def test_what_a_killed_process_left_half_written_goes_and_nothing_else(tmp_path):
    for folder in (unfinished(tmp_path / "policy"), tmp_path / "train"):
        folder.mkdir()
        (folder / "x").touch()
    for path in (unfinished(tmp_path / "run.json"), tmp_path / "run.json"):
        path.touch()
    remove_unfinished(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"run.json", "train"}
