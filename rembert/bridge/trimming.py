"""Vocabulary trimming: keep the pieces that some text needs, in the tokenizer and in every table together.

No framework is needed. Of the released model's 993M parameters with the pre-training head, the tables for 250,300
pieces are 481M; with 60,000 pieces kept they are 115M.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from rembert.bridge.atomic_directory import new_directory
from rembert.bridge.checkpoint import Checkpoint, open_checkpoint
from rembert.bridge.conversion import is_checkpoint, source_config
from rembert.bridge.matching import fit, require
from rembert.bridge.saving import save_checkpoint, target_format
from rembert.bridge.tensors import TensorSource
from rembert.common.arguments import check_argument, integer, optional
from rembert.common.config import RemBertConfig
from rembert.common.errors import CheckpointError, DataError, InputError
from rembert.common.files import read_json, write_json
from rembert.common.parameters import parameters
from rembert.common.text_lines import read_lines
from rembert.common.tokenization import RemBertTokenizer
from rembert.common.tokenization.pruning import required_pieces, select_pieces

_LINES_AT_ONCE = 1000
_HELD_OUT_EVERY = 10  # each tenth line is held out of the estimate of how much other text would change
_TOKEN_ID_KEYS = (
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
    "cls_token_id",
    "sep_token_id",
    "mask_token_id",
    "unk_token_id",
    "decoder_start_token_id",
)


@dataclass(frozen=True)
class Changed:
    """How many lines of a text the trimmed tokenizer cuts into other pieces, and how many pieces more or fewer."""

    lines: int
    changed: int
    pieces_before: int
    pieces_after: int


@dataclass(frozen=True)
class Trimming:
    """What `trim` did.

    Attributes:
        source, target: the paths.
        pieces_before, pieces_after: sizes of the vocabulary (the SentencePiece model and tokens added to it).
        parameters_before, parameters_after: numbers in the checkpoint.
        corpus: what changes in the corpus itself; None without one.
        held_out: what would change in text of the same kind: each tenth line of the corpus, cut by a vocabulary made
            from the other nine tenths. None without a corpus of ten lines or more.
        other: what changes in the text given as `other`; None without.
        files: names of the files written.
        seconds: how long it took.
    """

    source: Path
    target: Path
    pieces_before: int
    pieces_after: int
    parameters_before: int
    parameters_after: int
    corpus: Changed | None
    held_out: Changed | None
    other: Changed | None
    files: list[str]
    seconds: float


def trim(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    corpus: Sequence[str | os.PathLike[str]] = (),
    keep_pieces: str | os.PathLike[str] | None = None,
    min_count: int = 1,
    max_pieces: int | None = None,
    other: Sequence[str | os.PathLike[str]] = (),
    to: str = "pt",
    force: bool = False,
) -> Trimming:
    """Write the checkpoint `source` as a new directory `target` with a smaller vocabulary.

    Always kept are special and added tokens, single characters, and the ordinary pieces of lowest and highest score
    (see `required_pieces`). With the defaults, the trimmed tokenizer cuts every line of the corpus into the pieces of
    the original, and the trimmed model gives the original's outputs for them.

    Args:
        source: a checkpoint directory with its tokenizer.
        target: the directory to make.
        corpus: UTF-8 text files, gzip too, a text in each line: the pieces found are kept.
        keep_pieces: a UTF-8 file with a piece in each line (up to the first tab, so a `.vocab` file serves) to keep.
        min_count: keep a piece that the corpus has at least so often.
        max_pieces: keep at most so many pieces, the corpus' most frequent ones; of pieces that are as frequent, those
            with the lower ids.
        other: text files to report on: how many of their lines would be cut differently.
        to: one of `TARGETS`.
        force: replace a checkpoint that stands at `target`.

    Raises:
        InputError: an argument that cannot be used.
        DataError: a text file that cannot be read or is not UTF-8, or a listed token that the model lacks; names file
            and line.
        CheckpointError: the source is damaged, does not fit its config or its tokenizer, or has no tokenizer.
        TokenizerError: the tokenizer's files are damaged.
        MissingDependencyError: the source or the target needs torch, which is not installed.
        OSError: the disk is full or refuses.
    """
    started = time.perf_counter()
    source, target = Path(source), Path(target)
    _check_arguments(corpus, keep_pieces, min_count, max_pieces, to)
    replacement = new_directory(target, force=force, replaceable=is_checkpoint)
    with open_checkpoint(source) as checkpoint:
        config = source_config(checkpoint)
        found = fit(checkpoint, config)
        require(checkpoint, found)
        tokenizer = RemBertTokenizer.from_pretrained(checkpoint.directory)
        vocabulary = _Vocabulary(checkpoint, config, tokenizer)
        listed = vocabulary.ids_in(Path(keep_pieces)) if keep_pieces is not None else np.empty(0, np.int64)
        counts, counts_less = vocabulary.count(corpus)
        choose = partial(vocabulary.choose, listed=listed, min_count=min_count, max_pieces=max_pieces)
        kept = choose(counts)
        trimmed = vocabulary.trimmed(kept)

        small = RemBertConfig.from_dict({**config.to_dict(), "vocab_size": len(vocabulary.rows(kept))})
        _renumber(small.__dict__, vocabulary.numbers(kept))
        tensors = _trimmed_tensors(checkpoint, found.match.found, config, small, found.head, vocabulary.rows(kept))
        with replacement as directory:
            files = [path.name for path in save_checkpoint(directory, tensors, small, to=to, head=found.head)]
            files += [Path(path).name for path in trimmed.save_pretrained(directory)]
            files += _carry_generation_config(checkpoint.directory, directory, vocabulary.numbers(kept))

        held_out = None
        if counts_less is not None:
            kept_less = choose(counts_less)
            lines = islice(_texts(corpus), _HELD_OUT_EVERY - 1, None, _HELD_OUT_EVERY)
            held_out = vocabulary.compare(lines, vocabulary.trimmed(kept_less), kept_less)
        return Trimming(
            source=source,
            target=target,
            pieces_before=len(tokenizer),
            pieces_after=len(trimmed),
            parameters_before=sum(checkpoint.tensors[name].size for name in found.match.found.values()),
            parameters_after=sum(tensor.size for tensor in tensors.values()),
            corpus=vocabulary.compare(_texts(corpus), trimmed, kept) if corpus else None,
            held_out=held_out,
            other=vocabulary.compare(_texts(other), trimmed, kept) if other else None,
            files=files,
            seconds=time.perf_counter() - started,
        )


class _Vocabulary:
    """A checkpoint's tokenizer and the rows of its tables."""

    def __init__(self, checkpoint: Checkpoint, config: RemBertConfig, tokenizer: RemBertTokenizer) -> None:
        self._tokenizer = tokenizer
        self._directory = checkpoint.directory
        self.model = tokenizer.sentencepiece_model
        self._table_rows = config.vocab_size
        if len(tokenizer) > config.vocab_size:
            raise CheckpointError(
                f"{checkpoint.directory}: the tokenizer has more tokens than the model has rows. Received: "
                f"{len(tokenizer)} tokens and `vocab_size={config.vocab_size}`."
            )
        named = [getattr(config, key, None) for key in _TOKEN_ID_KEYS]
        ids = chain.from_iterable(value if isinstance(value, list) else [value] for value in named)
        special = {index for index in ids if isinstance(index, int)}
        special |= {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
        in_model = np.array(sorted(index for index in special if index < self.model.size), np.int64)
        self._required = np.union1d(required_pieces(self.model), in_model)

    def ids_in(self, path: Path) -> np.ndarray:
        """The ids of the pieces that a file lists."""
        found = []
        for line in read_lines(path, strict=True):
            token = line.text.split("\t")[0]
            index = self.model.find(token) if token else None
            if token and index is None:
                raise DataError(f"{path}:{line.number}: a token of the model was expected. Received: {token!r:.80}.")
            if index is not None:
                found.append(index)
        return np.unique(np.array(found, np.int64))

    def count(self, corpus: Sequence[str | os.PathLike[str]]) -> tuple[np.ndarray, np.ndarray | None]:
        """How often the corpus has each piece, [pieces]; and without each tenth line, None where it has under ten."""
        counts = np.zeros(len(self._tokenizer), np.int64)
        held_out = np.zeros_like(counts)
        number = 0
        for texts in _batches(_texts(corpus)):
            rows = self._encode(self._tokenizer, texts)
            counts += np.bincount(_flat(rows), minlength=len(counts))
            tenth = rows[(_HELD_OUT_EVERY - 1 - number) % _HELD_OUT_EVERY :: _HELD_OUT_EVERY]
            held_out += np.bincount(_flat(tenth), minlength=len(counts))
            number += len(texts)
        if corpus and not number:
            raise InputError(
                f"The corpus must hold text. Received: {', '.join(map(str, corpus))} without a line of it."
            )
        size = self.model.size
        return counts[:size], (counts - held_out)[:size] if number >= _HELD_OUT_EVERY else None

    def choose(self, counts: np.ndarray, *, listed: np.ndarray, min_count: int, max_pieces: int | None) -> np.ndarray:
        """The ids of the pieces to keep, ascending."""
        kept = np.union1d(self._required, listed)
        wanted = np.setdiff1d(np.flatnonzero(counts >= min_count), kept)
        if max_pieces is not None:
            if max_pieces < len(kept):
                raise InputError(
                    f"`max_pieces` must leave room for the {len(kept)} pieces that are always kept (special and added "
                    f"tokens, single characters, listed pieces). Received: `max_pieces={max_pieces}`."
                )
            most_frequent = wanted[np.argsort(-counts[wanted], kind="stable")]
            wanted = most_frequent[: max_pieces - len(kept)]
        return np.union1d(kept, wanted)

    def numbers(self, kept: np.ndarray) -> np.ndarray:
        """The new id of every old one, -1 for pieces that are gone. Rows beyond the model keep their order."""
        numbers = np.full(self._table_rows, -1, np.int64)
        rows = self.rows(kept)
        numbers[rows] = np.arange(len(rows))
        return numbers

    def rows(self, kept: np.ndarray) -> np.ndarray:
        """The rows of a table that stay: those of the kept pieces, and all beyond the model (added tokens)."""
        return np.concatenate([kept, np.arange(self.model.size, self._table_rows)])

    def trimmed(self, kept: np.ndarray) -> RemBertTokenizer:
        """The tokenizer with the kept pieces only, its other settings and added tokens as they were."""
        numbers = self.numbers(kept)
        with tempfile.TemporaryDirectory(prefix="rembert-trim-") as name:
            directory = Path(name)
            (directory / "sentencepiece.model").write_bytes(select_pieces(self.model, kept).content)
            self._tokenizer.save_pretrained(directory / "old")
            for file in ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"):
                if not (directory / "old" / file).is_file():
                    continue
                content = read_json(directory / "old" / file, CheckpointError)
                if file == "added_tokens.json":
                    content = {token: int(numbers[index]) for token, index in content.items()}
                elif "added_tokens_decoder" in content:
                    decoder = content["added_tokens_decoder"]
                    content["added_tokens_decoder"] = {str(numbers[int(key)]): value for key, value in decoder.items()}
                write_json(directory / file, content)
            return RemBertTokenizer.from_pretrained(directory)

    def compare(self, lines: Iterable[str], trimmed: RemBertTokenizer, kept: np.ndarray) -> Changed:
        """How many lines the trimmed tokenizer cuts differently."""
        numbers = self.numbers(kept)
        total = changed = before = after = 0
        for texts in _batches(lines):
            for old, new in zip(self._encode(self._tokenizer, texts), self._encode(trimmed, texts), strict=True):
                total += 1
                before += len(old)
                after += len(new)
                changed += not np.array_equal(numbers[old], new)
        return Changed(total, changed, before, after)

    @staticmethod
    def _encode(tokenizer: RemBertTokenizer, texts: list[str]) -> list[list[int]]:
        return tokenizer(texts, add_special_tokens=False)["input_ids"]


def _check_arguments(corpus: Sequence[Any], keep_pieces: Any, min_count: int, max_pieces: int | None, to: str) -> None:
    if isinstance(corpus, str | os.PathLike):
        raise InputError(f"`corpus` must be a list of files. Received: {corpus!r}.")
    if not corpus and keep_pieces is None:
        raise InputError("Either a corpus or a list of pieces must say what to keep. Received: neither.")
    check_argument("min_count", min_count, integer(at_least=1))
    check_argument("max_pieces", max_pieces, optional(integer(at_least=1)))
    target_format(to)


def _trimmed_tensors(
    checkpoint: Checkpoint,
    found: dict[str, str],
    config: RemBertConfig,
    small: RemBertConfig,
    head: str,
    rows: np.ndarray,
) -> dict[str, TensorSource]:
    """Every parameter; of those whose shape follows from the vocabulary, the rows that stay."""
    before, after = parameters(config, head, pooler=True), parameters(small, head, pooler=True)
    tensors = {}
    for name, stored in found.items():
        tensor = checkpoint.source(stored)
        if before[name].shape != after[name].shape:
            tensor = TensorSource(after[name].shape, tensor.dtype, partial(_rows, tensor, rows))
        tensors[name] = tensor
    return tensors


def _rows(tensor: TensorSource, rows: np.ndarray) -> np.ndarray:
    return tensor.read()[rows]


def _renumber(content: dict[str, Any], numbers: np.ndarray) -> None:
    """Give the ids of special pieces in a configuration their new numbers; one beyond the vocabulary stays."""
    for key in _TOKEN_ID_KEYS:
        value = content.get(key)
        if isinstance(value, list):
            content[key] = [int(numbers[index]) if index < len(numbers) else index for index in value]
        elif isinstance(value, int) and value < len(numbers):
            content[key] = int(numbers[value])


def _carry_generation_config(origin: Path, target: Path, numbers: np.ndarray) -> list[str]:
    name = "generation_config.json"
    if not (origin / name).is_file():
        return []
    content = read_json(origin / name, CheckpointError)
    _renumber(content, numbers)
    (target / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return [name]


def _texts(paths: Sequence[str | os.PathLike[str]]) -> Iterator[str]:
    """The lines of text files without blank ones; raises what `read_lines` does."""
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
