"""Constraints of plain arguments (types, ranges, options), declared as data, and their check.

    _CONSTRAINTS = {"rank": integer(at_least=1), "dropout": optional(number(at_least=0, below=1))}

    def train(rank, dropout=None):
        check_arguments(_CONSTRAINTS, {"rank": rank, "dropout": dropout})

Every message has the form "`name` must be …. Received: `name=value`.".
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rembert.common.errors import InputError, RemBertError


@dataclass(frozen=True)
class Constraint:
    """The allowed values of an argument.

    Attributes:
        wording: completes "`name` must be …".
        accepts: decides whether a value is allowed; it gets values of any type.
    """

    wording: str
    accepts: Callable[[Any], bool]


def check_arguments(
    constraints: Mapping[str, Constraint], values: Mapping[str, Any], error: type[RemBertError] = InputError
) -> None:
    """Refuse values that their constraints do not allow.

    Args:
        constraints: by the argument's name, in the order of the checks.
        values: the arguments by name; those without a constraint are not checked.
        error: the class of the error.

    Raises:
        RemBertError: of the class `error`, for the first value that is not allowed.

    Example:
        >>> check_arguments({"rank": integer(at_least=1)}, {"rank": 8})
        >>> check_arguments({"rank": integer(at_least=1)}, {"rank": 0})
        Traceback (most recent call last):
        rembert.common.errors.InputError: `rank` must be an integer of 1 or more. Received: `rank=0`.
    """
    for name, constraint in constraints.items():
        check_argument(name, values[name], constraint, error)


def check_argument(name: str, value: Any, constraint: Constraint, error: type[RemBertError] = InputError) -> None:
    """Refuse one value that its constraint does not allow; the arguments and errors of `check_arguments`."""
    if not constraint.accepts(value):
        raise error(f"`{name}` must be {constraint.wording}. Received: `{name}={value!r:.200}`.")


def plain(value: Any) -> Any:
    """A scalar of NumPy or of a framework as Python's number; anything else unchanged."""
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", None) == 0 else value


def integer(*, at_least: int | None = None, at_most: int | None = None) -> Constraint:
    """A Python integer within a closed range; True and False are refused. See `plain` for NumPy's."""
    low, high = _bound(at_least, -math.inf), _bound(at_most, math.inf)
    return Constraint(
        f"an integer{_range(at_least, None, at_most, None)}", lambda v: _is_integer(v) and low <= v <= high
    )


def number(
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
) -> Constraint:
    """A finite Python integer or float within a range; True and False are refused. See `plain` for NumPy's."""
    low, high = _bound(at_least, -math.inf), _bound(at_most, math.inf)
    open_low, open_high = _bound(above, -math.inf), _bound(below, math.inf)
    return Constraint(
        f"a number{_range(at_least, above, at_most, below)}",
        lambda v: _is_number(v) and low <= v <= high and open_low < v < open_high,
    )


def one_of(options: Iterable[str]) -> Constraint:
    """One of several strings."""
    allowed = tuple(options)
    return Constraint(f"one of {', '.join(allowed)}", lambda v: isinstance(v, str) and v in allowed)


def boolean_or(options: Iterable[str]) -> Constraint:
    """True, False, or one of several strings."""
    strings = one_of(options)
    return Constraint(
        strings.wording.replace("one of ", "one of True, False, ", 1),
        lambda v: isinstance(v, bool) or strings.accepts(v),
    )


def instance_of(kind: type, wording: str | None = None) -> Constraint:
    """An instance of a class, by default worded as "a Name"."""
    return Constraint(wording or f"a {kind.__name__}", lambda v: isinstance(v, kind))


def optional(constraint: Constraint) -> Constraint:
    """What `constraint` allows, or None."""
    return Constraint(f"{constraint.wording}, or None", lambda v: v is None or constraint.accepts(v))


BOOLEAN = Constraint("True or False", lambda v: isinstance(v, bool))
TEXT = Constraint("a string that is not empty", lambda v: isinstance(v, str) and v != "")


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    is_real = isinstance(value, int | float) and not isinstance(value, bool)
    return is_real and abs(value) <= sys.float_info.max  # NaN is not; an integer may be larger than any float


def _bound(value: float | None, default: float) -> float:
    return default if value is None else value


def _range(at_least: float | None, above: float | None, at_most: float | None, below: float | None) -> str:
    """A range in words: " of 1 or more", " above 0", " from 1 to 5" or " in [0, 1)"."""
    has_low, has_high = (at_least, above) != (None, None), (at_most, below) != (None, None)
    if has_low and has_high:
        if at_least is not None and at_most is not None:
            return f" from {at_least} to {at_most}"
        low = f"[{at_least}" if above is None else f"({above}"
        return f" in {low}, {at_most}]" if below is None else f" in {low}, {below})"
    if has_low:
        return f" of {at_least} or more" if above is None else f" above {above}"
    if has_high:
        return f" of at most {at_most}" if below is None else f" below {below}"
    return ""
