"""`rembert xtreme`, from a benchmark's files to prediction files, archive, scores and tables."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import pytest

from rembert.cli.main import main
from tests.frameworks import needs_pt, needs_tf
from tests.tasks.support import TOKENIZER, config
from tests.xtreme.data import LANGUAGES, write_benchmark

SHORT = ("--max-steps", "2", "--batch-size", "4", "--learning-rate", "1e-3", "--quiet")


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a small benchmark, its labels, and a checkpoint to start from."""
    import torch

    from rembert.pt import RemBertModel

    torch.manual_seed(0)  # the scores of retrieval depend on the weights
    root = tmp_path_factory.mktemp("xtreme")
    write_benchmark(root)
    RemBertModel(config(max_position_embeddings=512)).save_pretrained(root / "start")
    TOKENIZER().save_pretrained(root / "start")
    return root


def call(root: Path, output: str, *more: str, tasks: tuple[str, ...] = ("pawsx",)) -> list[str]:
    return [
        *("xtreme", str(root / "download"), "--model", str(root / "start"), "--output", str(root / output)),
        *("--labels", str(root / "labels"), "--tasks", *tasks, "--languages", "de", "en", *SHORT, *more),
    ]


@pytest.mark.slow
@needs_pt
@needs_tf
def test_both_frameworks_give_the_same_table(benchmark: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables = []
    for framework in ("pt", "tf"):
        assert main(call(benchmark, framework, "--framework", framework)) == 0
        tables.append(capsys.readouterr().out)
    assert tables[0] == tables[1]
    assert "Not all languages were scored: PAWS-X 2 of 7." in tables[0]
    for name in ("submission.zip", "scores.json", "predictions/pawsx/test-de.tsv"):
        assert (benchmark / "pt" / name).read_bytes() == (benchmark / "tf" / name).read_bytes()
    predicted = (benchmark / "pt" / "predictions" / "pawsx" / "test-de.tsv").read_text().splitlines()
    assert len(predicted) == 4  # one of an empty sentence among them
    assert set(predicted) <= {"0", "1"}
    with zipfile.ZipFile(benchmark / "pt" / "submission.zip") as archive:
        assert archive.namelist() == ["predictions/pawsx/test-de.tsv", "predictions/pawsx/test-en.tsv"]
    scores = json.loads((benchmark / "pt" / "scores.json").read_text())["pawsx"]
    expected = (benchmark / "labels" / "pawsx" / "test-de.tsv").read_text().splitlines()
    assert scores["accuracy"]["de"] == 25 * sum(map(str.__eq__, predicted, expected))
    assert scores["transfer_gap"] == scores["accuracy"]["en"] - scores["accuracy"]["de"]


@needs_pt
@needs_tf
@pytest.mark.slow
def test_every_task_gives_the_same_table_in_both_frameworks(
    benchmark: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = ("xnli", "pawsx", "udpos", "panx", "xquad", "mlqa", "tydiqa")
    tables = []
    for framework in ("pt", "tf"):
        more = ("--framework", framework, "--languages", *LANGUAGES)
        assert main(call(benchmark, f"all-{framework}", *more, tasks=tasks)) == 0
        tables.append(capsys.readouterr().out)
    assert tables[0] == tables[1]
    assert "| XNLI acc. | PAWS-X acc. | POS F1 | NER F1 | XQuAD EM / F1 |" in tables[0]


@needs_pt
def test_a_run_continues_with_what_is_missing(benchmark: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tasks = ("xquad", "mlqa")
    assert main(call(benchmark, "first", tasks=tasks[:1])) == 0
    output = benchmark / "first"
    capsys.readouterr()
    assert main(call(benchmark, "first", tasks=tasks)) == 2
    assert "Resume its run (--resume)" in capsys.readouterr().err
    assert main(call(benchmark, "first", "--resume", "--seed", "5", tasks=tasks)) == 2
    assert "recipe was" in capsys.readouterr().err
    finished = output / "predictions" / "xquad"
    before = (finished / "test-de.json").read_bytes()
    (finished / "test-de.json").unlink()
    config_file = output / "models" / "squad" / "config.json"
    kept, model = (path.stat().st_mtime_ns for path in (finished / "test-en.json", config_file))
    # The two tasks share the model.
    assert main(call(benchmark, "first", "--resume", tasks=tasks)) == 0
    assert (finished / "test-de.json").read_bytes() == before
    assert (finished / "test-en.json").stat().st_mtime_ns == kept
    assert config_file.stat().st_mtime_ns == model
    assert [path.name for path in sorted((output / "models").iterdir())] == ["squad"]
    assert "## MLQA" in (output / "scores.md").read_text()
    # A fine-tuned model is used as it is.
    given = f"mlqa={output / 'models' / 'squad'}"
    assert main(call(benchmark, "given", "--models", given, tasks=("mlqa",))) == 0
    assert not (benchmark / "given" / "models").exists()
    for name in ("test-de.json", "test-en.json"):
        mine, its = (benchmark / run / "predictions" / "mlqa" / name for run in ("given", "first"))
        assert mine.read_bytes() == its.read_bytes()


@needs_pt
def test_a_given_model_must_have_the_labels_of_the_benchmark(
    benchmark: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from rembert.pt import RemBertForSequenceClassification

    RemBertForSequenceClassification(config(max_position_embeddings=128)).save_pretrained(benchmark / "other")
    TOKENIZER().save_pretrained(benchmark / "other")
    assert main(call(benchmark, "labels-of-another", "--models", f"pawsx={benchmark / 'other'}")) == 1
    assert "must have the labels 0, 1. Received: LABEL_0, LABEL_1" in capsys.readouterr().err


@needs_pt
@pytest.mark.parametrize(
    ("more", "said", "code"),
    [
        (["--languages", "de", "xx"], "`languages` must be of the tasks pawsx", 2),
        (["--models", "xcopa=there"], "`models` must be for", 2),
        (["--models", "pawsx"], "`--models` must be TASK=DIR", 2),
        (["--labels", "nowhere"], "`labels` must hold a file for each task and language", 2),
        (["--epochs", "0"], "`epochs` must be", 2),
        (["--tasks", "tydiqa", "--languages", "te"], "Missing: tydiqa/tydiqa-goldp-v1.1-dev/tydiqa.goldp.te", 1),
    ],
)
def test_a_wrong_call_is_refused_before_any_work(
    benchmark: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str, code: int
) -> None:
    assert main(call(benchmark, "refused", *more)) == code
    assert said in capsys.readouterr().err
    assert not (benchmark / "refused").exists()


@needs_pt
def test_without_labels_there_are_predictions_and_no_scores(
    benchmark: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = call(benchmark, "unlabelled", tasks=("panx",))
    at = words.index("--labels")
    assert main([*words[:at], *words[at + 2 :]]) == 0
    assert capsys.readouterr().out == ""
    output = benchmark / "unlabelled"
    assert {path.name for path in output.iterdir()} == {
        *("xtreme.json", "examples", "models", "predictions", "submission.zip")
    }
    # A tag for each line of the test data, blank lines at the same places.
    test = (benchmark / "download" / "panx" / "test-de.tsv").read_text().splitlines()
    found = (output / "predictions" / "panx" / "test-de.tsv").read_text().splitlines()
    assert [bool(line) for line in found][: len(test)] == [bool(line) for line in test]
    shutil.rmtree(output)


@pytest.mark.slow
@needs_pt
@needs_tf
def test_retrieval_is_equal_in_both_frameworks(benchmark: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = []
    for framework in ("pt", "tf"):
        more = ("--framework", framework, "--layer", "0", "--languages", "de")
        assert main(call(benchmark, f"retrieval-{framework}", *more, tasks=("bucc2018", "tatoeba"))) == 0
        folder = benchmark / f"retrieval-{framework}" / "predictions"
        found.append({path.name: path.read_text() for path in folder.rglob("*.tsv")})
    assert found[0] == found[1]
    scores = json.loads((benchmark / "retrieval-pt" / "scores.json").read_text())
    # The same sentences with a word more are nearest at the encoder's input.
    assert scores["tatoeba"]["accuracy"]["de"] == 100
    assert scores["bucc2018"]["f1"]["de"] > 50
    assert "transfer_gap" not in scores["tatoeba"]
