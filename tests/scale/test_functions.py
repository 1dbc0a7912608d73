"""`Predict`, `Embed` and `Score` on the batches of other libraries: the results are those of the commands."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rembert.cli.main import main
from rembert.common.errors import DataError, InputError
from rembert.scale import Embed, Predict, Score, base
from rembert.tasks import DataOptions
from tests.bleurt.cases import BERT_CONFIG, make_variables, reference_input, reference_score, write_saved_model
from tests.frameworks import needs, needs_pt, on_both, on_both_tf_slow
from tests.scale.cases import TEXTS, write_checkpoint, write_lines

TASK = "sequence-classification"
VARIABLES = make_variables()
close = {"rtol": 0, "atol": 1e-6}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def metric(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_saved_model(tmp_path_factory.mktemp("bleurt") / "tiny", VARIABLES)


@pytest.fixture(autouse=True)
def loads(monkeypatch: pytest.MonkeyPatch) -> list[type]:
    """The functions whose models are loaded, in order."""
    found: list[type] = []
    for kind in (Predict, Embed, Score):

        def counted(self: Any, load: Any = kind.load) -> Any:
            found.append(type(self))
            return load(self)

        monkeypatch.setattr(kind, "load", counted)
    monkeypatch.setattr(base, "_LOADED", {})
    return found


def batch(start: int = 0, stop: int = len(TEXTS)) -> dict[str, np.ndarray]:
    texts = np.array(TEXTS[start:stop], object)
    return {"page": np.arange(start, stop), "id": np.arange(start, stop), "text": texts}


def command(tmp_path: Path, checkpoint: Path, framework: str) -> list[dict[str, Any]]:
    """What `rembert predict` writes of all texts."""
    rows = [{"id": number, "text": text} for number, text in enumerate(TEXTS)]
    file, output = write_lines(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    call = ["predict", TASK, "--model", checkpoint, "--data", file, "--output", output, "--framework", framework]
    assert main([str(each) for each in call]) == 0
    return [json.loads(line) for line in output.read_text().splitlines()]


@on_both_tf_slow
def test_predictions_are_those_of_the_command(framework: Any, checkpoint: Path, tmp_path: Path, loads: Any) -> None:
    predict = pickle.loads(pickle.dumps(Predict(TASK, checkpoint, framework.name, batch_size=4, keep=["page"])))
    assert not loads  # before the first batch
    parts = [predict(batch(0, 10)), predict(batch(10, 23))]
    expected = command(tmp_path, checkpoint, framework.name)
    assert loads == [Predict]
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    assert list(found) == ["page", "id", "label", "score", "scores"]
    assert found["page"].tolist() == list(range(len(TEXTS)))
    assert found["id"].tolist() == [row["id"] for row in expected]
    assert found["label"].tolist() == [row["label"] for row in expected]
    np.testing.assert_allclose(found["score"], [row["score"] for row in expected], **close)
    np.testing.assert_allclose(
        [row["a"] for row in found["scores"]], [row["scores"]["a"] for row in expected], **close
    )


@on_both_tf_slow
def test_vectors_are_those_of_the_command(framework: Any, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("\n".join(TEXTS) + "\n")
    call = ["embed", checkpoint, "--data", tmp_path / "in.txt", "--output", tmp_path / "out", "--normalize"]
    assert main([*map(str, call), "--framework", framework.name]) == 0
    found = Embed(checkpoint, framework.name, normalize=True, batch_size=3)(batch())
    assert found["embedding"].dtype == np.float32
    np.testing.assert_allclose(found["embedding"], np.load(tmp_path / "out"), **close)


@on_both
def test_scores_are_those_of_bleurt(framework: Any, metric: Path) -> None:
    candidates = ["a bird chirps", "this looks random"]
    references = [["a bird sings by the window", "the bird chirps"], ["this is random"]]
    pairs = [[(candidate, one) for one in many] for candidate, many in zip(candidates, references, strict=True)]
    truth = [[reference_score(VARIABLES, BERT_CONFIG, *reference_input(*one, 48)) for one in many] for many in pairs]
    score = Score(metric, framework.name, aggregate="mean")
    found = score({"candidate": candidates, "references": references})
    assert found["score"] == pytest.approx([np.mean(each) for each in truth], abs=1e-5)
    assert found["score_best"] == pytest.approx([max(each) for each in truth], abs=1e-5)
    assert found["score_all"] == [pytest.approx(each, abs=1e-5) for each in truth]
    assert found["score_cut"] == [0, 0]


@needs_pt
def test_copies_of_an_object_share_one_model(checkpoint: Path, loads: list[type]) -> None:
    first = Embed(checkpoint)
    for each in (first, pickle.loads(pickle.dumps(first)), Embed(checkpoint)):
        each(batch(0, 2))
    assert loads == [Embed]
    Embed(checkpoint, layer=0)(batch(0, 2))
    assert loads == [Embed, Embed]


@needs_pt
def test_a_relative_path_is_found_from_another_directory(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(checkpoint.parent)
    embed = Embed(checkpoint.name)
    monkeypatch.chdir(tmp_path)
    assert len(embed(batch(0, 2))["embedding"]) == 2


@needs("torch", "pandas")
def test_frames_in_an_iterator_as_spark_hands_them_over(checkpoint: Path) -> None:
    import pandas

    predict = Predict(TASK, checkpoint, keep=["page"])
    frames = [pandas.DataFrame(batch(0, 10), index=range(50, 60)), pandas.DataFrame(batch(10, 23))]
    found = list(predict(iter(frames)))
    expected = predict(batch())
    assert all(isinstance(each, pandas.DataFrame) for each in found)
    assert list(found[0].index) == list(range(50, 60))
    assert [page for frame in found for page in frame["page"]] == expected["page"].tolist()
    np.testing.assert_allclose([score for frame in found for score in frame["score"]], expected["score"], **close)


@needs("torch", "datasets")
def test_the_map_of_datasets(checkpoint: Path, loads: list[type]) -> None:
    from datasets import Dataset

    rows = Dataset.from_dict({"page": list(range(len(TEXTS))), "text": TEXTS})
    embed, predict = Embed(checkpoint), Predict(TASK, checkpoint, batch_size=4)
    found = rows.map(embed, batched=True, batch_size=10).map(predict, batched=True, batch_size=10)
    assert loads == [Embed, Predict]  # three batches each
    assert found["page"][:] == list(range(len(TEXTS)))
    np.testing.assert_allclose(found["embedding"][:], embed(batch())["embedding"], **close)
    expected = predict(batch())
    assert found["label"][:] == expected["label"].tolist()
    np.testing.assert_allclose(found["score"][:], expected["score"], **close)


@pytest.mark.slow
@needs("torch", "pandas", "pyspark")
def test_map_in_pandas_of_spark(checkpoint: Path, metric: Path) -> None:
    from pyspark.sql import SparkSession

    settings = {"spark.ui.enabled": "false", "spark.sql.execution.arrow.maxRecordsPerBatch": "5"}
    spark = SparkSession.builder.master("local[2]").config(map=settings).getOrCreate()
    try:
        rows = [(number, text, text[::-1]) for number, text in enumerate(TEXTS)]
        frame = spark.createDataFrame(rows, "page long, text string, reference string")
        schema = "page long, label string, score double, scores map<string, double>"
        found = frame.select("page", "text").mapInPandas(Predict(TASK, checkpoint, keep=["page"]), schema).collect()
        pairs = frame.withColumnRenamed("text", "candidate")
        scored = pairs.mapInPandas(Score(metric, keep=["page"]), "page long, score double, score_cut long").collect()
    finally:
        spark.stop()
    expected, scores = (
        Predict(TASK, checkpoint)(batch()),
        Score(metric)({"candidate": TEXTS, "reference": [text[::-1] for text in TEXTS]}),
    )
    found.sort(key=lambda row: row.page)
    assert [(row.page, row.label) for row in found] == list(enumerate(expected["label"].tolist()))
    np.testing.assert_allclose([row.score for row in found], expected["score"], **close)
    assert [row.scores["a"] for row in found] == pytest.approx([row["a"] for row in expected["scores"]], abs=1e-6)
    scored.sort(key=lambda row: row.page)
    np.testing.assert_allclose([row.score for row in scored], scores["score"], rtol=0, atol=1e-5)


@needs("torch", "pyarrow")
def test_tables_of_arrow(checkpoint: Path) -> None:
    import pyarrow

    embed = Embed(checkpoint)
    found = embed(pyarrow.table(batch(0, 5)))
    assert found.column_names == ["id", "embedding"]
    assert found.schema.field("embedding").type == pyarrow.list_(pyarrow.float32())
    np.testing.assert_allclose(found["embedding"].to_pylist(), embed(batch(0, 5))["embedding"], **close)


@needs_pt
def test_a_bad_row_is_named_or_skipped(checkpoint: Path, metric: Path) -> None:
    texts = np.array(["a", None, "b"], object)
    with pytest.raises(DataError, match=r"batch, row 2: .*text"):
        Predict(TASK, checkpoint)({"text": texts})
    skipping = DataOptions(skip_bad_lines=True)
    for function, name in (
        (Predict(TASK, checkpoint, data=skipping), "score"),
        (Embed(checkpoint, data=skipping), "embedding"),
    ):
        found, whole = function({"text": texts}), function({"text": texts[[0, 2]]})
        assert found["error"][0] is None
        assert "row 2" in found["error"][1]
        np.testing.assert_allclose(np.stack([found[name][0], found[name][2]]), np.stack(list(whole[name])), **close)
        assert whole["error"].tolist() == [None, None]  # each batch has the same columns
        only_bad = function({"text": texts[1:2]})
        assert "row 1" in only_bad["error"][0]
    pairs = {"candidate": ["a", "b"], "reference": ["a", 5]}
    with pytest.raises(DataError, match="batch, row 2: 'reference' must be a string"):
        Score(metric)(pairs)
    found = Score(metric, skip_bad_rows=True)(pairs)
    assert np.isnan(found["score"]).tolist() == [False, True]


@needs_pt
def test_wrong_arguments_and_batches(checkpoint: Path) -> None:
    with pytest.raises(InputError, match="`task` must be one of"):
        Predict("nonsense", checkpoint)
    with pytest.raises(InputError, match="`framework` must be one of"):
        Embed(checkpoint, "jax")
    embed = Embed(checkpoint, keep=["nothing"])
    with pytest.raises(InputError, match=r"nothing.*page.*text"):
        embed(batch(0, 2))
    with pytest.raises(InputError, match="must not name columns of the results"):
        Embed(checkpoint, keep=["id"])(batch(0, 2))
    with pytest.raises(InputError, match="must have one length"):
        Embed(checkpoint)({"text": ["a"], "id": [1, 2]})
    with pytest.raises(InputError, match="a pandas frame"):
        Embed(checkpoint)(["a"])
