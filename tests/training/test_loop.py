"""The loop: the model that is kept, early stopping, written files, and refused arguments."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rembert import RemBertConfig, RemBertTokenizer
from rembert.common.dependencies import is_installed
from rembert.common.errors import CheckpointError, InputError, TrainingError
from rembert.common.parameters import HEADS
from rembert.tasks import DataOptions, evaluate, finetune, load_task
from tests.frameworks import needs_pt, needs_tf
from tests.training.runs import digest, lines, losses, weights, write_examples, write_start

TASK = "sequence-classification"
QUICK: dict[str, Any] = {"from_scratch": True, "batch_size": 8, "learning_rate": 1e-2, "log_steps": 1}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A checkpoint to start from, examples to train on, and examples to evaluate on."""
    folder = tmp_path_factory.mktemp("training")
    return (
        write_start(folder / "start"),
        write_examples(folder / "train.jsonl", 45),
        write_examples(folder / "dev.jsonl", 12),
    )


@needs_pt
def test_a_run_learns_and_writes_its_result(files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    start, train, dev = files
    reported: list[str] = []
    output = tmp_path / "run"
    scores = finetune(TASK, start, train, evaluation=dev, output=output, epochs=8, say=reported.append, **QUICK)
    found = lines(output)
    assert scores["eval_accuracy"] > 0.6  # of three classes, each told by its words
    assert found[-1]["eval_accuracy"] == scores["eval_accuracy"]
    assert {"eval_f1_macro", "eval_loss", "best_step", "train_seconds"} <= found[-1].keys()
    assert losses(output)[-5:].mean() < losses(output)[:5].mean()
    # The scores are those of the written model.
    task, model = load_task(TASK, output)
    again = evaluate(task, model, task.read(dev))
    assert {f"eval_{name}": value for name, value in again.items()}.items() <= scores.items()
    best = max((line["eval_accuracy"], -line["step"]) for line in found[:-1] if "eval_accuracy" in line)
    assert found[-1]["best_step"] == -best[1]
    assert RemBertConfig.from_pretrained(output).id2label == {0: "food", 1: "road", 2: "sky"}
    assert RemBertTokenizer.from_pretrained(output).model_max_length
    card = (output / "README.md").read_text(encoding="utf-8")
    assert f"| eval_accuracy | {scores['eval_accuracy']:.4f} |" in card
    assert "| training | train.jsonl | 45 | 45 | 0 | 0 |" in card
    if is_installed("matplotlib"):
        assert (output / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert any("45 examples" in line for line in reported)
    assert not (output / "checkpoints").exists()


@needs_pt
def test_tensorboard_reads_the_events(files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    start, train, dev = files
    finetune(TASK, start, train, evaluation=dev, output=tmp_path / "run", epochs=1, **QUICK)
    events = accumulator.EventAccumulator(str(tmp_path / "run" / "events")).Reload()
    written = [(event.step, event.value) for event in events.Scalars("train/loss")]
    expected = [(line["step"], line["loss"]) for line in lines(tmp_path / "run") if "loss" in line]
    assert [step for step, _ in written] == [step for step, _ in expected]
    np.testing.assert_allclose([value for _, value in written], [value for _, value in expected], rtol=1e-6)
    assert "eval/accuracy" in events.Tags()["scalars"]


@needs_pt
@pytest.mark.parametrize("package", ["tensorboard", "matplotlib"])
def test_training_runs_without_optional_packages(
    package: str, files: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rembert.training import reporting

    start, train, _ = files
    installed = {name for name in ("tensorboard", "matplotlib") if is_installed(name)} - {package}
    monkeypatch.setattr(reporting, "is_installed", installed.__contains__)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    reported: list[str] = []
    finetune(TASK, start, train, output=tmp_path / "run", max_steps=1, say=reported.append, **QUICK)
    assert (tmp_path / "run" / "model.safetensors").is_file()
    assert (tmp_path / "run" / "curves.png").is_file() == ("matplotlib" in installed)
    assert (tmp_path / "run" / "events").is_dir() == ("tensorboard" in installed)
    assert any(package in line for line in reported)


@needs_pt
def test_training_stops_without_improvement(files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    start, train, dev = files
    quick = {**QUICK, "learning_rate": 1e-12}  # too little to change a prediction
    output = tmp_path / "run"
    finetune(TASK, start, train, evaluation=dev, output=output, epochs=9, eval_steps=2, patience=3, **quick)
    found = lines(output)
    assert found[-1]["best_step"] == 2
    assert found[-1]["step"] == 8  # 2, and three evaluations without a better score


@needs_pt
def test_the_best_model_is_kept_by_any_score(files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    start, train, dev = files
    output = tmp_path / "run"
    finetune(TASK, start, train, evaluation=dev, output=output, epochs=4, eval_steps=3, metric="loss", **QUICK)
    evaluations = [line for line in lines(output) if "eval_loss" in line]
    assert evaluations[-1]["eval_loss"] == min(line["eval_loss"] for line in evaluations)
    with pytest.raises(InputError, match=r"`metric` must be one of accuracy, .*metric='blue'"):
        finetune(TASK, start, train, evaluation=dev, output=tmp_path / "other", metric="blue", **QUICK)
    assert not (tmp_path / "other").exists()  # it is refused before the first update
    for changes in ({"metric": "loss"}, {"patience": 2}):
        with pytest.raises(InputError, match="needs `evaluation` data"):
            finetune(TASK, start, train, output=tmp_path / "other", **changes, **QUICK)


@needs_pt
def test_evaluation_examples_are_counted(files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    start, train, dev = files
    mixed = tmp_path / "mixed.jsonl"
    added = [{"text": "The soup and the bread"}, {"text": "rain " * 90, "label": "sky"}]
    mixed.write_text(dev.read_text(encoding="utf-8") + "".join(json.dumps(row) + "\n" for row in added))
    reported: list[str] = []
    output = tmp_path / "run"
    finetune(TASK, start, train, evaluation=mixed, output=output, max_steps=1, say=reported.append, **QUICK)
    assert "| evaluation | mixed.jsonl | 13 | 13 | 1 | 0 |" in (output / "README.md").read_text(encoding="utf-8")
    assert "evaluation: 13 examples, 1 unlabelled skipped, 1 truncated to 32 tokens" in reported


@needs_pt
def test_the_same_seed_gives_the_same_bytes(files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    start, train, _ = files
    for name, seed in (("one", 5), ("again", 5), ("other", 6)):
        finetune(TASK, start, train, output=tmp_path / name, max_steps=3, seed=seed, dropout=0.2, **QUICK)
    assert digest(tmp_path / "one") == digest(tmp_path / "again") != digest(tmp_path / "other")


@pytest.mark.slow
@needs_pt
@needs_tf
def test_fresh_heads_train_alike_in_both_frameworks(files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    start, train, dev = files
    common = {**QUICK, "precision": "float64", "epochs": 2, "evaluation": dev}
    finetune(TASK, start, train, output=tmp_path / "base", max_steps=1, **QUICK)
    # A checkpoint with a head for three classes becomes one for two, of which it does not know one: a fresh head.
    two = tmp_path / "two.jsonl"
    lines = [line for line in train.read_text().splitlines(True) if '"sky"' not in line]
    two.write_text("".join(line.replace('"road"', '"street"') for line in lines))
    common |= {"from_scratch": False, "evaluation": two}
    results = {}
    for framework in ("pt", "tf"):
        output = tmp_path / framework
        results[framework] = finetune(TASK, tmp_path / "base", two, output=output, framework=framework, **common)
    np.testing.assert_allclose(losses(tmp_path / "tf"), losses(tmp_path / "pt"), rtol=1e-9)
    np.testing.assert_allclose(list(results["tf"].values()), list(results["pt"].values()), rtol=1e-6)
    assert weights(tmp_path / "pt")["classifier.weight"].shape[0] == 2


@needs_pt
def test_a_checkpoint_without_its_encoder_is_refused(files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    start, train, _ = files
    finetune(TASK, start, train, output=tmp_path / "base", max_steps=1, **QUICK)
    content = json.loads((tmp_path / "base" / "config.json").read_text())
    (tmp_path / "base" / "config.json").write_text(json.dumps({**content, "num_hidden_layers": 3}))
    with pytest.raises(CheckpointError, match=r"whole encoder.*layer\.2.*from_scratch"):
        finetune(TASK, tmp_path / "base", train, output=tmp_path / "run", max_steps=1)


@needs_pt
def test_an_infinite_loss_ends_the_run(files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    start, train, _ = files
    quick = {**QUICK, "learning_rate": 1e30, "warmup": 0.0, "max_grad_norm": None}
    with pytest.raises(TrainingError, match="Lower the learning rate"):
        finetune(TASK, start, train, output=tmp_path / "run", epochs=3, **quick)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"framework": "jax"}, "`framework` must be one of"),
        ({"max_length": 33}, r"`max_length` must not exceed the model's 32 positions"),
        ({"batch_size": 0}, "`batch_size` must be an integer of 1 or more"),
        ({"sharded": True}, "torchrun"),
        ({"timeout": 0}, "`timeout` must be"),
        ({"devices": ["CPU:0"]}, "`devices` is for TensorFlow"),
        ({"options": {"problem_type": "regression"}, "label_smoothing": 0.1}, "."),
    ],
)
@needs_pt
def test_invalid_arguments_are_refused(
    change: dict[str, Any], message: str, files: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    start, train, _ = files
    with pytest.raises(ValueError, match=message):
        finetune(TASK, start, train, output=tmp_path / "run", **{**QUICK, **change})
    with pytest.raises(TypeError, match="learnin_rate"):
        finetune(TASK, start, train, output=tmp_path / "run", learnin_rate=1)


@needs_pt
def test_sharding_on_cpus_is_refused_where_pytorch_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from rembert.training import pt_trainer

    monkeypatch.setattr(torch.cpu, "Stream", object)  # as in PyTorch 2.6, which has no `record_event` there
    with pytest.raises(InputError, match=r"`sharded` needs PyTorch 2\.7 or newer on CPUs\. Received: PyTorch"):
        pt_trainer._check_can_shard(2, torch.device("cpu"))
    pt_trainer._check_can_shard(2, torch.device("cuda"))


@needs_pt
@pytest.mark.parametrize("task", [head for head in HEADS if head not in ("model", TASK)])
def test_every_other_task_runs(task: str, files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    start = files[0]
    rows: dict[str, list[dict[str, Any]]] = {
        "token-classification": [{"tokens": ["Ada", "lives", "here"], "tags": ["B-PER", "O", "O"]}] * 5,
        "multiple-choice": [{"prompt": "It rained.", "choices": ["So we got wet.", "So it was dry."], "label": 0}] * 5,
        "masked-lm": [{"text": "The train to the coast leaves at seven."}] * 9,
        "causal-lm": [{"text": "The train to the coast leaves at seven."}] * 9,
        "question-answering": [
            {"question": "When?", "context": "At seven.", "answers": {"text": ["seven"], "answer_start": [3]}}
        ]
        * 5,
    }
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows[task]))
    quick = {**QUICK, "batch_size": 4}
    output = tmp_path / "run"
    own = {"stride": 4, "max_question_length": 8} if task == "question-answering" else {}
    scores = finetune(task, start, path, evaluation=path, output=output, epochs=3, options=own, **quick)
    assert scores["train_loss"] < losses(output)[0]
    assert load_task(task, output, **own)[1].config.architectures == [HEADS[task].architecture]


@needs_pt
def test_bad_lines_are_skipped_and_counted(files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    start, train, _ = files
    path = tmp_path / "bad.jsonl"
    path.write_text(train.read_text() + '{"text": ""}\n{"text": "Bread"}\n{"text": "The bread", "label": "food"}\n')
    output = tmp_path / "run"
    data = DataOptions(skip_bad_lines=True)
    finetune(TASK, start, path, output=output, max_steps=1, data=data, **QUICK)
    assert "| training | bad.jsonl | 46 | 46 | 0 | 2 |" in (output / "README.md").read_text()


@needs_pt
def test_records_in_memory_train_as_their_file_does(files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    start, train, dev = files
    rows, held_out = ([json.loads(line) for line in path.read_text().splitlines()] for path in (train, dev))
    found = []
    for number, (data, evaluation) in enumerate([(train, [dev]), (rows, tuple(held_out)), (iter(rows), held_out)]):
        output = tmp_path / str(number)
        finetune(TASK, start, data, evaluation=evaluation, output=output, max_steps=2, **QUICK)
        found.append(digest(output))
    assert found[0] == found[1] == found[2]
    assert "| training | list in memory | 45 |" in (tmp_path / "1" / "README.md").read_text(encoding="utf-8")
