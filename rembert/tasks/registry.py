"""The tasks by name."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from rembert.common.arguments import check_argument, one_of
from rembert.common.tokenization import RemBertTokenizer
from rembert.tasks import definitions
from rembert.tasks.data import DataOptions
from rembert.tasks.task import Task

TASKS: dict[str, str] = {
    module.name.replace("_", "-"): f"{definitions.__name__}.{module.name}"
    for module in iter_modules(definitions.__path__)
}
"""The module that defines each task, by the task's name. A module is imported when its task is used."""


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
        name: a key of `TASKS`.
        tokenizer: encodes the texts.
        max_length: the maximum length of a row in tokens, at most the model's `max_position_embeddings`; by default
            the tokenizer's `model_max_length`.
        data: how files are read.
        **options: the task's own; see its class.

    Raises:
        InputError: there is no such task, or an argument is not allowed.
        TypeError: the task does not have an option of this name.

    Example:
        >>> tokenizer = RemBertTokenizer.from_pretrained("google/rembert")
        >>> task = get_task("question-answering", tokenizer, max_length=256, stride=32)
        >>> task.stride, task.n_best
        (32, 20)
        >>> [option.name for option in task.options]
        ['stride', 'max_question_length', 'max_answer_length', 'n_best', 'no_answer_threshold']
    """
    return task_class(name)(tokenizer, max_length=max_length, data=data, **options)


def task_class(name: str) -> type[Task]:
    """The class of a task.

    Raises:
        InputError: there is no such task.
    """
    check_argument("task", name, one_of(TASKS))
    return next(
        found
        for found in vars(import_module(TASKS[name])).values()
        if isinstance(found, type) and issubclass(found, Task) and getattr(found, "name", None) == name
    )
