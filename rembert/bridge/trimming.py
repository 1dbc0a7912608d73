"""Vocabulary trimming: keep the tokens that some text needs, in the tokenizer and in every table together.

No framework is needed. Of the released model's 993M parameters with the pre-training head, the tables of 250,300
tokens are 481M; with 60,000 tokens they are 115M.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from rembert.bridge.atomic_directory import new_directory
from rembert.bridge.checkpoint import Checkpoint, open_checkpoint
from rembert.bridge.conversion import is_checkpoint, source_config
from rembert.bridge.matching import CheckpointMatch, match_checkpoint, require_match
from rembert.bridge.registry import locate_checkpoint
from rembert.bridge.saving import save_checkpoint, target_format
from rembert.bridge.tensors import TensorSource
from rembert.bridge.trimmed_vocabulary import HELD_OUT_EVERY, Changed, Vocabulary, nonblank_lines
from rembert.common.arguments import check_argument, integer, optional
from rembert.common.config import RemBertConfig
from rembert.common.errors import CheckpointError, InputError
from rembert.common.files import read_json, write_json
from rembert.common.parameters import parameters
from rembert.common.tokenization import RemBertTokenizer

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
class Trimming:
    """The report of `trim`.

    Attributes:
        source, target: the paths.
        tokens_before, tokens_after: sizes of the vocabulary (the SentencePiece model and added tokens).
        parameters_before, parameters_after: numbers in the checkpoint.
        corpus: the changes in the corpus itself; None without one.
        held_out: an estimate of the changes in other text of the same kind: in each tenth line of the corpus, with the
            vocabulary of the other lines. None without a corpus of ten lines or more.
        other: the changes in the text given as `other`; None without.
        files: names of the files written.
        seconds: the duration.
    """

    source: Path
    target: Path
    tokens_before: int
    tokens_after: int
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
    keep_tokens: str | os.PathLike[str] | None = None,
    min_count: int = 1,
    max_tokens: int | None = None,
    other: Sequence[str | os.PathLike[str]] = (),
    to: str = "pt",
    force: bool = False,
) -> Trimming:
    """Write the checkpoint `source` as a new directory `target` with a smaller vocabulary.

    Special and added tokens, single characters, and the ordinary tokens of lowest and highest score are always kept
    (see `required_tokens`). With the defaults, the trimmed tokenizer splits every line of the corpus as the original
    does, and the trimmed model computes the original's outputs for it.

    Args:
        source: a checkpoint directory with its tokenizer.
        target: the new directory.
        corpus: UTF-8 text files, gzip too, a text in each line: the tokens that occur are kept.
        keep_tokens: a UTF-8 file with a token to keep in each line (up to the first tab, as in a `.vocab` file).
        min_count: keep a token that occurs at least this often in the corpus.
        max_tokens: keep at most this many tokens, the most frequent ones; among equally frequent tokens, those with
            lower ids.
        other: text files to report on: how many of their lines would be split into other tokens.
        to: one of `TARGETS`.
        force: replace an existing checkpoint at `target`.

    Raises:
        InputError: an argument is invalid, or `target` exists.
        DataError: a text file cannot be read or is not UTF-8, or the model lacks a listed token; names file and line.
        CheckpointError: the source is damaged, does not fit its config or its tokenizer, or has no tokenizer.
        TokenizerError: the tokenizer's files are damaged.
        MissingDependencyError: the source or the target needs a package that is not installed.
        OSError: the disk is full or not writable.

    Example:
        >>> from pathlib import Path
        >>> _ = Path("corpus.txt").write_text("Moja habari\\nhabari gani\\n", encoding="utf-8")
        >>> done = trim("google/rembert", "small", corpus=["corpus.txt"])
        >>> done.tokens_after < done.tokens_before, done.corpus.changed
        (True, 0)
    """
    started = time.perf_counter()
    source, target = locate_checkpoint(source), Path(target)
    _check_arguments(corpus, keep_tokens, min_count, max_tokens, to)
    replacement = new_directory(target, force=force, replaceable=is_checkpoint)
    with open_checkpoint(source) as checkpoint:
        config = source_config(checkpoint)
        found = match_checkpoint(checkpoint, config)
        require_match(checkpoint, found)
        tokenizer = RemBertTokenizer.from_pretrained(checkpoint.directory)
        vocabulary = _vocabulary(checkpoint, config, tokenizer)
        listed = vocabulary.listed_ids(Path(keep_tokens)) if keep_tokens is not None else np.empty(0, np.int64)
        counts, counts_of_most = vocabulary.counts(corpus)
        choose = partial(vocabulary.choose, listed=listed, min_count=min_count, max_tokens=max_tokens)
        kept = choose(counts)
        new_ids, rows = vocabulary.new_ids(kept), vocabulary.kept_rows(kept)
        trimmed = vocabulary.trimmed(kept)

        small = RemBertConfig.from_dict({**config.to_dict(), "vocab_size": len(rows)})
        _renumber(small.__dict__, new_ids)
        tensors = _trimmed_tensors(checkpoint, found, config, small, rows)
        with replacement as directory:
            files = [path.name for path in save_checkpoint(directory, tensors, small, to=to, head=found.head)]
            files += [Path(path).name for path in trimmed.save_pretrained(directory)]
            files += _copy_generation_config(checkpoint.directory, directory, new_ids)

        held_out = None
        if counts_of_most is not None:
            tenth_lines = islice(nonblank_lines(corpus), HELD_OUT_EVERY - 1, None, HELD_OUT_EVERY)
            kept_by_most = choose(counts_of_most)
            held_out = vocabulary.changes(tenth_lines, kept_by_most, vocabulary.trimmed(kept_by_most))
        return Trimming(
            source=source,
            target=target,
            tokens_before=len(tokenizer),
            tokens_after=len(trimmed),
            parameters_before=sum(checkpoint.tensors[name].size for name in found.match.found.values()),
            parameters_after=sum(tensor.size for tensor in tensors.values()),
            corpus=vocabulary.changes(nonblank_lines(corpus), kept, trimmed) if corpus else None,
            held_out=held_out,
            other=vocabulary.changes(nonblank_lines(other), kept, trimmed) if other else None,
            files=files,
            seconds=time.perf_counter() - started,
        )


def _check_arguments(corpus: Sequence[Any], keep_tokens: Any, min_count: int, max_tokens: int | None, to: str) -> None:
    if isinstance(corpus, str | os.PathLike):
        raise InputError(f"`corpus` must be a list of files. Received: `corpus={corpus!r}`.")
    if not corpus and keep_tokens is None:
        raise InputError("`corpus` or `keep_tokens` must be given: they name the tokens to keep. Received: neither.")
    check_argument("min_count", min_count, integer(at_least=1))
    check_argument("max_tokens", max_tokens, optional(integer(at_least=1)))
    target_format(to)


def _vocabulary(checkpoint: Checkpoint, config: RemBertConfig, tokenizer: RemBertTokenizer) -> Vocabulary:
    if len(tokenizer) > config.vocab_size:
        raise CheckpointError(
            f"{checkpoint.directory}: the tokenizer has more tokens than the model has rows. Received: "
            f"{len(tokenizer)} tokens and `vocab_size={config.vocab_size}`."
        )
    values = [getattr(config, key, None) for key in _TOKEN_ID_KEYS]
    ids = chain.from_iterable(value if isinstance(value, list) else [value] for value in values)
    return Vocabulary(tokenizer, config.vocab_size, (index for index in ids if isinstance(index, int)))


def _trimmed_tensors(
    checkpoint: Checkpoint, found: CheckpointMatch, config: RemBertConfig, small: RemBertConfig, rows: np.ndarray
) -> dict[str, TensorSource]:
    """Every parameter; for a table over the vocabulary, the rows to keep."""
    before, after = (parameters(each, found.head, pooler=True) for each in (config, small))
    tensors = {}
    for name, stored in found.match.found.items():
        tensor = checkpoint.source(stored)
        if before[name].shape != after[name].shape:
            tensor = TensorSource(after[name].shape, tensor.dtype, partial(_read_rows, tensor, rows))
        tensors[name] = tensor
    return tensors


def _read_rows(tensor: TensorSource, rows: np.ndarray) -> np.ndarray:
    return tensor.read()[rows]


def _renumber(content: dict[str, Any], new_ids: np.ndarray) -> None:
    """Replace the ids of special tokens in a configuration by their new ids; an id beyond the vocabulary stays."""
    for key in _TOKEN_ID_KEYS:
        value = content.get(key)
        if isinstance(value, list):
            content[key] = [int(new_ids[index]) if index < len(new_ids) else index for index in value]
        elif isinstance(value, int) and value < len(new_ids):
            content[key] = int(new_ids[value])


def _copy_generation_config(origin: Path, target: Path, new_ids: np.ndarray) -> list[str]:
    name = "generation_config.json"
    if not (origin / name).is_file():
        return []
    content = read_json(origin / name, CheckpointError)
    _renumber(content, new_ids)
    write_json(target / name, content)
    return [name]
