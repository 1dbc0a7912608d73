"""The fine-tuning tasks: from files of examples to features, predictions and scores. Loads no framework.

`finetune` and `Recipe` are defined in `rembert.training`, `RemBertScorer` in `rembert.bleurt`; they can be imported
from here, too.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rembert.tasks.data import DataOptions
from rembert.tasks.declarations import Option, Score
from rembert.tasks.examples import Example
from rembert.tasks.predicting import evaluate, load_task, predict
from rembert.tasks.registry import TASKS, get_task
from rembert.tasks.scoring import Output
from rembert.tasks.task import Feature, Task

if TYPE_CHECKING:
    from rembert.bleurt import RemBertScorer
    from rembert.training import Recipe, finetune

__all__ = [
    "TASKS",
    "DataOptions",
    "Example",
    "Feature",
    "Option",
    "Output",
    "Recipe",
    "RemBertScorer",
    "Score",
    "Task",
    "evaluate",
    "finetune",
    "get_task",
    "load_task",
    "predict",
]

# These packages are above this one, so they are imported on first use.
_ABOVE = {"Recipe": "rembert.training", "RemBertScorer": "rembert.bleurt", "finetune": "rembert.training"}


def __getattr__(name: str) -> Any:
    if name in _ABOVE:
        return getattr(import_module(_ABOVE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
