"""The tokens of a tokenizer: the tokens of the model, special tokens and their roles, tokens added by the user."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rembert.common.arguments import plain
from rembert.common.errors import InputError, TokenizerError
from rembert.common.tokenization.added_tokens import AddedToken, AddedTokenSplitter, has_surrogate
from rembert.common.tokenization.normalization import Normalization
from rembert.common.tokenization.sentencepiece_model import SentencePieceModel

ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")

# What is made again when it is needed. A copy or a pickle leaves it out, so that using a tokenizer does not change it.
_TRANSIENT = ("_splitter", "_warned")


class Vocabulary:
    """Tokens to ids and back. The ids of the SentencePiece model come first, then those of tokens added to it."""

    bos_token: str | None
    eos_token: str | None
    unk_token: str | None
    sep_token: str | None
    pad_token: str | None
    cls_token: str | None
    mask_token: str | None
    pad_token_id: int | None
    cls_token_id: int | None
    sep_token_id: int | None
    mask_token_id: int | None
    bos_token_id: int | None
    eos_token_id: int | None
    unk_token_id: int | None

    def __init__(self, model: SentencePieceModel, normalization: Normalization) -> None:
        self._model = model
        self._normalization = normalization
        self._added: dict[int, AddedToken] = {}  # all tokens that are matched in the text
        self._added_ids: dict[str, int] = {}
        self._length = model.size
        self._roles: dict[str, str | None] = dict.fromkeys(ROLES)
        self._extra: list[str] = []

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in _TRANSIENT}

    @property
    def sentencepiece_model(self) -> SentencePieceModel:
        """The SentencePiece model that splits text into tokens."""
        return self._model

    @property
    def vocab_file(self) -> str | None:
        """The path of the SentencePiece model that was loaded; None if it came from a `tokenizer.json`."""
        source = self._model.source
        return None if source.endswith(".json") else source

    # Adding tokens

    def add_tokens(
        self, new_tokens: str | AddedToken | Sequence[str | AddedToken], special_tokens: bool = False
    ) -> int:
        """Add tokens that are matched in the text as a whole.

        Args:
            new_tokens: one token or several. A token of the model keeps its id; others get ids from `len(tokenizer)`
                on, so the embeddings of the model must be resized.
            special_tokens: whether they are special, which `decode(skip_special_tokens=True)` leaves out.

        Returns:
            the number of new tokens, by which `len(tokenizer)` has grown.

        Example:
            >>> from rembert import RemBertTokenizer
            >>> tokenizer = RemBertTokenizer.from_pretrained("google/rembert")
            >>> tokenizer.add_tokens(["<person>", "<place>"])
            2
            >>> tokenizer.tokenize("<person> habari")[0]
            '<person>'
        """
        if isinstance(new_tokens, str) or not isinstance(new_tokens, Iterable):
            new_tokens = [new_tokens]
        tokens = [AddedToken.of(token, special=True if special_tokens else None) for token in new_tokens]
        before = len(self)
        for token in tokens:
            self._register(token)
        return len(self) - before

    def add_special_tokens(
        self, special_tokens_dict: Mapping[str, Any], replace_extra_special_tokens: bool = True
    ) -> int:
        """Assign roles to tokens, adding those that are not in the vocabulary.

        Args:
            special_tokens_dict: names of roles (`pad_token`, …) with a token each, and `additional_special_tokens`
                (or `extra_special_tokens`) with a list.
            replace_extra_special_tokens: whether that list replaces the present one, or is appended to it.

        Returns:
            the number of new tokens.
        """
        if not isinstance(special_tokens_dict, Mapping):
            raise InputError(f"`special_tokens_dict` must be a mapping. Received: {special_tokens_dict!r:.60}.")
        unknown = [name for name in special_tokens_dict if name not in (*ROLES, *_EXTRA_NAMES)]
        if unknown:
            raise InputError(
                f"Special tokens are {', '.join(ROLES)} and additional_special_tokens. Received: {', '.join(unknown)}."
            )
        before = len(self)
        for name, value in special_tokens_dict.items():
            if name in ROLES:
                self._set_role(name, value, add=True)
            else:
                if isinstance(value, str) or not isinstance(value, Iterable):
                    raise InputError(f"`{name}` must be a list of tokens. Received: {value!r}.")
                tokens = [AddedToken.of(token, special=True) for token in value]
                for token in tokens:
                    self._register(token)
                contents = [token.content for token in tokens]
                kept = [] if replace_extra_special_tokens else self._extra
                self._extra = list(dict.fromkeys([*kept, *contents]))
        return len(self) - before

    def _register(self, token: AddedToken, index: int | None = None) -> int:
        """Match `token` in the text from now on; returns its id."""
        if not isinstance(token.content, str) or has_surrogate(token.content):
            raise InputError(f"An added token must be a string of characters. Received: {token.content!a}.")
        known = self._added_ids.get(token.content)
        found = self._model.find(token.content) if known is None else known
        if index is not None and found is not None and index != found:
            raise TokenizerError(
                f"The token {token.content!r} has the id {found} in {self._model.source}. Received: the id {index} "
                f"in a file beside it."
            )
        if found is None:
            found = len(self) if index is None else index
            if found in self._added or found < self._model.size:
                raise TokenizerError(
                    f"Every token needs an id of its own. Received: {token.content!r} with the id {found}, which is "
                    f"{self.convert_ids_to_tokens(found)!r} with {self._model.source}."
                )
        self._added[found] = token
        self._added_ids[token.content] = found
        self._length = max(self._length, found + 1)
        self.__dict__.pop("_splitter", None)
        return found

    @property
    def _text_splitter(self) -> AddedTokenSplitter:
        # Made on first use: a constructor registers seven tokens one by one.
        if "_splitter" not in self.__dict__:
            self._splitter = AddedTokenSplitter(self._added, self._normalization)
        return self._splitter

    # Special tokens

    def _set_role(self, name: str, value: Any, *, add: bool = False) -> None:
        if value is None:
            self._roles[name] = None
            return
        defaults: dict[str, Any] = {"lstrip": True, "normalized": True} if name == "mask_token" else {}
        if isinstance(value, str) and value in self._added_ids and self._added[self._added_ids[value]].special:
            token = self._added[self._added_ids[value]]  # known: its flags stay
        else:
            token = AddedToken.of(value, special=True, **defaults)
        if not add and token.content not in self._added_ids and self._model.find(token.content) is None:
            raise InputError(
                f"`{name}` must be a token of the vocabulary. Received: {token.content!r}. "
                f"Use `add_special_tokens({{{name!r}: {token.content!r}}})` to add it, and resize the embeddings."
            )
        self._register(token)
        self._roles[name] = token.content

    def _role_id(self, name: str) -> int | None:
        content = self._roles[name]
        return None if content is None else self._token_id(content)

    @property
    def additional_special_tokens(self) -> list[str]:
        """Special tokens without a role."""
        return list(self._extra)

    @additional_special_tokens.setter
    def additional_special_tokens(self, tokens: Sequence[str | AddedToken]) -> None:
        self.add_special_tokens({"additional_special_tokens": tokens})

    extra_special_tokens = additional_special_tokens

    @property
    def additional_special_tokens_ids(self) -> list[int]:
        """The ids of `additional_special_tokens`."""
        return [self._token_id(token) for token in self._extra]

    @property
    def special_tokens_map(self) -> dict[str, Any]:
        """Roles and their tokens; roles without a token are left out."""
        roles: dict[str, Any] = {name: token for name, token in self._roles.items() if token is not None}
        return roles | ({"additional_special_tokens": list(self._extra)} if self._extra else {})

    def _special_tokens_json(self) -> dict[str, Any]:
        """Tokens with flags as objects, others as strings, as transformers 4 writes them."""
        result: dict[str, Any] = {}
        for name, content in self.special_tokens_map.items():
            if name not in ROLES:
                result[name] = content
                continue
            fields = self._added[self._added_ids[content]].as_json()
            plain = AddedToken(content, special=True).as_json()
            result[name] = content if fields == plain else {key: fields[key] for key in fields if key != "special"}
        return result

    @property
    def all_special_tokens(self) -> list[str]:
        """Every special token once."""
        return list(dict.fromkeys([*(token for token in self._roles.values() if token is not None), *self._extra]))

    @property
    def all_special_ids(self) -> list[int]:
        """The ids of `all_special_tokens`."""
        return [self._token_id(token) for token in self.all_special_tokens]

    @property
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        """All tokens that are matched in the text as a whole, by id: special tokens and added ones."""
        return dict(sorted(self._added.items()))

    @property
    def added_tokens_encoder(self) -> dict[str, int]:
        """The ids of the tokens that are matched in the text as a whole."""
        return {token.content: index for index, token in sorted(self._added.items())}

    def get_added_vocab(self) -> dict[str, int]:
        """The ids of the tokens that are matched in the text as a whole."""
        return self.added_tokens_encoder

    # Sizes and ids

    @property
    def vocab_size(self) -> int:
        """The number of tokens of the SentencePiece model, without added tokens."""
        return self._model.size

    def __len__(self) -> int:
        """The number of rows that an embedding table needs: the tokens of the model and those added to it."""
        return self._length

    def get_vocab(self) -> dict[str, int]:
        """All tokens and their ids."""
        vocabulary = {token: index for index, token in enumerate(self._model.tokens)}
        return vocabulary | self.added_tokens_encoder

    @property
    def vocab(self) -> dict[str, int]:
        """All tokens and their ids, made at each use."""
        return self.get_vocab()

    def _token_id(self, token: str) -> int:
        index = self._added_ids.get(token)
        if index is None:
            index = self._model.find(token)
        return self._unknown_id if index is None else index

    @property
    def _unknown_id(self) -> int:
        unknown = self._roles["unk_token"]
        index = None if unknown is None else self._added_ids.get(unknown)
        return self._model.unk_id if index is None else index

    def convert_tokens_to_ids(self, tokens: str | Iterable[str]) -> Any:
        """The id of a token, or the ids of several; unknown tokens have the id of the unknown token.

        Raises:
            InputError: a token that is not a string.
        """
        if isinstance(tokens, str):
            return self._token_id(tokens)
        listed = check_strings("tokens", tokens)
        return [self._token_id(token) for token in listed]

    def convert_ids_to_tokens(self, ids: Any, skip_special_tokens: bool = False) -> Any:
        """The token of an id, or the tokens of several (a list, an array or a tensor).

        Raises:
            InputError: an id that is not an integer, or without a token.
        """
        ids = plain_ids(ids)
        if isinstance(ids, int):
            return self._token(ids)
        if skip_special_tokens:
            skipped = self._special_ids
            ids = [index for index in ids if index not in skipped]
        if set(map(type, ids)) == {int} and min(ids) >= 0 and max(ids) < self._model.size:
            return self._model.tokens_of(ids)  # one call for all of them
        return [self._token(index) for index in ids]

    @property
    def _special_ids(self) -> set[int]:
        return {*self.all_special_ids, *(index for index, token in self._added.items() if token.special)}

    def _token(self, index: Any) -> str:
        if not isinstance(index, int) or isinstance(index, bool):
            raise InputError(f"A token's id must be an integer. Received: {index!r}.")
        if index in self._added:
            return self._added[index].content
        if not 0 <= index < self._model.size:
            raise InputError(f"A token's id must be from 0 to {len(self) - 1}. Received: {index}.")
        return self._model.token(index)


_EXTRA_NAMES = ("additional_special_tokens", "extra_special_tokens")


def _role_property(name: str) -> property:
    def get(self: Vocabulary) -> str | None:
        return self._roles[name]

    def put(self: Vocabulary, value: Any) -> None:
        self._set_role(name, value)

    return property(get, put, doc=f"The token that is the `{name}`, or None; settable to a token of the vocabulary.")


def _role_id_property(name: str) -> property:
    def get(self: Vocabulary) -> int | None:
        return self._role_id(name)

    def put(self: Vocabulary, value: Any) -> None:
        self._set_role(name, None if value is None else self._token(plain(value)))

    return property(get, put, doc=f"The id of the `{name}`, or None; settable to an id of the vocabulary.")


for _name in ROLES:
    setattr(Vocabulary, _name, _role_property(_name))
    setattr(Vocabulary, f"{_name}_id", _role_id_property(_name))


def plain_ids(ids: Any) -> Any:
    """Ids as an integer or a list: from a list, an array or a tensor."""
    if hasattr(ids, "tolist"):  # NumPy, PyTorch
        return ids.tolist()
    if hasattr(ids, "numpy"):  # TensorFlow
        return ids.numpy().tolist()
    if isinstance(ids, str | bytes) or not isinstance(ids, int | Iterable):
        raise InputError(f"Ids must be integers. Received: {ids!r}.")
    return ids if isinstance(ids, int) else [plain_ids(item) if hasattr(item, "tolist") else item for item in ids]


def check_ids(ids: Any) -> list[int]:
    """`ids` as a list, if they are integers."""
    listed = plain_ids(ids)
    if not isinstance(listed, list) or not all(isinstance(index, int) for index in listed):
        raise InputError(f"Ids must be a list of integers. Received: {ids!r:.60}.")
    return listed


def check_strings(name: str, values: Any) -> list[str]:
    """`values` as a list, if they are strings."""
    listed = list(values) if isinstance(values, Iterable) else [values]
    if not all(isinstance(value, str) for value in listed):
        raise InputError(f"`{name}` must be strings. Received: {values!r:.60}.")
    return listed
