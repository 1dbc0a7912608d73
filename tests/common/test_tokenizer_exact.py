"""Ids against SentencePiece, and calls against the results of transformers' slow tokenizer."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rembert import RemBertTokenizer, RemBertTokenizerFast
from tests.common.tokenizer_cases import FIXTURES, MODEL, TRICKY, processor, random_texts

EXPECTED = json.loads((FIXTURES / "expected.json").read_text(encoding="utf-8"))


def ids_of(tokenizer: RemBertTokenizer, texts: list[str]) -> list[list[int]]:
    return tokenizer(texts, add_special_tokens=False)["input_ids"]


def test_tricky_texts_have_the_ids_of_sentencepiece(tokenizer: RemBertTokenizer) -> None:
    assert ids_of(tokenizer, TRICKY) == processor().encode(TRICKY)


@pytest.mark.parametrize("seed", range(3))
def test_random_unicode_has_the_ids_of_sentencepiece(tokenizer: RemBertTokenizer, seed: int) -> None:
    texts = random_texts(4000, seed)
    assert ids_of(tokenizer, texts) == processor().encode(texts)


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_one_text_alone_and_in_a_batch_are_sentencepieces(text: str) -> None:
    tokenizer = _shared()
    assume(not any(token in text for token in tokenizer.all_special_tokens))
    expected = processor().encode(text)
    assert tokenizer.encode(text, add_special_tokens=False) == expected
    assert ids_of(tokenizer, [text] * 3) == [expected] * 3
    assert tokenizer.tokenize(text) == processor().encode(text, out_type=str)


def _shared(loaded: list[RemBertTokenizer] = []) -> RemBertTokenizer:  # noqa: B006 - one tokenizer for all examples
    if not loaded:
        loaded.append(RemBertTokenizer(MODEL))
    return loaded[0]


@pytest.mark.slow
def test_a_hundred_thousand_random_texts(tokenizer: RemBertTokenizer) -> None:
    texts = random_texts(100_000, 99)
    assert ids_of(tokenizer, texts) == processor().encode(texts)


@pytest.mark.slow
def test_real_text(tokenizer: RemBertTokenizer) -> None:
    lines = _real_lines()
    result = tokenizer(lines, add_special_tokens=False, return_offsets_mapping=True)
    assert result["input_ids"] == processor().encode(lines)
    for line, spans in zip(lines, result["offset_mapping"], strict=True):
        assert all(0 <= start <= end <= len(line) for start, end in spans)


def _real_lines() -> list[str]:
    folder = os.environ.get("REMBERT_DATA")
    if not folder:
        pytest.skip("set REMBERT_DATA to a folder with udhr.tsv, xquad/, xcopa/ and sib200/ to test real text")
    root = Path(folder)
    lines = [line.split("\t", 1)[1] for line in (root / "udhr.tsv").read_text("utf-8").split("\n") if "\t" in line]
    for path in sorted((root / "xquad").glob("*.json")):
        for article in json.loads(path.read_text("utf-8"))["data"]:
            for paragraph in article["paragraphs"]:
                lines += [paragraph["context"], *(qa["question"] for qa in paragraph["qas"])]
    for path in sorted((root / "xcopa").rglob("*.jsonl")):
        rows = map(json.loads, filter(None, path.read_text("utf-8").split("\n")))
        lines += [row[key] for row in rows for key in ("premise", "choice1", "choice2")]
    for path in sorted((root / "sib200").rglob("*.tsv")):
        lines += [line.split("\t")[-1] for line in path.read_text("utf-8").split("\n")]
    assert len(lines) > 47_000
    return lines


@pytest.mark.parametrize("case", EXPECTED["cases"], ids=lambda case: case["call"])
def test_calls_give_what_transformers_gives(tokenizer: RemBertTokenizer, case: dict[str, Any]) -> None:
    result = getattr(tokenizer, case["call"])(*case["args"], **case["kwargs"])
    assert result == case["result"]


def test_vocabulary_is_the_models(tokenizer: RemBertTokenizer) -> None:
    assert (len(tokenizer), tokenizer.vocab_size) == (EXPECTED["len"], EXPECTED["vocab_size"])
    for name, index in EXPECTED["special_ids"].items():
        assert getattr(tokenizer, f"{name}_token_id") == index
    vocabulary = tokenizer.get_vocab()
    assert sorted(vocabulary.values()) == list(range(32000))
    assert vocabulary["▁"] == 6


@pytest.mark.parametrize("case", EXPECTED["offsets"], ids=lambda case: case["text"])
def test_offsets_are_transformers_without_leading_space(tokenizer: RemBertTokenizer, case: dict[str, Any]) -> None:
    text = case["text"]
    result = tokenizer(text, return_offsets_mapping=True)
    assert result["input_ids"] == case["input_ids"]
    assert result.word_ids() == case["word_ids"]
    tokens = tokenizer.convert_ids_to_tokens(result["input_ids"])
    for token, ours, (start, end) in zip(tokens, result["offset_mapping"], case["offset_mapping"], strict=True):
        start += len(text[start:end]) - len(text[start:end].lstrip())
        # Theirs gives a marker that stands for no space the character after it; ours has an empty range there.
        assert ours == ((start, start) if token == "▁" else (start, end))


def test_windows_are_transformers(tokenizer: RemBertTokenizer) -> None:
    windows = EXPECTED["windows"]
    result = tokenizer(windows["question"], windows["context"], **windows["kwargs"])
    for name, expected in windows["result"].items():
        if name != "offset_mapping":
            assert result[name] == expected, name
    rows = range(len(result["input_ids"]))
    assert [result.sequence_ids(row) for row in rows] == windows["sequence_ids"]
    texts = (windows["question"], windows["context"])
    for row in rows:
        theirs = windows["result"]["offset_mapping"][row]
        for ours, (start, end), sequence in zip(
            result["offset_mapping"][row], theirs, windows["sequence_ids"][row], strict=True
        ):
            if sequence is not None:
                start += len(texts[sequence][start:end]) - len(texts[sequence][start:end].lstrip())
            assert ours == (start, end)


def test_both_classes_give_the_same() -> None:
    slow, fast = RemBertTokenizer(MODEL), RemBertTokenizerFast(MODEL)
    texts = TRICKY + random_texts(200, 5)
    options = {"truncation": True, "max_length": 9, "stride": 2, "return_overflowing_tokens": True, "padding": True}
    options |= {"return_offsets_mapping": True, "return_special_tokens_mask": True, "return_length": True}
    assert slow(texts, texts[::-1], **options) == fast(texts, texts[::-1], **options)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(" " * 10_000_000, id="spaces"),
        pytest.param("Alle Menschen sind frei. " * 400_000, id="words", marks=pytest.mark.slow),
    ],
)
def test_ten_megabytes(text: str) -> None:
    tokenizer = RemBertTokenizer(MODEL)
    result = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    assert result["input_ids"] == processor().encode(text)
    if text.strip():
        assert result["offset_mapping"][-1] == (len(text) - 2, len(text) - 1)
