"""What a model gets wrong: the scores of each class, the classes that it confuses, and the examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rembert.common.dependencies import require_packages
from rembert.common.files import atomic_path
from rembert.common.metrics.calibration import Calibration, calibration
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
        calibration: of the probabilities, for tasks with classes of which one is right.

    Example:
        >>> found = Analysis(confusion=Counter({("sport", "sport"): 3, ("sport", "politics"): 1}), mistakes=1)
        >>> found.classes()["sport"]["recall"]
        0.75
    """

    scores: dict[str, float] = field(default_factory=dict)
    confusion: Counter[tuple[str, str]] = field(default_factory=Counter)
    mistakes: int = 0
    calibration: Calibration | None = None

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
    calibrate: bool = False,
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
        calibrate: whether to measure the calibration, where one class is right; keeps all logits in memory.
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
    calibrate = calibrate and task.has_one_class
    pairs = predict_outputs(task, model, read_or_keep(task, examples, labels=True), batch_size=batch_size, run=run)
    judgements: list[tuple[np.ndarray, np.ndarray]] = []
    watched = _watched(task, reporting(pairs, progress), found, judgements if calibrate else None, on_mistake)
    found.scores = task.score_pairs(watched)
    if judgements:
        logits, labels = (np.concatenate(arrays) for arrays in zip(*judgements, strict=True))
        found.calibration = calibration(logits, labels)
    return found


def _watched(
    task: Task,
    pairs: Iterable[tuple[Example, Sequence[Output]]],
    found: Analysis,
    judgements: list[tuple[np.ndarray, np.ndarray]] | None,
    on_mistake: Callable[[dict[str, Any]], None] | None,
) -> Iterator[tuple[Example, Sequence[Output]]]:
    """The pairs, unchanged; what they say is counted in `found`, and what calibration needs kept in `judgements`."""
    for example, outputs in pairs:
        if task.has_label(example):
            prediction = task.decode(example, outputs)
            found.confusion.update(task.outcomes(example, prediction))
            if not task.is_right(example, prediction):
                found.mistakes += 1
                if on_mistake is not None:
                    on_mistake(_row(example, prediction))
            if judgements is not None:
                judgements.append(task.judgements(example, outputs))
        yield example, outputs


def write_reliability(path: Path, found: Calibration) -> None:
    """Draw the reliability diagram of `found` as a PNG file: accuracy over probability, and how many predictions.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    require_packages("matplotlib", needed_for="A reliability diagram")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5, 5), layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    starts, widths = [each.low for each in found.bins], [each.high - each.low for each in found.bins]
    used = [each for each in found.bins if each.count]
    upper.bar(starts, [each.accuracy for each in found.bins], widths, align="edge", edgecolor="white")
    upper.plot([each.confidence for each in used], [each.accuracy for each in used], ".", color="black")
    upper.plot([0, 1], [0, 1], color="gray", linestyle=":")
    upper.set_ylabel("accuracy")
    upper.set_title(f"ECE {found.ece:.4f}, at temperature {found.temperature:.2f}: {found.ece_scaled:.4f}")
    lower.bar(starts, [each.count for each in found.bins], widths, align="edge", edgecolor="white")
    lower.set_xlabel("probability of the prediction")
    lower.set_ylabel("predictions")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def _row(example: Example, prediction: dict[str, Any]) -> dict[str, Any]:
    fields = {name: value for name, value in asdict(example).items() if name != "location" and value not in (None, ())}
    return {"at": str(example.location), **fields, "predicted": prediction}
