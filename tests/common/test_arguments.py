"""Constraints accept what they say, and every refusal has one form."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from rembert.common.arguments import (
    BOOLEAN,
    TEXT,
    Constraint,
    boolean_or,
    check_argument,
    check_arguments,
    instance_of,
    integer,
    number,
    one_of,
    optional,
    plain,
)
from rembert.common.errors import ConfigError, InputError

CASES: list[tuple[Constraint, tuple[Any, ...], tuple[Any, ...], str]] = [
    (integer(), (0, -5, plain(np.int64(3))), (1.0, True, "1", None, np.int64(3)), "an integer"),
    (integer(at_least=1), (1, 10**9), (0, -1, 1.5, math.nan), "an integer of 1 or more"),
    (integer(at_least=2, at_most=5), (2, 5), (1, 6), "an integer from 2 to 5"),
    (integer(at_most=5), (-9, 5), (6,), "an integer of at most 5"),
    (
        number(),
        (-1, 2.5, plain(np.float32(1)), np.float64(1)),
        (np.float32(1), math.nan, math.inf, -math.inf, False, "1", 1j),
        "a number",
    ),
    (number(above=0), (1e-9, 3), (0, 0.0, -1), "a number above 0"),
    (number(at_least=0), (0, 0.5), (-1e-9,), "a number of 0 or more"),
    (number(at_least=0, below=1), (0, 0.999), (1, -0.1), "a number in [0, 1)"),
    (number(above=0, at_most=1), (1, 0.1), (0, 1.1), "a number in (0, 1]"),
    (number(above=0, below=1), (0.5,), (0, 1), "a number in (0, 1)"),
    (number(below=1), (-3, 0.5), (1,), "a number below 1"),
    (
        one_of(("left", "right")),
        ("left",),
        ("up", None, 1, ["left"], np.array(["left", "right"])),
        "one of left, right",
    ),
    (boolean_or(("longest",)), (True, False, "longest"), (1, None, "no"), "one of True, False, longest"),
    (BOOLEAN, (True, False), (0, 1, None, "True"), "True or False"),
    (TEXT, ("a",), ("", None, b"a"), "a string that is not empty"),
    (instance_of(dict), ({},), ([],), "a dict"),
    (optional(integer(at_least=1)), (None, 1), (0, False), "an integer of 1 or more, or None"),
]


@pytest.mark.parametrize(("constraint", "allowed", "refused", "wording"), CASES, ids=[case[-1] for case in CASES])
def test_constraint(constraint: Constraint, allowed: tuple[Any, ...], refused: tuple[Any, ...], wording: str) -> None:
    assert constraint.wording == wording
    for value in allowed:
        check_argument("x", value, constraint)
    for value in refused:
        with pytest.raises(InputError) as caught:
            check_argument("x", value, constraint)
        assert str(caught.value) == f"`x` must be {wording}. Received: `x={value!r}`."


def test_the_first_wrong_argument_is_named_in_the_given_error() -> None:
    constraints = {"a": integer(at_least=1), "b": BOOLEAN, "c": one_of("xy")}
    check_arguments(constraints, {"a": 1, "b": True, "c": "x", "other": object()})
    with pytest.raises(ConfigError, match=r"`b` must be True or False\. Received: `b=1`\."):
        check_arguments(constraints, {"a": 1, "b": 1, "c": "z"}, ConfigError)


def test_plain_does_not_change_other_values_than_scalars() -> None:
    for value in ("a", None, [1], 2.5):
        assert plain(value) is value
    array = np.ones(1)
    assert plain(array) is array
    assert type(plain(np.array(3))) is int


def test_a_long_value_is_cut() -> None:
    with pytest.raises(InputError) as caught:
        check_argument("x", "y" * 1000, integer())
    assert len(str(caught.value)) < 300
