"""Several models as one, and the mean of checkpoints."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from rembert.cli.main import main
from rembert.common.errors import CheckpointError, InputError
from rembert.common.parameters import HEADS
from rembert.tasks import get_task, predict
from rembert.tasks.ensembles import ensemble_runner
from rembert.tasks.predicting import task_runner
from tests.frameworks import Framework, needs_pt, on_both_tf_slow, random_weights
from tests.tasks.support import SENTENCE, TAGS, TOKENIZER, config

ROWS: dict[str, list[dict[str, Any]]] = {
    "sequence-classification": [{"text": "Rain.", "label": "a"}, {"text": "Snow and rain.", "label": "b"}],
    "token-classification": [{"tokens": SENTENCE, "tags": TAGS}],
}


def _models(framework: Framework, head: str, rows: list[dict[str, Any]]) -> tuple[Any, list[Any]]:
    task = get_task(head, TOKENIZER(), max_length=64, **OPTIONS.get(head, {}))
    task.prepare(list(task.read(rows)))
    settings = config(**task.config_overrides())
    models = [framework.build(settings, head) for _ in range(2)]
    for seed, model in enumerate(models):
        framework.set_weights(model, random_weights(settings, head, dtype="float32", seed=seed))
    return task, models


@on_both_tf_slow
@pytest.mark.parametrize("head", ROWS)
def test_probabilities_are_averaged(framework: Framework, head: str) -> None:
    rows = ROWS[head]
    task, models = _models(framework, head, rows)
    alone = [list(predict(task, model, rows)) for model in models]
    with ensemble_runner(task, models) as run:
        together = list(predict(task, models[0], rows, run=run))
    if head == "sequence-classification":
        for one, other, both in zip(*alone, together, strict=True):
            mean = {name: (one["scores"][name] + other["scores"][name]) / 2 for name in "ab"}
            assert both["scores"] == pytest.approx(mean, rel=1e-5)
    else:
        # The probability of a tag that both models predict is the mean of theirs.
        same = [number for number, tag in enumerate(alone[0][0]["tags"]) if alone[1][0]["tags"][number] == tag]
        assert same
        for number in same:
            mean = (alone[0][0]["scores"][number] + alone[1][0]["scores"][number]) / 2
            assert together[0]["scores"][number] == pytest.approx(mean, rel=1e-5)


PARTS: dict[str, list[dict[str, Any]]] = {
    "question-answering": [
        {"question": "Who?", "context": "Ada wrote it.", "answers": []},
        {"question": "When?", "context": "It rained for three days.", "answers": []},
    ],
    "multiple-choice": [{"premise": "Rain.", "choice1": "I got wet.", "choice2": "I slept.", "label": 0}],
}
OPTIONS = {"question-answering": {"stride": 16, "max_question_length": 24}}


@needs_pt
@pytest.mark.parametrize("head", PARTS)
def test_probabilities_of_spans_and_choices_are_averaged(head: str) -> None:
    """Those of a span's start and end are over the real positions of a window."""
    from tests.frameworks import PT

    task, models = _models(PT, head, PARTS[head])
    features = [feature for example in task.read(PARTS[head]) for feature in task.features(example)]
    batch = task.collate(features)
    with ExitStack() as stack:
        alone = [stack.enter_context(task_runner(task, model))(batch) for model in models]
        together = stack.enter_context(ensemble_runner(task, models))(batch)
    for name in HEADS[head].logits:
        for row in range(len(together[name])):
            real = batch["attention_mask"][row] != 0 if name != "logits" else slice(None)
            weights = [np.exp(np.asarray(each[name][row], np.float64)[real]) for each in (*alone, together)]
            shares = [each / each.sum() for each in weights]
            assert not np.allclose(shares[0], shares[1], rtol=1e-3)
            np.testing.assert_allclose(shares[2], (shares[0] + shares[1]) / 2, rtol=1e-9)
            np.testing.assert_allclose(np.exp(together[name][row])[real].sum(), 1.0, rtol=1e-9)


@needs_pt
def test_numbers_are_averaged_and_several_classes_too() -> None:
    from tests.frameworks import PT

    for labels in ([0.25, 1.5], [["a"], ["a", "b"]]):
        rows = [{"text": text, "label": label} for text, label in zip(("Rain.", "Snow."), labels, strict=True)]
        task, models = _models(PT, "sequence-classification", rows)
        alone = [list(predict(task, model, rows)) for model in models]
        with ensemble_runner(task, models) as run:
            together = list(predict(task, models[0], rows, run=run))
        for one, other, both in zip(*alone, together, strict=True):
            for name in ("a", "b"):
                values = [each["value"] if "value" in each else each["scores"][name] for each in (one, other, both)]
                assert values[2] == pytest.approx((values[0] + values[1]) / 2, rel=1e-5)


@needs_pt
def test_commands_take_several_models_and_average_their_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.frameworks import PT

    rows = ROWS["sequence-classification"]
    _, models = _models(PT, "sequence-classification", rows)
    for name, model in zip("xy", models, strict=True):
        model.save_pretrained(tmp_path / name)
        TOKENIZER().save_pretrained(tmp_path / name)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    paths = [str(tmp_path / name) for name in "xy"]
    data = ["--data", str(tmp_path / "rows.jsonl")]
    shares = []
    both = ["--model", paths[0], "--model", paths[1]]
    for model in (both[:2], both[2:], both):
        assert main(["predict", *model, "sequence-classification", *data]) == 0
        shares.append(json.loads(capsys.readouterr().out.splitlines()[0])["scores"]["a"])
    assert shares[2] == pytest.approx((shares[0] + shares[1]) / 2, rel=1e-5)
    assert main(["evaluate", "sequence-classification", *both, *data, "--report"]) == 0
    assert main(["average", *paths, "--output", str(tmp_path / "mean")]) == 0
    capsys.readouterr()
    tensors = [load_file(tmp_path / name / "model.safetensors") for name in ("x", "y", "mean")]
    assert tensors[0].keys() == tensors[2].keys()
    for name, mean in tensors[2].items():
        np.testing.assert_allclose(mean, (tensors[0][name].astype(np.float64) + tensors[1][name]) / 2, rtol=1e-6)
    assert main(["predict", "sequence-classification", "--model", str(tmp_path / "mean"), *data]) == 0
    settings = json.loads((tmp_path / "y" / "config.json").read_text())
    settings["id2label"], settings["label2id"] = {"0": "b", "1": "a"}, {"b": 0, "a": 1}
    (tmp_path / "y" / "config.json").write_text(json.dumps(settings))
    for call, error in (
        (["predict", "sequence-classification", *both, *data], InputError),
        (["average", *paths, "--output", str(tmp_path / "other")], CheckpointError),
        (["average", paths[0], "--output", str(tmp_path / "other")], InputError),
    ):
        assert main(call) == (2 if error is InputError else 1)
        said = capsys.readouterr().err
        assert "same classes" in said or "id2label" in said or "two or more checkpoints" in said
    assert not (tmp_path / "other").exists()
