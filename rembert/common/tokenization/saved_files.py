"""The files of a tokenizer: which are read, and which of them takes precedence."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rembert.common.arguments import BOOLEAN, check_arguments, optional
from rembert.common.errors import InputError, NotFoundError, TokenizerError
from rembert.common.files import first_named, read_json_object
from rembert.common.hub import not_found
from rembert.common.tokenization.added_tokens import FLAGS, AddedToken, has_surrogate
from rembert.common.tokenization.normalization import Normalization
from rembert.common.tokenization.padding import LENGTH, SIDE
from rembert.common.tokenization.rows import NAMES
from rembert.common.tokenization.sentencepiece_model import SentencePieceModel
from rembert.common.tokenization.tokenizer_json import TokenizerJson, read_tokenizer_json
from rembert.common.tokenization.vocabulary import ROLES
from rembert.common.warning import warn

MODEL_NAME = "sentencepiece.model"
MODEL_NAMES = (MODEL_NAME, "sent_piece.model")  # the second one is BLEURT's
JSON_NAME = "tokenizer.json"
CONFIG_NAME = "tokenizer_config.json"
SPECIAL_NAME = "special_tokens_map.json"
ADDED_NAME = "added_tokens.json"
OWN_KEY = "rembert_version"  # in the configuration: this library wrote it

_SETTINGS = {
    "remove_space": optional(BOOLEAN),
    "model_max_length": optional(LENGTH),
    "model_input_names": optional(NAMES),
    "padding_side": optional(SIDE),
    "truncation_side": optional(SIDE),
    "clean_up_tokenization_spaces": optional(BOOLEAN),
}
_NORMALIZATION_SETTINGS = ("do_lower_case", "keep_accents")
_IDS = 2**31  # ids are 32-bit integers in TensorFlow
_ADDED_BY_TRANSFORMERS = ("[PAD]", "[UNK]")


def read_saved(path: str | os.PathLike[str], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The constructor's arguments for what is saved at `path`.

    Args:
        path: a directory, a SentencePiece model or a `tokenizer.json`.
        overrides: arguments that replace saved ones.

    Returns:
        `model`, `added_tokens` (by id), and arguments of the tokenizers' constructors, `overrides` among them.

    Raises:
        NotFoundError: there is no such path, or no tokenizer in it.
        TokenizerError: a file is damaged, or two files disagree.
    """
    path = Path(path)
    if not os.path.lexists(path):
        raise not_found(path, f"a checkpoint's directory, a `{MODEL_NAME}` or a `{JSON_NAME}`")
    if not path.is_dir():
        if path.suffix == ".json":
            return _merge(None, read_tokenizer_json(path), {}, {}, overrides)
        return _merge(SentencePieceModel.from_file(path), None, {}, {}, overrides)
    model_path = first_named(path, MODEL_NAMES)
    json_path = first_named(path, (JSON_NAME,))
    if model_path is None and json_path is None:
        raise NotFoundError(f"{path} holds no tokenizer: neither {' nor '.join(MODEL_NAMES)} nor {JSON_NAME}.")
    model = None if model_path is None else SentencePieceModel.from_file(model_path)
    described = None if json_path is None else read_tokenizer_json(json_path)
    config = _read_tokens(path / CONFIG_NAME)
    try:
        check_arguments(_SETTINGS, {name: config.get(name) for name in _SETTINGS})
    except InputError as problem:
        raise TokenizerError(f"{path / CONFIG_NAME}: {problem}") from None
    special = _read_tokens(path / SPECIAL_NAME)
    if "added_tokens_decoder" not in config:
        # Before transformers 4.34 only these two files held the flags.
        added = _read_mapping(path / ADDED_NAME)
        for content, index in added.items():
            _check_token(path / ADDED_NAME, content, index, content)
        special = special | {"added": added}
    return _merge(model, described, config, special, overrides)


def _read_mapping(path: Path) -> dict[str, Any]:
    return read_json_object(path, TokenizerError) if os.path.lexists(path) else {}


def _read_tokens(path: Path) -> dict[str, Any]:
    """A JSON object in which every token has a valid form."""
    content = _read_mapping(path)
    for name in ROLES:
        if content.get(name) is not None:
            _check_token(path, name, 0, content[name])
    for name in ("additional_special_tokens", "extra_special_tokens"):
        listed = content.get(name) or []
        if not isinstance(listed, list | dict):
            raise TokenizerError(f"`{name}` in {path} must be a list or an object. Received: {listed!r:.60}.")
        for token in listed.values() if isinstance(listed, dict) else listed:
            _check_token(path, name, 0, token)
    by_id = content.get("added_tokens_decoder", {})
    if not isinstance(by_id, dict):
        raise TokenizerError(f"`added_tokens_decoder` in {path} must be an object. Received: {by_id!r:.60}.")
    for index, token in by_id.items():
        _check_token(path, "added_tokens_decoder", int(index) if index.isdecimal() else index, token)
    return content


def _check_token(path: Path, name: str, index: Any, token: Any) -> None:
    content = token.get("content") if isinstance(token, dict) else token
    if not isinstance(content, str) or not content or has_surrogate(content):
        raise TokenizerError(
            f"Tokens in {path} must be strings or objects with a `content`. Received: `{name}` with {token!a:.60}."
        )
    flags = [token.get(name) for name in FLAGS] if isinstance(token, dict) else []
    if not all(flag is None or isinstance(flag, bool) for flag in flags):
        raise TokenizerError(
            f"{', '.join(FLAGS)} of a token in {path} must be true or false. Received: {token!a:.100}."
        )
    if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < _IDS:
        raise TokenizerError(f"Tokens in {path} must have ids below {_IDS}. Received: {content!r} with {index!a:.60}.")


def _merge(
    model: SentencePieceModel | None, described: TokenizerJson | None, config: dict[str, Any],
    special: dict[str, Any], overrides: Mapping[str, Any],
) -> dict[str, Any]:  # fmt: skip
    settings: dict[str, Any] = {name: config[name] for name in _SETTINGS if config.get(name) is not None}
    normalization = {name: config[name] for name in _NORMALIZATION_SETTINGS if isinstance(config.get(name), bool)}
    if model is None:
        assert described is not None
        model = described.build_model()
        # There is only this file, so its normaliser counts.
        normalization = {
            "do_lower_case": described.normalization.lower_case,
            "keep_accents": not described.normalization.strip_accents,
        } | normalization
    elif described is not None:
        described.check_against(model)
        if described.normalization and OWN_KEY not in config:
            normalization = {}  # transformers writes these settings and that normaliser even for a cased model
        wanted = {**normalization, **overrides}
        _warn_of_normalizer(model, described, Normalization(
            bool(wanted.get("do_lower_case", False)), not wanted.get("keep_accents", True)
        ))  # fmt: skip
    added = _added_tokens(model, described, config, special)
    roles = {name: _token(value) for name, value in (special | config).items() if name in ROLES}
    for name, value in list(roles.items()):
        content = getattr(value, "content", value)
        if _is_transformers_default(model, content, config):
            del roles[name]  # the model has its own tokens for these roles
        elif isinstance(value, str):
            same = (token for token in added.values() if token.content == value)
            roles[name] = next(same, value)
    settings |= normalization | roles
    extra = special.get("additional_special_tokens")
    extra = config.get("extra_special_tokens") or config.get("additional_special_tokens") or extra
    if extra:
        # transformers 4 writes an object of names, 5 a list; listed tokens of the model keep their roles.
        listed = extra.values() if isinstance(extra, dict) else extra
        settings["additional_special_tokens"] = [_token(token) for token in listed]
    return {"model": model, "added_tokens": added, **settings, **overrides}


def _added_tokens(
    model: SentencePieceModel, described: TokenizerJson | None, config: dict[str, Any], special: dict[str, Any]
) -> dict[int, AddedToken]:
    if "added_tokens_decoder" in config:
        found = {int(index): AddedToken.of(token) for index, token in config["added_tokens_decoder"].items()}
    else:
        found = dict(described.added_tokens) if described is not None else {}
        for content, index in special.get("added", {}).items():
            found.setdefault(index, AddedToken(content, special=content in _special_contents(special)))
    return {
        index: token for index, token in found.items() if not _is_transformers_default(model, token.content, config)
    }


def _special_contents(special: dict[str, Any]) -> set[str]:
    values = [special.get(name) for name in ROLES] + list(special.get("additional_special_tokens") or [])
    return {value["content"] if isinstance(value, dict) else value for value in values if value is not None}


def _is_transformers_default(model: SentencePieceModel, content: Any, config: dict[str, Any]) -> bool:
    """A `[PAD]` or `[UNK]` beyond the vocabulary, which transformers' slow class always adds."""
    return content in _ADDED_BY_TRANSFORMERS and OWN_KEY not in config and model.find(content) is None


def _token(value: Any) -> Any:
    return AddedToken.of(value, special=True) if isinstance(value, dict) else value


def _warn_of_normalizer(model: SentencePieceModel, described: TokenizerJson, normalization: Normalization) -> None:
    if described.normalizes_as(model, normalization):
        return
    steps = [
        name
        for name, there in (
            ("lower-cases", described.normalization.lower_case and not normalization.lower_case),
            ("strips accents", described.normalization.strip_accents and not normalization.strip_accents),
        )
        if there
    ]
    warn(
        f"{described.source} {' and '.join(steps) or 'normalises text differently'}, {model.source} does not. "
        "The SentencePiece model is used. Pass `do_lower_case=True, keep_accents=False` for a model that was trained "
        "that way, or save this tokenizer again so that both files agree.",
    )
