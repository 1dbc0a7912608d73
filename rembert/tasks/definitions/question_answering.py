"""Question answering: the span of a context that answers a question, or no answer."""

from __future__ import annotations

import json
from ast import literal_eval
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from rembert.common.arguments import integer
from rembert.common.collation.answer_spans import AnswerSpan, answer_tokens, best_spans, covered_part, merged
from rembert.common.collation.padding import pad_inputs
from rembert.common.config import RemBertConfig
from rembert.common.errors import DataError, InputError
from rembert.common.metrics.answers import AnswerScores, normalize_squad
from rembert.common.parameters import HEADS
from rembert.common.tokenization import RemBertTokenizer
from rembert.tasks.data import NOT_IN_A_WINDOW
from rembert.tasks.declarations import Option, Score
from rembert.tasks.encoding import row_of, token_ids
from rembert.tasks.examples import Answer, Example, QuestionExample
from rembert.tasks.fields import BadExample, Fields, checked_text
from rembert.tasks.scoring import Output, Scorer
from rembert.tasks.task import Batch, Feature, Task, identified

_N_BEST_SHOWN = 5


class QuestionAnswering(Task):
    """Fields: `question`, `context`, `answers` (a list of `text` and `answer_start`), `is_impossible`; SQuAD's JSON.

    A context that is too long is split into windows that overlap by `stride` tokens; the answer is the best of all
    windows. If the training data have questions without an answer, the model learns to point at `[CLS]` for them, and
    the configuration has `no_answer_threshold`: no answer is given if the score of "no answer" exceeds the best
    answer's by more than the threshold.

    Args:
        tokenizer, max_length, data: as for `Task`.
        stride: the number of tokens that neighbouring windows share.
        max_question_length: in tokens; longer questions are truncated and counted.
        max_answer_length: the maximum length of a predicted answer, in tokens.
        n_best: the number of starts, ends, and answers that are considered.
        no_answer_threshold: overrides the configuration's.

    Raises:
        InputError: an option is not allowed, or the lengths leave no space for a context.

    Example:
        >>> import json
        >>> from pathlib import Path
        >>> answers = [{"text": "at nine", "answer_start": 17}]
        >>> row = {"question": "When?", "context": "The ferry leaves at nine.", "answers": answers}
        >>> _ = Path("questions.jsonl").write_text(json.dumps(row))
        >>> tokenizer = RemBertTokenizer.from_pretrained("google/rembert")
        >>> task = QuestionAnswering(tokenizer, max_length=64, max_question_length=16, stride=8)
        >>> [example] = task.read("questions.jsonl")
        >>> [window] = task.features(example)
        >>> start, end = window["start_positions"], window["end_positions"]
        >>> tokenizer.decode(window["input_ids"][start : end + 1])
        'at nine'
    """

    name = "question-answering"
    head = "question-answering"
    recipe: ClassVar = {"learning_rate": 9e-6}
    options: ClassVar = (
        Option("stride", int, "tokens that neighbouring windows share", default=128, constraint=integer(at_least=0)),
        Option("max_question_length", int, "the maximum, in tokens", default=64, constraint=integer(at_least=1)),
        Option("max_answer_length", int, "the maximum, in tokens", default=30, constraint=integer(at_least=1)),
        Option("n_best", int, "the number of answers considered", default=20, constraint=integer(at_least=1)),
        Option("no_answer_threshold", float, "give no answer if its score exceeds the best answer's by more"),
    )
    scores: ClassVar = (Score("exact_match"), Score("f1"))
    metric = "f1"
    format = "squad"
    fields: ClassVar = {
        "question": ("question",),
        "context": ("context", "passage"),
        "answers": ("answers",),
        "answer_text": ("answer_text",),
        "answer_start": ("answer_start",),
        "is_impossible": ("is_impossible",),
    }
    label_fields: ClassVar = ("answers", "answer_text", "answer_start", "is_impossible")
    per_token = True
    stride: int
    max_question_length: int
    max_answer_length: int
    n_best: int
    no_answer_threshold: float | None

    def __init__(self, tokenizer: RemBertTokenizer, **options: Any) -> None:
        super().__init__(tokenizer, **options)
        if self.max_length - 3 - self.max_question_length <= self.stride:
            raise InputError(
                "`max_length` must leave more than `stride` tokens for the context beside the question. Received: "
                f"`max_length={self.max_length}`, `max_question_length={self.max_question_length}`, "
                f"`stride={self.stride}`."
            )

    def example(self, fields: Fields) -> QuestionExample:
        context = fields.text("context")
        return QuestionExample(
            *fields.common(),
            question=fields.text("question").strip(),
            context=context,
            answers=_answers(_listed_answers(fields), fields.optional("is_impossible"), context),
        )

    def prepare(self, examples: Iterable[Example] = (), *, config: RemBertConfig | None = None) -> None:
        if config is not None:
            if self.no_answer_threshold is None:
                self.no_answer_threshold = config.no_answer_threshold
            return
        for example in examples:
            assert isinstance(example, QuestionExample)
            if example.answers is None:
                raise DataError(f"{example.location}: answers were expected. Received: none.")
            if not example.answers and self.no_answer_threshold is None:
                self.no_answer_threshold = 0.0

    def config_overrides(self) -> dict[str, Any]:
        return {"num_labels": 2, "no_answer_threshold": self.no_answer_threshold}

    # ------------------------------------------------------------------ to the model

    def batch_features(self, examples: Sequence[Example]) -> list[list[Feature]]:
        mine = [example for example in examples if isinstance(example, QuestionExample)]
        encoded = self.tokenizer(
            self._questions([example.question for example in mine]),
            [example.context for example in mine],
            truncation="only_second",
            max_length=self.max_length,
            stride=self.stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            return_attention_mask=False,
        )
        rows: list[list[Feature]] = [[] for _ in mine]
        for number, sample in enumerate(encoded["overflow_to_sample_mapping"]):
            types = np.array(encoded["token_type_ids"][number])
            spans = np.array(encoded["offset_mapping"][number], np.int32)
            spans[types == 0] = -1
            spans[-1] = -1  # the last [SEP]
            feature = row_of(encoded["input_ids"][number], encoded["token_type_ids"][number])
            feature["spans"] = spans
            rows[sample].append(feature)
        self.report.counts["windows"] += len(encoded["input_ids"])
        for example, windows in zip(mine, rows, strict=True):
            if example.answers is not None:
                self._point_at_answer(example, windows)
        return rows

    def _point_at_answer(self, example: QuestionExample, windows: list[Feature]) -> None:
        """Give each window the positions of the answer's tokens, or of [CLS] where the window lacks the answer."""
        found: list[tuple[int, int] | None] = [None] * len(windows)
        if example.answers:
            first = example.answers[0]
            spans = [window["spans"] for window in windows]
            part = covered_part(first.start, first.start + len(first.text), spans)
            found = [None if part is None else answer_tokens(*part, each) for each in spans]
            if not any(found):
                self.report.counts[NOT_IN_A_WINDOW] += 1
        for window, tokens in zip(windows, found, strict=True):
            window["start_positions"], window["end_positions"] = tokens or (0, 0)

    def _questions(self, questions: list[str]) -> list[str]:
        """The questions, truncated to `max_question_length`."""
        rows = token_ids(self, questions)
        long = [number for number, row in enumerate(rows) if len(row) > self.max_question_length]
        if not long:
            return questions
        self.report.truncated += len(long)
        spans = self.tokenizer(
            [questions[number] for number in long],
            add_special_tokens=False,
            truncation=False,
            return_offsets_mapping=True,
            verbose=False,
        )["offset_mapping"]
        cut = list(questions)
        for number, row in zip(long, spans, strict=True):
            # The last word, truncated, may become several tokens: drop characters until the question fits.
            kept = questions[number][: row[self.max_question_length - 1][1]]
            while len(self.tokenizer.encode(kept, add_special_tokens=False, verbose=False)) > self.max_question_length:
                kept = kept[:-1]
            cut[number] = kept
        return cut

    def collate(self, features: Sequence[Feature], rng: np.random.Generator | None = None) -> Batch:
        batch = pad_inputs(features, self.pad_token_id)
        for key in HEADS[self.head].labels:
            if all(key in feature for feature in features):
                batch[key] = np.array([feature[key] for feature in features], np.int64)
        return batch

    # ------------------------------------------------------------------ from the model

    def outputs(self, features: Sequence[Feature], results: Mapping[str, np.ndarray]) -> list[Output]:
        results = {name: np.asarray(results[name], np.float32) for name in HEADS[self.head].logits}
        rows = super().outputs(features, results)
        return [{**row, "spans": feature["spans"]} for row, feature in zip(rows, features, strict=True)]

    def answers(self, outputs: Sequence[Output]) -> tuple[list[AnswerSpan], float]:
        """The n best answers of all windows, best first, and the score of "no answer": the lowest of the windows'."""
        windows = [
            best_spans(
                output["start_logits"],
                output["end_logits"],
                output["spans"],
                n_best=self.n_best,
                max_tokens=self.max_answer_length,
            )
            for output in outputs
        ]
        null = min(float(output["start_logits"][0]) + float(output["end_logits"][0]) for output in outputs)
        return merged(windows, self.n_best), null

    def answer(self, found: Sequence[AnswerSpan], null: float) -> AnswerSpan | None:
        """The answer to give, or None for no answer.

        Args:
            found: answers, best first.
            null: the score of "no answer".
        """
        if not found:
            return None
        if self.no_answer_threshold is not None and null - found[0].score > self.no_answer_threshold:
            return None
        return found[0]

    def has_label(self, example: Example) -> bool:
        return isinstance(example, QuestionExample) and example.answers is not None

    def scorer(self) -> Scorer:
        return _Scorer(self)

    def outcomes(self, example: Example, prediction: Mapping[str, Any]) -> list[tuple[str, str]]:
        assert isinstance(example, QuestionExample)
        return [tuple("answer" if given else "no answer" for given in (example.answers, prediction["answer"]))]  # type: ignore[list-item]

    def is_right(self, example: Example, prediction: Mapping[str, Any]) -> bool:
        assert isinstance(example, QuestionExample)
        expected = [answer.text for answer in example.answers or ()] or [""]
        return normalize_squad(prediction["answer"]) in map(normalize_squad, expected)

    def decode(self, example: Example, outputs: Sequence[Output]) -> dict[str, Any]:
        assert isinstance(example, QuestionExample)
        found, null = self.answers(outputs)
        best = self.answer(found, null)
        given: dict[str, Any] = {"answer": "", "start": None, "end": None}
        if best is not None:
            given = {"answer": example.context[best.start : best.end], "start": best.start, "end": best.end}
        # Probabilities over the n best answers and, if it is allowed, "no answer".
        scores = np.array([span.score for span in found] + [null] * (self.no_answer_threshold is not None))
        likely = np.exp(scores - scores.max()) if scores.size else scores
        likely = likely / likely.sum() if scores.size else likely
        listed = [
            {
                "answer": example.context[span.start : span.end],
                "start": span.start,
                "end": span.end,
                "score": float(share),
            }
            for span, share in zip(found[:_N_BEST_SHOWN], likely, strict=False)
        ]
        if self.no_answer_threshold is not None:
            given["no_answer_score"] = float(likely[-1])
        return identified(example, **given, n_best=listed)


class _Scorer(Scorer):
    def __init__(self, task: QuestionAnswering) -> None:
        self._task = task
        self._scores = AnswerScores()

    def add(self, example: Any, outputs: Sequence[Output]) -> None:
        found, null = self._task.answers(outputs)
        best = self._task.answer(found, null)
        texts = ["" if span is None else example.context[span.start : span.end] for span in (best, *found[:1])]
        self._scores.add(
            [answer.text for answer in example.answers],
            texts[0],
            language=example.language,
            best_answer=texts[-1],
            no_answer_score=null - found[0].score if found else 0.0,
        )

    def result(self) -> dict[str, float]:
        return self._scores.result()


def _listed_answers(fields: Fields) -> Any:
    """The answers as JSON has them. Tables may have them as text, or a column for the text and one for the start."""
    value = fields.optional("answers")
    if isinstance(value, str):
        if not value.strip():
            return None
        try:
            return literal_eval(value) if value.lstrip().startswith(("{'", "[{'", "[]")) else json.loads(value)
        except (ValueError, SyntaxError, RecursionError):
            raise BadExample(f"'answers' must be JSON in a table. Received: {value!r:.60}") from None
    text, start = fields.optional("answer_text"), fields.optional("answer_start")
    if value is not None or text is None or start is None:
        return value
    if isinstance(text, list):
        return {"text": text, "answer_start": start}
    if isinstance(start, str) and start.strip().isdigit():
        start = int(start)
    return [{"text": text, "answer_start": int(start) if isinstance(start, float) and start.is_integer() else start}]


def _answers(value: Any, is_impossible: Any, context: str) -> tuple[Answer, ...] | None:
    if is_impossible not in (None, True, False):  # such as the string "false" of a table
        raise BadExample(f"'is_impossible' must be true or false. Received: {is_impossible!r:.60}")
    if is_impossible:
        return ()
    if value is None:
        return None
    if isinstance(value, dict):  # the form of files made by `datasets`
        texts, starts = value.get("text"), value.get("answer_start")
        if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
            raise BadExample(f"'answers' must have as many texts as starts. Received: {value!r:.80}")
        value = [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]
    if not isinstance(value, list):
        raise BadExample(f"'answers' must be a list. Received: {value!r:.60}")
    return tuple(_answer(each, context) for each in value)


def _answer(value: Any, context: str) -> Answer:
    if not isinstance(value, dict):
        raise BadExample(f"an answer must have 'text' and 'answer_start'. Received: {value!r:.60}")
    text, start = checked_text(value.get("text"), "an answer's 'text'"), value.get("answer_start")
    if not isinstance(start, int) or isinstance(start, bool) or start < 0:
        raise BadExample(f"'answer_start' must be the index of a character, from 0. Received: {start!r:.60}")
    found = context[start : start + len(text)]
    if found != text:
        raise BadExample(f"the answer {text!r:.60} was expected at {start} in its context. Received: {found!r:.60}")
    return Answer(text, start)
