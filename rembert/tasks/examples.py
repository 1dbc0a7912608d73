"""The examples that a task reads, each with its location in its file."""

from __future__ import annotations

from dataclasses import dataclass

from rembert.tasks.reading import Location

# One class by name, several classes, or one or more numbers; None if an example has no label.
Label = str | tuple[str, ...] | float | tuple[float, ...] | None


@dataclass(frozen=True, slots=True)
class Example:
    """Base of all examples.

    Example:
        >>> example = Example(Location("train.jsonl", line=3, item=None), id="17", language="sw")
        >>> str(example.location)
        'train.jsonl:3'
    """

    location: Location
    id: str | None
    language: str | None


@dataclass(frozen=True, slots=True)
class SkippedExample(Example):
    """A malformed record, kept so that predictions stay in step with their file."""

    reason: str


@dataclass(frozen=True, slots=True)
class TextExample(Example):
    """A text, or a pair of texts, to classify or to rate."""

    text: str
    text_pair: str | None
    label: Label


@dataclass(frozen=True, slots=True)
class TaggedExample(Example):
    """A sentence as words, with a tag for each word. Of running text, `text` and the characters of each word."""

    words: tuple[str, ...]
    tags: tuple[str, ...] | None
    text: str | None = None
    spans: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer: its text, and the index of its first character in the context."""

    text: str
    start: int


@dataclass(frozen=True, slots=True)
class QuestionExample(Example):
    """A question about a context. `answers` is empty if the context has no answer, and None if it is unknown."""

    question: str
    context: str
    answers: tuple[Answer, ...] | None


@dataclass(frozen=True, slots=True)
class ChoiceExample(Example):
    """A prompt and its choices: each choice is encoded as the pair (prompt, choice)."""

    prompt: str
    choices: tuple[str, ...]
    label: int | None


@dataclass(frozen=True, slots=True)
class PlainExample(Example):
    """A text for a language model."""

    text: str
