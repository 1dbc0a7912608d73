"""Files in several languages: which language each has, and what the commands make of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rembert.cli.main import main
from rembert.common.errors import InputError
from rembert.tasks.languages import language_files, read_languages
from tests.frameworks import PT, needs_pt, random_weights
from tests.tasks.support import TOKENIZER, config, lines, opened


@pytest.mark.parametrize(
    ("names", "languages"),
    [
        (["xquad.hi.json", "xquad.de.json"], ["hi", "de"]),
        (["test-context-hi-question-hi.json", "test-context-zh-question-zh.json"], ["hi", "zh"]),
        (["x-final/ja/test_2k.tsv", "x-final/ko/test_2k.tsv"], ["ja", "ko"]),
        (["sw=any.tsv", "zh_Hant=other.tsv"], ["sw", "zh_Hant"]),
        (["sw=any.tsv", "test.de.tsv", "test.fr.tsv"], ["sw", "de", "fr"]),
        (["train.tsv", "dev.tsv"], [None, None]),
        (["old.tsv", "new.tsv"], [None, None]),
        (["test.de.tsv"], [None]),
        (["test.de.tsv", "test.de.tsv"], [None, None]),
        (["de/train.tsv", "en/dev.tsv"], [None, None]),
        (["test.de.tsv", "test.v2.fr.tsv"], [None, None]),
        (["-"], [None]),
    ],
)
def test_the_language_is_where_names_differ(names: list[str], languages: list[str | None]) -> None:
    found = language_files(names)
    assert [file.language for file in found] == languages
    assert [file.path for file in found] == [name.split("=")[-1] for name in names]


def test_patterns_are_expanded(tmp_path: Path) -> None:
    for name in ("a.sw.jsonl", "a.de.jsonl", "b.txt"):
        (tmp_path / name).write_text("")
    found = language_files([f"{tmp_path}/a.*.jsonl"])
    assert [(Path(file.path).name, file.language) for file in found] == [("a.de.jsonl", "de"), ("a.sw.jsonl", "sw")]
    assert [file.language for file in language_files([f"fi={tmp_path}/*.jsonl"])] == ["fi", "fi"]
    with pytest.raises(InputError, match=r"the pattern .*\*\.tsv, which matches none"):
        language_files([f"{tmp_path}/*.tsv"])


def test_files_of_a_directory_have_their_languages(tmp_path: Path) -> None:
    for name in ("test.sw.jsonl", "test.de.jsonl", "README.md"):
        (tmp_path / name).write_text("")
    found = [(Path(file.path).name, file.language) for file in language_files([tmp_path])]
    assert found == [("test.de.jsonl", "de"), ("test.sw.jsonl", "sw")]
    assert [file.language for file in language_files([f"fi={tmp_path}"])] == ["fi", "fi"]


def test_a_file_whose_name_has_the_form_of_a_code_is_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("de=1.tsv", "a[1].tsv"):
        (tmp_path / name).write_text("")
    assert [file.path for file in language_files(["de=1.tsv", "a[1].tsv"])] == ["de=1.tsv", "a[1].tsv"]


def test_examples_have_the_language_of_their_file(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": "x", "language": "fr"}, {"text": "b", "label": "y"}]
    task, _ = opened("sequence-classification", lines(tmp_path / "a.jsonl", rows))
    assert [each.language for each in read_languages(task, [f"sw={tmp_path}/a.jsonl"])] == ["sw", "sw"]
    assert [each.language for each in read_languages(task, [tmp_path / "a.jsonl"])] == ["fr", None]
    with pytest.raises(InputError, match="at least one file"):
        list(read_languages(task, []))


@needs_pt
def test_the_commands_score_each_language_and_their_mean(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = config(id2label={0: "a", 1: "b"})
    model = PT.build(made, "sequence-classification")
    PT.set_weights(model, random_weights(made, "sequence-classification", dtype="float32"))
    model.save_pretrained(tmp_path / "model")
    TOKENIZER().save_pretrained(tmp_path / "model")
    texts = {"sw": ["Timu ilishinda.", "Mvua", "basi"], "de": ["Der Zug hält."]}
    for language, own in texts.items():
        lines(tmp_path / f"test.{language}.jsonl", [{"text": text, "label": "a"} for text in own])
    call = ["sequence-classification", "--model", str(tmp_path / "model"), "--data", f"{tmp_path}/test.*.jsonl"]
    assert main(["predict", *call, "--output", str(tmp_path / "out.jsonl")]) == 0
    predicted = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [each["language"] for each in predicted] == ["de", "sw", "sw", "sw"]
    right = {
        language: [each["label"] == "a" for each in predicted if each["language"] == language] for language in texts
    }
    accuracy = {language: sum(own) / len(own) for language, own in right.items()}
    capsys.readouterr()
    assert main(["evaluate", *call, "--output", str(tmp_path / "scores.json")]) == 0
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["accuracy_de"] == accuracy["de"]
    assert scores["accuracy_sw"] == pytest.approx(accuracy["sw"])
    assert scores["accuracy_mean"] == pytest.approx((accuracy["de"] + accuracy["sw"]) / 2)
    assert scores["accuracy"] == (sum(right["de"]) + sum(right["sw"])) / 4
