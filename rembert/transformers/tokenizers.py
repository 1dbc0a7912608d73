"""The tokenizer class: transformers' `TokenizersBackend` with this library's ids, offsets and windows."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar

import tokenizers
from transformers import TokenizersBackend

from rembert import __version__
from rembert.common import tokenization
from rembert.common.errors import TokenizerError
from rembert.common.files import read_json
from rembert.common.keywords import UploadOptions
from rembert.common.tokenization.normalization import Normalization
from rembert.common.tokenization.saved_files import CONFIG_NAME, MODEL_NAME, OWN_KEY, read_saved
from rembert.common.tokenization.tokenizer_json import TokenizerJson, parse_tokenizer_json
from rembert.common.tokenization.vocabulary import ROLES
from rembert.common.uploading import upload, upload_options
from rembert.transformers.backend import Backend
from rembert.transformers.transformers_internals import TokenizerDeclarations, take_charsmap

_OWN = ("do_lower_case", "remove_space", "keep_accents")
_FILES = ("name_or_path", "vocab_file", "tokenizer_file")
_OF_THE_MODEL = {*ROLES, *_FILES, "added_tokens_decoder", "extra_special_tokens"}


class RemBertTokenizer(TokenizerDeclarations, TokenizersBackend):
    """RemBERT's tokenizer inside transformers.

    Args:
        vocab_file: a SentencePiece model.
        tokenizer_file: a `tokenizer.json`, from which the model is rebuilt if there is no `vocab_file`.
        tokenizer_object: a `tokenizers.Tokenizer` with a Unigram model, instead of files.
        vocab: tokens with their scores, instead of files.
        tokenizer: a `rembert.RemBertTokenizerFast`, instead of files.
        **settings: those of `rembert.RemBertTokenizer` and of transformers' tokenizers.

    Raises:
        TokenizerError: a file is missing or damaged, or the two files disagree.

    Example:
        >>> from rembert.transformers import RemBertTokenizer
        >>> tokenizer = RemBertTokenizer.from_pretrained("google/rembert")
        >>> tokenizer("Moja habari").word_ids()[-2]
        1
    """

    vocab_files_names: ClassVar[dict[str, str]] = {"vocab_file": MODEL_NAME, "tokenizer_file": "tokenizer.json"}
    model_input_names: ClassVar[list[str]] = ["input_ids", "token_type_ids", "attention_mask"]

    def __init__(
        self,
        vocab_file: str | os.PathLike[str] | None = None,
        tokenizer_file: str | os.PathLike[str] | None = None,
        *,
        tokenizer_object: tokenizers.Tokenizer | None = None,
        vocab: Sequence[tuple[str, float]] | None = None,
        tokenizer: tokenization.RemBertTokenizerFast | None = None,
        **settings: Any,
    ) -> None:
        charsmap = take_charsmap(settings)
        if tokenizer is not None:
            core = tokenizer
        elif tokenizer_object is not None:
            content = json.loads(tokenizer_object.to_str())
            core = _from_description(parse_tokenizer_json(content, "`tokenizer_object`"), settings)
        elif vocab is not None:
            core = _from_description(_describe(vocab, charsmap, settings), settings)
        else:
            core = _from_files(vocab_file, tokenizer_file, settings)
        self._tokenizer = Backend(core)
        added = core.added_tokens_decoder
        roles = {
            name: None if token is None else _their_token(added[core.convert_tokens_to_ids(token)])
            for name, token in ((name, getattr(core, name)) for name in ROLES)
        }
        settings.pop("additional_special_tokens", None)
        settings |= {
            **roles,
            **{name: getattr(core, name) for name in _OWN},
            "extra_special_tokens": [str(token) for token in core.additional_special_tokens],
            "added_tokens_decoder": {},
            OWN_KEY: __version__,
        }
        super().__init__(**settings)

    @classmethod
    def convert_to_native_format(cls, **keywords: Any) -> dict[str, Any]:
        """The constructor's arguments: it reads the files itself."""
        keywords.pop("trust_remote_code", None)
        return keywords

    @property
    def can_save_slow_tokenizer(self) -> bool:
        """Whether the SentencePiece model can be saved: always."""
        return True

    def train_new_from_iterator(
        self,
        text_iterator: Iterable[str | Sequence[str]],
        vocab_size: int,
        length: int | None = None,
        new_special_tokens: Sequence[Any] | None = None,
        special_tokens_map: Mapping[str, str] | None = None,
        **options: Any,
    ) -> RemBertTokenizer:
        """As `rembert.RemBertTokenizer.train_new_from_iterator`: SentencePiece trains the new model."""
        new = self._tokenizer.tokenizer.train_new_from_iterator(
            text_iterator, vocab_size, length, list(map(_own_token, new_special_tokens or ())), special_tokens_map,
            **options,
        )  # fmt: skip
        kept = {name: value for name, value in self.init_kwargs.items() if name not in _OF_THE_MODEL}
        kept |= {name: getattr(self, name) for name in ("model_max_length", "padding_side", "truncation_side")}
        return type(self)(tokenizer=new, **kept)

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        """Write the SentencePiece model; returns its path in a tuple."""
        return self._tokenizer.tokenizer.save_vocabulary(save_directory, filename_prefix)

    def save_pretrained(self, save_directory: Any, *, push_to_hub: bool = False, **options: Any) -> tuple[str, ...]:
        """As transformers, and the SentencePiece model beside `tokenizer.json`; all files are uploaded together."""
        asked = {field.name for field in fields(UploadOptions)} & options.keys() if push_to_hub else set()
        hub = upload_options(push_to_hub, {name: options.pop(name) for name in asked}, Path(save_directory))
        files = super().save_pretrained(save_directory, **options) or ()
        files = (*files, *self.save_vocabulary(save_directory, options.get("filename_prefix")))
        if hub is not None:
            upload(save_directory, sorted({Path(file).name for file in files}), hub)
        return files


RemBertTokenizerFast = RemBertTokenizer
"""The same class: transformers 5 has one tokenizer for each model, and keeps this name for older code."""


def _from_files(vocab_file: Any, tokenizer_file: Any, settings: dict[str, Any]) -> tokenization.RemBertTokenizerFast:
    """This library's tokenizer of the same files; those of a directory are read together."""
    source = vocab_file or tokenizer_file
    if source is not None and "name_or_path" in settings:  # from `from_pretrained`
        directory = Path(source).parent
        path = directory / CONFIG_NAME
        saved = read_json(path, ValueError) if path.exists() else {}
        given = {name: settings[name] for name in (*ROLES, *_OWN) if name in settings}
        changed = {name: value for name, value in given.items() if _content(value) != _content(saved.get(name))}
        return tokenization.RemBertTokenizerFast(
            **read_saved(directory, {name: _own_token(value) for name, value in changed.items()})
        )
    return tokenization.RemBertTokenizerFast(vocab_file, tokenizer_file=tokenizer_file, **_own_settings(settings))


def _from_description(described: TokenizerJson, settings: dict[str, Any]) -> tokenization.RemBertTokenizerFast:
    """This library's tokenizer of what a `tokenizer.json` says."""
    own = {
        "added_tokens": described.added_tokens,
        "do_lower_case": described.normalization.lower_case,
        "keep_accents": not described.normalization.strip_accents,
        **_own_settings(settings),
    }
    return tokenization.RemBertTokenizerFast(model=described.build_model(), **own)


def _describe(vocab: Sequence[tuple[str, float]], charsmap: bytes, settings: dict[str, Any]) -> TokenizerJson:
    """Tokens with scores as a `tokenizer.json` holds them, with the settings of the released model."""
    unknown = str(settings.get("unk_token", "<unk>"))
    tokens, scores = (list(column) for column in zip(*vocab, strict=True))
    if unknown not in tokens:
        raise TokenizerError(f"`vocab` must hold the unknown token. Received: no {unknown!r}.")
    added = settings.get("added_tokens_decoder") or {}
    return TokenizerJson(
        source="`vocab`",
        tokens=tokens,
        scores=scores,
        unk_id=tokens.index(unknown),
        added_tokens={index: tokenization.AddedToken.of(token) for index, token in added.items()},
        normalization=Normalization(),
        charsmap=charsmap,
        dummy_prefix=True,
        collapse_spaces=True,
    )


def _own_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that this library's tokenizer has too."""
    own = {name: _own_token(settings[name]) for name in (*ROLES, *_OWN) if name in settings}
    if settings.get("added_tokens_decoder"):
        own["added_tokens"] = {
            index: tokenization.AddedToken.of(token) for index, token in settings["added_tokens_decoder"].items()
        }
    extra = settings.get("extra_special_tokens") or settings.get("additional_special_tokens")
    if extra:
        own["additional_special_tokens"] = list(map(_own_token, extra))
    return own


def _content(token: Any) -> Any:
    return token.get("content") if isinstance(token, dict) else getattr(token, "content", token)


def _own_token(token: Any) -> Any:
    if isinstance(token, tokenizers.AddedToken):
        return tokenization.AddedToken.of(token)
    return token


def _their_token(token: Any) -> tokenizers.AddedToken:
    return tokenizers.AddedToken(**token.as_json())
