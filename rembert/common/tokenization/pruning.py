"""A SentencePiece model with some of its pieces only."""

from __future__ import annotations

from typing import Any

import numpy as np

from rembert.common.tokenization.sentencepiece_model import NORMAL, SentencePieceModel, empty_proto


def required_pieces(model: SentencePieceModel) -> np.ndarray:
    """Ids, ascending, of the pieces that a smaller model cannot do without.

    These are all special ones (unknown, control, user-defined), all single characters, and the two ordinary pieces
    with the lowest and the highest score: Unigram's cost of an unknown character is the lowest score less 10, that of
    a user-defined piece comes from the highest, so without these two other text would be cut differently.
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


def select_pieces(model: SentencePieceModel, kept: np.ndarray) -> SentencePieceModel:
    """The model with the pieces of these ids (ascending), numbered anew in the same order; all else as it was.

    A text whose pieces are all kept is cut as before: the best way is still there, and no other one is new.
    """
    old = _proto(model)
    new = empty_proto()
    new.pieces.extend(old.pieces[index] for index in kept.tolist())
    for field in ("trainer_spec", "normalizer_spec", "denormalizer_spec"):
        if old.HasField(field):
            getattr(new, field).CopyFrom(getattr(old, field))
    # `self_test_data` stays behind: its samples may use pieces that are gone, and SentencePiece would refuse to load.
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
