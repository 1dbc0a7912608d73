"""Multiple choice: which of several continuations or answers is correct."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from rembert.common.collation.padding import pad_rows
from rembert.common.config import RemBertConfig
from rembert.common.errors import DataError
from rembert.common.tokenization import RemBertTokenizer
from rembert.tasks.declarations import Option, Score
from rembert.tasks.encoding import encode
from rembert.tasks.examples import ChoiceExample, Example
from rembert.tasks.fields import BadExample, Fields, checked_text
from rembert.tasks.scoring import Output, Scorer
from rembert.tasks.task import Batch, Feature, Task, identified

# The questions of COPA (Roemmele et al., 2011) and XCOPA (Ponti et al., 2020).
_COPA = {"cause": "What was the cause?", "effect": "What happened as a result?"}
_FROM_ONE = ("correct_answer_num", "AnswerRightEnding")  # labels of Belebele and XStoryCloze: the first choice is 1
# The columns of choices that are not a list, in XCOPA, SWAG, Belebele and others.
_CHOICE = re.compile(r"(choice|ending|option|answer|mc_answer)_?([0-9]+|[a-eA-E])")


class MultipleChoice(Task):
    """Fields: `prompt`, `question` (optional), `choices`, `prefix` (optional), `label`.

    Each choice is encoded with the prompt and the question as a pair: (`prompt question`, `prefix choice`). `choices`
    is a list, or has columns of its own (`choice1`, `choice2`, …; `ending0`, …). `label` is the correct choice's
    number from 0, or its letter. In XCOPA's files, `cause` and `effect` mean COPA's two questions.

    Args:
        tokenizer, max_length, data: as for `Task`.
        first_choice: the number that `label` gives to the first choice; 1 in some files.

    Example:
        >>> import json
        >>> from pathlib import Path
        >>> row = {"prompt": "It rained.", "choices": ["The street is wet.", "The street is new."], "label": "A"}
        >>> _ = Path("choices.jsonl").write_text(json.dumps(row))
        >>> task = MultipleChoice(RemBertTokenizer.from_pretrained("google/rembert"), max_length=64)
        >>> [example] = task.read("choices.jsonl")
        >>> batch = task.collate(task.features(example))
        >>> batch["input_ids"].shape[:2], batch["labels"]
        ((1, 2), array([0]))
    """

    name = "multiple-choice"
    head = "multiple-choice"
    recipe: ClassVar = {"learning_rate": 8e-6, "batch_size": 16}
    options: ClassVar = (Option("first_choice", int, "the label of the first choice", default=0),)
    scores: ClassVar = (Score("accuracy"),)
    metric = "accuracy"
    fields: ClassVar = {
        "prompt": ("premise", "context", "passage", "flores_passage", "article", "sent1", "startphrase", "prompt"),
        "question": ("question",),
        "prefix": ("sent2",),
        "choices": ("choices", "options", "endings"),
        "label": ("label", "answer", "correct_answer_num"),
    }
    first_choice: int

    def __init__(self, tokenizer: RemBertTokenizer, **options: Any) -> None:
        super().__init__(tokenizer, **options)
        self.count: int | None = None  # choices of every example

    def example(self, fields: Fields) -> ChoiceExample:
        prompt = fields.optional("prompt")
        question = fields.optional("question")
        if prompt is None and question is None:
            fields.value("prompt")  # raises
        parts = [
            checked_text(part, repr(fields.column(name)))
            for name, part in (("prompt", prompt), ("question", question))
            if part is not None
        ]
        if len(parts) == 2:
            parts[1] = _COPA.get(parts[1], parts[1])
        prefix = fields.optional("prefix")
        choices = tuple(f"{prefix} {choice}" if prefix else choice for choice in _choices(fields))
        return ChoiceExample(
            *fields.common(),
            prompt=" ".join(parts),
            choices=choices,
            label=self._label(fields.optional("label"), len(choices), fields.column("label")),
        )

    def _label(self, value: Any, count: int, column: str | None) -> int | None:
        first = 1 if column in _FROM_ONE else self.first_choice
        if value is None or value == "":
            return None
        number: Any = value
        if isinstance(value, str):
            is_letter = len(value) == 1 and value.isascii() and value.isalpha()
            if is_letter:
                number = ord(value.upper()) - ord("A")
            elif value.strip().isascii() and value.strip().isdigit():
                number = int(value) - first
        elif isinstance(value, int) and not isinstance(value, bool):
            number = value - first
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < count:
            numbers = f"{first} to {first + count - 1}"
            raise BadExample(
                f"the label must be the number of a choice, {numbers}, or its letter. Received: {value!r:.60}"
            )
        return number

    def check(self, example: Example) -> None:
        assert isinstance(example, ChoiceExample)
        if self.count is None:
            self.count = len(example.choices)
        if len(example.choices) != self.count:
            raise BadExample(
                f"{self.count} choices were expected, as in the first example. Received: {len(example.choices)}"
            )

    def prepare(self, examples: Iterable[Example] = (), *, config: RemBertConfig | None = None) -> None:
        if config is not None:
            return
        for example in examples:
            if not self.has_label(example):
                raise DataError(f"{example.location}: a label was expected. Received: none.")

    def batch_features(self, examples: Sequence[Example]) -> list[list[Feature]]:
        mine = [example for example in examples if isinstance(example, ChoiceExample)]
        rows = iter(
            encode(
                self,
                [example.prompt for example in mine for _ in example.choices],
                [choice for example in mine for choice in example.choices],
            )
        )
        result = []
        for example in mine:
            own = [next(rows) for _ in example.choices]
            feature: Feature = {key: [row[key] for row in own] for key in ("input_ids", "token_type_ids")}
            if example.label is not None:
                feature["labels"] = example.label
            result.append([feature])
        return result

    @staticmethod
    def length(feature: Feature) -> int:
        return max(map(len, feature["input_ids"]))

    def collate(self, features: Sequence[Feature], rng: np.random.Generator | None = None) -> Batch:
        shape = (len(features), len(features[0]["input_ids"]), -1)
        ids = [row for feature in features for row in feature["input_ids"]]
        input_ids = pad_rows(ids, self.pad_token_id)
        lengths = np.array([len(row) for row in ids])
        types = pad_rows([row for feature in features for row in feature["token_type_ids"]], 0)
        mask = (np.arange(input_ids.shape[1]) < lengths[:, None]).astype(np.int64)
        batch = {"input_ids": input_ids, "attention_mask": mask, "token_type_ids": types}
        batch = {name: array.reshape(shape) for name, array in batch.items()}
        if all("labels" in feature for feature in features):
            batch["labels"] = np.array([feature["labels"] for feature in features], np.int64)
        return batch

    def has_label(self, example: Example) -> bool:
        return isinstance(example, ChoiceExample) and example.label is not None

    def scorer(self) -> Scorer:
        return _Scorer()

    @property
    def has_one_class(self) -> bool:
        return True

    def judgements(self, example: Example, outputs: Sequence[Output]) -> tuple[np.ndarray, np.ndarray]:
        assert isinstance(example, ChoiceExample)
        return outputs[0]["logits"][None], np.array([example.label])

    def is_right(self, example: Example, prediction: Mapping[str, Any]) -> bool:
        return isinstance(example, ChoiceExample) and prediction["label"] - self.first_choice == example.label

    def decode(self, example: Example, outputs: Sequence[Output]) -> dict[str, Any]:
        assert isinstance(example, ChoiceExample)
        logits = outputs[0]["logits"].astype(np.float64)
        likely = np.exp(logits - logits.max())
        likely /= likely.sum()
        best = int(likely.argmax())
        return identified(
            example, label=best + self.first_choice, choice=example.choices[best], scores=list(map(float, likely))
        )


class _Scorer(Scorer):
    def __init__(self) -> None:
        self._right = self._count = 0

    def add(self, example: Any, outputs: Sequence[Output]) -> None:
        self._right += int(outputs[0]["logits"].argmax()) == example.label
        self._count += 1

    def result(self) -> dict[str, float]:
        return {"accuracy": self._right / self._count}


def _choices(fields: Fields) -> list[str]:
    if fields.column("choices") is not None or "choices" in fields.named:
        listed = fields.value("choices")
        column = repr(fields.column("choices"))
        if isinstance(listed, dict):  # the form of ARC and CommonsenseQA: {"text": […], "label": […]}
            listed = listed.get("text")
        if not isinstance(listed, list):
            raise BadExample(f"{column} must be a list of strings. Received: {listed!r:.60}")
        choices = [checked_text(choice, f"a choice of {column}") for choice in listed]
    else:
        found = sorted((match[1], match[2].rjust(9), name) for name in fields if (match := _CHOICE.fullmatch(name)))
        choices = [checked_text(fields[name], repr(name)) for kind, _, name in found if kind == found[0][0]]
    if len(choices) < 2:
        raise BadExample(
            "at least two choices were expected, as a list 'choices' or in columns 'choice1', 'choice2', …. "
            f"Received: {', '.join(fields)}"
        )
    return choices
