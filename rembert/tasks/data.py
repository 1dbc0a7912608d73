"""How files of examples are read, and the report of what was found in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from rembert.common.warning import warn
from rembert.tasks.reading import FileOptions, Location


@dataclass(frozen=True)
class DataOptions:
    """How files of examples are read.

    Args:
        format: a key of `rembert.tasks.reading.READERS`; by default found by the file's content and name.
        columns: the names of the file's columns (in JSON, keys) by the task's own field names, for example
            `{"text": "sentence", "label": "category"}`. A field that is not listed is read from its usual columns; an
            empty name means that the file has no column for it. Columns of tables and of CoNLL files may be named by
            number, from 1: a table then has no line with names.
        language: the language of examples that name none.
        skip_bad_lines: skip malformed lines and count them in `Task.report`, instead of raising `DataError`.
        encoding: of text files, by a name that Python knows; by default UTF-8.
        delimiter: between the fields of a table; by default found by its first line.
        header: whether a table's first line names the columns; by default it does, unless they are named by number.

    Example:
        >>> from pathlib import Path
        >>> from rembert import RemBertTokenizer
        >>> from rembert.tasks import get_task
        >>> _ = Path("topics.tsv").write_text("sentence\\ttopic\\nThe ferry is late.\\ttravel\\n")
        >>> tokenizer = RemBertTokenizer.from_pretrained("google/rembert")
        >>> data = DataOptions(columns={"text": "sentence", "label": "topic"}, language="en")
        >>> task = get_task("sequence-classification", tokenizer, max_length=64, data=data)
        >>> [example] = task.read("topics.tsv")
        >>> example.text, example.label, example.language
        ('The ferry is late.', 'travel', 'en')
    """

    format: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    language: str | None = None
    skip_bad_lines: bool = False
    encoding: str | None = None
    delimiter: str | None = None
    header: bool | None = None

    def file_options(self) -> FileOptions:
        """What the readers of files need."""
        return FileOptions(self.delimiter, self.header, tuple(self.columns.values()))


NOT_IN_A_WINDOW = "answers_in_no_window"  # a count: answers that are longer than what windows share


class DataWarning(UserWarning):
    """What was read may not be what was meant; the text says what was found, and what to do."""


@dataclass
class Report:
    """What was read: counts, and the first reasons why lines were skipped.

    Attributes:
        examples: the number of examples read.
        skipped: the number of malformed lines skipped.
        truncated: the number of texts that were cut to the maximum length.
        reasons: the first few skipped lines, each with its location and what is wrong.
        counts: other counts of a task, by name.
        classes: how often each class or tag occurs in the examples read; of numbers, the first ten thousand.
        say: takes a line of text for the user; without it, warnings are Python's own (`DataWarning`).
    """

    examples: int = 0
    skipped: int = 0
    truncated: int = 0
    reasons: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    classes: Counter[str] = field(default_factory=Counter)
    say: Callable[[str], None] | None = None

    _KEPT: ClassVar[int] = 10
    _CLASSES: ClassVar[int] = 10_000

    def skip(self, location: Location, reason: str) -> None:
        """Count a malformed line."""
        self.skipped += 1
        if len(self.reasons) < self._KEPT:
            self.reasons.append(f"{location}: {reason}.")

    def count_classes(self, names: Iterable[str]) -> None:
        """Count the classes of an example."""
        for name in names:
            if name in self.classes or len(self.classes) < self._CLASSES:
                self.classes[name] += 1

    def tell(self, text: str) -> None:
        """Pass a line of text on to the user."""
        if self.say is not None:
            self.say(text)

    def warn(self, text: str) -> None:
        """Pass a warning on to the user."""
        if self.say is None:
            warn(text, DataWarning)
        else:
            self.say(f"warning: {text}")

    def since(self, skipped: int) -> str:
        """A phrase for the lines skipped since the count was `skipped`, with the first reason; empty for none."""
        count = self.skipped - skipped
        first = "".join(self.reasons[skipped : skipped + 1]).removesuffix(".")
        return (f", and {count} malformed line(s) skipped" + (f": {first}" if first else "")) if count else ""

    def to_dict(self) -> dict[str, int]:
        """The counts, for a log."""
        return {"examples": self.examples, "skipped": self.skipped, "truncated": self.truncated, **self.counts}
