"""Whether settings are those of one experiment: by value, with defaults, but for what may change on resuming."""

import pytest

from ngrl.runs.identity import differences, same, setting


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1", "1.0"),
        ("0.001", "1e-3"),
        ("[64, 64]", "(64, 64)"),
        ("(64,)", "[64.0]"),
        ("{'a': [1]}", "{'a': (1.0,)}"),
        ("'x'", '"x"'),
        ("(@ngrl.Dual(), @s/Adam)", "[@ngrl.Dual(), @s/Adam]"),
        ("inf", "inf"),
        (None, None),
    ],
)
def test_texts_of_one_value_are_the_same(one, other):
    assert same(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1", "2"),
        ("True", "1"),
        ("False", "0.0"),
        ("(True,)", "(1,)"),
        ("'1'", "1"),
        ("@Dual()", "@Dual"),
        ("@a/Adam()", "@b/Adam()"),
        ("'@Dual()'", "@Adam()"),
        ("(64, 64)", "(64,)"),
        ("None", None),
        ("1", "one"),
    ],
)
def test_texts_of_other_values_are_not(one, other):
    assert not same(one, other)
    assert not same(other, one)


def test_setting_is_its_own_that_of_an_outer_scope_or_the_default():
    settings = {"a/b/f.x": "1", "a/f.x": "2", "f.x": "3", "a/f.y": "4"}
    default = {"a/b/f.z": "5"}.get
    assert [setting(settings, name, default) for name in ("a/b/f.x", "a/c/f.x", "c/f.x", "f.y", "a/b/f.z")] == [
        "1",
        "2",
        "3",
        None,
        "5",
    ]


def test_length_and_reports_may_change_in_any_scope():
    assert differences({"run.num_env_steps": "1", "s/run.log_every": "1"}, {"run.num_env_steps": "2"}) == []
    assert differences({"run.seed": "1"}, {"run.seed": "2"}) == ["run.seed (1 there, 2 here)"]
