"""The declarations of a task's options and scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rembert.common.arguments import BOOLEAN, TEXT, Constraint, check_argument, integer, number, one_of, optional

_NAMES = Constraint(
    "a list of names, each once",
    lambda v: isinstance(v, list) and len(v) > 1 and all(map(TEXT.accepts, v)) and len(set(v)) == len(v),
)
_OF_TYPE = {bool: BOOLEAN, int: integer(), float: number(), str: TEXT, list: _NAMES}


@dataclass(frozen=True)
class Option:
    """An argument of a task's class, and a flag of the commands.

    Attributes:
        name: of the argument and of the task's attribute; the flag has dashes for underscores.
        type: bool, int, float, str, or list (of strings that differ).
        help: what it does, in a few words, for the commands.
        default: the default value. None is allowed only if it is the default.
        choices: the allowed strings, if they are few.
        constraint: the allowed values, if the type and the choices do not determine them.
        flag: of the commands, if it is not the name.

    Example:
        >>> Option("n_best", int, "the number of answers", default=20, constraint=integer(at_least=1)).check(0)
        Traceback (most recent call last):
        rembert.common.errors.InputError: `n_best` must be an integer of 1 or more. Received: `n_best=0`.
    """

    name: str
    type: type
    help: str
    default: Any = None
    choices: tuple[str, ...] = ()
    constraint: Constraint | None = None
    flag: str | None = None

    def check(self, value: Any) -> None:
        """Refuse a value that is not allowed.

        Raises:
            InputError: names the option and quotes the value.
        """
        allowed = self.constraint or (one_of(self.choices) if self.choices else _OF_TYPE[self.type])
        check_argument(self.name, value, optional(allowed) if self.default is None else allowed)


@dataclass(frozen=True)
class Score:
    """A score of a task. Variants and languages follow its name: `f1`, `f1_macro`, `f1_macro_sw`.

    Attributes:
        name: the first part of the score's name.
        lower_is_better: whether a better model has a lower value, as for errors and losses.

    Example:
        >>> Score("f1").covers("f1_macro"), Score("f1").covers("f10")
        (True, False)
    """

    name: str
    lower_is_better: bool = False

    def covers(self, name: str) -> bool:
        """Whether `name` is this score or a variant of it."""
        return name == self.name or name.startswith(f"{self.name}_")
