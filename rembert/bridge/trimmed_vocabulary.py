"""A vocabulary to trim: count its tokens in text, select those to keep, and create the smaller tokenizer."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np

from rembert.common.errors import CheckpointError, DataError, InputError
from rembert.common.files import naming_path, read_json, temporary_directory, write_json
from rembert.common.text_lines import read_lines
from rembert.common.tokenization import RemBertTokenizer
from rembert.common.tokenization.pruning import required_tokens, select_tokens

# Each tenth line is held out for the estimate of how much other text would change.
HELD_OUT_EVERY = 10
_LINES_AT_ONCE = 1000


@dataclass(frozen=True)
class Changed:
    """The lines of a text that the trimmed tokenizer splits into other tokens, and the numbers of tokens.

    Attributes:
        lines: lines in all.
        changed: lines that are split into other tokens than before.
        tokens_before, tokens_after: tokens of all lines.
    """

    lines: int
    changed: int
    tokens_before: int
    tokens_after: int


class Vocabulary:
    """The tokens of a tokenizer and the rows of a model's tables.

    The ids of the SentencePiece model come first; rows beyond them belong to added tokens or are unused.
    """

    def __init__(self, tokenizer: RemBertTokenizer, rows: int, special_ids: Iterable[int]) -> None:
        """Take a tokenizer with the vocabulary of a model.

        Args:
            tokenizer: the tokenizer.
            rows: of the model's tables.
            special_ids: ids that are always kept, beside the tokenizer's own special and added tokens.
        """
        self._tokenizer = tokenizer
        self._model = tokenizer.sentencepiece_model
        self._rows = rows
        always = {*special_ids, *tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
        in_model = np.array(sorted(index for index in always if index < self._model.size), np.int64)
        self._required = np.union1d(required_tokens(self._model), in_model)

    def listed_ids(self, path: Path) -> np.ndarray:
        """The ids of the tokens that a file lists, one in a line, up to the first tab.

        Raises:
            DataError: the file cannot be read, or lists a token that the model lacks; names file and line.
        """
        found = []
        for line in read_lines(path, strict=True):
            token = line.text.split("\t")[0]
            index = self._model.find(token) if token else None
            if token and index is None:
                raise DataError(f"{path}:{line.number}: a token of the model was expected. Received: {token!r:.80}.")
            if index is not None:
                found.append(index)
        return np.unique(np.array(found, np.int64))

    def counts(self, corpus: Sequence[str | os.PathLike[str]]) -> tuple[np.ndarray, np.ndarray | None]:
        """The number of occurrences of each token of the model in text files.

        Returns:
            [tokens] the counts, and [tokens] the counts without each tenth line, None for a corpus under ten lines.

        Raises:
            InputError: the files hold no text.
        """
        counts = np.zeros(len(self._tokenizer), np.int64)
        held_out = np.zeros_like(counts)
        number = 0
        for texts in _batches(nonblank_lines(corpus)):
            rows = self._encode(self._tokenizer, texts)
            counts += np.bincount(_flat(rows), minlength=len(counts))
            tenth = rows[(HELD_OUT_EVERY - 1 - number) % HELD_OUT_EVERY :: HELD_OUT_EVERY]
            held_out += np.bincount(_flat(tenth), minlength=len(counts))
            number += len(texts)
        if corpus and not number:
            raise InputError(f"`corpus` must hold text. Received: blank lines only in {', '.join(map(str, corpus))}.")
        size = self._model.size
        return counts[:size], (counts - held_out)[:size] if number >= HELD_OUT_EVERY else None

    def choose(self, counts: np.ndarray, *, listed: np.ndarray, min_count: int, max_tokens: int | None) -> np.ndarray:
        """The ids of the tokens to keep, ascending.

        Args:
            counts: [tokens] from `counts`.
            listed: ids that are kept in any case.
            min_count: keep tokens that occur at least this often.
            max_tokens: keep at most this many tokens in all; None for no limit.

        Raises:
            InputError: `max_tokens` is less than the number of tokens that are always kept.
        """
        kept = np.union1d(self._required, listed)
        wanted = np.setdiff1d(np.flatnonzero(counts >= min_count), kept)
        if max_tokens is not None:
            if max_tokens < len(kept):
                raise InputError(
                    f"`max_tokens` must be at least {len(kept)}, the number of tokens that are always kept (special "
                    "and added tokens, single characters, listed tokens). Received: "
                    f"`max_tokens={max_tokens}`."
                )
            most_frequent = wanted[np.argsort(-counts[wanted], kind="stable")]
            wanted = most_frequent[: max_tokens - len(kept)]
        return np.union1d(kept, wanted)

    def new_ids(self, kept: np.ndarray) -> np.ndarray:
        """The new id of each row [rows], -1 for tokens that are dropped."""
        ids = np.full(self._rows, -1, np.int64)
        rows = self.kept_rows(kept)
        ids[rows] = np.arange(len(rows))
        return ids

    def kept_rows(self, kept: np.ndarray) -> np.ndarray:
        """The rows of a table to keep: those of the kept tokens, and all rows beyond the model."""
        return np.concatenate([kept, np.arange(self._model.size, self._rows)])

    def trimmed(self, kept: np.ndarray) -> RemBertTokenizer:
        """The tokenizer with the kept tokens only; its settings and added tokens stay."""
        ids = self.new_ids(kept)
        with temporary_directory("trim") as directory, naming_path(directory):
            (directory / "sentencepiece.model").write_bytes(select_tokens(self._model, kept).content)
            self._tokenizer.save_pretrained(directory / "old")
            for file in ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"):
                if not (directory / "old" / file).is_file():
                    continue
                content = read_json(directory / "old" / file, CheckpointError)
                if file == "added_tokens.json":
                    content = {token: int(ids[index]) for token, index in content.items()}
                elif "added_tokens_decoder" in content:
                    decoder = content["added_tokens_decoder"]
                    content["added_tokens_decoder"] = {str(ids[int(key)]): value for key, value in decoder.items()}
                write_json(directory / file, content)
            return RemBertTokenizer.from_pretrained(directory)

    def changes(self, lines: Iterable[str], kept: np.ndarray, trimmed: RemBertTokenizer) -> Changed:
        """How many lines the tokenizer `trimmed(kept)` splits into other tokens."""
        ids = self.new_ids(kept)
        total = changed = before = after = 0
        for texts in _batches(lines):
            for old, new in zip(self._encode(self._tokenizer, texts), self._encode(trimmed, texts), strict=True):
                total += 1
                before += len(old)
                after += len(new)
                changed += not np.array_equal(ids[old], new)
        return Changed(total, changed, before, after)

    @staticmethod
    def _encode(tokenizer: RemBertTokenizer, texts: list[str]) -> list[list[int]]:
        return tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]


def nonblank_lines(paths: Sequence[str | os.PathLike[str]]) -> Iterator[str]:
    """The lines of text files without blank ones.

    Raises:
        DataError: a file cannot be read, or a line is not UTF-8; names file and line.
    """
    for path in paths:
        for line in read_lines(path, strict=True):
            if line.text.strip():
                yield line.text


def _batches(lines: Iterable[str]) -> Iterator[list[str]]:
    remaining = iter(lines)
    while batch := list(islice(remaining, _LINES_AT_ONCE)):
        yield batch


def _flat(rows: list[list[int]]) -> np.ndarray:
    return np.fromiter(chain.from_iterable(rows), np.int64)
