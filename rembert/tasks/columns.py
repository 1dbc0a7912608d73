"""Which column of a file holds each field of a task."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType

# The usual names of the columns that every task reads.
COMMON_FIELDS = {"id": ("id", "idx", "index_id", "index", "guid"), "language": ("language", "lang", "dialect")}
_KEPT = 1000  # results, for files where every record has other keys


def plain_name(name: str) -> str:
    """A column's name without case, spaces and punctuation: `Sentence_2` and `sentence2` are one name."""
    return "".join(filter(str.isalnum, name.casefold()))


class Columns:
    """Finds the columns of a task's fields among those of a record.

    A column that the caller named comes first, then a layout whose columns are all there, then the usual names. A
    column belongs to one field.

    Args:
        usual: the usual names of each field's column.
        layouts: columns by field that belong together, such as both texts of a pair.
        named: columns by field, as the caller named them; an empty name means that there is none.
        ignored: fields that are not read.

    Example:
        >>> usual = {"text": ("text", "sentence"), "text_pair": ("text_pair",)}
        >>> columns = Columns(usual, [{"text": "question", "text_pair": "sentence"}])
        >>> dict(columns.of(["index", "Question", "Sentence"]))
        {'text': 'Question', 'text_pair': 'Sentence', 'id': 'index'}
    """

    def __init__(
        self,
        usual: Mapping[str, tuple[str, ...]],
        layouts: Iterable[Mapping[str, str]] = (),
        named: Mapping[str, str] = MappingProxyType({}),
        ignored: Collection[str] = (),
    ) -> None:
        self.usual = {**usual, **COMMON_FIELDS}
        self.layouts = tuple(layouts)
        self.named = {field: column for field, column in named.items() if field not in ignored}
        self._ignored = set(ignored)
        self._found: dict[tuple[str, ...], Mapping[str, str]] = {}

    def of(self, names: Iterable[str]) -> Mapping[str, str]:
        """The column of each field that has one, for a record with the columns `names`."""
        key = tuple(names)
        if key not in self._found:
            if len(self._found) >= _KEPT:
                self._found.clear()
            self._found[key] = self._search(key)
        return self._found[key]

    def unused(self, names: Iterable[str], fields: Iterable[str]) -> list[str]:
        """The columns of a record that are usual for one of `fields`, but read as no field."""
        names, fields = list(names), set(fields)
        taken = {*self.of(names).values(), *self.named.values()}
        known = {plain_name(column) for field in fields for column in self.usual.get(field, ())}
        known |= {plain_name(column) for layout in self.layouts for field, column in layout.items() if field in fields}
        return [name for name in names if name not in taken and plain_name(name) in known]

    def _search(self, names: tuple[str, ...]) -> Mapping[str, str]:
        by_plain: dict[str, str] = {}
        for name in names:
            by_plain.setdefault(plain_name(name), name)

        def present(column: str) -> str | None:
            return column if column in names else by_plain.get(plain_name(column))

        found = {field: column for field, column in self.named.items() if column in names}
        for layout in self.layouts:
            columns = {field: present(column) for field, column in layout.items()}
            fits = all(column and self.named.get(field, column) == column for field, column in columns.items())
            if fits and not self._ignored & columns.keys():
                found |= {field: column for field, column in columns.items() if column}
                break
        for field, usual in self.usual.items():
            if field in found or field in self.named or field in self._ignored:
                continue
            free = (column for each in usual if (column := present(each)) and column not in found.values())
            if (column := next(free, None)) is not None:
                found[field] = column
        return found
