"""What a model gets wrong: scores of each class against scikit-learn, confusions, and wrong examples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rembert.cli.main import main
from rembert.tasks import evaluate, get_task
from rembert.tasks.analysis import Analysis, analyse, write_reliability
from tests.frameworks import Framework, needs_pt, on_both, random_weights
from tests.tasks.support import SENTENCE, TAGS, TOKENIZER, config, lines, opened

TEXTS = [f"Text number {number} of {word}" for number in range(4) for word in ("sea", "Wien", "rain")]
ROWS = [{"id": number, "text": text, "label": "abc"[number % 3]} for number, text in enumerate(TEXTS)]


def classifier(framework: Framework, path: Path) -> tuple[Any, Any]:
    task, _ = opened("sequence-classification", lines(path, ROWS))
    settings = config(**task.config_overrides())
    model = framework.build(settings, "sequence-classification")
    framework.set_weights(model, random_weights(settings, "sequence-classification", dtype="float32"))
    return task, model


@on_both
def test_classes_are_scored_as_scikit_learn_does(framework: Framework, tmp_path: Path) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    task, model = classifier(framework, tmp_path / "a.jsonl")
    wrong: list[dict[str, Any]] = []
    found = analyse(task, model, tmp_path / "a.jsonl", on_mistake=wrong.append)
    assert found.scores == pytest.approx(evaluate(task, model, tmp_path / "a.jsonl"))
    expected = [wanted for (wanted, _), count in found.confusion.items() for _ in range(count)]
    predicted = [given for (_, given), count in found.confusion.items() for _ in range(count)]
    report = metrics.classification_report(expected, predicted, output_dict=True, zero_division=0)
    for name, scores in found.classes().items():
        assert scores == pytest.approx({key.replace("-score", ""): value for key, value in report[name].items()})
    assert found.mistakes == len(wrong) == round(len(ROWS) * (1 - found.scores["accuracy"]))
    assert found.mistakes > 0
    for row in wrong:
        original = ROWS[int(row["id"])]
        assert (row["text"], row["label"]) == (original["text"], original["label"])
        assert row["at"] == f"{tmp_path / 'a.jsonl'}:{int(row['id']) + 1}"
        assert row["predicted"]["label"] != row["label"]


def test_entities_are_confused_by_their_words() -> None:
    task = get_task("token-classification", TOKENIZER(), max_length=64)
    [example] = task.read([{"tokens": SENTENCE, "tags": TAGS}])
    task.prepare([example])
    tags = ["B-LOC", "I-LOC", "O", "B-LOC", "O", "B-PER", "O", "O"]
    found = Analysis()
    found.confusion.update(task.outcomes(example, {"tags": tags}))
    assert dict(found.confusion) == {("PER", "LOC"): 1, ("LOC", "LOC"): 1, ("", "PER"): 1, ("LOC", ""): 1}
    assert found.classes()["LOC"] == {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2}
    assert task.is_right(example, {"tags": TAGS})
    assert not task.is_right(example, {"tags": tags})


def test_answers_are_right_if_they_match_exactly() -> None:
    task = get_task("question-answering", TOKENIZER(), max_length=64, stride=8, max_question_length=16)
    answers = [{"text": "Ada Moss", "answer_start": 0}]
    rows = [{"question": "Who?", "context": "Ada Moss.", "answers": each} for each in (answers, [])]
    known, unknown = task.read(rows)
    assert task.is_right(known, {"answer": "ada  moss"})
    assert not task.is_right(known, {"answer": "Moss"})
    assert task.is_right(unknown, {"answer": ""})
    assert task.outcomes(unknown, {"answer": "Moss"}) == [("no answer", "answer")]


@needs_pt
def test_evaluate_writes_errors_and_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.frameworks import PT

    _, model = classifier(PT, tmp_path / "a.jsonl")
    model.save_pretrained(tmp_path / "model")
    TOKENIZER().save_pretrained(tmp_path / "model")
    files = ["--output", str(tmp_path / "scores.json"), "--errors", str(tmp_path / "errors.jsonl")]
    call = ["evaluate", "sequence-classification", "--model", str(tmp_path / "model"), "--data"]
    assert main([*call, str(tmp_path / "a.jsonl"), "--report", *files]) == 0
    printed = capsys.readouterr()
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert sum(count for *_, count in scores["confusion"]) == len(ROWS)
    assert scores["classes"]["a"]["support"] == 4
    errors = (tmp_path / "errors.jsonl").read_text().splitlines()
    assert f"{len(errors)} examples with wrong predictions" in printed.err
    assert "3 classes: 'a' 4, 'b' 4, 'c' 4" in printed.err
    assert ["class", "precision", "recall", "f1", "support"] in [line.split() for line in printed.out.splitlines()]
    # The probabilities that `predict` writes say how sure the model is, and how often it is right.
    assert main(["predict", *call[1:], str(tmp_path / "a.jsonl")]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    bins = [each for each in scores["calibration"]["bins"] if each["count"]]
    assert sum(each["count"] for each in bins) == len(ROWS)
    sure = sum(each["count"] * each["confidence"] for each in bins) / len(ROWS)
    assert sure == pytest.approx(sum(row["score"] for row in rows) / len(ROWS), rel=1e-5)
    right = sum(each["count"] * each["accuracy"] for each in bins) / len(ROWS)
    assert right == pytest.approx(scores["accuracy"])
    assert any(line.split()[:1] == ["temperature"] for line in printed.out.splitlines())


@needs_pt
@pytest.mark.parametrize("head", ["token-classification", "multiple-choice"])
def test_tokens_and_choices_are_calibrated(head: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from tests.frameworks import PT

    rows: list[dict[str, Any]] = [{"tokens": SENTENCE, "tags": TAGS}, {"tokens": SENTENCE[:3], "tags": TAGS[:3]}]
    if head == "multiple-choice":
        rows = [{"prompt": "It rains.", "choices": ["Take a coat.", "Swim."], "label": n} for n in (0, 1)]
    task = get_task(head, TOKENIZER(), max_length=64)
    task.prepare(list(task.read(rows)))
    settings = config(**task.config_overrides())
    model = PT.build(settings, head)
    PT.set_weights(model, random_weights(settings, head, dtype="float32"))
    found = analyse(task, model, rows, calibrate=True)
    assert found.calibration is not None
    assert found.calibration.count == (2 if head == "multiple-choice" else len(TAGS) + 3)
    if head == "multiple-choice":
        right = sum(each.count * each.accuracy for each in found.calibration.bins) / 2
        assert right == pytest.approx(found.scores["accuracy"])
    write_reliability(tmp_path / "plot.png", found.calibration)
    assert (tmp_path / "plot.png").read_bytes()[1:4] == b"PNG"
