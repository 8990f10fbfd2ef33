import collections.abc
import enum
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, NewType, Protocol, TypeVar

import pytest

from ngrl.configuration import annotations
from ngrl.configuration.annotations import Given, Made

Width = NewType("Width", int)
T = TypeVar("T")


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Mode(str, enum.Enum):
    FAST = "fast"


class Solver:
    pass


class Dual(Solver):
    pass


class Callback(Protocol):
    def __call__(self, step: int) -> None: ...


class Schedule(Protocol):
    def value(self, step: int) -> float: ...


def make_width() -> int:
    return 3


def make_anything():
    return 3


FITTING = [
    (1, int),
    (1, float),
    (-0.5, float),
    ("tanh", str),
    (True, bool),
    (None, float | None),
    (None, typing.Optional[float]),  # noqa: UP045
    (2, typing.Union[str, float]),  # noqa: UP007
    ((64, 64), Sequence[int]),
    ([64], tuple[int, ...]),
    ((64,), list[int]),
    ((), Sequence[int]),
    ((1, 0.5), tuple[int, float]),
    ([1, 2.5], Iterable[float]),
    ([(1, "a")], list[tuple[int, str]]),
    ((1, 2), Sequence),
    ({"a": 1}, dict[str, int]),
    ({"a": [1]}, Mapping[str, Any]),
    ({}, dict),
    ("chosen", Literal["chosen", "all"]),
    (Colour.RED, Colour),
    ("fast", Mode),
    (3, Width),
    (3, Annotated[int, "widths"]),
    ("x", T),
    ("x", Any),
    ("x", object),
    ("x", "Unresolved"),
    (Given("@Dual", Dual), Callable[..., Solver]),
    (Given("@Dual", Dual), type[Solver]),
    (Given("@make_width", make_width), collections.abc.Callable),
    (Given("@make_width", make_width), Callback),
    (Made("@Dual()", Dual), Solver),
    (Made("@Dual()", Dual), Solver | float),
    (Made("@Dual()", Dual), Schedule),
    (Made("@make_width()", int), float),
    (Made("@make_anything()", None), float),
    ([Made("@Dual()", Dual)], Sequence[Solver]),
]

UNFITTING = [
    ("0.1", float),
    ("1", int),
    (0.5, int),
    (1e6, int),
    (True, int),
    (False, float),
    (1, bool),
    (1, str),
    (None, float),
    (None, Sequence[int]),
    ((64, 0.5), Sequence[int]),
    ((64, True), Sequence[int]),
    (64, Sequence[int]),
    ("relu", Sequence[str]),
    ("relu", Iterable[str]),
    ((1, 2, 3), tuple[int, int]),
    ((1,), tuple[int, int]),
    ((1, 2), dict[str, int]),
    ({"a": "b"}, dict[str, int]),
    ({1: 1}, dict[str, int]),
    ("most", Literal["chosen", "all"]),
    (True, Literal[1, 2]),
    ("RED", Colour),
    (1, Colour),
    ("slow", Mode),
    ("3", Width),
    (1.5, Annotated[int, "widths"]),
    ("huber", Callable[[float], float]),
    ("Dual", Solver),
    (Given("@Dual", Dual), Solver),
    (Given("@Dual", Dual), float),
    (Given("@Dual", Dual), Schedule),
    (Given("@Colour", Colour), type[Solver]),
    (Made("@Dual()", Dual), float),
    (Made("@Solver()", Solver), Dual),
    (Made("@make_width()", int), str),
    (Made("@Dual()", Dual), Literal["chosen"]),
]


@pytest.mark.parametrize(("value", "annotation"), FITTING)
def test_value_of_the_annotated_type_fits(value, annotation):
    assert annotations.fits(value, annotation)


@pytest.mark.parametrize(("value", "annotation"), UNFITTING)
def test_value_of_another_type_does_not_fit(value, annotation):
    assert not annotations.fits(value, annotation)


@pytest.mark.parametrize(
    ("value", "annotation", "message"),
    [
        ("0.1", float, 'must be float, got "0.1", a str; write 0.1'),
        (1e6, int | None, "must be int or None, got 1000000.0, a float; write 1000000"),
        (1, bool, "must be bool, got 1, an int; write True"),
        (64, Sequence[int], "must be a sequence of int, got 64, an int; write (64,)"),
        (None, str, "must be str, got None"),
        (
            "al",
            Literal["chosen", "all"] | None,
            'must be one of "chosen", "all" or None, got "al", a str; did you mean "all"?',
        ),
        (1, Colour, "must be one of Colour.RED, Colour.BLUE, got 1, an int"),
        (Given("@Dual", Dual), Solver, "must be Solver, got @Dual; write @Dual()"),
        ("x", Callable[[], int], 'must be a function or class, got "x", a str'),
        (3, dict[str, int], "must be dict of str to int, got 3, an int"),
        (3, tuple[int, str], "must be a tuple of (int, str), got 3, an int"),
    ],
)
def test_explanation_says_what_to_write(value, annotation, message):
    assert annotations.explain(value, annotation) == message


def test_explanation_of_a_long_value_stays_short():
    assert len(annotations.explain(list(range(1000)), str)) < 120
    assert "\n" not in annotations.explain("a\nb", int)


def test_annotations_that_cannot_be_resolved_are_left_out():
    def function(width: "int", solver: "NoSuchName") -> None:  # type: ignore[name-defined]  # noqa: F821
        pass

    assert annotations.parameter_annotations(function) == {"return": None}
    assert annotations.parameter_annotations(make_width) == {"return": int}


def test_made_type_is_the_class_or_the_annotated_result():
    assert annotations.made_type(Dual) is Dual
    assert annotations.made_type(make_width) is int
    assert annotations.made_type(make_anything) is None


def test_nearest_ignores_case_and_stays_silent_when_nothing_is_near():
    assert annotations.nearest("naturalgradient", ["Adam", "NaturalGradient"]) == '; did you mean "NaturalGradient"?'
    assert annotations.nearest("zzz", ["Adam", "NaturalGradient"]) == ""
