"""A SentencePiece Unigram model: its pieces, its normaliser, and text to ids.

The file is a protocol buffer (`ModelProto` in SentencePiece's `sentencepiece_model.proto`): first all pieces (field
1), then the trainer's settings (field 2) and the normaliser's (field 3). What one call needs for all pieces comes from
SentencePiece in one call; no table of pieces is made when a model is loaded.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import sentencepiece

from rembert.common.errors import InputError, TokenizerError

MARKER = "▁"  # U+2581, how SentencePiece writes the space before a word

NORMAL, UNKNOWN, CONTROL, USER_DEFINED = 1, 2, 3, 4  # ModelProto.SentencePiece.Type
_UNIGRAM = 1  # TrainerSpec.ModelType
_MODEL_TYPES = {1: "Unigram", 2: "BPE", 3: "word", 4: "character"}

# A batch call of SentencePiece starts threads, which takes 0.23 ms for any batch, and then uses all cores;
# calls for single texts take 0.09 µs a character on one, and 1.4 µs a text, as much as 16 characters. On two cores
# both take as long for this many characters.
_THREADS_FROM_CHARACTERS = 5000
_CHARACTERS_PER_CALL = 16


class PieceShapes(NamedTuple):
    """What offsets need to know of every piece, as arrays of shape [pieces]."""

    lengths: np.ndarray  # in characters
    leading: np.ndarray  # how many space markers a piece starts with
    markers: np.ndarray  # how many space markers it holds


class SentencePieceModel:
    """A loaded Unigram model. It never changes, so copies share it; a pickle holds the file's content."""

    def __init__(self, content: bytes, source: str) -> None:
        """Load a model.

        Args:
            content: the bytes of a `sentencepiece.model`.
            source: where they come from, for messages.

        Raises:
            TokenizerError: the content is damaged, or is not a Unigram model that RemBERT can use.
        """
        self.content = content
        self.source = source
        self._specs = _specs_of(content, source)
        model_type = self._specs.trainer_spec.model_type
        if model_type != _UNIGRAM:
            raise TokenizerError(
                f"RemBERT's tokenizer is a SentencePiece Unigram model. Received: {source}, which is a "
                f"{_MODEL_TYPES.get(model_type, model_type)} model. Train one with `model_type=unigram`."
            )
        if self._specs.trainer_spec.byte_fallback:
            raise TokenizerError(
                f"RemBERT's tokenizer has no byte pieces. Received: {source}, trained with `byte_fallback=true`."
            )
        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(content)
        except RuntimeError as problem:
            raise TokenizerError(f"{source} is not a complete SentencePiece model: {problem}.") from problem
        self.size: int = self._processor.GetPieceSize()
        self.unk_id: int = self._processor.unk_id()

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> SentencePieceModel:
        """Load a `sentencepiece.model`; `TokenizerError`, naming the file, when it is missing or damaged."""
        return cls(read_bytes(path), str(path))

    def __getstate__(self) -> dict[str, Any]:
        return {"content": self.content, "source": self.source}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["content"], state["source"])  # type: ignore[misc]

    def __copy__(self) -> SentencePieceModel:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> SentencePieceModel:
        return self

    # Pieces

    def piece(self, index: int) -> str:
        """The piece with an id in [0, size)."""
        return self.pieces_of([index])[0]

    def pieces_of(self, indices: list[int]) -> list[str]:
        """The pieces of several ids in [0, size); `TokenizerError`, naming the file, when one is no text."""
        try:
            return self._processor.IdToPiece(indices)
        except UnicodeDecodeError as problem:  # SentencePiece itself does not look
            raise TokenizerError(
                f"{self.source} is damaged: a piece is not UTF-8 ({problem}). Fetch it again."
            ) from None

    def find(self, piece: str) -> int | None:
        """The id of a piece, or None where the model has no such piece."""
        try:
            index = self._processor.PieceToId(piece)
        except (RuntimeError, TypeError):  # a lone surrogate: no piece holds one
            return None
        return None if index == self.unk_id and self.piece(index) != piece else index

    @property
    def pieces(self) -> list[str]:
        """All pieces in the order of their ids, read anew at each use."""
        return self.pieces_of(list(range(self.size)))

    @property
    def scores(self) -> list[float]:
        """All scores (natural logarithms of probabilities) in the order of the ids, read anew at each use."""
        return self._processor.GetScore(list(range(self.size)))

    @cached_property
    def pad_id(self) -> int | None:
        """The id of the piece that pads: what the trainer was told, else `<pad>`, else `[PAD]`, else None."""
        index = self._processor.pad_id()
        if index >= 0:
            return index
        found = (self.find(piece) for piece in ("<pad>", "[PAD]"))
        return next((index for index in found if index is not None), None)

    @cached_property
    def shapes(self) -> PieceShapes:
        """Lengths and markers of all pieces; made when offsets or words are first asked for."""
        return shapes_of(self.pieces)

    # The normaliser

    @property
    def normalizer_spec(self) -> Any:
        """The `NormalizerSpec` message: `precompiled_charsmap`, `add_dummy_prefix`, `remove_extra_whitespaces`."""
        return self._specs.normalizer_spec

    @property
    def splits_at_spaces(self) -> bool:
        """Whether no piece reaches over a space into the next word (asked when a `tokenizer.json` is written)."""
        return bool((self.shapes.markers == self.shapes.leading).all())

    def normalize(self, texts: list[str]) -> list[str]:
        """Each text in the form that is split: normalised, spaces as markers."""
        return self._processor.Normalize(texts)

    def normalize_with_origins(self, text: str) -> tuple[str, np.ndarray]:
        """The normalised text, and for each of its n characters where in `text` it comes from.

        The array has n + 1 entries and never decreases; the last one is the end of what was kept of `text`.
        """
        normalized, origins = self._processor.Normalize(text, with_offsets=True)
        return normalized, np.array(origins, np.int64)

    # Text to ids

    def encode(self, texts: list[str]) -> list[list[int]]:
        """The ids of each text, as SentencePiece gives them.

        Raises:
            InputError: a text holds a lone surrogate, which no encoding of Unicode can hold.
        """
        try:
            if sum(map(len, texts)) + _CHARACTERS_PER_CALL * len(texts) < _THREADS_FROM_CHARACTERS:
                return [self._processor.Encode(text) for text in texts]
            return self._processor.Encode(texts)
        except (RuntimeError, TypeError) as problem:
            _refuse_surrogates(texts)
            raise InputError(f"SentencePiece cannot encode this text: {problem}.") from problem

    def encode_as_pieces(self, text: str) -> list[str]:
        """The pieces of a text; an unknown piece is the normalised text that it stands for."""
        try:
            return self._processor.Encode(text, out_type=str)
        except (RuntimeError, TypeError) as problem:
            _refuse_surrogates([text])
            raise InputError(f"SentencePiece cannot encode this text: {problem}.") from problem


def shapes_of(pieces: Sequence[str]) -> PieceShapes:
    """The lengths and marker counts of some pieces."""
    count = len(pieces)
    lengths = np.fromiter(map(len, pieces), np.int64, count)
    leading = np.fromiter((len(piece) - len(piece.lstrip(MARKER)) for piece in pieces), np.int64, count)
    markers = np.fromiter((piece.count(MARKER) for piece in pieces), np.int64, count)
    return PieceShapes(lengths, leading, markers)


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The content of a file; `TokenizerError`, naming it, when there is none or it cannot be read."""
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise TokenizerError(f"There is no file {path}.") from None
    except OSError as problem:
        raise TokenizerError(f"{path} cannot be read: {problem.strerror or problem}.") from problem


def build_model(
    pieces: Sequence[tuple[str, float, int]],
    *,
    charsmap: bytes,
    dummy_prefix: bool,
    collapse_spaces: bool,
    source: str,
) -> SentencePieceModel:
    """Make a Unigram model from its parts.

    Args:
        pieces: (piece, score, type) in the order of the ids; exactly one of type `UNKNOWN`.
        charsmap: the compiled rules of the normaliser, empty for none.
        dummy_prefix: whether a text gets a space before it.
        collapse_spaces: whether runs of spaces become one, and those at both ends of the text go.
        source: where the parts come from, for messages.
    """
    proto = empty_proto()
    for piece, score, kind in pieces:
        entry = proto.pieces.add()
        entry.piece = piece
        entry.score = score
        if kind != NORMAL:
            entry.type = kind
    proto.trainer_spec.model_type = _UNIGRAM
    unknown = next((index for index, (_, _, kind) in enumerate(pieces) if kind == UNKNOWN), 0)
    proto.trainer_spec.unk_id = unknown
    proto.trainer_spec.unk_piece = pieces[unknown][0]
    spec = proto.normalizer_spec
    spec.precompiled_charsmap = charsmap
    spec.add_dummy_prefix = dummy_prefix
    spec.remove_extra_whitespaces = collapse_spaces
    return SentencePieceModel(proto.SerializeToString(), source)


def _refuse_surrogates(texts: list[str]) -> None:
    for number, text in enumerate(texts):
        try:
            text.encode()
        except UnicodeEncodeError as problem:
            raise InputError(
                f"`text` must not hold lone surrogates, which are not characters. Received: "
                f"U+{ord(text[problem.start]):04X} at position {problem.start} of text {number} "
                f"({text[max(0, problem.start - 10) : problem.end + 10]!a}). "
                'Read it with the right encoding, or replace them: text.encode("utf-16", "surrogatepass")'
                '.decode("utf-16", "replace").'
            ) from None


def _specs_of(content: bytes, source: str) -> Any:
    """The `ModelProto` without its pieces: they are skipped, which takes a tenth of the time of parsing them."""
    position, end = 0, len(content)
    while position + 1 < end and content[position] == 0x0A:  # field 1, a message: a piece
        length = content[position + 1]
        position += 2
        if length > 0x7F:  # a varint of more than one byte
            length, shift = length & 0x7F, 7
            while position < end:
                byte = content[position]
                position += 1
                length |= (byte & 0x7F) << shift
                shift += 7
                if byte < 0x80:
                    break
        position += length
    proto = empty_proto()
    try:
        proto.ParseFromString(content[position:] if position <= end else b"\xff")
    except Exception as problem:  # protobuf's DecodeError is named differently in its three implementations
        raise TokenizerError(
            f"{source} is damaged or is not a SentencePiece model ({end} bytes). Fetch it again."
        ) from problem
    if position == 0 and not proto.pieces:
        raise TokenizerError(f"{source} holds no pieces: it is not a SentencePiece model ({end} bytes).")
    return proto


def empty_proto() -> Any:
    """SentencePiece's `ModelProto`. Its class is made when it is imported, so a type checker does not know it."""
    from sentencepiece import sentencepiece_model_pb2 as model_pb2  # protobuf takes 40 ms to import

    module: Any = model_pb2
    return module.ModelProto()
