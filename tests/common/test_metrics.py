"""Metrics against seqeval (recorded), scikit-learn and scipy, and the evaluators' definitions, restated here."""

from __future__ import annotations

import collections
import functools
import json
import re
import string
import sys
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rembert.common.metrics.answers import AnswerScores, mlqa_language, normalize_mlqa, normalize_squad
from rembert.common.metrics.calibration import calibration
from rembert.common.metrics.classification import LabelScores, MultiLabelScores
from rembert.common.metrics.entities import EntityScores, entities, iob1_to_iob2
from rembert.common.metrics.entity_schemes import IOB, Notation, completed, find_notation, looks_like_entities
from rembert.common.metrics.language_models import TokenScores
from rembert.common.metrics.regression import RegressionScores, pearson, spearman

pytestmark = pytest.mark.filterwarnings("ignore")  # the oracles' own, of classes that are never met

TAGS = st.sampled_from(["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG-X", "I-ORG-X"])
RECORDED = Path(__file__).parents[1] / "fixtures" / "metrics" / "seqeval.json"


@functools.cache
def seqeval_cases(group: str) -> list[dict[str, Any]]:
    """What seqeval 1.2.2 said of random tags."""
    return json.loads(RECORDED.read_text(encoding="utf-8"))[group]


def test_entities_are_counted_as_seqeval_does() -> None:
    cases = seqeval_cases("corpora")
    assert len(cases) == 400
    for case in cases:
        scores = EntityScores()
        for expected, predicted in zip(case["expected"], case["predicted"], strict=True):
            scores.add(expected.split(), predicted.split())
        # seqeval has no mean over no kinds at all.
        oracle = {name: 0.0 if score is None else score for name, score in case["scores"].items()}
        assert scores.result() == pytest.approx(oracle, abs=1e-12), case


def test_entities_are_those_of_seqeval() -> None:
    cases = seqeval_cases("sentences")
    assert len(cases) == 400
    for case in cases:
        assert [list(entity) for entity in entities(case["tags"].split())] == case["entities"], case


@pytest.mark.parametrize("scheme", ["iob1", "iob2"])
def test_entities_are_those_of_seqeval_by_the_rules_of_the_scheme(scheme: str) -> None:
    cases = seqeval_cases(scheme)
    assert len(cases) == 200
    for case in cases:
        tags = case["tags"].split()
        found = entities(iob1_to_iob2(tags) if scheme == "iob1" else tags)
        assert [list(entity) for entity in found] == case["entities"], case


def test_iob1_is_rewritten() -> None:
    # B- stands in IOB1 only where an entity follows another of its kind.
    iob1 = ["I-LOC", "I-LOC", "O", "I-PER", "B-PER", "I-PER", "I-ORG", "O", "I-LOC"]
    assert iob1_to_iob2(iob1) == ["B-LOC", "I-LOC", "O", "B-PER", "B-PER", "I-PER", "B-ORG", "O", "B-LOC"]
    assert iob1_to_iob2(["NOUN", "VERB"]) == ["NOUN", "VERB"]


@given(st.lists(TAGS, max_size=12))
def test_rewriting_iob1_keeps_its_entities_and_is_done_once(tags: list[str]) -> None:
    assert entities(iob1_to_iob2(tags)) == entities(tags)
    assert iob1_to_iob2(iob1_to_iob2(tags)) == iob1_to_iob2(tags)


@pytest.mark.parametrize("group", ["ioe1", "ioe2", "iobes", "bilou", "any_iobes", "any_iobes_suffix"])
def test_entities_of_other_schemes_are_those_of_seqeval(group: str) -> None:
    cases = seqeval_cases(group)
    assert len(cases) >= 60
    notation = Notation(is_suffix=group.endswith("suffix"))
    for case in cases:
        assert [list(entity) for entity in entities(case["tags"].split(), notation)] == case["entities"], case
        # Another separator and lower case change nothing; a digit for the letter O neither.
        other = [tag.replace("-", "_", 1) if tag != "O" else "0" for tag in case["tags"].replace("ORG-X", "X").split()]
        kinds = [[kind.replace("ORG-X", "X"), *span] for kind, *span in case["entities"]]
        found = entities(other, Notation("_", is_suffix=group.endswith("suffix")))
        assert [list(entity) for entity in found] == kinds, case


@pytest.mark.parametrize(
    ("tags", "notation"),
    [
        ("O B-PER I-PER", IOB),
        ("O I-PER E-LOC", IOB),
        ("O B-PER S-PER E-LOC I-LOC", IOB),
        ("0 U-PER B-LOC L-LOC", IOB),
        ("o b-per i-per", IOB),
        ("O B_ORG I_ORG", Notation("_")),
        ("O ORG-B ORG-I", Notation("-", is_suffix=True)),
        ("O B I", IOB),
        ("NOUN VERB", None),
        ("O", None),
        ("O B-PER I-PER FOO", None),
        ("O B-PER E-PER L-PER", None),  # two schemes
        ("O A-PER C-PER", None),
    ],
)
def test_tag_sets_of_entities_are_recognised(tags: str, notation: Notation | None) -> None:
    assert find_notation(set(tags.split())) == notation


def test_tag_sets_are_completed_in_their_own_scheme() -> None:
    assert completed({"O", "ORG-B"}, Notation("-", is_suffix=True)) == {"O", "ORG-B", "ORG-I"}
    assert completed({"o", "u_per", "b_loc"}, Notation("_")) == {
        "o",
        *(f"{letter}_{kind}" for letter in "bilu" for kind in ("per", "loc")),
    }
    assert completed({"B", "I"}, IOB) == {"B", "I", "O"}
    assert looks_like_entities({"O", "B-PER", "X"}) == ["B-PER"]
    assert looks_like_entities({"B-PER", "NOUN", "VERB"}) == []


PAIRS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40)


@given(PAIRS)
def test_classes_are_counted_as_scikit_learn_does(pairs: list[tuple[int, int]]) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    scores = LabelScores(5)
    for expected, predicted in pairs[:3]:
        scores.add(expected, predicted)
    if pairs[3:]:  # several at once count as one by one
        scores.add(*map(np.array, zip(*pairs[3:], strict=True)))
    expected, predicted = zip(*pairs, strict=True)
    assert scores.result() == pytest.approx(
        {
            "accuracy": sklearn.accuracy_score(expected, predicted),
            "f1_macro": sklearn.f1_score(expected, predicted, average="macro"),
            "f1_micro": sklearn.f1_score(expected, predicted, average="micro"),
        },
        abs=1e-12,
    )


ROWS = st.lists(st.tuples(*[st.lists(st.booleans(), min_size=4, max_size=4)] * 2), min_size=1, max_size=20)


@given(ROWS)
def test_several_classes_are_counted_as_scikit_learn_does(rows: list[tuple[list[bool], list[bool]]]) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    scores = MultiLabelScores(4)
    for expected, predicted in rows:
        scores.add(np.array(expected), np.array(predicted))
    expected, predicted = (np.array(column, int) for column in zip(*rows, strict=True))
    assert scores.result() == pytest.approx(
        {
            "accuracy": sklearn.accuracy_score(expected, predicted),
            "f1_macro": sklearn.f1_score(expected, predicted, average="macro", zero_division=0),
            "f1_micro": sklearn.f1_score(expected, predicted, average="micro", zero_division=0),
        },
        abs=1e-12,
    )


NUMBERS = st.lists(st.tuples(*[st.integers(-6, 6).map(lambda n: n / 4)] * 2), min_size=2, max_size=30)


@given(NUMBERS)
def test_correlations_are_those_of_scipy(pairs: list[tuple[float, float]]) -> None:
    stats = pytest.importorskip("scipy.stats")
    scores = RegressionScores()
    for pair in pairs:
        scores.add(*pair)
    expected, predicted = (np.array(column) for column in zip(*pairs, strict=True))
    found = scores.result()
    constant = len(set(expected)) == 1 or len(set(predicted)) == 1  # where there is no correlation to speak of
    for name, oracle in (("pearson", stats.pearsonr), ("spearman", stats.spearmanr)):
        assert found[name] == pytest.approx(0.0 if constant else oracle(expected, predicted).statistic, abs=1e-9), name
    assert found["mse"] == pytest.approx(float(np.mean((expected - predicted) ** 2)))


# ---------------------------------------------------------------------- answers


def squad_normal(text: str) -> str:
    """SQuAD: lower case; no punctuation; no articles; white space fixed."""
    text = "".join(char for char in text.lower() if char not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def squad_f1(one: str, other: str) -> float:
    """SQuAD 1.1: harmonic mean of precision and recall over bags of words; nothing in common is 0."""
    a, b = squad_normal(one).split(), squad_normal(other).split()
    same = sum((collections.Counter(a) & collections.Counter(b)).values())
    if same == 0:
        return 0.0
    precision, recall = same / len(a), same / len(b)
    return 2 * precision * recall / (precision + recall)


def squad2_f1(one: str, other: str) -> float:
    """SQuAD 2.0: as 1.1, but where either has no words, 1 if both have none."""
    a, b = squad_normal(one).split(), squad_normal(other).split()
    return float(a == b) if not a or not b else squad_f1(one, other)


WORDS = st.sampled_from(
    ["the", "a", "An", "Normans", "10th", "century,", "(and)", "—", "“x”", "THE", "", "Ünder", "é", ".", "norman's"]
)
TEXTS = st.lists(WORDS, max_size=5).map(" ".join)


@given(st.lists(st.tuples(TEXTS, st.lists(TEXTS, min_size=1, max_size=3)), min_size=1, max_size=8))
def test_answers_are_scored_as_squad_1_does(questions: list[tuple[str, list[str]]]) -> None:
    scores = AnswerScores()
    for predicted, expected in questions:
        scores.add(expected, predicted)
    exact = [max(squad_normal(p) == squad_normal(answer) for answer in answers) for p, answers in questions]
    f1s = [max(squad_f1(p, answer) for answer in answers) for p, answers in questions]
    assert scores.result() == pytest.approx({"exact_match": np.mean(exact), "f1": np.mean(f1s)})


QUESTIONS2 = st.lists(
    st.tuples(TEXTS, st.lists(TEXTS, max_size=2), TEXTS, st.integers(-3, 3).map(float)), min_size=1, max_size=8
)


@given(QUESTIONS2)
def test_answers_are_scored_as_squad_2_does(questions: list[tuple[str, list[str], str, float]]) -> None:
    questions = [*questions, ("the", [], "x", 0.5)]  # at least one without an answer
    scores = AnswerScores()
    for predicted, expected, best, gain in questions:
        scores.add(expected, predicted, best_answer=best, no_answer_score=gain)
    found = scores.result()

    def both(predicted: str, expected: list[str]) -> tuple[float, float]:
        answers = [answer for answer in expected if squad_normal(answer)] or [""]
        return (
            float(max(squad_normal(predicted) == squad_normal(answer) for answer in answers)),
            max(squad2_f1(predicted, answer) for answer in answers),
        )

    rows = [(both(predicted, expected), bool(expected)) for predicted, expected, _, _ in questions]
    for index, name in enumerate(("exact_match", "f1")):
        assert found[name] == pytest.approx(np.mean([row[index] for row, _ in rows]))
        for kind, ending in ((True, "_has_answer"), (False, "_no_answer")):
            part = [row[index] for row, has in rows if has is kind]
            if part:
                assert found[name + ending] == pytest.approx(np.mean(part))
        # The best over every threshold that makes a difference: answer where no answer's lead is at most that.
        reached = []
        for threshold in (-1e9, *(gain for *_, gain in questions)):
            given_scores = []
            for _, expected, best, gain in questions:
                if gain <= threshold:
                    given_scores.append(both(best, expected)[index] if expected else 0.0)
                else:
                    given_scores.append(0.0 if expected else 1.0)
            reached.append(np.mean(given_scores))
        assert found[f"{name}_best"] == pytest.approx(max(reached))


@functools.cache
def all_punctuation() -> set[str]:
    found = {chr(i) for i in range(sys.maxunicode) if unicodedata.category(chr(i)).startswith("P")}
    return found | set(string.punctuation)


def mlqa_normal(text: str, language: str) -> str:
    """MLQA: lower case; no punctuation of any script; the language's articles; Chinese in characters."""
    text = "".join(char for char in text.lower() if char not in all_punctuation())
    articles = {
        "en": r"\b(a|an|the)\b",
        "es": r"\b(un|una|unos|unas|el|la|los|las)\b",
        "vi": r"\b(của|là|cái|chiếc|những)\b",
        "de": r"\b(ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b",
        "ar": r"ال",
    }
    if language in articles:
        text = re.sub(articles[language], " ", text)
    if language == "zh":
        parts, latin = [], ""
        for char in text:
            if "\u4e00" <= char <= "\u9fa5":
                parts += [*latin.split(), char]
                latin = ""
            else:
                latin += char
        return " ".join(parts + latin.split())
    return " ".join(text.split())


MLQA_WORDS = {
    "en": ["the", "An", "house", "«x»", "St.", "a"],
    "es": ["El", "los", "niños", "¿qué?", "una", "casa"],
    "de": ["Der", "eines", "Häuser", "„so“", "dem", "Bogen-"],
    "vi": ["những", "người", "là", "Hà", "Nội", "cái,"],
    "ar": ["البيت", "كتاب", "والرجل", "ال", "؟"],
    "hi": ["घर", "में", "है।", "एक"],
    "zh": ["北京", "大学，", "iPhone8是", "x", "2008年", "。"],
}


@pytest.mark.parametrize("language", sorted(MLQA_WORDS))
def test_answers_are_normalized_as_mlqa_does(language: str) -> None:
    words = MLQA_WORDS[language]
    rng = np.random.default_rng(0)
    for _ in range(8):
        text = "".join(rng.choice(words) + rng.choice(["", " "]) for _ in range(5))
        assert normalize_mlqa(text, language) == mlqa_normal(text, language)


def test_mlqa_rules_differ_by_language() -> None:
    # Worked by hand: what each language's rules take away, and Chinese in characters.
    assert normalize_mlqa("Die “Häuser” des Königs", "de") == "häuser königs"
    assert normalize_mlqa("¿La casa?", "es") == "casa"
    assert normalize_mlqa("2008年北京", "zh") == "2008 年 北 京"
    assert normalize_mlqa("البيت", "ar") == "بيت"
    assert normalize_squad("Die “Häuser” des Königs") == "die “häuser” des königs"
    assert [mlqa_language(code) for code in ("zh-CN", "zh_Hans", "EN", "sw", None)] == ["zh", "zh", "en", None, None]
    scores = AnswerScores()
    scores.add(["北京大学"], "北京", language="zh")
    found = scores.result()
    assert found["f1"] == 0.0  # one word each, not the same one
    assert found["f1_mlqa"] == pytest.approx(2 * 1.0 * 0.5 / 1.5)  # two of four characters


def test_mlqa_is_left_out_where_a_language_is_not_among_its_seven() -> None:
    scores = AnswerScores()
    scores.add(["x"], "x", language="en")
    scores.add(["x"], "x", language="sw")
    assert "f1_mlqa" not in scores.result()


def test_perplexity_by_hand() -> None:
    scores = TokenScores()
    scores.add(np.log([0.5, 0.25]), np.array([3, 4]), np.array([3, 5]))
    scores.add(np.log([0.125]), np.array([1]), np.array([1]))
    # (1/2 · 1/4 · 1/8) ** (-1/3) = 4
    assert scores.result() == pytest.approx({"loss": np.log(4), "perplexity": 4.0, "accuracy": 2 / 3})


def test_the_correlation_with_a_constant_is_zero() -> None:
    constant = np.full(3, 0.1)  # its mean in float64 is another number
    assert constant.mean() != 0.1
    assert pearson(constant, constant) == pearson(constant, np.arange(3)) == spearman(np.arange(3), constant) == 0.0


def test_temperatures_minimize_the_log_loss() -> None:
    optimize, special = pytest.importorskip("scipy.optimize"), pytest.importorskip("scipy.special")
    rng = np.random.default_rng(3)
    logits = rng.standard_normal((200, 4)) * 3
    labels = np.array([rng.choice(4, p=row) for row in special.softmax(logits / 2.5, axis=1)])
    logits[::7, 3] = -np.inf  # some examples have three choices
    labels[::7] %= 3

    def loss(log: float) -> float:
        return -float(special.log_softmax(logits / np.exp(log), axis=1)[np.arange(200), labels].mean())

    expected = np.exp(optimize.minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-9}).x)
    assert calibration(logits, labels).temperature == pytest.approx(expected, rel=1e-6)


def test_calibration_errors_weigh_the_intervals() -> None:
    # Two predictions of 0.95, one right; one of 0.75, right; with ten intervals.
    logits = np.log([[0.95, 0.05], [0.95, 0.05], [0.25, 0.75]])
    found = calibration(logits, np.array([0, 1, 1]), bins=10)
    assert found.ece == pytest.approx(2 / 3 * abs(0.5 - 0.95) + 1 / 3 * abs(1 - 0.75))
    assert [(each.count, each.accuracy) for each in found.bins if each.count] == [(1, 1.0), (2, 0.5)]
    assert (found.bins[9].low, found.bins[9].high, found.bins[9].confidence) == pytest.approx((0.9, 1.0, 0.95))
