"""Offsets, words and the way between tokens and characters."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from rembert import RemBertTokenizer
from rembert.common.errors import InputError
from rembert.common.tokenization import AddedToken
from rembert.common.tokenization.offsets import token_spans
from rembert.common.tokenization.sentencepiece_model import SentencePieceModel
from tests.common.tokenizer_cases import MODEL, TRICKY, processor, random_texts


def covering_spans(text: str) -> list[tuple[int, int]]:
    """Ranges from SentencePiece's own origins, one token at a time: slow, and written without the code under test."""
    normalized, origins = processor().normalize(text, with_offsets=True)
    position, result = 0, []
    for token in processor().encode(text, out_type=str):
        start, position = position, position + len(token)
        while start < position and normalized[start] == "▁":
            start += 1
        if start == position:
            result.append((origins[start], origins[start]))
        else:
            last = origins[position - 1]
            result.append((origins[start], next(origin for origin in origins if origin > last)))
    assert position == len(normalized)
    return result


@pytest.mark.parametrize("texts", [TRICKY, random_texts(1500, 7)], ids=["tricky", "random"])
def test_offsets_follow_the_normaliser(tokenizer: RemBertTokenizer, texts: list[str]) -> None:
    result = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
    for text, spans in zip(texts, result["offset_mapping"], strict=True):
        assert spans == covering_spans(text), text


def test_offsets_of_one_text_are_those_in_a_batch(tokenizer: RemBertTokenizer) -> None:
    texts = TRICKY + random_texts(100, 8)
    batch = tokenizer(texts, return_offsets_mapping=True)["offset_mapping"]
    assert batch == [tokenizer(text, return_offsets_mapping=True)["offset_mapping"] for text in texts]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("ﬁne", ["ﬁ", "ne"]),  # a ligature
        ("Ａ１", ["Ａ", "１"]),  # full-width forms
        ("café", ["ca", "fé"]),  # a combining mark
        ("½", ["½", "½", "½"]),  # one character, three tokens
        ("👩\u200d👧", ["", "👩", "\u200d", "👧"]),  # the first token is the space marker
        ("a   b", ["a", "b"]),
    ],
)
def test_ranges_of_the_source(tokenizer: RemBertTokenizer, text: str, tokens: list[str]) -> None:
    result = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    assert [text[start:end] for start, end in result["offset_mapping"]] == tokens


def test_offsets_far_into_a_text(tokenizer: RemBertTokenizer) -> None:
    text = "word " * 3000
    spans = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    assert "".join(text[start:end] for start, end in spans) == "word" * 3000
    assert spans[-1][1] == len(text) - 1


def test_normalized_text_keeps_the_offsets_of_the_source(tokenizer_class: type[RemBertTokenizer]) -> None:
    tokenizer = tokenizer_class(MODEL, do_lower_case=True, keep_accents=False)
    text = "É NAÏVE e\u0301 İstanbul [MASK] ΟΔΟΣ"
    result = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    assert result["input_ids"] == [*processor().encode("e naive e istanbul"), 5, *processor().encode("οδος")]
    taken = "".join(text[start:end] for start, end in result["offset_mapping"])
    assert taken == text.replace(" ", "")


def test_added_tokens_have_ranges_without_the_space_they_take(fresh: RemBertTokenizer) -> None:
    fresh.add_tokens([AddedToken("<a>", lstrip=True, rstrip=True)])
    text = "x  <a>  y [MASK]z"
    result = fresh(text, return_offsets_mapping=True)
    assert [text[start:end] for start, end in result["offset_mapping"]] == ["", "x", "<a>", "y", "[MASK]", "z", ""]
    assert result.word_ids() == [None, 0, 1, 2, 3, 4, None]


def test_words_given_as_words(tokenizer: RemBertTokenizer) -> None:
    words = ["Ufaransa", "", "½", "[MASK]", "new york"]
    result = tokenizer(words, is_split_into_words=True, return_offsets_mapping=True, add_special_tokens=False)
    assert result["input_ids"] == [i for word in words for i in tokenizer.encode(word, add_special_tokens=False)]
    taken = [(words[word], span) for word, span in zip(result.word_ids(), result["offset_mapping"], strict=True)]
    assert "".join(word[start:end] for word, (start, end) in taken) == "Ufaransa½½½[MASK]newyork"
    assert result.word_ids()[-1] == 4
    assert result.word_to_tokens(1) is None  # the empty word
    batch = tokenizer([words, ["a"]], is_split_into_words=True)
    assert batch["input_ids"][1] == tokenizer("a")["input_ids"]
    assert batch.word_ids(1) == [None, 0, None]


def test_tokens_characters_and_words(tokenizer: RemBertTokenizer) -> None:
    first, second = "The capital", "of France"
    result = tokenizer(first, second)
    assert result.sequence_ids() == [None, 0, 0, None, 1, 1, 1, 1, None]  # … ▁of ▁F ran ce
    assert result.char_to_token(4) == 2
    assert result.char_to_token(0, 4) == 2
    assert result.char_to_token(3) is None  # the space
    assert result.char_to_token(0, 3, sequence_index=1) == 5
    assert result.token_to_chars(6) == (4, 7)
    assert result.token_to_chars(0) is None
    assert result.word_to_tokens(0, 1, sequence_index=1) == (5, 8)
    assert result.word_to_chars(0, 1, sequence_index=1) == (3, 9)
    assert result.token_to_word(6) == 1
    assert result.token_to_sequence(6) == 1
    assert result.char_to_word(5) == 1
    with pytest.raises(InputError, match="no token 9 in a row of 9"):
        result.token_to_chars(9)
    with pytest.raises(InputError, match="no row 1 in a batch of 1"):
        result.word_ids(1)


def test_arguments_and_ranges_have_the_names_of_transformers(tokenizer: RemBertTokenizer) -> None:
    result = tokenizer(["The capital", "France"])
    assert result.word_ids(batch_index=1) == result.word_ids(1)
    assert result.sequence_ids(batch_index=1) == result.sequence_ids(1)
    assert result.char_to_token(batch_or_char_index=1, char_index=0) == 1
    assert result.char_to_word(batch_or_char_index=0, char_index=4) == 1
    span = result.token_to_chars(batch_or_token_index=0, token_index=2)
    assert (span.start, span.end) == span == (4, 11)
    tokens = result.word_to_tokens(batch_or_word_index=0, word_index=1)
    assert (tokens.start, tokens.end) == tokens == (2, 3)
    assert result.word_to_chars(batch_or_word_index=0, word_index=1).start == 4
    assert result.token_to_word(batch_or_token_index=0, token_index=2) == 1
    assert result.token_to_sequence(batch_or_token_index=0, token_index=2) == 0


@pytest.mark.parametrize("side", ["left", "right"])
def test_alignment_knows_padding_and_windows(tokenizer: RemBertTokenizer, side: str) -> None:
    context = "one two three four five six seven eight"
    result = tokenizer(
        ["q", "q"], [context, "one"], truncation="only_second", max_length=9, stride=1, padding="max_length",
        return_overflowing_tokens=True, return_offsets_mapping=True, padding_side=side,
    )  # fmt: skip
    for row, ids in enumerate(result["input_ids"]):
        sequences, words = result.sequence_ids(row), result.word_ids(row)
        assert len(ids) == len(sequences) == len(words) == 9
        for token, (sequence, span) in enumerate(zip(sequences, result["offset_mapping"][row], strict=True)):
            assert result.token_to_chars(row, token) == (None if sequence is None else span)
    assert result["overflow_to_sample_mapping"][-1] == 1
    seen = {result.word_ids(row)[i] for row in range(len(result["input_ids"]) - 1) for i in range(9)
            if result.sequence_ids(row)[i] == 1}  # fmt: skip
    assert seen == set(range(8))


def test_a_pickled_result_keeps_its_alignment(tokenizer: RemBertTokenizer) -> None:
    result = tokenizer(["a b", "½ c"], padding=True, return_offsets_mapping=True)
    copied = pickle.loads(pickle.dumps(result))
    assert copied == result
    for row in range(2):
        assert copied.word_ids(row) == result.word_ids(row)
        assert copied.token_to_chars(row, 1) == result.token_to_chars(row, 1)


def test_a_text_is_aligned_once_for_all_its_windows(
    tokenizer: RemBertTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at = []

    def counted(model: SentencePieceModel, texts: list[str], ids: list[list[int]]) -> list[list[tuple[int, int]]]:
        looked_at.extend(texts)
        return token_spans(model, texts, ids)

    monkeypatch.setattr("rembert.common.tokenization.samples.token_spans", counted)
    text = "one two three four five six seven eight"
    result = tokenizer(text, truncation=True, max_length=5, stride=1, return_overflowing_tokens=True)
    rows = range(len(result["input_ids"]))
    words = [result.word_ids(row) for row in rows]
    assert len(rows) > 5
    assert looked_at == [text]
    assert [pickle.loads(pickle.dumps(result)).word_ids(row) for row in rows] == words


def test_a_pickled_batch_is_aligned_at_once(tokenizer: RemBertTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(*args: Any) -> list[list[tuple[int, int]]]:
        calls.append(args)
        return token_spans(*args)

    monkeypatch.setattr("rembert.common.tokenization.samples.token_spans", counted)
    pickle.dumps(tokenizer(TRICKY))
    assert len(calls) == 1


def test_a_result_without_text_says_so() -> None:
    result = RemBertTokenizer(MODEL).pad({"input_ids": [[1, 2]]})
    with pytest.raises(InputError, match="does not come from a text"):
        result.word_ids()
