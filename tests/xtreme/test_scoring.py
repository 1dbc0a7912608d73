"""Scores equal those of XTREME's own evaluator, whose results `tools/record_xtreme.py` has recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rembert.common.errors import DataError
from rembert.xtreme.benchmark import BENCHMARK
from rembert.xtreme.layout import labels_file
from rembert.xtreme.report import PAPER, markdown, summary
from rembert.xtreme.scoring import averages, score, score_file

FIXTURES = Path(__file__).parents[1] / "fixtures" / "xtreme"
EXAMPLES = json.loads((FIXTURES / "examples.json").read_text(encoding="utf-8"))
# Before seqeval 1.0 a tag was a kind as a whole; results were published with it.
RECORDED = {name: json.loads((FIXTURES / f"scores-{name}.json").read_text()) for name in ("0.0.12", "1.2.2")}
ROUNDING = 1e-10  # of scores up to 100: the sums may have another order


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, dict[str, float]]]:
    """The scores of the recorded examples, by task and language."""
    root = tmp_path_factory.mktemp("xtreme")
    found: dict[str, dict[str, dict[str, float]]] = {}
    for task, by_language in EXAMPLES.items():
        for language, texts in by_language.items():
            paths = {name: labels_file(root / name, task, language) for name in texts}
            for name, text in texts.items():
                paths[name].parent.mkdir(parents=True, exist_ok=True)
                paths[name].write_text(text, encoding="utf-8")
            found.setdefault(task, {})[language] = score_file(task, paths["predictions"], paths["labels"], language)
    return found


@pytest.mark.parametrize("task", BENCHMARK)
def test_scores_are_those_of_the_official_evaluator(task: str, scores: dict[str, Any]) -> None:
    recorded = RECORDED["0.0.12"][task]
    by_metric = {name: values for name, values in recorded.items() if isinstance(values, dict)}
    for name, by_language in by_metric.items():
        assert set(by_language) == set(BENCHMARK[task].languages)
        mine = {language: scores[task][language][name] for language in by_language}
        assert mine == pytest.approx(by_language, abs=ROUNDING)
    found = averages(task, scores[task])
    means = {name: value for name, value in recorded.items() if name.startswith("avg_")}
    assert {name: found[name] for name in means} == pytest.approx(means, abs=ROUNDING)


def test_both_ways_to_count_parts_of_speech_are_given(scores: dict[str, Any]) -> None:
    found = {language: each["f1_seqeval_1"] for language, each in scores["udpos"].items()}
    assert found == pytest.approx(RECORDED["1.2.2"]["udpos"]["f1"], abs=ROUNDING)
    assert found != pytest.approx(RECORDED["0.0.12"]["udpos"]["f1"], abs=0.01)  # the examples tell them apart


def test_the_means_of_groups_are_those_of_the_official_evaluator(scores: dict[str, Any]) -> None:
    found = summary(scores)
    recorded = {name: value for name, value in RECORDED["0.0.12"].items() if isinstance(value, float)}
    assert set(recorded) == {"all_task", "classification", "tagging", "qa", "retrieval"}
    assert {name: found[name] for name in recorded} == pytest.approx(recorded, abs=ROUNDING)


def test_the_average_of_the_paper_follows_from_its_columns() -> None:
    # Table 8 of Chung et al. (2021) gives 75.4 beside the columns in `PAPER`.
    result = {
        task: {metric: {"en": value} for metric, value in zip(BENCHMARK[task].metrics, values, strict=True)}
        | {f"avg_{metric}": value for metric, value in zip(BENCHMARK[task].metrics, values, strict=True)}
        for task, values in PAPER.items()
    }
    mine, paper = markdown(result, "mine").splitlines()[6:8]
    assert mine.removeprefix("| mine ") == paper.removeprefix("| RemBERT, Chung et al. (2021), table 8 ")
    assert paper.endswith("| 64.0 / 79.6 | 55.0 / 73.1 | 63.0 / 77.0 | 75.4 |")


@pytest.mark.parametrize(
    ("task", "predicted", "expected", "said"),
    [
        ("pawsx", ["0"], ["0", "1"], "as many lines as in the labels, 2, were expected. Received: 1"),
        ("udpos", [["NOUN"]], [["NOUN"], ["VERB"]], "as many sentences as in the labels, 2,"),
        ("panx", [["O"]], [["O", "O"]], "as many tags in sentence 1 as in the labels, 2, were expected"),
        ("xquad", {}, [], "at least one question"),
    ],
)
def test_files_of_other_lengths_are_refused(task: str, predicted: Any, expected: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        score(task, predicted, expected, "en")


def test_malformed_answers_are_refused(tmp_path: Path) -> None:
    (tmp_path / "answers.json").write_text('["Ada"]')
    (tmp_path / "labels.json").write_text('{"data": [{"paragraphs": [{"qas": [{"id": "1"}]}]}]}')
    with pytest.raises(DataError, match=r"answers.json: a JSON object from ids to answers"):
        score_file("xquad", tmp_path / "answers.json", tmp_path / "labels.json", "en")
    (tmp_path / "answers.json").write_text('{"1": "Ada"}')
    with pytest.raises(DataError, match=r"labels.json: SQuAD's layout was expected, .* Missing: 'answers'"):
        score_file("xquad", tmp_path / "answers.json", tmp_path / "labels.json", "en")
