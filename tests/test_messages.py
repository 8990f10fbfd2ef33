"""Errors in a line: what is left of several, and of none."""

import pytest

from ngrl.messages import counted, named_from, reason, short


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("no such thing"), "no such thing"),
        (ValueError("\n  first  \nsecond"), "first"),
        (ValueError("both of these:\n  are needed\nthis is not"), "both of these: are needed"),
        (NotImplementedError(), "NotImplementedError"),
        (OSError(28, "No space left", "x"), "[Errno 28] No space left: 'x'"),
    ],
)
def test_reason_is_a_line_and_never_empty(error, expected):
    assert reason(error) == expected


def test_paths_in_the_working_folder_begin_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = f"can't write {tmp_path}/run/x, '{tmp_path}/y' or /else{tmp_path}/z or {tmp_path}er/z"
    assert short(line) == f"can't write run/x, 'y' or /else{tmp_path}/z or {tmp_path}er/z"
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir("gone")
    (tmp_path / "gone").rmdir()
    assert short(line) == line


@pytest.mark.parametrize(
    ("number", "words", "expected"),
    [
        (1, ("step",), "1 step"),
        (0, ("step",), "0 steps"),
        (1270, ("step",), "1,270 steps"),
        (1, ("directory", "directories"), "1 directory"),
        (2, ("directory", "directories"), "2 directories"),
    ],
)
def test_one_thing_is_no_plural(number, words, expected):
    assert counted(number, *words) == expected


def test_paths_are_named_from_where_a_command_began(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with named_from(tmp_path):
        monkeypatch.chdir("elsewhere")
        assert short(f"no {tmp_path}/elsewhere/x") == "no elsewhere/x"
    assert short(f"no {tmp_path}/elsewhere/x") == "no x"
    monkeypatch.chdir("/")
    assert short("https://x.y/z: 1 / 2 of /tmp/x") == "https://x.y/z: 1 / 2 of /tmp/x"
