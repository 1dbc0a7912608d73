"""A SentencePiece Unigram model: its tokens, its normaliser, and text to ids.

The file is a protocol buffer (`ModelProto` in SentencePiece's `sentencepiece_model.proto`): first all tokens (field
1, which SentencePiece calls pieces), then the settings of the trainer (field 2) and of the normaliser (field 3).
Loading a model makes no table of its tokens; a call that needs all of them gets them from SentencePiece at once.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np
import sentencepiece

from rembert.common.errors import InputError, MissingDependencyError, NotFoundError, TokenizerError
from rembert.common.files import open_regular

MARKER = "▁"  # U+2581, how SentencePiece writes the space before a word

NORMAL, UNKNOWN, CONTROL, USER_DEFINED = 1, 2, 3, 4  # ModelProto.SentencePiece.Type
# The released model has 250,300 tokens in 4.7 million bytes. Settings are mostly rules of the normaliser, 0.24 million
# bytes for NFKC. SentencePiece takes more than a hundred bytes of memory for a token of two bytes.
MAX_MODEL = 2**25  # bytes
MAX_TOKENS = 2**20
MAX_SETTINGS = 2**23  # bytes
_UNIGRAM = 1  # TrainerSpec.ModelType
_MODEL_TYPES = {1: "Unigram", 2: "BPE", 3: "word", 4: "character"}

# A batch call of SentencePiece starts threads, which takes 0.23 ms for any batch, and then uses all cores;
# calls for single texts take 0.09 µs a character on one, and 1.4 µs a text, as much as 16 characters. On two cores
# both take the same time for this many characters.
_THREADS_FROM_CHARACTERS = 5000
_CHARACTERS_PER_CALL = 16


class TokenShapes(NamedTuple):
    """What offsets need to know about every token, as arrays of shape [tokens]."""

    lengths: np.ndarray  # in characters
    leading: np.ndarray  # space markers at its start
    markers: np.ndarray  # space markers in all


class SentencePieceModel:
    """A loaded Unigram model. It is immutable, so copies share it; a pickle holds the content of the file."""

    def __init__(self, content: bytes, source: str) -> None:
        """Load a model.

        Args:
            content: the bytes of a `sentencepiece.model`.
            source: the name of the file, for messages.

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
        if self._specs.trainer_spec.treat_whitespace_as_suffix:
            raise TokenizerError(
                f"RemBERT's tokens have the space marker before a word. Received: {source}, trained with "
                f"`treat_whitespace_as_suffix=true`."
            )
        if self._specs.trainer_spec.byte_fallback:
            raise TokenizerError(
                f"RemBERT's tokenizer has no byte tokens. Received: {source}, trained with `byte_fallback=true`."
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
        """Load a `sentencepiece.model`; `NotFoundError` or `TokenizerError` names a missing or damaged file."""
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

    def token(self, index: int) -> str:
        """The token with an id in [0, size)."""
        return self.tokens_of([index])[0]

    def tokens_of(self, indices: list[int]) -> list[str]:
        """The tokens of several ids in [0, size); `TokenizerError`, naming the file, when one is not UTF-8."""
        try:
            return self._processor.IdToPiece(indices)
        except UnicodeDecodeError as problem:  # SentencePiece itself does not check
            raise TokenizerError(
                f"{self.source} is damaged: a token is not UTF-8 ({problem}). Fetch it again."
            ) from None

    def find(self, token: str) -> int | None:
        """The id of a token, or None if the model does not have it."""
        try:
            index = self._processor.PieceToId(token)
        except (RuntimeError, TypeError):  # a lone surrogate: no token holds one
            return None
        return None if index == self.unk_id and self.token(index) != token else index

    @property
    def tokens(self) -> list[str]:
        """All tokens in the order of their ids; read from SentencePiece at each use."""
        return self.tokens_of(list(range(self.size)))

    @property
    def scores(self) -> list[float]:
        """All scores (natural logarithms of probabilities) in the order of the ids; read at each use."""
        return self._processor.GetScore(list(range(self.size)))

    @cached_property
    def pad_id(self) -> int | None:
        """The id of the padding token: the one in the trainer's settings, else `<pad>`, else `[PAD]`, else None."""
        index = self._processor.pad_id()
        if index >= 0:
            return index
        found = (self.find(token) for token in ("<pad>", "[PAD]"))
        return next((index for index in found if index is not None), None)

    @cached_property
    def shapes(self) -> TokenShapes:
        """Lengths and markers of all tokens; computed when offsets or words are first needed."""
        return shapes_of(self.tokens)

    # The normaliser

    @property
    def normalizer_spec(self) -> Any:
        """The `NormalizerSpec` message: `precompiled_charsmap`, `add_dummy_prefix`, `remove_extra_whitespaces`."""
        return self._specs.normalizer_spec

    @property
    def splits_at_spaces(self) -> bool:
        """Whether no token crosses a space into the next word (needed to write a `tokenizer.json`)."""
        return bool((self.shapes.markers == self.shapes.leading).all())

    def normalize(self, texts: list[str]) -> list[str]:
        """Each text as it is split: normalised, with markers for spaces."""
        return self._processor.Normalize(texts)

    def normalize_with_origins(self, text: str) -> tuple[str, np.ndarray]:
        """The normalised text, and the position in `text` of each of its n characters.

        The array has n + 1 entries and never decreases; the last entry is the end of the kept part of `text`.
        """
        normalized, origins = self._processor.Normalize(text, with_offsets=True)
        return normalized, np.array(origins, np.int64)

    # Text to ids

    def encode(self, texts: list[str]) -> list[list[int]]:
        """The ids of each text, as SentencePiece gives them.

        Raises:
            InputError: a text holds a lone surrogate, which no Unicode encoding can represent.
        """
        try:
            if sum(map(len, texts)) + _CHARACTERS_PER_CALL * len(texts) < _THREADS_FROM_CHARACTERS:
                return [self._processor.Encode(text) for text in texts]
            return self._processor.Encode(texts)
        except (RuntimeError, TypeError) as problem:
            _refuse_surrogates(texts)
            raise InputError(f"SentencePiece cannot encode this text: {problem}.") from problem

    def encode_as_tokens(self, text: str) -> list[str]:
        """The tokens of a text; an unknown token is shown as the normalised text that it covers."""
        try:
            return self._processor.Encode(text, out_type=str)
        except (RuntimeError, TypeError) as problem:
            _refuse_surrogates([text])
            raise InputError(f"SentencePiece cannot encode this text: {problem}.") from problem


def shapes_of(tokens: Sequence[str]) -> TokenShapes:
    """The lengths and marker counts of some tokens."""
    count = len(tokens)
    lengths = np.fromiter(map(len, tokens), np.int64, count)
    leading = np.fromiter((len(token) - len(token.lstrip(MARKER)) for token in tokens), np.int64, count)
    markers = np.fromiter((token.count(MARKER) for token in tokens), np.int64, count)
    return TokenShapes(lengths, leading, markers)


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The content of a file; `NotFoundError` or another `TokenizerError` names a file that cannot be read."""
    try:
        with open_regular(path, TokenizerError, limit=MAX_MODEL) as file:
            return file.read()
    except FileNotFoundError:
        raise NotFoundError(f"There is no file {path}.") from None
    except OSError as problem:
        raise TokenizerError(f"{path} cannot be read: {problem.strerror or problem}.") from problem


def build_model(
    tokens: Sequence[tuple[str, float, int]],
    *,
    charsmap: bytes,
    dummy_prefix: bool,
    collapse_spaces: bool,
    source: str,
) -> SentencePieceModel:
    """Make a Unigram model from its parts.

    Args:
        tokens: (token, score, type) in the order of the ids; exactly one of type `UNKNOWN`.
        charsmap: the compiled rules of the normaliser, empty for none.
        dummy_prefix: whether a space is put before a text.
        collapse_spaces: whether runs of spaces become one, and spaces at both ends of the text are removed.
        source: the name of their file, for messages.
    """
    proto = empty_proto()
    for token, score, kind in tokens:
        entry = proto.pieces.add()
        entry.piece = token
        entry.score = score
        if kind != NORMAL:
            entry.type = kind
    proto.trainer_spec.model_type = _UNIGRAM
    unknown = next((index for index, (_, _, kind) in enumerate(tokens) if kind == UNKNOWN), 0)
    proto.trainer_spec.unk_id = unknown
    proto.trainer_spec.unk_piece = tokens[unknown][0]
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
    """The `ModelProto` without its tokens. They are skipped, which takes a tenth of the time of parsing them."""
    position, end, count = 0, len(content), 0
    while position + 1 < end and content[position] == 0x0A and count <= MAX_TOKENS:  # field 1, a message: a token
        count += 1
        length = content[position + 1]
        position += 2
        if length > 0x7F:  # a varint of more than one byte
            length, shift = length & 0x7F, 7
            while position < end and shift < 70:  # at most ten bytes: 64 bits
                byte = content[position]
                position += 1
                length |= (byte & 0x7F) << shift
                shift += 7
                if byte < 0x80:
                    break
        position += length
    if count > MAX_TOKENS or end - position > MAX_SETTINGS:
        raise TokenizerError(
            f"{source} must have at most {MAX_TOKENS} tokens, and {MAX_SETTINGS} bytes after them. Received: "
            + (f"more than {MAX_TOKENS} tokens." if count > MAX_TOKENS else f"{end - position} bytes after them.")
        )
    proto = empty_proto()
    try:
        proto.ParseFromString(content[position:] if position <= end else b"\xff")
    except Exception as problem:  # protobuf's DecodeError is named differently in its three implementations
        raise TokenizerError(
            f"{source} is damaged or is not a SentencePiece model ({end} bytes). Fetch it again."
        ) from problem
    if position == 0 and not proto.pieces:
        raise TokenizerError(f"{source} holds no tokens: it is not a SentencePiece model ({end} bytes).")
    return proto


def empty_proto() -> Any:
    """SentencePiece's `ModelProto`. Its class is made when it is imported, so a type checker does not know it.

    Raises:
        MissingDependencyError: protobuf is older than this version of SentencePiece takes; its package names none.
    """
    try:
        from sentencepiece import sentencepiece_model_pb2 as model_pb2  # protobuf takes 40 ms to import
    except ModuleNotFoundError:
        raise
    except Exception as problem:  # an ImportError, or protobuf's VersionError, which older ones do not have
        raise MissingDependencyError(
            "sentencepiece<=0.2.1",  # the last version that takes protobuf 4
            needed_for=f"A tokenizer beside protobuf {version('protobuf')}",
            installed=sentencepiece.__version__,
        ) from problem
    module: Any = model_pb2
    return module.ModelProto()
