"""The tasks by name."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from rembert.common.errors import InputError
from rembert.common.tokenization import RemBertTokenizer
from rembert.tasks.task import DataOptions, Task

TASKS = {
    "sequence-classification": "SequenceClassification",
    "token-classification": "TokenClassification",
    "question-answering": "QuestionAnswering",
    "multiple-choice": "MultipleChoice",
    "masked-lm": "MaskedLM",
    "causal-lm": "CausalLM",
}


def get_task(
    name: str,
    tokenizer: RemBertTokenizer,
    *,
    max_length: int | None = None,
    data: DataOptions | None = None,
    **options: Any,
) -> Task:
    """A task by its name.

    Args:
        name: a key of `TASKS`, the name of a head.
        tokenizer: encodes the texts.
        max_length: the longest row, in pieces; pass the model's `max_position_embeddings`.
        data: how files are read.
        **options: the task's own; see its class.

    Raises:
        InputError: there is no such task, or an argument is refused.
    """
    return task_class(name)(tokenizer, max_length=max_length, data=data, **options)


def task_class(name: str) -> type[Task]:
    """The class of a task.

    Raises:
        InputError: there is no such task.
    """
    if name not in TASKS:
        raise InputError(f"The task must be one of {', '.join(TASKS)}. Received: {name!r}.")
    found: type[Task] = getattr(import_module(f"rembert.tasks.{name.replace('-', '_')}"), TASKS[name])
    return found
