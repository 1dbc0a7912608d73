"""A SentencePiece model trained on new texts, with the special tokens and the normaliser of another."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import sentencepiece

from rembert.common.arguments import check_argument, integer
from rembert.common.errors import InputError
from rembert.common.tokenization.added_tokens import AddedToken
from rembert.common.tokenization.normalization import Normalization
from rembert.common.tokenization.sentencepiece_model import (
    CONTROL,
    MARKER,
    UNKNOWN,
    USER_DEFINED,
    SentencePieceModel,
    build_model,
    empty_proto,
)
from rembert.common.tokenization.vocabulary import ROLES

Tokenizer = Any  # a RemBertTokenizer, whose file imports this one

_LONGEST_LINE = 1 << 24  # bytes; SentencePiece skips longer lines without a word, by default from 4,192 on


def train_tokenizer(
    old: Tokenizer, texts: Iterable[str | Sequence[str]], vocab_size: int, new_special_tokens: Sequence[Any],
    special_tokens_map: Mapping[str, str], options: Mapping[str, Any],
) -> Tokenizer:  # fmt: skip
    """A tokenizer with the settings of `old` and a new model; for the arguments see `train_new_from_iterator`.

    Example:
        >>> from rembert import RemBertTokenizer
        >>> old = RemBertTokenizer.from_pretrained("google/rembert")
        >>> train_tokenizer(old, ["Moja habari"] * 9, 20, [], {}, {}).cls_token_id == old.cls_token_id
        True
    """
    tokens = {
        token.content: replace(token, content=special_tokens_map.get(token.content, token.content))
        for token in old.added_tokens_decoder.values()
    }
    more = [AddedToken.of(token, special=True) for token in new_special_tokens]
    model = train_model(
        old.sentencepiece_model, old._normalization, texts, vocab_size=vocab_size, renamed=special_tokens_map,
        controls=[token.content for token in (*tokens.values(), *more) if token.special], options=options,
    )  # fmt: skip
    settings = {name: value for name, value in old.init_kwargs.items() if name != "vocab_file"}
    for name in ROLES:
        settings[name] = None if settings[name] is None else tokens[settings[name]]
    settings["additional_special_tokens"] = [*(tokens[token] for token in old.additional_special_tokens), *more]
    new = type(old)(model=model, **settings)
    new.add_tokens([token for token in tokens.values() if not token.special])
    return new


def train_model(
    old: SentencePieceModel, normalization: Normalization, texts: Iterable[str | Sequence[str]], *, vocab_size: int,
    renamed: Mapping[str, str], controls: Sequence[str], options: Mapping[str, Any],
) -> SentencePieceModel:  # fmt: skip
    """Train a Unigram model.

    Args:
        old: the model with the special tokens and the normaliser to keep.
        normalization: what changes a text before the model.
        texts: texts, or lists of them.
        vocab_size: the number of tokens, special ones included; texts with too few words give fewer.
        renamed: new names of special tokens.
        controls: more special tokens.
        options: arguments of SentencePiece's trainer, such as `character_coverage`.

    Raises:
        InputError: no text, or arguments that SentencePiece refuses.

    Example:
        >>> from rembert import RemBertTokenizer
        >>> old = RemBertTokenizer.from_pretrained("google/rembert").sentencepiece_model
        >>> train_model(
        ...     old, Normalization(), ["Moja habari"] * 9, vocab_size=20, renamed={}, controls=[], options={}
        ... ).find("[CLS]") == old.find("[CLS]")
        True
    """
    check_argument("vocab_size", vocab_size, integer(at_least=1))
    proto = empty_proto()
    proto.ParseFromString(old.content)
    special = [
        (renamed.get(entry.piece, entry.piece), 0.0, entry.type)
        for entry in proto.pieces
        if entry.type in (UNKNOWN, CONTROL, USER_DEFINED)
    ]
    names = {name for name, _, _ in special}
    special += [(name, 0.0, CONTROL) for name in dict.fromkeys(controls) if name not in names]
    spec = old.normalizer_spec
    target = io.BytesIO()
    settings: dict[str, Any] = {
        "max_sentence_length": _LONGEST_LINE,
        "hard_vocab_limit": False,
        "minloglevel": 2,
        **options,
        "model_type": "unigram",
        "vocab_size": vocab_size - len(special) + 1,  # the trainer counts its unknown token
        "normalization_rule_name": "identity",  # the texts are normalised already
        "add_dummy_prefix": spec.add_dummy_prefix,
        "remove_extra_whitespaces": spec.remove_extra_whitespaces,
        "unk_id": 0,
        "bos_id": -1,
        "eos_id": -1,
        "pad_id": -1,
    }
    raised: list[BaseException] = []
    try:
        sentencepiece.SentencePieceTrainer.Train(
            sentence_iterator=_normalized(old, normalization, texts, raised), model_writer=target, **settings
        )
        _raise_first(raised)
    except (RuntimeError, OSError, ValueError, SystemError) as problem:
        _raise_first(raised)
        raise InputError(
            f"SentencePiece cannot train a model of `vocab_size={vocab_size}` tokens, {len(special)} special ones "
            f"included, on these texts: {problem}."
        ) from problem
    trained = empty_proto()
    trained.ParseFromString(target.getvalue())
    names = {name for name, _, _ in special}
    ordinary = [(entry.piece, entry.score, entry.type) for entry in trained.pieces[1:] if entry.piece not in names]
    return build_model(
        special + ordinary,
        charsmap=spec.precompiled_charsmap,
        dummy_prefix=spec.add_dummy_prefix,
        collapse_spaces=spec.remove_extra_whitespaces,
        source="the trained model",
    )


def _normalized(
    model: SentencePieceModel,
    normalization: Normalization,
    texts: Iterable[str | Sequence[str]],
    raised: list[BaseException],
) -> Iterator[str]:
    """Normalized lines. An error is also added to `raised`: SentencePiece before 0.2.1 takes it for the texts' end."""
    try:
        for batch in texts:
            listed = [batch] if isinstance(batch, str) else list(batch)
            if not all(isinstance(text, str) for text in listed):
                raise InputError(f"`text_iterator` must give texts or lists of texts. Received: {batch!r:.80}.")
            for text in model.normalize([normalization.apply(text) for text in listed]):
                if line := text.replace(MARKER, " ").strip(" "):
                    yield line
    except (Exception, KeyboardInterrupt) as problem:
        raised.append(problem)
        raise


def _raise_first(raised: list[BaseException]) -> None:
    if raised:
        raise raised[0] from None
