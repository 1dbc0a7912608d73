"""What a task reads: examples, each with the place it stands at."""

from __future__ import annotations

from dataclasses import dataclass

from rembert.tasks.reading import Place

# A class by name, several of them, or one or more numbers; None where an example has no label.
Label = str | tuple[str, ...] | float | tuple[float, ...] | None


@dataclass(frozen=True, slots=True)
class Example:
    """What all examples have."""

    place: Place
    id: str | None
    language: str | None


@dataclass(frozen=True, slots=True)
class TextExample(Example):
    """A text, or two, to classify or to rate."""

    text: str
    text_pair: str | None
    label: Label


@dataclass(frozen=True, slots=True)
class TaggedExample(Example):
    """A sentence as words, with a tag for each."""

    words: tuple[str, ...]
    tags: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as a text and the character of the context where it starts."""

    text: str
    start: int


@dataclass(frozen=True, slots=True)
class QuestionExample(Example):
    """A question on a context; without answers where the context has none, None where they are not known."""

    question: str
    context: str
    answers: tuple[Answer, ...] | None


@dataclass(frozen=True, slots=True)
class ChoiceExample(Example):
    """Texts before and after the place of choice: each choice is encoded as the pair (prompt, choice)."""

    prompt: str
    choices: tuple[str, ...]
    label: int | None


@dataclass(frozen=True, slots=True)
class PlainExample(Example):
    """A text for a language model."""

    text: str
