"""The names that Python's own errors show for a method."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import TypeVar

_Class = TypeVar("_Class", bound=type)


def with_methods_of(*parts: type) -> Callable[[_Class], _Class]:
    """A decorator of a public class: methods that it inherits from `parts` get its name.

    `RemBertTokenizer.pad() missing 1 required positional argument` names what the reference describes.
    `RowBuilder.pad()` would not.

    Args:
        *parts: base classes that no user knows, none of them with another public subclass.
    """

    def renamed(kind: _Class) -> _Class:
        for part in parts:
            for name, member in vars(part).items():
                function = getattr(member, "__func__", member)
                while isinstance(function, FunctionType) and function.__qualname__ == f"{part.__qualname__}.{name}":
                    # Both, because a pickle finds a function by its module and this name.
                    function.__module__, function.__qualname__ = kind.__module__, f"{kind.__qualname__}.{name}"
                    function = getattr(function, "__wrapped__", None)
        return kind

    return renamed
