"""What a model gets wrong: the scores of each class, the classes that it confuses, and the examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rembert.common.metrics.classification import f1
from rembert.tasks.examples import Example
from rembert.tasks.predicting import Run, predict_outputs, read_or_keep, reporting
from rembert.tasks.scoring import Output
from rembert.tasks.sources import Data
from rembert.tasks.task import Task

NOTHING = ""  # the class of an entity, or a class, that is only expected or only predicted


@dataclass
class Analysis:
    """The scores of a model, and what they consist of.

    Attributes:
        scores: as `evaluate` returns them.
        confusion: how often each pair of an expected and a predicted class, or kind of entity, occurs; an empty name
            stands for none.
        mistakes: the number of examples with a wrong prediction.

    Example:
        >>> found = Analysis(confusion=Counter({("sport", "sport"): 3, ("sport", "politics"): 1}), mistakes=1)
        >>> found.classes()["sport"]["recall"]
        0.75
    """

    scores: dict[str, float] = field(default_factory=dict)
    confusion: Counter[tuple[str, str]] = field(default_factory=Counter)
    mistakes: int = 0

    def classes(self) -> dict[str, dict[str, float]]:
        """Precision, recall, F1 and the number of occurrences (`support`) of each class, by its name."""
        expected, predicted = Counter[str](), Counter[str]()
        for (wanted, given), count in self.confusion.items():
            expected[wanted] += count
            predicted[given] += count
        found = {}
        for name in sorted({*expected, *predicted} - {NOTHING}):
            right, of_predicted, support = self.confusion[name, name], predicted[name], expected[name]
            found[name] = {
                "precision": right / of_predicted if of_predicted else 0.0,
                "recall": right / support if support else 0.0,
                "f1": f1(right, of_predicted, support),
                "support": support,
            }
        return found


def analyse(
    task: Task,
    model: Any,
    examples: Iterable[Example] | Data,
    *,
    batch_size: int = 32,
    on_mistake: Callable[[dict[str, Any]], None] | None = None,
    run: Run | None = None,
    progress: Callable[[int], object] | None = None,
) -> Analysis:
    """`evaluate`, with the classes that are confused, and each example with a wrong prediction.

    Args:
        task: a prepared task.
        model: of `rembert.pt` or `rembert.tf`, with the task's head.
        examples: as for `evaluate`.
        batch_size: the maximum number of rows in a batch.
        on_mistake: called with each example whose prediction is wrong: its location (`at`), its fields, and what was
            `predicted`.
        run: the result of `task_runner` for this model, to reuse TensorFlow's graph.
        progress: called with the number of examples done, after each.

    Raises:
        InputError, DataError: as for `evaluate`.

    Example:
        >>> from rembert.tasks import load_task
        >>> task, model = load_task("masked-lm", "google/rembert")
        >>> analysis = analyse(task, model, [{"text": "The ferry leaves at nine."}])
        >>> list(analysis.scores), analysis.classes()
        (['loss', 'perplexity', 'masked_accuracy'], {})
    """
    found = Analysis()
    pairs = predict_outputs(task, model, read_or_keep(task, examples, labels=True), batch_size=batch_size, run=run)
    found.scores = task.score_pairs(_watched(task, reporting(pairs, progress), found, on_mistake))
    return found


def _watched(
    task: Task,
    pairs: Iterable[tuple[Example, Sequence[Output]]],
    found: Analysis,
    on_mistake: Callable[[dict[str, Any]], None] | None,
) -> Iterator[tuple[Example, Sequence[Output]]]:
    """The pairs, unchanged; what they say is counted in `found`."""
    for example, outputs in pairs:
        if task.has_label(example):
            prediction = task.decode(example, outputs)
            found.confusion.update(task.outcomes(example, prediction))
            if not task.is_right(example, prediction):
                found.mistakes += 1
                if on_mistake is not None:
                    on_mistake(_row(example, prediction))
        yield example, outputs


def _row(example: Example, prediction: dict[str, Any]) -> dict[str, Any]:
    fields = {name: value for name, value in asdict(example).items() if name != "location" and value not in (None, ())}
    return {"at": str(example.location), **fields, "predicted": prediction}
