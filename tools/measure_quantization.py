"""How many predictions of a fine-tuned checkpoint quantization changes, from right to wrong and back.

    python tools/measure_quantization.py TASK CHECKPOINT FILE ... [--frameworks pt tf]

Each line is a quantized model beside the same framework's float32: how many predictions are right, how many became
wrong and how many became right, and the p-value of McNemar's exact test: the probability of so uneven a change, or a
more uneven one, if both directions are equally likely. A prediction is that of an example, or of a word.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from typing import Any

from rembert.cli.text import table
from rembert.tasks import TASKS, Task, load_task, predict

QUANTIZED: dict[str, dict[str, Callable[[Any], object]]] = {
    "pt": {
        '`quantize_dynamic("float16")`': lambda model: model.quantize_dynamic("float16"),
        "`quantize_dynamic()`": lambda model: model.quantize_dynamic(),
    },
    "tf": {'`quantize("int8")`': lambda model: model.quantize("int8")},
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=tuple(TASKS))
    parser.add_argument("checkpoint")
    parser.add_argument("files", nargs="+")
    parser.add_argument("--frameworks", nargs="+", choices=tuple(QUANTIZED), default=list(QUANTIZED))
    parser.add_argument("--max-length", type=int)
    args = parser.parse_args()
    rows: list[tuple[object, ...]] = [("framework", "weights", "predictions", "right", "to wrong", "to right", "p")]
    for framework in args.frameworks:
        task, model = load_task(args.task, args.checkpoint, framework, max_length=args.max_length)
        exact = list(right(task, model, args.files))
        rows.append((framework, "float32", len(exact), sum(exact), "", "", ""))
        for name, quantize in QUANTIZED[framework].items():
            task, model = load_task(args.task, args.checkpoint, framework, max_length=args.max_length)
            quantize(model)
            found = list(right(task, model, args.files))
            lost = sum(before and not after for before, after in zip(exact, found, strict=True))
            gained = sum(after and not before for before, after in zip(exact, found, strict=True))
            rows.append((framework, name, len(found), sum(found), lost, gained, f"{p_value(lost, gained):.2f}"))
    print(table(rows, right=(2, 3, 4, 5, 6)))


def right(task: Task, model: Any, files: list[str]) -> Iterator[bool]:
    """Whether each prediction is right: of every word that has a tag, otherwise of every example."""
    examples = list(task.read(*files))
    for example, prediction in zip(examples, predict(task, model, examples), strict=True):
        tags = getattr(example, "tags", None)
        if tags is None:
            yield task.is_right(example, prediction)
        else:
            yield from (wanted == found for wanted, found in zip(tags, prediction["tags"], strict=True))


def p_value(lost: int, gained: int) -> float:
    """McNemar's exact test, two-sided: a binomial distribution over the predictions that changed."""
    changed = lost + gained
    tail = sum(math.comb(changed, count) for count in range(min(lost, gained) + 1)) / 2**changed
    return min(1.0, 2 * tail)


if __name__ == "__main__":
    main()
