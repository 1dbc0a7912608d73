"""Layouts of public data sets, in small files of the same columns; and records in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rembert.common.errors import DataError, InputError
from rembert.tasks import DataOptions, Task, evaluate, get_task, predict
from rembert.tasks.examples import Answer
from tests.frameworks import PT, needs_pt, random_weights
from tests.tasks.support import TOKENIZER, config, squad_file
from tests.tasks.test_file_kinds import LIST, PAIRS, write

SHORT = {"question-answering": {"stride": 8, "max_question_length": 16}}


def task(name: str, **data: Any) -> Task:
    return get_task(name, TOKENIZER(), max_length=64, data=DataOptions(**data), **SHORT.get(name, {}))


def tagged(path: Path, **data: Any) -> list[tuple[Any, Any, Any]]:
    return [(each.words, each.tags, each.language) for each in task("token-classification", **data).read(path)]


@pytest.mark.parametrize("name", ["en.tsv", "train", "dev.txt"])
def test_prefixes_of_panx_are_languages(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, "en:Ada\tB-PER\nen::\tO\n\nen:lit\tO\n")
    assert tagged(path) == [(("Ada", ":"), ("B-PER", "O"), "en"), (("lit",), ("O",), "en")]


def test_numbered_columns_of_germeval_are_read(tmp_path: Path) -> None:
    first = "#\thttp://example.org [2009-10-17]\n1\tAda\tB-PER\tO\n2\tlacht\tO\tO\n"
    path = write(tmp_path / "NER-de-train.tsv", first + "\n#\tx [y]\n1\tWien\tB-LOC\tB-ORG\n")
    assert tagged(path) == [(("Ada", "lacht"), ("B-PER", "O"), None), (("Wien",), ("B-LOC",), None)]
    assert tagged(path, columns={"tags": "4"})[1][1] == ("B-ORG",)


def test_columns_of_conll_files_may_be_named_by_number(tmp_path: Path) -> None:
    path = write(tmp_path / "eng.train", "EU NNP I-NP B-ORG\nrejects VBZ I-VP O\n")
    assert tagged(path)[0][1] == ("B-ORG", "O")
    assert tagged(path, columns={"tags": "2"})[0][1] == ("NNP", "VBZ")


def test_ten_numbered_columns_are_those_of_conllx(tmp_path: Path) -> None:
    rows = ["1\tAda\t_\tPROPN\t_\t_\t2\tnsubj\t_\t_", "2\tlit\t_\tVERB\t_\t_\t0\troot\t_\t_"]
    assert tagged(write(tmp_path / "a.conll", "\n".join(rows)))[0][:2] == (("Ada", "lit"), ("PROPN", "VERB"))


def test_integers_of_classes_become_names(tmp_path: Path) -> None:
    features = {"tokens": {"feature": {"dtype": "string"}}, "ner_tags": {"feature": {"names": ["O", "B-PER"]}}}
    write(tmp_path / "dataset_info.json", json.dumps({"features": features}))
    path = write(tmp_path / "a.jsonl", '{"tokens": ["Ada", "lit"], "ner_tags": [1, 0]}\n')
    assert tagged(path)[0][1] == ("B-PER", "O")
    assert tagged(tmp_path)[0][1] == ("B-PER", "O")  # the file of names is no data


def test_running_text_is_split_into_words(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "Ada\u2019s हिन्दी 東京."}\n')
    [example] = task("token-classification").read(path)
    assert example.words == ("Ada\u2019s", "हिन्दी", "東", "京", ".")
    assert [example.text[start:end] for start, end in example.spans] == list(example.words)
    with pytest.raises(DataError, match="tags were expected"):
        task("token-classification").prepare([example])


CHAII = (
    'id,context,question,answer_text,answer_start,language\n7,"Der Turm, alt.\nEr ist rot.",Wie ist er?,rot,22,hindi\n'
)


def test_flat_columns_of_chaii_are_answers(tmp_path: Path) -> None:
    reader = task("question-answering")
    [example] = reader.read(write(tmp_path / "train.csv", CHAII))
    assert example.answers == (Answer("rot", 22),)
    assert (example.id, example.language, example.question) == ("7", "hindi", "Wie ist er?")
    [bare] = reader.read(write(tmp_path / "test.csv", "id,context,question,language\n7,Rot.,Wie?,tamil\n"))
    assert bare.answers is None


@pytest.mark.parametrize("cell", ['{"text": ["rot"], "answer_start": [7]}', "{'text': ['rot'], 'answer_start': [7]}"])
def test_answers_of_a_table_may_be_json_or_python(tmp_path: Path, cell: str) -> None:
    quoted = cell.replace('"', '""')
    path = write(tmp_path / "a.csv", f'question,context,answers\nWie?,Er ist rot.,"{quoted}"\n')
    [example] = task("question-answering").read(path)
    assert example.answers == (Answer("rot", 7),)
    bad = write(tmp_path / "b.csv", "question,context,answers\nWie?,Er ist rot.,rot\n")
    with pytest.raises(DataError, match=r"b\.csv:2: 'answers' must be JSON in a table"):
        list(task("question-answering").read(bad))


@pytest.mark.parametrize("name", ["a.json", "a.txt", "a", "a.jsonl"])
def test_squad_files_are_found_by_their_content(tmp_path: Path, name: str) -> None:
    path = squad_file(tmp_path / "squad.json")
    one_line = json.dumps(json.loads(path.read_text(encoding="utf-8")))
    for content in (path.read_text(encoding="utf-8"), one_line):
        found = task("question-answering").read(write(tmp_path / name, content))
        assert [example.id for example in found] == ["q1", "q2", "q3"]


def test_belebele_counts_its_choices_from_one(tmp_path: Path) -> None:
    row = {
        "link": "x",
        "question_number": 1,
        "flores_passage": "Der Turm ist rot.",
        "question": "Wie ist er?",
        **{f"mc_answer{number}": answer for number, answer in enumerate(["rot", "blau", "grün", "alt"], 1)},
        "correct_answer_num": "4",
        "dialect": "deu_Latn",
    }
    [example] = task("multiple-choice").read(write(tmp_path / "deu_Latn.jsonl", json.dumps(row)))
    assert (example.label, example.choices[3], example.language) == (3, "alt", "deu_Latn")


# ---------------------------------------------------------------------- data in memory


def generated() -> Iterator[dict[str, str]]:
    yield from LIST


def test_records_in_memory_are_read() -> None:
    reader = task("sequence-classification")
    for data in (LIST, tuple(LIST), generated()):
        assert [(example.text, example.label) for example in reader.read(data)] == PAIRS
    with pytest.raises(DataError, match=r"list in memory, row 2: 'text' must be a non-empty string"):
        list(reader.read([{"text": "x"}, {"text": ""}]))
    with pytest.raises(DataError, match=r"row 1: a mapping of columns to values was expected. Received: 'x'"):
        list(reader.read(iter(["x"])))
    with pytest.raises(InputError, match="a mapping with the keys train, test"):
        list(reader.read({"train": [], "test": []}))
    with pytest.raises(InputError, match="Received: int"):
        list(reader.read(3))


def test_frames_of_pandas_are_read() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"text": ["eins", "zwei"], "label": ["a", None], "id": [1, 2]})
    found = [(each.id, each.text, each.label) for each in task("sequence-classification").read(frame)]
    assert found == [("1", "eins", "a"), ("2", "zwei", None)]


def test_datasets_of_hugging_face_are_read(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        tokens=datasets.Sequence(datasets.Value("string")),
        ner_tags=datasets.Sequence(datasets.ClassLabel(names=["O", "B-PER"])),
    )
    rows = {"tokens": [["Ada", "lit"]], "ner_tags": [[1, 0]]}
    data = datasets.Dataset.from_dict(rows, features=features)
    assert [example.tags for example in task("token-classification").read(data)] == [("B-PER", "O")]
    data.to_parquet(tmp_path / "a.parquet")
    assert tagged(tmp_path / "a.parquet") == [(("Ada", "lit"), ("B-PER", "O"), None)]


@needs_pt
def test_models_take_records_in_memory() -> None:
    rows = [{"text": "Der Zug hält.", "label": "a"}, {"text": "Wir gewannen.", "label": "b"}]
    prepared = task("sequence-classification")
    prepared.prepare(prepared.read(rows))
    settings = config(**prepared.config_overrides())
    model = PT.build(settings, "sequence-classification")
    PT.set_weights(model, random_weights(settings, "sequence-classification", dtype="float32"))
    wanted = list(predict(prepared, model, prepared.read(rows)))
    for data in (rows, tuple(rows), iter(rows), [{**row, "label": -1} for row in rows]):
        assert list(predict(prepared, model, data)) == wanted
    assert evaluate(prepared, model, rows) == evaluate(prepared, model, prepared.read(rows))


@needs_pt
def test_predictions_of_running_text_have_characters() -> None:
    prepared = task("token-classification")
    prepared.prepare(prepared.read([{"tokens": ["Ada", "Moss"], "tags": ["B-PER", "O"]}]))
    model = PT.build(config(**prepared.config_overrides()), "token-classification")
    PT.set_weights(model, random_weights(model.config, "token-classification", dtype="float32"))
    text = "Ada Moss, the keeper, wrote to Nyeri."
    [found] = predict(prepared, model, [{"text": text}])
    [split] = predict(prepared, model, [{"tokens": found["tokens"]}])
    assert split["tags"] == found["tags"]
    assert [text[start:end] for start, end in found["spans"]] == found["tokens"]
    assert found["entities"]
    for entity in found["entities"]:
        assert text[entity["start_char"] : entity["end_char"]] == entity["text"]
        assert entity["score"] == min(found["scores"][entity["start"] : entity["end"]])
    [feature] = prepared.features(next(iter(prepared.read([{"text": text}], labels=False))))
    logits = PT.array(PT.call(model, input_ids=feature["input_ids"][None]).logits)[0][feature["first_tokens"]]
    likely = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(found["scores"], likely.max(-1), rtol=1e-4)
