"""`tokenizer.json`, the file of the `tokenizers` library: written for other libraries, read if there is no other file.

`docs/tokenizers.md` lists what it cannot represent exactly.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rembert.common.errors import TokenizerError
from rembert.common.files import read_json
from rembert.common.tokenization.added_tokens import AddedToken
from rembert.common.tokenization.normalization import Normalization
from rembert.common.tokenization.sentencepiece_model import (
    CONTROL,
    MARKER,
    NORMAL,
    UNKNOWN,
    USER_DEFINED,
    SentencePieceModel,
    build_model,
)


@dataclass(frozen=True)
class TokenizerJson:
    """The content of a `tokenizer.json` that this library uses."""

    source: str
    tokens: list[str]
    scores: list[float]
    unk_id: int
    added_tokens: dict[int, AddedToken]
    normalization: Normalization
    charsmap: bytes
    dummy_prefix: bool
    collapse_spaces: bool

    def build_model(self) -> SentencePieceModel:
        """The SentencePiece model of these tokens and this normaliser."""
        scored = enumerate(zip(self.tokens, self.scores, strict=True))
        return build_model(
            [(token, score, self._kind(index, score)) for index, (token, score) in scored],
            charsmap=self.charsmap,
            dummy_prefix=self.dummy_prefix,
            collapse_spaces=self.collapse_spaces,
            source=self.source,
        )

    def _kind(self, index: int, score: float) -> int:
        if index == self.unk_id:
            return UNKNOWN
        token = self.added_tokens.get(index)
        if token is not None and token.special:
            return CONTROL
        # The score is the logarithm of a probability, so a trained token never has 0; symbols are written with 0.
        if score == 0.0:
            return USER_DEFINED if token is not None else CONTROL
        return NORMAL

    def check_against(self, model: SentencePieceModel) -> None:
        """Raise `TokenizerError`, naming both files, unless tokens, ids and scores are those of `model`."""
        both = f"{self.source} and {model.source} must have the same tokens, ids and scores."
        if len(self.tokens) != model.size:
            raise TokenizerError(
                f"{both} Received: {len(self.tokens)} and {model.size} tokens. Remove the wrong file."
            )
        if self.unk_id != model.unk_id:
            raise TokenizerError(f"{both} Received: the unknown token {self.unk_id} and {model.unk_id}.")
        tokens = model.tokens
        if self.tokens != tokens:
            index = next(i for i, (ours, theirs) in enumerate(zip(self.tokens, tokens, strict=True)) if ours != theirs)
            raise TokenizerError(
                f"{both} Received: token {index} is {self.tokens[index]!r} and {tokens[index]!r}. Remove "
                "the wrong file."
            )
        different = ~np.isclose(self.scores, model.scores, rtol=0, atol=_SCORE_TOLERANCE)  # NaN is different too
        if different.any():
            index = int(different.argmax())
            raise TokenizerError(
                f"{both} Received: token {index} ({tokens[index]!r}) has the scores {self.scores[index]} and "
                f"{model.scores[index]}. Remove the wrong file."
            )

    def normalizes_as(self, model: SentencePieceModel, normalization: Normalization) -> bool:
        """Whether the normaliser changes text as `model` and `normalization` do."""
        spec = model.normalizer_spec
        return (self.normalization, self.charsmap, self.dummy_prefix, self.collapse_spaces) == (
            normalization,
            spec.precompiled_charsmap,
            spec.add_dummy_prefix,
            spec.remove_extra_whitespaces,
        )


_SCORE_TOLERANCE = 1e-4  # scores are float32; some writers round them to fewer digits


def read_tokenizer_json(path: str | os.PathLike[str]) -> TokenizerJson:
    """Read a `tokenizer.json`; `TokenizerError`, naming it, when it is damaged or not of a Unigram model."""
    return parse_tokenizer_json(read_json(path, TokenizerError), str(path))


def parse_tokenizer_json(content: Any, source: str) -> TokenizerJson:
    """The content of a `tokenizer.json`; `TokenizerError`, naming its source, as for a file."""
    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(model, dict) or model.get("type", "Unigram") != "Unigram" or "vocab" not in model:
        kind = model.get("type") if isinstance(model, dict) else None
        raise TokenizerError(f"{source} must hold a Unigram model. Received: `model.type={kind!r}`.")
    try:
        tokens = [token for token, _ in model["vocab"]]
        "".join(tokens).encode()  # refuses values that are not strings or hold lone surrogates
        scores = [float(score) for _, score in model["vocab"]]
        added = {int(entry["id"]): AddedToken.of(entry) for entry in content.get("added_tokens") or []}
        steps = list(_flat(content.get("normalizer")))
        pre_tokenizers = list(_flat(content.get("pre_tokenizer")))
        charsmaps = [step["precompiled_charsmap"] for step in steps if step["type"] == "Precompiled"]
        charsmap = base64.b64decode(charsmaps[0] or "", validate=True) if charsmaps else b""
        kinds = {step["type"] for step in steps}
    except (TypeError, ValueError, KeyError, OverflowError, binascii.Error) as problem:
        raise TokenizerError(f"{source} is not a well-formed tokenizer.json: {problem!r}.") from problem
    unk_id = model.get("unk_id")
    if not isinstance(unk_id, int) or not 0 <= unk_id < len(tokens):
        raise TokenizerError(f"{source} must name the unknown token. Received: `model.unk_id={unk_id!r}`.")
    return TokenizerJson(
        source=source,
        tokens=tokens,
        scores=scores,
        unk_id=unk_id,
        added_tokens=added,
        normalization=Normalization(lower_case="Lowercase" in kinds, strip_accents="StripAccents" in kinds),
        charsmap=charsmap,
        dummy_prefix="Prepend" in kinds or any(map(_prepends, pre_tokenizers)),
        collapse_spaces=any(step.get("pattern") in _SPACE_RUNS and step.get("content") == " " for step in steps),
    )


_SPACE_RUNS = ({"Regex": " {2,}"}, {"Regex": " +"})


def _flat(step: Any) -> Iterator[dict[str, Any]]:
    """The steps of a normaliser or pre-tokeniser, with sequences flattened."""
    left = [] if step is None else [step]
    while left:
        first = left.pop()
        if first["type"] == "Sequence":
            left += reversed(first.get("normalizers") or first.get("pretokenizers") or [])
        else:
            yield first


def _prepends(step: dict[str, Any]) -> bool:
    if step["type"] != "Metaspace":
        return False
    # Older files have `add_prefix_space`.
    return step.get("prepend_scheme", "always" if step.get("add_prefix_space", True) else "never") != "never"


def make_tokenizer_json(
    model: SentencePieceModel,
    added_tokens: Mapping[int, AddedToken],
    normalization: Normalization,
    cls_token: str,
    sep_token: str,
    spaced: Iterable[str] = (),
) -> dict[str, Any]:
    """The content of a `tokenizer.json`, as close to SentencePiece as that file can be.

    Args:
        model: the model.
        added_tokens: the tokens that are matched in the text, by id.
        normalization: what changes a text before the model.
        cls_token, sep_token: the tokens around a text.
        spaced: the added tokens that `decode` puts a space before.
    """
    spec = model.normalizer_spec
    scores, tokens = model.scores, model.tokens
    ids = {token.content: index for index, token in added_tokens.items()}
    ids = {token: ids[token] for token in (cls_token, sep_token)}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": index, **token.as_json()} for index, token in sorted(added_tokens.items())],
        "normalizer": {"type": "Sequence", "normalizers": _normalizers(spec, normalization)},
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": _pre_tokenizers(spec, model.splits_at_spaces),
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [_special(cls_token, 0), _sequence("A", 0), _special(sep_token, 0)],
            "pair": [
                _special(cls_token, 0), _sequence("A", 0), _special(sep_token, 0),
                _sequence("B", 1), _special(sep_token, 1),
            ],
            "special_tokens": {
                token: {"id": token, "ids": [index], "tokens": [token]} for token, index in ids.items()
            },
        },
        "decoder": _decoder(spaced),
        "model": {
            "type": "Unigram",
            "unk_id": model.unk_id,
            "vocab": [[token, score] for token, score in zip(tokens, scores, strict=True)],
            "byte_fallback": False,
        },
    }  # fmt: skip


def _normalizers(spec: Any, normalization: Normalization) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = []
    if normalization.strip_accents:
        steps += [{"type": "NFKD"}, {"type": "StripAccents"}]
    if normalization.lower_case:
        steps.append({"type": "Lowercase"})
    if spec.precompiled_charsmap:
        charsmap = base64.b64encode(spec.precompiled_charsmap).decode("ascii")
        steps.append({"type": "Precompiled", "precompiled_charsmap": charsmap})
    # SentencePiece treats a typed marker as a space.
    steps.append({"type": "Replace", "pattern": {"String": MARKER}, "content": " "})
    if spec.remove_extra_whitespaces:
        steps.append({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "})
    return steps


def _pre_tokenizers(spec: Any, split: bool) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = []
    if spec.remove_extra_whitespaces:
        # Here and not in the normaliser, which runs before the text is split at normalised added tokens.
        pattern = {"Regex": "^ +| +$"}
        steps.append({"type": "Split", "pattern": pattern, "behavior": "Removed", "invert": False})
    scheme = "always" if spec.add_dummy_prefix else "never"
    steps.append({"type": "Metaspace", "replacement": MARKER, "prepend_scheme": scheme, "split": split})
    return steps


def _decoder(spaced: Iterable[str]) -> dict[str, Any]:
    metaspace = {"type": "Metaspace", "replacement": MARKER, "prepend_scheme": "always", "split": True}
    contents = "|".join(map(re.escape, sorted(spaced)))
    if not contents:
        return metaspace
    # The empty match before a token that is one of these becomes a marker.
    marker = {"type": "Replace", "pattern": {"Regex": rf"\A(?=(?:{contents})\z)"}, "content": MARKER}
    return {"type": "Sequence", "decoders": [marker, metaspace]}


def _special(token: str, kind: int) -> dict[str, Any]:
    return {"SpecialToken": {"id": token, "type_id": kind}}


def _sequence(name: str, kind: int) -> dict[str, Any]:
    return {"Sequence": {"id": name, "type_id": kind}}
