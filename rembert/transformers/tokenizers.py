"""The tokenizer class: transformers' `TokenizersBackend` with this library's ids, offsets and windows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar

import tokenizers
from transformers import TokenizersBackend

from rembert import __version__
from rembert.common import tokenization
from rembert.common.files import read_json
from rembert.common.tokenization.saved_files import CONFIG_NAME, MODEL_NAME, OWN_KEY, read_saved
from rembert.common.tokenization.vocabulary import ROLES
from rembert.transformers.backend import Backend

_OWN = ("do_lower_case", "remove_space", "keep_accents")


class RemBertTokenizer(TokenizersBackend):
    """RemBERT's tokenizer inside transformers.

    Args:
        vocab_file: a SentencePiece model.
        tokenizer_file: a `tokenizer.json`, from which the model is rebuilt if there is no `vocab_file`.
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
        **settings: Any,
    ) -> None:
        core = _core(vocab_file, tokenizer_file, settings)
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

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        """Write the SentencePiece model; returns its path in a tuple."""
        return self._tokenizer.tokenizer.save_vocabulary(save_directory, filename_prefix)

    def save_pretrained(self, save_directory: Any, **options: Any) -> tuple[str, ...]:
        """As transformers, and the SentencePiece model beside `tokenizer.json`."""
        files = super().save_pretrained(save_directory, **options) or ()
        return (*files, *self.save_vocabulary(save_directory, options.get("filename_prefix")))


RemBertTokenizerFast = RemBertTokenizer
"""The same class: transformers 5 has one tokenizer for each model, and keeps this name for older code."""


def _core(vocab_file: Any, tokenizer_file: Any, settings: dict[str, Any]) -> tokenization.RemBertTokenizerFast:
    """This library's tokenizer of the same files; those of a directory are read together."""
    given = {name: settings[name] for name in (*ROLES, *_OWN) if name in settings}
    source = vocab_file or tokenizer_file
    if source is not None and "name_or_path" in settings:  # from `from_pretrained`
        directory = Path(source).parent
        path = directory / CONFIG_NAME
        saved = read_json(path, ValueError) if path.exists() else {}
        changed = {name: value for name, value in given.items() if _content(value) != _content(saved.get(name))}
        return tokenization.RemBertTokenizerFast(**read_saved(directory, _plain(changed)))
    if settings.get("added_tokens_decoder"):
        given["added_tokens"] = settings["added_tokens_decoder"]
    extra = settings.get("extra_special_tokens") or settings.get("additional_special_tokens")
    if extra:
        given["additional_special_tokens"] = list(map(_own_token, extra))
    return tokenization.RemBertTokenizerFast(vocab_file, tokenizer_file=tokenizer_file, **_plain(given))


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {name: _own_token(value) for name, value in values.items()}


def _content(token: Any) -> Any:
    return token.get("content") if isinstance(token, dict) else getattr(token, "content", token)


def _own_token(token: Any) -> Any:
    if isinstance(token, tokenizers.AddedToken):
        return tokenization.AddedToken.of(token)
    return token


def _their_token(token: Any) -> tokenizers.AddedToken:
    return tokenizers.AddedToken(**token.as_json())
