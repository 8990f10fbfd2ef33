"""Errors in a line: what is left of several, and of none."""

import pytest

from ngrl.messages import reason, short


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
