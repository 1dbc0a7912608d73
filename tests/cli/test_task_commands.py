"""evaluate, predict, fill-mask and embed, from files to what they print and write."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from rembert.cli.main import main
from tests.frameworks import PT, needs_pt, random_weights
from tests.tasks.support import TOKENIZER, config

pytestmark = needs_pt
ROWS = [
    {"id": n, "text": text, "label": label} for n, (text, label) in enumerate([("kurz", "b"), ("lang " * 30, "a")])
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sequence classifier of the labels a and b, and beside it `lm`, a masked language model."""
    directory = tmp_path_factory.mktemp("checkpoint")
    for name, head, settings in (
        ("classifier", "sequence-classification", {"id2label": {0: "a", 1: "b"}}),
        ("lm", "masked-lm", {}),
    ):
        made = config(**settings)
        model = PT.build(made, head)
        PT.set_weights(model, random_weights(made, head, dtype="float32"))
        model.save_pretrained(directory / name)
        TOKENIZER().save_pretrained(directory / name)
    return directory


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def test_evaluate_prints_and_writes_scores(
    checkpoint: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["evaluate", "sequence-classification", "--model", str(checkpoint / "classifier"), "--data", str(data)]
    assert main([*call, "--output", str(tmp_path / "scores.json"), "--max-length", "16"]) == 0
    printed = capsys.readouterr()
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert printed.out.splitlines()[0].split() == ["accuracy", f"{scores['accuracy']:.4f}"]
    assert (scores["examples"], scores["truncated"]) == (2, 1)
    assert "truncated: 1" in printed.err


def test_predict_keeps_the_order_and_reads_the_standard_input(
    checkpoint: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    call = ["predict", "sequence-classification", "--model", str(checkpoint / "classifier")]
    assert main([*call, "--data", str(data), "--output", str(tmp_path / "out.jsonl"), "--batch-size", "1"]) == 0
    written = (tmp_path / "out.jsonl").read_text()
    assert [json.loads(line)["id"] for line in written.splitlines()] == ["0", "1"]
    capsys.readouterr()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(data.read_bytes()))))
    assert main(call) == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["label"] for each in printed] == [json.loads(line)["label"] for line in written.splitlines()]


def test_long_commands_say_how_far_they_are(
    checkpoint: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rembert.common.progress._LINE_SECONDS", 0.0)
    monkeypatch.setattr("rembert.common.progress._LINE_SHARE", 0.0)
    data.write_text(data.read_text() + "{\n")
    model, more = ["--model", str(checkpoint / "classifier")], ["--data", str(data), "--skip-bad-lines"]
    for call, line in (
        (["predict", "sequence-classification", *model, *more], "predict: 3 of 3 examples, "),
        (["evaluate", "sequence-classification", *model, *more], "evaluate: 2 of 3 examples, "),
        (["embed", str(checkpoint / "lm"), *more, "--output", str(tmp_path / "v.npy")], "embed: 3 of 3 texts, "),
    ):
        assert main(call) == 0
        assert line in capsys.readouterr().err
    vectors = np.load(tmp_path / "v.npy")  # in step with the lines
    assert np.isfinite(vectors).all(1).tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("extra", "said", "code"),
    [
        (["--stride", "5"], "`--stride` must be used with question-answering", 2),
        (["--max-length", "1000"], "the model's 64 positions", 2),
        (["--max-length", "0"], "max_length=0", 2),
        (["--output", "nowhere/scores.json"], "`--output` must be a file in an existing directory", 2),
        (["--column", "text"], "FIELD=NAME", 2),
        (["--label-column", "topic"], "data.jsonl:1: a column 'topic' was expected", 1),
        (["--device", "nowhere"], "`device` must be", 2),
        (["--batch-size", "0"], "batch_size=0", 2),
    ],
)
def test_wrong_calls_are_refused(
    checkpoint: Path, data: Path, capsys: pytest.CaptureFixture[str], extra: list[str], said: str, code: int
) -> None:
    call = ["evaluate", "sequence-classification", "--model", str(checkpoint / "classifier"), "--data", str(data)]
    assert main([*call, *extra]) == code
    assert said in capsys.readouterr().err


def test_unknown_labels_are_refused_or_counted(
    checkpoint: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with data.open("a") as stream:
        stream.write('{"text": "x", "label": "c"}\n')
    call = ["evaluate", "sequence-classification", "--model", str(checkpoint / "classifier"), "--data", str(data)]
    assert main(call) == 1
    assert f"{data}:3: the label must be one of the model's: a, b. Received: 'c'" in capsys.readouterr().err
    assert main([*call, "--skip-bad-lines"]) == 0
    assert f"skipped {data}:3" in capsys.readouterr().err


def test_a_checkpoint_of_another_task_is_refused(
    checkpoint: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["predict", "sequence-classification", "--model", str(checkpoint / "lm"), "--data", str(data)]
    assert main(call) == 1
    assert "Fine-tune it first" in capsys.readouterr().err


def test_predictions_of_bad_data_leave_no_file(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    data.write_text(data.read_text() + "{\n")
    target = tmp_path / "out.jsonl"
    call = ["predict", "sequence-classification", "--model", str(checkpoint / "classifier"), "--data", str(data)]
    assert main([*call, "--output", str(target)]) == 1
    assert list(tmp_path.iterdir()) == [data]


def test_fill_mask_prints_tokens(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = ["fill-mask", str(checkpoint / "lm"), "Das ist [MASK].", "--top-k", "3"]
    assert main(call) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line]
    assert len(rows) == 3
    assert main([*call, "--json"]) == 0
    [found] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [f"{each['probability']:.4f}" for each in found["tokens"]] == [row[0] for row in rows]
    assert main(["fill-mask", str(checkpoint / "lm"), "nothing"]) == 2
    assert main([*call, "--device", "nowhere"]) == 2


def test_embed_writes_vectors(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    target = tmp_path / "a.npy"
    call = ["embed", str(checkpoint / "lm"), "--data", str(data), "--output", str(target)]
    assert main([*call, "--normalize"]) == 0
    found = np.load(target)
    assert found.shape == (2, 16)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
    assert main([*call, "--layer", "9"]) == 2
    assert main([*call, "--max-length", "1000"]) == 2  # the model has 64 positions
    assert main([*call[:-1], str(tmp_path / "nowhere" / "a.npy")]) == 2


def test_embed_ignores_labels(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "kurz", "score": {"of": "something else"}}\n')
    call = ["embed", str(checkpoint / "lm"), "--data", str(path), "--output", str(tmp_path / "a.npy")]
    assert main(call) == 0
