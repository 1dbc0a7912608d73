"""The two tokenizers of RemBERT. Their results are equal; the fast one also has a `tokenizers` backend."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, TypeVar

from rembert.common.arguments import check_argument, optional
from rembert.common.errors import InputError
from rembert.common.files import atomic_path, make_directory, remove_file, write_json
from rembert.common.hub import locate
from rembert.common.keywords import check_known, constructor_keywords, take_hub_options
from rembert.common.public_names import with_methods_of
from rembert.common.saves import saved_together
from rembert.common.tokenization.added_tokens import AddedToken
from rembert.common.tokenization.encoding import CallableTokenizer
from rembert.common.tokenization.new_model import train_tokenizer
from rembert.common.tokenization.normalization import Normalization
from rembert.common.tokenization.padding import SIDE, UNLIMITED
from rembert.common.tokenization.rows import INPUT_NAMES, NAMES
from rembert.common.tokenization.saved_files import (
    ADDED_NAME,
    CONFIG_NAME,
    JSON_NAME,
    MODEL_NAME,
    OWN_KEY,
    SPECIAL_NAME,
    read_saved,
)
from rembert.common.tokenization.sentencepiece_model import SentencePieceModel
from rembert.common.tokenization.tokenizer_json import TokenizerJson, make_tokenizer_json, read_tokenizer_json
from rembert.common.tokenization.vocabulary import ROLES
from rembert.common.uploading import PushToHub, upload, upload_options
from rembert.common.warning import warn

Self = TypeVar("Self", bound="RemBertTokenizer")


class DefaultToken(str):
    """A token that is used if the model has it, and that is never added to a model."""


_CLS, _SEP, _MASK = DefaultToken("[CLS]"), DefaultToken("[SEP]"), DefaultToken("[MASK]")
_FROM_MODEL = DefaultToken("the model's own")


@with_methods_of(*CallableTokenizer.__mro__[:-1])
class RemBertTokenizer(CallableTokenizer, PushToHub):
    """RemBERT's tokenizer: SentencePiece's ids, with `[CLS]` before and `[SEP]` after each text.

    SentencePiece gets the unchanged text, so the ids are those of pre-training. `from_pretrained` reads a directory.

    Example:
        >>> tokenizer = RemBertTokenizer.from_pretrained("google/rembert")
        >>> ids = tokenizer("Moja habari")["input_ids"]
        >>> tokenizer.decode(ids)
        '[CLS] Moja habari[SEP]'
        >>> tokenizer.decode(ids, skip_special_tokens=True)
        'Moja habari'
    """

    is_fast = False

    # Long: a line for each argument.
    def __init__(
        self,
        vocab_file: str | os.PathLike[str] | None = None,
        *,
        tokenizer_file: str | os.PathLike[str] | None = None,
        do_lower_case: bool | None = None,
        remove_space: bool = True,
        keep_accents: bool | None = None,
        bos_token: str | AddedToken | None = _CLS,
        eos_token: str | AddedToken | None = _SEP,
        unk_token: str | AddedToken | None = _FROM_MODEL,
        sep_token: str | AddedToken | None = _SEP,
        pad_token: str | AddedToken | None = _FROM_MODEL,
        cls_token: str | AddedToken | None = _CLS,
        mask_token: str | AddedToken | None = _MASK,
        additional_special_tokens: Sequence[str | AddedToken] | None = None,
        extra_special_tokens: Sequence[str | AddedToken] | None = None,
        model_max_length: int | None = None,
        model_input_names: Sequence[str] | None = None,
        padding_side: str = "right",
        truncation_side: str = "right",
        clean_up_tokenization_spaces: bool = False,
        verbose: bool = True,
        name_or_path: str = "",
        model: SentencePieceModel | None = None,
        added_tokens: Mapping[int, AddedToken] | None = None,
    ) -> None:
        """Make a tokenizer from a model file.

        Args:
            vocab_file: a SentencePiece model (`sentencepiece.model`, BLEURT's `sent_piece.model`).
            tokenizer_file: a `tokenizer.json`, from which the model is rebuilt. Given beside `vocab_file`, both must
                agree, and the SentencePiece model is used.
            do_lower_case: lower-case the text first; by default False, as the released model was trained.
            remove_space: kept and saved, without effect: the model's normaliser removes spaces.
            keep_accents: False strips accents first; by default True. With `tokenizer_file` alone, the file gives the
                defaults of `do_lower_case` and `keep_accents`.
            bos_token, eos_token, unk_token, sep_token, pad_token, cls_token, mask_token: the tokens with these roles;
                None for none. By default the model's own tokens; a given token that the model lacks is added to it.
                To a model without `[CLS]` or `[SEP]`, all of them are added, with a warning.
                `mask_token`, as a string, includes the space before it.
            additional_special_tokens, extra_special_tokens: more special tokens.
            model_max_length: the longest row of the model, the default of `max_length`.
            model_input_names: what a call returns by default, `input_ids` first; by default these, `token_type_ids`
                and `attention_mask`.
            padding_side, truncation_side: "right" or "left".
            clean_up_tokenization_spaces: the default of `decode`.
            verbose: warn of tokens that had to be added to the model, and once of rows longer than `model_max_length`.
            name_or_path: where the tokenizer comes from, for other programs to read.
            model: a loaded model, instead of files.
            added_tokens: tokens to find in the text, by id.

        Raises:
            TokenizerError: a file is missing, damaged or not a Unigram model.
            InputError: an invalid argument.
        """
        if model is None:
            if vocab_file is None and tokenizer_file is None:
                raise InputError("A tokenizer needs a file. Received: neither `vocab_file` nor `tokenizer_file`.")
            model, described = _load(vocab_file, tokenizer_file)
            if described is not None and added_tokens is None:
                added_tokens = described.added_tokens
            if described is not None and vocab_file is None:
                do_lower_case = described.normalization.lower_case if do_lower_case is None else do_lower_case
                keep_accents = not described.normalization.strip_accents if keep_accents is None else keep_accents
        self.do_lower_case = bool(do_lower_case)
        self.keep_accents = keep_accents is None or bool(keep_accents)
        self.remove_space = remove_space
        super().__init__(model, Normalization(lower_case=self.do_lower_case, strip_accents=not self.keep_accents))
        self.model_max_length = UNLIMITED if model_max_length is None else model_max_length
        self._limit(None)  # refuses an invalid `model_max_length`
        check_argument("padding_side", padding_side, SIDE)
        check_argument("truncation_side", truncation_side, SIDE)
        check_argument("model_input_names", model_input_names, optional(NAMES))
        self.model_input_names = list(INPUT_NAMES if model_input_names is None else model_input_names)
        self.verbose = verbose
        self.name_or_path = name_or_path
        self.padding_side = padding_side
        self.truncation_side = truncation_side
        self.clean_up_tokenization_spaces = clean_up_tokenization_spaces
        for index, token in sorted((added_tokens or {}).items()):
            self._register(token, index)
        given = (bos_token, eos_token, unk_token, sep_token, pad_token, cls_token, mask_token)
        foreign = self._is_foreign(cls_token) or self._is_foreign(sep_token)
        for name, role in zip(ROLES, given, strict=True):
            self._set_role(name, self._resolve(role, name, foreign), add=True)
        if foreign and verbose:
            self._warn_of_added()
        for extra in (additional_special_tokens, extra_special_tokens):
            if extra:
                self.add_special_tokens({"additional_special_tokens": extra}, replace_extra_special_tokens=False)

    def _is_foreign(self, token: Any) -> bool:
        """Whether the default token is used, and the model lacks it."""
        return isinstance(token, DefaultToken) and self._model.find(token) is None and token not in self._added_ids

    def _resolve(self, token: Any, name: str, foreign: bool) -> Any:
        """The token of a role: the given one, or the default one if the model has it or is `foreign`.

        A foreign model has no `[CLS]` or `[SEP]`: it was not trained for RemBERT, so it gets the special tokens.
        """
        if not isinstance(token, DefaultToken):
            return token
        if token is _FROM_MODEL:
            index = self._model.unk_id if name == "unk_token" else self._model.pad_id
            missing = "<pad>" if foreign else None
            return missing if index is None else self._model.token(index)
        return None if self._is_foreign(token) and not foreign else str(token)

    def _warn_of_added(self) -> None:
        names = ", ".join(token for token, index in self.added_tokens_encoder.items() if index >= self.vocab_size)
        warn(
            f"{self._model.source} has no [CLS] or no [SEP], so {names} got ids from {self.vocab_size} on. The "
            f"embedding table needs len(tokenizer) = {len(self)} rows: use `model.resize_token_embeddings`, or train "
            f"the SentencePiece model with `control_symbols=[CLS],[SEP],[MASK]`.",
        )

    @classmethod
    def from_pretrained(
        cls: type[Self], pretrained_model_name_or_path: str | os.PathLike[str], **keywords: Any
    ) -> Self:
        """Load a tokenizer.

        Args:
            pretrained_model_name_or_path: a directory with `sentencepiece.model` (or BLEURT's `sent_piece.model`) or
                `tokenizer.json`, and the other files that transformers 4 or 5 or this library writes; or one of the
                two files; or a name on the Hugging Face Hub.
            **keywords: arguments of the constructor that replace the saved ones, and those of
                `rembert.common.keywords.HubOptions`, such as `revision`, `token` and `subfolder`.

        Raises:
            NotFoundError: there is no such path or repository, or no tokenizer in it.
            TokenizerError: a file is damaged, or `tokenizer.json` and the SentencePiece model disagree.
            KeywordError: a keyword is unknown; the message suggests the nearest known one.
        """
        hub, overrides = take_hub_options(keywords)
        check_known(overrides, constructor_keywords(cls), f"{cls.__name__}.from_pretrained")
        tokenizer = cls(**read_saved(locate(pretrained_model_name_or_path, hub), overrides))
        tokenizer.name_or_path = tokenizer.name_or_path or str(pretrained_model_name_or_path)
        return tokenizer

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        *,
        filename_prefix: str | None = None,
        push_to_hub: bool = False,
        **keywords: Any,
    ) -> tuple[str, ...]:
        """Write the tokenizer for this library and for transformers 4 and 5; returns the paths of the files.

        The files are `sentencepiece.model`, `tokenizer.json`, `tokenizer_config.json`, `special_tokens_map.json` and,
        if tokens were added beyond the model, `added_tokens.json`.

        Args:
            save_directory: made if it is missing.
            filename_prefix: the files' names begin with it and a hyphen.
            push_to_hub: upload the files as well.
            **keywords: those of `push_to_hub`; `repo_id` is by default the directory's name.

        Raises:
            InputError: `save_directory` is a file.
            KeywordError: a keyword is unknown.

        Example:
            >>> tokenizer = RemBertTokenizer.from_pretrained("google/rembert")
            >>> _ = tokenizer.save_pretrained("saved")
            >>> len(RemBertTokenizer.from_pretrained("saved")) == len(tokenizer)
            True
        """
        directory = make_directory(save_directory)
        options = upload_options(push_to_hub, keywords, directory)
        prefix = f"{filename_prefix}-" if filename_prefix else ""
        contents: dict[str, Any] = {
            JSON_NAME: self._tokenizer_json(),
            CONFIG_NAME: self._config(),
            SPECIAL_NAME: self._special_tokens_json(),
        }
        beyond = {token.content: index for index, token in sorted(self._added.items()) if index >= self.vocab_size}
        if beyond:
            contents[ADDED_NAME] = beyond
        with saved_together(directory):
            remove_file(directory / f"{prefix}{ADDED_NAME}")  # of a tokenizer that was saved here before
            paths = list(self.save_vocabulary(directory, filename_prefix))
            for name, content in contents.items():
                paths.append(str(directory / f"{prefix}{name}"))
                write_json(paths[-1], content)
        if options is not None:
            upload(directory, [os.path.basename(path) for path in paths], options)
        return tuple(paths)

    def save_vocabulary(
        self, save_directory: str | os.PathLike[str], filename_prefix: str | None = None
    ) -> tuple[str, ...]:
        """Write the SentencePiece model as `[filename_prefix-]sentencepiece.model`; returns its path in a tuple.

        Example:
            >>> RemBertTokenizer.from_pretrained("google/rembert").save_vocabulary(".", filename_prefix="small")
            ('small-sentencepiece.model',)
        """
        directory = Path(save_directory)
        if not directory.is_dir():
            raise InputError(
                f"`save_directory` must be an existing directory. Received: `save_directory={str(directory)!r}`."
            )
        target = directory / (f"{filename_prefix}-{MODEL_NAME}" if filename_prefix else MODEL_NAME)
        with atomic_path(target) as temporary:
            temporary.write_bytes(self._model.content)
        return (str(target),)

    def train_new_from_iterator(
        self: Self,
        text_iterator: Iterable[str | Sequence[str]],
        vocab_size: int,
        length: int | None = None,
        new_special_tokens: Sequence[str | AddedToken] | None = None,
        special_tokens_map: Mapping[str, str] | None = None,
        **options: Any,
    ) -> Self:
        """A tokenizer with the settings of this one and a Unigram model that SentencePiece trains on new texts.

        The special tokens of the model come first, in the same order. Other added tokens are added again.

        Args:
            text_iterator: texts, or lists of them.
            vocab_size: the number of tokens, special ones included; texts with too few words give fewer.
            length: the number of texts; has no effect.
            new_special_tokens: more special tokens.
            special_tokens_map: new names of special tokens, by their present names.
            options: arguments of SentencePiece's trainer, such as `character_coverage`.

        Raises:
            InputError: no text, or arguments that SentencePiece refuses.

        Example:
            >>> tokenizer = RemBertTokenizer.from_pretrained("google/rembert")
            >>> new = tokenizer.train_new_from_iterator(["Moja habari", "habari"] * 50, vocab_size=20)
            >>> new.tokenize("[CLS] habari")[0], len(new) <= 20
            ('[CLS]', True)
        """
        return train_tokenizer(
            self, text_iterator, vocab_size, new_special_tokens or (), special_tokens_map or {}, options
        )

    def _tokenizer_json(self) -> dict[str, Any]:
        if self.cls_token is None or self.sep_token is None:
            raise InputError("A tokenizer must have a `cls_token` and a `sep_token` to be saved. Received: None.")
        return make_tokenizer_json(
            self._model,
            self._added,
            self._normalization,
            self.cls_token,
            self.sep_token,
            self._tokens_with_space,
        )

    def _config(self) -> dict[str, Any]:
        from rembert import __version__

        usual = ["model_input_names"] if tuple(self.model_input_names) == INPUT_NAMES else []
        unsaved = {"vocab_file", "name_or_path", *usual}
        return {
            "added_tokens_decoder": {str(index): token.as_json() for index, token in sorted(self._added.items())},
            **{name: value for name, value in self.init_kwargs.items() if name not in unsaved},
            OWN_KEY: __version__,
            # With this class transformers reads tokenizer.json unchanged. The RemBertTokenizer of version 5 has a
            # normaliser of its own, which keeps spaces at the end of a text.
            "tokenizer_class": "PreTrainedTokenizerFast",
        }

    @property
    def init_kwargs(self) -> dict[str, Any]:
        """The present settings, as a constructor takes them."""
        return {
            "vocab_file": self.vocab_file,
            "name_or_path": self.name_or_path,
            "do_lower_case": self.do_lower_case,
            "keep_accents": self.keep_accents,
            "remove_space": self.remove_space,
            **self._roles,
            "additional_special_tokens": list(self._extra),
            "model_max_length": self.model_max_length,
            "model_input_names": list(self.model_input_names),
            "padding_side": self.padding_side,
            "truncation_side": self.truncation_side,
            "clean_up_tokenization_spaces": self.clean_up_tokenization_spaces,
        }

    def __copy__(self: Self) -> Self:
        return deepcopy(self)  # the model is shared; added tokens are not

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._model.source!r}, vocab_size={self.vocab_size}, tokens={len(self)})"


class RemBertTokenizerFast(RemBertTokenizer):
    """`RemBertTokenizer` with a backend of the `tokenizers` library, for programs that need one.

    Its own results come from SentencePiece, which is exact and several times faster than the backend.

    Example:
        >>> tokenizer = RemBertTokenizerFast.from_pretrained("google/rembert")
        >>> tokenizer.backend_tokenizer.encode("habari").ids == tokenizer("habari")["input_ids"]
        True
    """

    is_fast = True

    @property
    def backend_tokenizer(self) -> Any:
        """A new `tokenizers.Tokenizer` from the content of `tokenizer.json`."""
        import json

        import tokenizers

        return tokenizers.Tokenizer.from_str(json.dumps(self._tokenizer_json()))


def _load(vocab_file: Any, tokenizer_file: Any) -> tuple[SentencePieceModel, TokenizerJson | None]:
    model = None if vocab_file is None else SentencePieceModel.from_file(vocab_file)
    described = None if tokenizer_file is None else read_tokenizer_json(tokenizer_file)
    if model is None:
        assert described is not None
        return described.build_model(), described
    if described is not None:
        described.check_against(model)
    return model, described
