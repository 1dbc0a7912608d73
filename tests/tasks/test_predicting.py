"""Models of both frameworks over examples: the same numbers whatever the batches, and those of plain calls."""

from __future__ import annotations

import collections
import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rembert.common.errors import InputError
from rembert.tasks import TASKS, DataOptions, Task, get_task
from rembert.tasks.embedding import Texts, VectorFile, embed
from rembert.tasks.filling import fill_mask
from rembert.tasks.predicting import evaluate, predict, predict_outputs, task_runner
from tests.frameworks import PT, TF, Framework, needs_pt, needs_tf, on_both, random_weights
from tests.tasks.support import POEM, ROWS, SENTENCE, TAGS, TOKENIZER, config, conll, lines, squad_file

CHOICES = [
    {
        "premise": "Il pleut.",
        "choice1": "Le sol est mouillé.",
        "choice2": "Il fait sec.",
        "question": "effect",
        "label": 0,
    },
    {
        "premise": "Anacheka.",
        "choice1": "Ana furaha.",
        "choice2": "Amelala.",
        "question": "cause",
        "label": 0,
    },
]


def data(name: str, directory: Path) -> Path:
    """A file of examples of very different lengths."""
    if name == "sequence-classification":
        return lines(directory / "a.jsonl", [*ROWS, {"text": "fünf Wörter mehr " * 9, "label": "travel"}])
    if name == "token-classification":
        return conll(directory / "a.conll", [(SENTENCE, TAGS), (SENTENCE[:2], TAGS[:2]), (SENTENCE * 4, TAGS * 4)])
    if name == "question-answering":
        return squad_file(directory / "a.json")
    if name == "multiple-choice":
        return lines(directory / "a.jsonl", CHOICES)
    path = directory / "a.txt"
    path.write_text(POEM, encoding="utf-8")
    return path


SHORT: dict[str, Any] = collections.defaultdict(dict)
SHORT["question-answering"] = {"stride": 8, "max_question_length": 12}

Opened = tuple[Task, list[Any], Any]  # a task, its examples, and a model that no test may change
Open = Callable[[str, Framework], Opened]
Predict = Callable[[str, Framework], list[tuple[Any, Any]]]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Open:
    @cache
    def open_once(name: str, framework: Framework) -> Opened:
        task = get_task(name, TOKENIZER(), max_length=40, **SHORT[name])
        examples = list(task.read(data(name, tmp_path_factory.mktemp("data"))))
        task.prepare(examples)
        settings = config(**task.config_overrides())
        model = framework.build(settings, name)
        framework.set_weights(model, random_weights(settings, name, dtype="float32"))
        return task, examples, model

    return open_once


@pytest.fixture(scope="module")
def predicted(opened: Open) -> Predict:
    """The examples with their outputs, in batches of the default size."""

    @cache
    def predict_once(name: str, framework: Framework) -> list[tuple[Any, Any]]:
        task, examples, model = opened(name, framework)
        return list(predict_outputs(task, model, examples))

    return predict_once


def numbers(value: Any) -> Iterator[float]:
    """All numbers in a JSON-like value, in order."""
    if isinstance(value, dict):
        for part in value.values():
            yield from numbers(part)
    elif isinstance(value, list):
        for part in value:
            yield from numbers(part)
    elif isinstance(value, int | float):
        yield float(value)


@on_both
@pytest.mark.parametrize("name", TASKS)
def test_predictions_do_not_depend_on_the_batches(
    framework: Framework, name: str, opened: Open, predicted: Predict
) -> None:
    task, examples, model = opened(name, framework)
    with task_runner(task, model) as run:
        one = list(predict(task, model, examples, batch_size=1, run=run))
        many = list(predict(task, model, iter(examples), batch_size=5, max_tokens=100, run=run))
        scores = evaluate(task, model, examples, batch_size=2, run=run)
    pairs = predicted(name, framework)
    assert len(one) == len(examples)
    assert json.loads(json.dumps(many, allow_nan=False)) == many
    # Answers may come in another order where two are equally likely; the numbers are those of float32.
    np.testing.assert_allclose(list(numbers(one)), list(numbers(many)), rtol=2e-4, atol=2e-5)
    assert [example for example, _ in pairs] == examples
    assert scores == pytest.approx(task.score(examples, [outputs for _, outputs in pairs]), rel=1e-4)


BAD_LABELS: dict[str, dict[str, Any]] = {
    "sequence-classification": {"text": "Timu ilishinda.", "label": -1},
    "token-classification": {"tokens": ["Amina", "lala"], "tags": ["?"]},
    "question-answering": {
        "question": "Who?",
        "context": "Ada Moss.",
        "answers": [{"text": "Ada", "answer_start": 1}],
        "is_impossible": "false",
    },
    "multiple-choice": {"premise": "Il pleut.", "choice1": "Oui.", "choice2": "Non.", "label": -1},
}


@on_both
@pytest.mark.parametrize("name", BAD_LABELS)
def test_prediction_reads_no_labels_and_keeps_step(
    framework: Framework, name: str, opened: Open, tmp_path: Path
) -> None:
    _, _, model = opened(name, framework)
    task = get_task(name, TOKENIZER(), max_length=64, data=DataOptions("jsonl", skip_bad_lines=True), **SHORT[name])
    task.prepare(config=model.config)
    path = lines(tmp_path / "a.jsonl", [BAD_LABELS[name], {"odd": 1}, {**BAD_LABELS[name], "id": "last"}])
    read = task.read(path, labels=False, keep_skipped=True)
    first, second, third = predict(task, model, read, batch_size=1)
    assert second == {"error": f"{path}:2: {task.report.reasons[0].split(': ', 1)[1]}"}
    assert third == {"id": "last", **first}
    assert "error" not in first


@needs_pt
@needs_tf
@pytest.mark.parametrize("name", TASKS)
def test_frameworks_predict_and_score_alike(name: str, opened: Open, predicted: Predict) -> None:
    found = []
    for framework in (PT, TF):
        task, pairs = opened(name, framework)[0], predicted(name, framework)
        found.append(([task.decode(*pair) for pair in pairs], task.score_pairs(pairs)))
    (one, scores), (other, others) = found
    np.testing.assert_allclose(list(numbers(one)), list(numbers(other)), rtol=2e-4, atol=2e-5)
    assert scores == pytest.approx(others, rel=1e-4)


@on_both
@pytest.mark.parametrize("name", ["masked-lm", "causal-lm"])
def test_label_scores_are_those_of_the_logits(framework: Framework, name: str, opened: Open) -> None:
    task, examples, model = opened(name, framework)
    features = [feature for example in examples for feature in task.features(example)]
    batch = task.collate(features)
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask", "token_type_ids")}
    logits = framework.array(framework.call(model, **inputs).logits).astype(np.float64)
    labels = batch["labels"]
    if name == "causal-lm":  # the logits at i are of the label at i + 1
        logits, labels = logits[:, :-1], labels[:, 1:]
    wanted = (
        logits
        - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True))
        - logits.max(-1, keepdims=True)
    )
    with task_runner(task, model) as run:
        outputs = task.outputs(features, run(batch))
    for row, output in enumerate(outputs):
        counted = labels[row] != -100
        np.testing.assert_array_equal(output["expected"], labels[row][counted])
        expected = np.take_along_axis(wanted[row][counted], labels[row][counted][:, None], 1)[:, 0]
        np.testing.assert_allclose(output["log_probs"], expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(output["predicted"], wanted[row][counted].argmax(-1))


@on_both
def test_pseudo_perplexity_masks_every_token_alone(framework: Framework, opened: Open, tmp_path: Path) -> None:
    _, _, model = opened("masked-lm", framework)
    text = "Feri inaondoka."
    (tmp_path / "b.txt").write_text(text)
    task = get_task("masked-lm", TOKENIZER(), max_length=40, every_token=True)
    ids = TOKENIZER()(text)["input_ids"]
    logs = []
    for position in range(1, len(ids) - 1):
        masked = np.array([ids])
        masked[0, position] = TOKENIZER().mask_token_id
        logits = framework.array(framework.call(model, input_ids=masked).logits)[0, position].astype(np.float64)
        logs.append(logits[ids[position]] - logits.max() - np.log(np.exp(logits - logits.max()).sum()))
    scores = evaluate(task, model, task.read(tmp_path / "b.txt"))
    assert scores["pseudo_perplexity"] == pytest.approx(np.exp(-np.mean(logs)), rel=1e-4)


@on_both
def test_masks_are_filled_with_the_most_likely_tokens(framework: Framework, opened: Open) -> None:
    _, _, model = opened("masked-lm", framework)
    text = "Die [MASK] fährt um [MASK]."
    ids = np.array([TOKENIZER()(text)["input_ids"]])
    logits = framework.array(framework.call(model, input_ids=ids).logits)[0].astype(np.float64)
    positions = np.flatnonzero(ids[0] == TOKENIZER().mask_token_id)
    [fillings] = fill_mask(model, TOKENIZER(), [text], top_k=3)
    assert len(fillings) == 2
    for position, found in zip(positions, fillings, strict=True):
        likely = np.exp(logits[position] - logits[position].max())
        likely /= likely.sum()
        best = np.argsort(-likely)[:3]
        assert [filling.token for filling in found] == TOKENIZER().convert_ids_to_tokens(best.tolist())
        assert [filling.probability for filling in found] == pytest.approx(likely[best].tolist(), rel=1e-3)
    word = fillings[0][0].token.replace("▁", " ")
    assert fillings[0][0].text == f"Die{word} fährt um [MASK]."
    with pytest.raises(InputError, match=r"must contain '\[MASK\]'"):
        fill_mask(model, TOKENIZER(), ["nothing to fill"])
    with pytest.raises(InputError, match="top_k=0"):
        fill_mask(model, TOKENIZER(), [text], top_k=0)
    targets = ["ist", "▁und", "a", "▁a"]  # two names of one token count once
    [chosen] = fill_mask(model, TOKENIZER(), [text], top_k=9, targets=targets)
    ids = TOKENIZER().convert_tokens_to_ids(["▁ist", "▁und", "▁a"])
    for position, found in zip(positions, chosen, strict=True):
        likely = np.exp(logits[position] - logits[position].max())
        likely /= likely.sum()
        best = sorted(ids, key=lambda index: -likely[index])
        assert [filling.token for filling in found] == TOKENIZER().convert_ids_to_tokens(best)
        assert [filling.probability for filling in found] == pytest.approx(likely[best].tolist(), rel=1e-3)
    for wrong in (["Zeppelinflug"], [], "ist", ["𐍈"]):
        with pytest.raises(InputError, match="`targets` must be"):
            fill_mask(model, TOKENIZER(), [text], targets=wrong)


@on_both
@pytest.mark.parametrize("layer", [-1, 0])
def test_vectors_are_means_of_hidden_states(framework: Framework, layer: int, tmp_path: Path) -> None:
    settings = config()
    model = framework.build(settings, "model")
    framework.set_weights(model, random_weights(settings, "model", dtype="float32"))
    task = Texts(TOKENIZER(), max_length=40)
    texts = ["Kurz.", "Ein etwas längerer Satz über nichts.", "短い", "mid length"]
    (tmp_path / "a.txt").write_text("\n".join(texts), encoding="utf-8")
    vectors = embed(task, model, task.read(tmp_path / "a.txt"), batch_size=2, layer=layer)
    with (tmp_path / "a.npy").open("w+b") as stream:
        file = VectorFile(stream, settings.hidden_size)
        for vector in vectors:
            file.add(vector)
        file.finish()
    assert file.count == 4
    found = np.load(tmp_path / "a.npy")
    assert found.dtype == np.float32
    for row, text in zip(found, texts, strict=True):
        ids = np.array([TOKENIZER()(text)["input_ids"]])
        states = framework.call(model, input_ids=ids, output_hidden_states=True).hidden_states
        np.testing.assert_allclose(row, framework.array(states[layer])[0].mean(0), rtol=1e-4, atol=1e-5)
    unit = np.stack(list(embed(task, model, task.read(tmp_path / "a.txt"), normalize=True, layer=layer)))
    np.testing.assert_allclose(unit, found / np.linalg.norm(found, axis=1, keepdims=True), rtol=1e-4, atol=1e-5)
