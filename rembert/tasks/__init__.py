"""The six fine-tuning tasks, from files of examples to trained models, scores and predictions; and scoring with a
learned metric. Loads no framework.
"""

from rembert.tasks.bleurt import RemBertScorer
from rembert.tasks.examples import Example
from rembert.tasks.predicting import evaluate, load_task, predict
from rembert.tasks.recipe import Recipe
from rembert.tasks.registry import TASKS, get_task
from rembert.tasks.task import DataOptions, Feature, Output, Task
from rembert.tasks.training import finetune

__all__ = [
    "TASKS",
    "DataOptions",
    "Example",
    "Feature",
    "Output",
    "Recipe",
    "RemBertScorer",
    "Task",
    "evaluate",
    "finetune",
    "get_task",
    "load_task",
    "predict",
]
