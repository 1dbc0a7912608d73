"""A SentencePiece model with only some of its tokens."""

from __future__ import annotations

from typing import Any

import numpy as np

from rembert.common.tokenization.sentencepiece_model import NORMAL, SentencePieceModel, empty_proto


def required_tokens(model: SentencePieceModel) -> np.ndarray:
    """Ids, ascending, of the tokens that a smaller model must keep.

    These are all special tokens (unknown, control, user-defined), all single characters, and the two ordinary tokens
    with the lowest and the highest score. Unigram's cost of an unknown character is the lowest score less 10, and that
    of a user-defined token follows from the highest; without these two, other text would be split differently.
    """
    proto = _proto(model)
    required = set()
    lowest = highest = None
    for index, entry in enumerate(proto.pieces):
        if entry.type != NORMAL or len(entry.piece) == 1:
            required.add(index)
        if entry.type == NORMAL:
            if lowest is None or entry.score < proto.pieces[lowest].score:
                lowest = index
            if highest is None or entry.score > proto.pieces[highest].score:
                highest = index
    required |= {index for index in (lowest, highest) if index is not None}
    return np.array(sorted(required), np.int64)


def select_tokens(model: SentencePieceModel, kept: np.ndarray) -> SentencePieceModel:
    """The model with the tokens of these ids (ascending), renumbered in the same order; its settings stay.

    A text is split as before if all its tokens are kept: the best split is still possible, and no new one is.
    """
    old = _proto(model)
    new = empty_proto()
    new.pieces.extend(old.pieces[index] for index in kept.tolist())
    for field in ("trainer_spec", "normalizer_spec", "denormalizer_spec"):
        if old.HasField(field):
            getattr(new, field).CopyFrom(getattr(old, field))
    # `self_test_data` is left out: its samples may use dropped tokens, and SentencePiece would refuse to load.
    numbers = {index: position for position, index in enumerate(kept.tolist())}
    new.trainer_spec.vocab_size = len(kept)
    for field in ("unk_id", "bos_id", "eos_id", "pad_id"):
        index = getattr(old.trainer_spec, field)
        if index >= 0:
            setattr(new.trainer_spec, field, numbers.get(index, -1))
    return SentencePieceModel(new.SerializeToString(), model.source)


def _proto(model: SentencePieceModel) -> Any:
    proto = empty_proto()
    proto.ParseFromString(model.content)
    return proto
