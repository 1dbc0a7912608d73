"""Files of XTREME as examples, and as JSON lines to train on.

Test data must give one prediction for every line or question, so nothing is skipped or refused there that a tokenizer
can encode, such as an empty sentence. Labels are those of `labelled`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from rembert.common.errors import DataError
from rembert.common.files import atomic_path
from rembert.common.text_lines import read_lines
from rembert.tasks.definitions.question_answering import QuestionAnswering
from rembert.tasks.definitions.sequence_classification import SequenceClassification
from rembert.tasks.definitions.token_classification import TokenClassification
from rembert.tasks.examples import Answer, Example, QuestionExample, TaggedExample, TextExample
from rembert.tasks.reading import BadLine, Location
from rembert.tasks.reading.json_documents import read_json
from rembert.tasks.task import Task

_QUOTED = re.compile(r'"(?:[^"]|"")*"')  # Python's `csv` writes a field with a quote like this


def read_pairs(path: str | os.PathLike[str], language: str) -> Iterator[TextExample]:
    """PAWS-X and XNLI: two sentences and, if the file has it, a label on each line, between tabs.

    Raises:
        DataError: a line has another number of columns.
    """
    for line in read_lines(path, strict=True):
        fields = [_unquoted(field) for field in line.text.split("\t")]
        location = Location(os.fspath(path), line.number)
        if len(fields) not in (2, 3):
            raise DataError(f"{location}: two sentences and a label were expected. Received: {len(fields)} columns.")
        label = fields[2].strip() if len(fields) == 3 else None
        yield TextExample(location, None, language, text=fields[0], text_pair=fields[1], label=label)


def read_tags(path: str | os.PathLike[str], language: str) -> Iterator[TaggedExample]:
    """POS and NER: a word and, if the file has it, a tag on each line, between tabs; a blank line ends a sentence.

    Raises:
        DataError: a line has another number of columns, or only some lines of a sentence have a tag.
    """
    for location, lines in sentences(path):
        # PAN-X has words of spaces alone, which XTREME's script leaves empty.
        rows = [row for row in ([part.strip() for part in line.split("\t")] for line in lines) if row[0]]
        counts = {len(row) for row in rows}
        if counts not in (set(), {1}, {2}):
            raise DataError(f"{location}: a word, or a word and a tag, were expected on each line of a sentence.")
        words = tuple(row[0] for row in rows)
        yield TaggedExample(location, None, language, words, tuple(row[1] for row in rows) if counts == {2} else None)


def read_questions(path: str | os.PathLike[str], language: str) -> Iterator[QuestionExample]:
    """XQuAD, MLQA, TyDiQA and SQuAD. An answer without text, as XTREME leaves it in test data, is no label.

    Raises:
        DataError: the file is not in SQuAD's layout.
    """
    for record in read_json(path):
        if isinstance(record, BadLine):
            raise DataError(f"{record.location}: {record.reason}.")
        fields = record.fields
        if not all(isinstance(fields.get(name), str) for name in ("question", "context")) or "id" not in fields:
            raise DataError(f"{record.location}: a question must have an id, a question and a context.")
        answers = tuple(Answer(each["text"], each["answer_start"]) for each in fields.get("answers", ()))
        labelled = any(answer.text for answer in answers)
        yield QuestionExample(
            record.location,
            str(fields["id"]),
            language,
            question=fields["question"].strip(),
            context=fields["context"],
            answers=answers if labelled else None,
        )


def unlabelled(example: Example) -> Example:
    """The example as a model sees it: labels may be any text, and are not needed."""
    match example:
        case TextExample():
            return replace(example, label=None)
        case TaggedExample():
            return replace(example, tags=None)
        case _:
            assert isinstance(example, QuestionExample)
            return replace(example, answers=None)


def sentences(path: str | os.PathLike[str]) -> Iterator[tuple[Location, list[str]]]:
    """The lines of each sentence, as XTREME's evaluator reads them: every blank line ends a sentence, even
    one without words.
    """
    start: int | None = None
    lines: list[str] = []
    for line in read_lines(path, strict=True):
        start = line.number if start is None else start
        if line.text.strip():
            lines.append(line.text)
        else:
            yield Location(os.fspath(path), start), lines
            start, lines = None, []
    if lines:
        yield Location(os.fspath(path), start), lines


READERS: dict[type[Task], Callable[[str | os.PathLike[str], str], Iterator[Any]]] = {
    SequenceClassification: read_pairs,
    TokenClassification: read_tags,
    QuestionAnswering: read_questions,
}
"""The reader of the examples of each task that is trained."""


def write_training_examples(task: type[Task], source: Path, target: Path) -> int:
    """Write labelled examples as JSON lines for `finetune`. Those without a text or a label are left out.

    Ids are not written: in XTREME's training data of TyDiQA they repeat.

    Returns:
        The number of examples left out.
    """
    left_out = 0
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(target) as temporary, temporary.open("w", encoding="utf-8") as stream:
        for example in READERS[task](source, "en"):
            if (record := _record(example)) is None:
                left_out += 1
            else:
                stream.write(json.dumps(record, ensure_ascii=False) + "\n")
    return left_out


def _record(example: Example) -> dict[str, Any] | None:
    if isinstance(example, TextExample):
        found: dict[str, Any] = {"text": example.text, "text_pair": example.text_pair, "label": example.label}
        return found if all(str(value or "").strip() for value in found.values()) else None
    if isinstance(example, TaggedExample):
        return {"tokens": example.words, "tags": example.tags} if example.words and example.tags else None
    assert isinstance(example, QuestionExample)
    if not example.answers or not example.question:
        return None
    answers = [{"text": answer.text, "answer_start": answer.start} for answer in example.answers]
    return {"question": example.question, "context": example.context, "answers": answers}


def _unquoted(field: str) -> str:
    return field[1:-1].replace('""', '"') if len(field) > 1 and _QUOTED.fullmatch(field) else field
