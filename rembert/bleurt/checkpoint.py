"""The checkpoint of a metric: BLEURT's SavedModel, as a directory or a ZIP archive, or a converted one.

Sizes come from `bert_config.json` and the variables, the maximum length from `bleurt_config.json`. A checkpoint that
is not a RemBERT with one regression output is refused before any work.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from rembert.bleurt.regressors import HEAD
from rembert.bridge import Checkpoint, TensorSource, open_checkpoint
from rembert.bridge.archive import DAMAGE
from rembert.bridge.matching import match_checkpoint, require_match
from rembert.bridge.registry import locate_checkpoint
from rembert.bridge.shards import MAX_NAME, is_file_name
from rembert.common.arguments import check_argument, integer, optional
from rembert.common.config import RemBertConfig
from rembert.common.errors import CheckpointError, RemBertError, TokenizerError
from rembert.common.files import naming_path, read_json_object, temporary_directory
from rembert.common.name_matching import canonical_name
from rembert.common.tokenization import RemBertTokenizer

BLEURT_CONFIG = "bleurt_config.json"
SHORTEST = 4  # [CLS], two [SEP] and one token

_MAPPING = "rembert.encoder.embedding_hidden_mapping_in.weight"
# The files to extract from an archive: graph, variables, configurations, tokenizer.
_WANTED_SUFFIXES = (".json", ".pb", ".model", ".index", ".safetensors", ".bin", ".h5")


@dataclass(frozen=True)
class MetricCheckpoint:
    """A checked checkpoint of a metric.

    Attributes:
        directory: of its files; a temporary one for an archive.
        name: from its settings, or else of its directory or archive.
        config: the model's configuration.
        tokenizer: gives the SentencePiece ids.
        max_length: the maximum length of an input in tokens, [CLS] and both [SEP] included.
        fingerprint: a digest of the configuration, the tokenizer and the last layers' weights, which any fine-tuning
            changes.
    """

    directory: Path
    name: str
    config: RemBertConfig
    tokenizer: RemBertTokenizer
    max_length: int
    fingerprint: bytes


@contextmanager
def open_metric(path: str | os.PathLike[str], *, max_length: int | None = None) -> Iterator[MetricCheckpoint]:
    """Open a metric's checkpoint: a directory, a ZIP archive, or a name on the Hugging Face Hub.

    An archive is extracted into a temporary directory, which is removed at the end of the context; a model loaded from
    it stays valid.

    Args:
        path: of the checkpoint.
        max_length: the maximum length of an input in tokens, instead of the checkpoint's own.

    Raises:
        CheckpointError: there is no checkpoint, it is damaged, or it is not a RemBERT with one regression output; the
            message names the older BLEURT checkpoints, which are BERTs.
        InputError: the model has fewer positions than `max_length`.
        TokenizerError: it has no SentencePiece model, or one with more tokens than the embedding table has rows.
    """
    path = locate_checkpoint(path)
    if path.is_file() and path.suffix.lower() == ".zip":
        with temporary_directory("metric") as directory:
            try:
                yield _read(_unpack(path, directory), path.stem, max_length)
            except RemBertError as problem:
                problem.args = (str(problem).replace(str(directory), str(path)),)  # the user knows the archive
                raise
    else:
        yield _read(path, path.name, max_length)


def _read(path: Path, name: str, max_length: int | None) -> MetricCheckpoint:
    with open_checkpoint(path) as checkpoint:
        settings = _settings(checkpoint.directory)
        _require_rembert(checkpoint, settings)
        config = _require_regressor(checkpoint)
        weights = hashlib.blake2b(config.to_json_string(use_diff=False).encode())
        for tensor, source in sorted(_canonical(checkpoint).items()):
            if tensor.startswith(("classifier.", "rembert.pooler.")):
                weights.update(np.ascontiguousarray(source.read()).tobytes())
        directory = checkpoint.directory
    tokenizer = _tokenizer(directory, settings, config)
    positions = config.max_position_embeddings
    length = integer(at_least=SHORTEST)
    check_argument("max_length", max_length, optional(integer(at_least=SHORTEST, at_most=positions)))
    longest = settings.get("max_seq_length", positions)
    if not length.accepts(longest):
        raise CheckpointError(
            f"{directory / BLEURT_CONFIG}: `max_seq_length` must be {length.wording}. Received: {longest!r:.60}."
        )
    stated = settings.get("name")
    return MetricCheckpoint(
        directory=directory,
        name=stated if isinstance(stated, str) and stated else name,
        config=config,
        tokenizer=tokenizer,
        max_length=min(longest, positions) if max_length is None else max_length,
        fingerprint=weights.digest() + hashlib.blake2b(tokenizer.sentencepiece_model.content).digest(),
    )


def _settings(directory: Path) -> dict[str, Any]:
    """The content of `bleurt_config.json`; empty if there is no such file."""
    file = directory / BLEURT_CONFIG
    return read_json_object(file, CheckpointError) if file.is_file() else {}


def _require_rembert(checkpoint: Checkpoint, settings: dict[str, Any]) -> None:
    has_wordpieces = settings.get("vocab_file") is not None and settings.get("sp_model") is None
    if has_wordpieces or _MAPPING not in _canonical(checkpoint):
        reason = "its tokens are WordPieces" if has_wordpieces else "its embeddings are as wide as its layers"
        raise CheckpointError(
            f"{checkpoint.path} is not a RemBERT: {reason}, as in the BLEURT checkpoints before BLEURT-20, which are "
            "BERTs. Use BLEURT-20, or one of its distilled versions D12, D6 and D3."
        )


def _require_regressor(checkpoint: Checkpoint) -> RemBertConfig:
    config = checkpoint.config
    if config is None:
        raise CheckpointError(
            f"{checkpoint.directory} must have a configuration. Put its bert_config.json (or config.json) beside the "
            "weights."
        )
    found = match_checkpoint(checkpoint, config)
    shape = next((info.shape for name, info in _canonical(checkpoint).items() if name == "classifier.weight"), None)
    if found.head != HEAD or shape is None:
        raise CheckpointError(
            f"{checkpoint.path} is not a regressor: a metric has one output after the pooler (`classifier.weight`). "
            f"Received: a {found.head} model{'' if shape is not None else ' without that layer'}. Fine-tune it on "
            "ratings first."
        )
    if shape[0] != 1 or config.problem_type not in (None, "regression"):
        raise CheckpointError(
            f"{checkpoint.path} is not a regressor: a metric has one output. Received: a classifier with "
            f"{shape[0]} outputs and `problem_type={config.problem_type!r}`."
        )
    require_match(checkpoint, found)
    return config


def _canonical(checkpoint: Checkpoint) -> dict[str, TensorSource]:
    return {canonical_name(name) or name: checkpoint.source(name) for name in checkpoint.tensors}


def _tokenizer(directory: Path, settings: dict[str, Any], config: RemBertConfig) -> RemBertTokenizer:
    named = settings.get("sp_model")
    if isinstance(named, str) and not is_file_name(f"{named}.model"):
        raise CheckpointError(
            f"{directory / BLEURT_CONFIG}: `sp_model` must be the name of a file beside it, without `.model`. "
            f"Received: {named!r:.100}."
        )
    if isinstance(named, str) and (directory / f"{named}.model").is_file():
        tokenizer = RemBertTokenizer(directory / f"{named}.model")
    else:
        try:
            tokenizer = RemBertTokenizer.from_pretrained(directory)
        except TokenizerError as problem:
            expected = f"{named}.model" if isinstance(named, str) else "sent_piece.model or sentencepiece.model"
            raise TokenizerError(
                f"{directory} must have a SentencePiece model, which defines the token ids. Put "
                f"{expected} of the checkpoint there. ({problem})"
            ) from None
    size = tokenizer.sentencepiece_model.size
    if size > config.vocab_size:
        raise TokenizerError(
            f"{tokenizer.sentencepiece_model.source} must fit the model's embedding table. Received: {size} tokens "
            f"for a table of {config.vocab_size} rows. Is it the file of another checkpoint?"
        )
    return tokenizer


# ---------------------------------------------------------------------- archives


def _unpack(path: Path, target: Path) -> Path:
    """Extract a checkpoint's files into `target`, and return it."""
    try:
        with zipfile.ZipFile(path) as archive:
            infos = _members(path, archive)
            roots = sorted({root for name in infos if (root := _root(name)) is not None}, key=lambda r: len(r.parts))
            if not roots:
                raise CheckpointError(f"{path} must hold a checkpoint. Received: no variables/variables.index in it.")
            wanted = {name: info for name, info in infos.items() if _is_wanted(name, roots[0])}
            _check_space(path, target, sum(info.file_size for info in wanted.values()))
            for name, info in wanted.items():
                file = target.joinpath(*name.relative_to(roots[0]).parts)
                file.parent.mkdir(parents=True, exist_ok=True)
                with naming_path(file), archive.open(info) as packed, file.open("wb") as written:
                    shutil.copyfileobj(packed, written, 1 << 20)  # checks the checksum at the end
    except CheckpointError:
        raise
    except DAMAGE as problem:
        raise CheckpointError(f"{path} cannot be extracted, or is not a valid ZIP archive: {problem}.") from None
    return target


def _members(path: Path, archive: zipfile.ZipFile) -> dict[PurePosixPath, zipfile.ZipInfo]:
    found: dict[PurePosixPath, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        archive.open(info).close()  # compares the name with the member's own: one that is damaged would be missing
        name = PurePosixPath(info.filename)
        if info.is_dir():
            continue
        if name in found:
            raise CheckpointError(f"{path}: member `{info.filename:.200}` occurs twice.")
        if max((len(os.fsencode(part)) for part in name.parts), default=0) > MAX_NAME:
            raise CheckpointError(
                f"{path}: a file's name must have at most {MAX_NAME} bytes. Received: `{info.filename:.100}…`."
            )
        found[name] = info
    return found


def _root(name: PurePosixPath) -> PurePosixPath | None:
    """The checkpoint's directory if `name` is its main file, else None."""
    if name.parts[-2:] == ("variables", "variables.index"):
        return name.parent.parent
    return name.parent if name.name in ("model.safetensors", "model.safetensors.index.json") else None


def _is_wanted(name: PurePosixPath, root: PurePosixPath) -> bool:
    if name.is_absolute() or ".." in name.parts or not name.is_relative_to(root):
        return False
    inside = name.relative_to(root)
    is_variable = inside.parts[0] == "variables" and len(inside.parts) == 2
    return is_variable or (len(inside.parts) == 1 and inside.suffix in _WANTED_SUFFIXES)


def _check_space(path: Path, target: Path, size: int) -> None:
    free = shutil.disk_usage(target).free
    if size > free:
        raise CheckpointError(
            f"{path} needs {size:,} bytes of disk space to be extracted. Received: {free:,} free in {target.parent}. "
            "Extract it elsewhere and pass its directory, or set TMPDIR to a larger disk."
        )
