"""BLEURT's scores: against numpy in float64 from the variables, between the frameworks, and its inputs."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rembert.bleurt import scorer as scorer_module
from rembert.bleurt.pairs import Pair, PairEncoder
from rembert.bridge import convert
from rembert.bridge.formats.bundle import read_bundle
from rembert.common.errors import CheckpointError, InputError
from rembert.tasks import RemBertScorer
from tests.bleurt.cases import (
    BERT_CONFIG,
    BLEURT_CONFIG,
    MODEL,
    make_variables,
    reference_input,
    reference_score,
    write_saved_model,
)
from tests.bridge.support import GOLDEN
from tests.frameworks import Framework, needs_pt, on_both, on_both_tf_slow

MAX_LENGTH = BLEURT_CONFIG["max_seq_length"]
VARIABLES = make_variables()
CANDIDATES = [
    "a bird chirps by the window",
    "this looks like a random sentence",
    "",
    "Alle Menschen sind frei [SEP] geboren",  # no special token in a text
    "long " * 60,
    "人人生而自由,在尊严和权利上一律平等。",
    "short",
    "one side only is long",
]
REFERENCES = [
    "a bird chirps by the window",
    "this is a random sentence",
    "nothing",
    "All human beings are born free [MASK]",
    "short of it " * 30,
    "",
    "and a reference " * 40,
    "short",
]


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BLEURT with 32,000 tokens."""
    return write_saved_model(tmp_path_factory.mktemp("bleurt") / "tiny-32k", VARIABLES)


@pytest.fixture(scope="module")
def expected() -> np.ndarray:
    """The scores in float64."""
    inputs = [reference_input(*texts, MAX_LENGTH) for texts in zip(CANDIDATES, REFERENCES, strict=True)]
    scores = np.array([reference_score(VARIABLES, BERT_CONFIG, *pair) for pair in inputs])
    assert np.ptp(scores) > 0.1  # else anything would agree
    return scores


@on_both_tf_slow
def test_a_pickled_scorer_gives_the_same_scores(framework: Framework, saved_model: Path) -> None:
    scorer = RemBertScorer.from_pretrained(saved_model, framework=framework.name)
    scores = scorer.score(CANDIDATES[:2], REFERENCES[:2])
    again = pickle.loads(pickle.dumps(scorer))
    again._cache.clear()
    np.testing.assert_allclose(again.score(CANDIDATES[:2], REFERENCES[:2]), scores, rtol=1e-6)


@on_both
def test_scores_equal_those_of_numpy(framework: Framework, saved_model: Path, expected: np.ndarray) -> None:
    scorer = RemBertScorer.from_pretrained(saved_model, framework=framework.name)
    scores = scorer.score(CANDIDATES, REFERENCES)
    assert scores.dtype == np.float64
    assert np.abs(scores - expected).max() < 1e-5
    assert scorer.name == "tiny-32k"
    assert scorer.max_length == MAX_LENGTH


@on_both
def test_float64_scores_equal_those_of_numpy_to_rounding(
    framework: Framework, saved_model: Path, expected: np.ndarray
) -> None:
    scorer = RemBertScorer.from_pretrained(saved_model, framework=framework.name, dtype="float64")
    assert np.abs(scorer.score(CANDIDATES, REFERENCES) - expected).max() < 1e-12


@on_both
def test_the_golden_saved_model_scores_with_more_tokens(framework: Framework, tmp_path: Path) -> None:
    # Variables that TensorFlow wrote under BLEURT's names; only the table of words is made as long as the fixture's.
    golden = GOLDEN / "bleurt_savedmodel"
    sources = read_bundle(golden / "variables" / "variables.index")
    variables = {name: source.read() for name, source in sources.items() if source is not None and source.shape}
    words = variables["bert/embeddings/word_embeddings"]
    rows = np.random.default_rng(0).choice(len(words), 32000)  # the golden's own rows, each many times
    variables["bert/embeddings/word_embeddings"] = words[rows]
    sizes = {**json.loads((golden / "bert_config.json").read_text()), "vocab_size": 32000}
    settings = json.loads((golden / "bleurt_config.json").read_text())
    directory = write_saved_model(tmp_path / "like", variables, sizes, settings)
    scorer = RemBertScorer.from_pretrained(directory, framework=framework.name)
    assert scorer.max_length == 40  # its positions, fewer than `max_seq_length`
    inputs = [reference_input(*texts, 40) for texts in zip(CANDIDATES, REFERENCES, strict=True)]
    expected = np.array([reference_score(variables, sizes, *pair) for pair in inputs])
    assert np.ptp(expected) > 0.1
    assert np.abs(scorer.score(CANDIDATES, REFERENCES) - expected).max() < 1e-5


@needs_pt
def test_the_exact_gelu_gives_other_scores(saved_model: Path, expected: np.ndarray) -> None:
    # So the comparison above sees which form is computed.
    scorer = RemBertScorer.from_pretrained(saved_model, dtype="float64", hidden_act="gelu")
    assert np.abs(scorer.score(CANDIDATES, REFERENCES) - expected).max() > 1e-5


@needs_pt
@pytest.mark.parametrize("folder", ["", "BLEURT-20-D3/"])
def test_a_zip_archive_scores_like_its_directory(
    saved_model: Path, expected: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    archive = _zipped(saved_model, tmp_path / "BLEURT-20-D3.zip", folder)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    scorer = RemBertScorer.from_pretrained(archive)
    assert list(temporary.iterdir()) == []  # unpacked, mapped, and gone
    assert np.abs(scorer.score(CANDIDATES, REFERENCES) - expected).max() < 1e-5


@needs_pt
@pytest.mark.parametrize("to", ["pt", "tf"])
def test_a_converted_checkpoint_scores_the_same(
    saved_model: Path, expected: np.ndarray, tmp_path: Path, to: str
) -> None:
    convert(saved_model, tmp_path / "converted", to)
    scorer = RemBertScorer.from_pretrained(tmp_path / "converted")
    assert scorer.max_length == MAX_LENGTH
    assert np.abs(scorer.score(CANDIDATES, REFERENCES) - expected).max() < 1e-5


@needs_pt
def test_missing_sizes_come_from_the_variables(expected: np.ndarray, tmp_path: Path) -> None:
    settings = {"num_attention_heads": BERT_CONFIG["num_attention_heads"]}
    scorer = RemBertScorer.from_pretrained(write_saved_model(tmp_path / "distilled", VARIABLES, settings))
    assert np.abs(scorer.score(CANDIDATES, REFERENCES) - expected).max() < 1e-5


@needs_pt
def test_the_number_of_attention_heads_comes_from_the_checkpoint(tmp_path: Path) -> None:
    sizes = {**BERT_CONFIG, "num_attention_heads": 6}  # the same shapes, other heads
    scorer = RemBertScorer.from_pretrained(write_saved_model(tmp_path / "six", VARIABLES, sizes), dtype="float64")
    inputs = reference_input(CANDIDATES[0], REFERENCES[1], MAX_LENGTH)
    six, three = (reference_score(VARIABLES, config, *inputs) for config in (sizes, BERT_CONFIG))
    assert abs(six - three) > 1e-4
    assert scorer.score(CANDIDATES[:1], REFERENCES[1:2])[0] == pytest.approx(six, abs=1e-12)


# ---------------------------------------------------------------------- inputs


@given(
    first=st.integers(0, 60), second=st.integers(0, 60), limit=st.integers(4, 64),
)  # fmt: skip
def test_the_longer_side_is_truncated_token_by_token(first: int, second: int, limit: int) -> None:
    reference, candidate = "a " * first, "b " * second
    (pair,) = PairEncoder(_tokenizer(), limit)([candidate], [reference])
    ids, types = reference_input(candidate, reference, limit)
    assert pair.ids.tolist() == ids
    assert pair.types.tolist() == types
    assert pair.was_cut == (first + second + 3 > limit)


def test_special_tokens_in_a_text_are_plain_text(saved_model: Path) -> None:
    texts = ["a [SEP] b", "[CLS] [MASK]", "<pad> </s>"]
    for pair, text in zip(PairEncoder(_tokenizer(), 99)(texts, texts[::-1]), texts, strict=True):
        assert pair.ids[pair.first : -1].tolist() == reference_input(text, "", 99)[0][2:-1]
    # An ordinary call, which this guards against, finds a special token in it.
    assert _tokenizer()("a [SEP] b")["input_ids"].count(4) == 2


@needs_pt
def test_encode_returns_the_models_arguments(saved_model: Path) -> None:
    scorer = RemBertScorer.from_pretrained(saved_model)
    inputs = scorer.encode(CANDIDATES, REFERENCES)
    width = inputs["input_ids"].shape[1]
    for row, texts in enumerate(zip(CANDIDATES, REFERENCES, strict=True)):
        ids, types = reference_input(*texts, MAX_LENGTH)
        padding = [0] * (width - len(ids))
        assert inputs["input_ids"][row].tolist() == ids + padding
        assert inputs["token_type_ids"][row].tolist() == types + padding
        assert inputs["attention_mask"][row].tolist() == [1] * len(ids) + padding


# ---------------------------------------------------------------------- batches


class Lengths:
    """In place of a model: a pair's score is its length, and every batch is recorded."""

    model = None
    batch_tokens = 40

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def __call__(self, pairs: Sequence[Pair]) -> np.ndarray:
        self.batches.append([len(pair.ids) for pair in pairs])
        return np.array([len(pair.ids) for pair in pairs], np.float64)


def _scorer(regressor: Any, **options: Any) -> RemBertScorer:
    return RemBertScorer("lengths", "pt", regressor, _tokenizer(), 64, b"", **options)


def test_pairs_are_scored_in_batches_of_similar_lengths_and_returned_in_order() -> None:
    numbers = np.random.default_rng(0).integers(0, 12, 200).tolist()
    model = Lengths()
    scores = _scorer(model).score(["a " * n for n in numbers], [f"{'b ' * (n % 3)}" for n in numbers])
    assert scores.tolist() == [n + n % 3 + 3 for n in numbers]
    for batch in model.batches:
        assert max(batch) * len(batch) <= 40
        assert max(batch) - min(batch) <= 3
    assert sum(map(len, model.batches)) == len(set(numbers))  # equal pairs once


@pytest.mark.parametrize("window", [1, 2, 7])
def test_a_stream_is_scored_window_by_window(monkeypatch: pytest.MonkeyPatch, window: int) -> None:
    monkeypatch.setattr(scorer_module, "WINDOW", window)
    read = 0

    def pairs() -> Any:
        nonlocal read
        for number in range(20):
            read += 1
            yield "a " * (number % 5), "b"

    model = Lengths()
    for number, score in enumerate(_scorer(model).stream(pairs())):
        assert score.value == number % 5 + 4
        assert read <= -(-(number + 1) // window) * window  # no more is read than is needed
    assert sum(map(len, model.batches)) == 5  # a pair of an earlier window is not computed again


def test_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorer_module, "WINDOW", 1)
    monkeypatch.setattr(scorer_module, "_REMEMBERED", 2)
    model = Lengths()
    texts = ["a", "a a", "a", "a a a", "a", "a a"]  # the last one was forgotten when the fourth came
    assert len(list(_scorer(model).stream((text, "b") for text in texts))) == 6
    assert [batch[0] - 4 for batch in model.batches] == [1, 2, 3, 2]


def test_several_references_give_the_best_or_the_mean() -> None:
    scorer = _scorer(Lengths())
    references = [["b", "b b b"], ["b b"]]
    assert [one.tolist() for one in scorer.score_references(["a", "a"], references)] == [[5, 7], [6]]
    assert scorer.score(["a", "a"], references).tolist() == [7, 6]
    assert scorer.score(["a", "a"], references, aggregate="mean").tolist() == [6, 6]
    assert scorer.score([], []).tolist() == []


def test_truncated_pairs_are_marked() -> None:
    scores = list(_scorer(Lengths()).stream([("a", "b"), ("a " * 70, "b"), ("a " * 60, "b"), ("a " * 61, "b")]))
    assert [score.was_cut for score in scores] == [False, True, False, True]


@pytest.mark.parametrize(
    ("candidates", "references", "message"),
    [
        (["a"], ["b", "c"], "`references` must have one item for each of the 1 candidates. Received: 2"),
        (["a"], [[]], "none for candidate 0"),
        (["a"], [None], "none for candidate 0"),
        ([3], ["b"], "must be strings. Received: 3 at 0"),
        ("a", ["b"], "`candidates` must be a list"),
        (["a"], [["b", 1]], "must be strings. Received: 1 at 0"),
        (["a\ud800"], ["b"], "lone surrogates"),
    ],
)
def test_candidates_and_references_must_be_strings(candidates: Any, references: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        _scorer(Lengths()).score(candidates, references)


@pytest.mark.parametrize("pair", [("a", 3), ("a",), ("a", "b", "c"), "ab", None])
def test_pairs_must_be_pairs_of_strings(pair: Any) -> None:
    with pytest.raises(InputError, match=r"must be \(candidate, reference\)\. Received"):
        list(_scorer(Lengths()).stream([("a", "b"), pair]))


def test_wrong_options_are_refused() -> None:
    with pytest.raises(InputError, match="`aggregate` must be one of best, mean"):
        _scorer(Lengths()).score(["a"], ["b"], aggregate="median")
    with pytest.raises(InputError, match="`batch_tokens` must be an integer of 1 or more"):
        _scorer(Lengths(), batch_tokens=0)


def test_nan_scores_are_refused() -> None:
    model = Lengths()
    model.__class__ = type("NaN", (Lengths,), {"__call__": lambda self, pairs: np.full(len(pairs), np.nan)})
    with pytest.raises(CheckpointError, match="must be finite"):
        _scorer(model).score(["a"], ["b"])


# ---------------------------------------------------------------------- as a training signal


@on_both
def test_scores_have_gradients_in_the_embeddings(framework: Framework, saved_model: Path) -> None:
    scorer = RemBertScorer.from_pretrained(saved_model, framework=framework.name, dtype="float64")
    inputs = scorer.encode(CANDIDATES[:2], REFERENCES[:2])
    ids = inputs.pop("input_ids")
    table = VARIABLES["bert/embeddings/word_embeddings"].astype(np.float64)
    score, gradient = _score_and_gradient(framework, scorer.model, table[ids], inputs)
    assert score == pytest.approx(scorer.score(CANDIDATES[:2], REFERENCES[:2]).sum(), abs=1e-12)
    assert not gradient[inputs["attention_mask"] == 0].any()
    assert (np.abs(gradient[inputs["attention_mask"] == 1]).max(-1) > 0).all()
    direction = np.random.default_rng(0).standard_normal(gradient.shape)
    step = 1e-6
    high, low = (_score_and_gradient(framework, scorer.model, table[ids] + sign * step * direction, inputs)[0]
                 for sign in (1, -1))  # fmt: skip
    assert (high - low) / (2 * step) == pytest.approx(float((gradient * direction).sum()), rel=1e-5)


def _score_and_gradient(
    framework: Framework, model: Any, embeddings: np.ndarray, inputs: dict[str, np.ndarray]
) -> tuple[float, np.ndarray]:
    """The sum of the scores, and its gradient in the embeddings."""
    if framework.name == "pt":
        import torch

        leaf = torch.from_numpy(embeddings).requires_grad_()
        score = model(inputs_embeds=leaf, **{name: torch.from_numpy(value) for name, value in inputs.items()}).logits
        (gradient,) = torch.autograd.grad(score.sum(), leaf)
        return float(score.detach().sum()), gradient.numpy()
    import tensorflow as tf

    variable = tf.constant(embeddings)
    with tf.GradientTape() as tape:
        tape.watch(variable)
        total = tf.reduce_sum(model(inputs_embeds=variable, **inputs).logits)
    return float(total), np.asarray(tape.gradient(total, variable))


# ---------------------------------------------------------------------- published scores

# Printed by the public PyTorch port of BLEURT (reference, candidate, score), five digits.
PUBLISHED = {
    "REMBERT_BLEURT_20": (0.99905, 0.79302),
    "REMBERT_BLEURT_20_D12": (0.96044, 0.80801),
}


@needs_pt
@pytest.mark.parametrize("variable", PUBLISHED)
def test_scores_equal_the_published_ones(variable: str) -> None:
    """The port computes the exact form of GELU, Google's graph the tanh form: the first is compared closely."""
    if variable not in os.environ:
        pytest.skip(f"set {variable} to a local copy of the checkpoint to compare its scores with the published ones")
    candidates = ["a bird chirps by the window", "this looks like a random sentence"]
    references = ["a bird chirps by the window", "this is a random sentence"]
    exact = RemBertScorer.from_pretrained(os.environ[variable], hidden_act="gelu")
    assert np.abs(exact.score(candidates, references) - PUBLISHED[variable]).max() < 1e-4
    own = RemBertScorer.from_pretrained(os.environ[variable])
    assert np.abs(own.score(candidates, references) - PUBLISHED[variable]).max() < 1e-2


# ---------------------------------------------------------------------- parts


def _tokenizer() -> Any:
    from rembert import RemBertTokenizer

    return RemBertTokenizer(MODEL)


def _zipped(directory: Path, target: Path, folder: str) -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(directory.rglob("*")):
            if file.is_file():
                archive.write(file, folder + str(file.relative_to(directory)))
        archive.writestr("../outside.json", "{}")
        archive.writestr(f"{folder}notes/readme.txt", "not needed")
    return target
