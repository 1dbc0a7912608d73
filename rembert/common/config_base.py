"""A configuration as a dictionary and as a file: reading, saving, comparison. `RemBertConfig` adds the keys."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Collection, Mapping
from typing import Any, Literal, Self, overload

from rembert.common.config_files import CONFIG_NAME, read_config_dict
from rembert.common.config_values import GENERIC_KEYS
from rembert.common.errors import ConfigError
from rembert.common.files import make_directory, write_json, write_text
from rembert.common.keywords import HUB_NAMES, check_known, constructor_keywords, take_hub_options
from rembert.common.labels import label_maps
from rembert.common.uploading import PushToHub, upload, upload_options

# Generic keys, which `config.json` has only where they differ from these defaults.
_QUIET_DEFAULTS: dict[str, Any] = {
    "architectures": None,
    "dtype": None,
    "problem_type": None,
    "no_answer_threshold": None,
    "is_decoder": False,
    "add_cross_attention": False,
    "output_attentions": False,
    "output_hidden_states": False,
    "return_dict": True,
}
_LABELS = ("num_labels", "id2label", "label2id")
# Never kept: an access token is a secret, and the others say how a file was found, or what transformers chose.
_DROPPED = frozenset(
    {
        *HUB_NAMES,
        *("use_auth_token", "_commit_hash", "_attn_implementation", "_attn_implementation_internal"),
        "_attn_implementation_autoset",
    }
)


class ConfigBase(PushToHub):
    """What a configuration has beside its keys. A subclass sets them as attributes."""

    model_type = "rembert"
    id2label: dict[int, str]
    _name_or_path: str

    def _keep(self, extra: Mapping[str, Any]) -> None:
        """Set keys that the constructor has no argument for."""
        for key, value in extra.items():
            own = getattr(type(self), key, None)
            if isinstance(own, property) or callable(own) or key == "self" or key.startswith("__"):
                raise ConfigError(f"`{key}` cannot be a key of a configuration: it is computed. Received: {value!r}.")
        self.__dict__.update(extra)

    @classmethod
    def _known(cls, content: Mapping[str, Any]) -> frozenset[str]:
        """The keys that the constructor, a subclass's too, and transformers know, and those in `content`."""
        own = constructor_keywords(cls) | {"model_type", "name_or_path", "_name_or_path"}
        return own | GENERIC_KEYS | (content.keys() - _DROPPED)

    def known_keys(self) -> frozenset[str]:
        """The keys that can be changed: those of every configuration, and the others that this one has."""
        return self._known(vars(self))

    @property
    def name_or_path(self) -> str:
        """Where the configuration was read from; it is not saved."""
        return self._name_or_path

    @name_or_path.setter
    def name_or_path(self, value: str | os.PathLike[str]) -> None:
        self._name_or_path = os.fspath(value)

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> Self:
        """The configuration itself: RemBERT has no other part. transformers' tools ask for it."""
        return self

    # ------------------------------------------------------------------ dictionaries and files

    def to_dict(self) -> dict[str, Any]:
        """Every key and value, also those from `**extra`; label ids are integers."""
        content = {key: copy.deepcopy(value) for key, value in vars(self).items() if key not in _DROPPED}
        content.pop("_name_or_path", None)
        content["model_type"] = self.model_type
        return content

    def to_diff_dict(self) -> dict[str, Any]:
        """The content of `config.json`: `to_dict` without generic keys at their default values."""
        content = self.to_dict()
        for key, default in _QUIET_DEFAULTS.items():
            if content[key] == default:
                del content[key]
        del content["attn_implementation"]  # a choice of the run, not of the checkpoint
        if self.id2label == label_maps(None, None, None)[0]:
            del content["id2label"], content["label2id"]
        else:
            content["id2label"] = {str(index): label for index, label in self.id2label.items()}
        return dict(sorted(content.items()))

    def to_json_string(self, use_diff: bool = True) -> str:
        """The configuration as JSON, with generic default values where `use_diff` is False."""
        return json.dumps(self.to_diff_dict() if use_diff else self.to_dict(), indent=2, sort_keys=True) + "\n"

    def to_json_file(self, json_file_path: str | os.PathLike[str], use_diff: bool = True) -> None:
        """Write `to_json_string` into a file."""
        write_text(json_file_path, self.to_json_string(use_diff))

    def update(self, config_dict: Mapping[str, Any]) -> None:
        """Replace keys; none is replaced if one is unknown or has an invalid value.

        Raises:
            KeywordError: a key is unknown.
            ConfigError: a value is invalid.

        Example:
            >>> from rembert import RemBertConfig
            >>> config = RemBertConfig()
            >>> config.update({"hidden_act": "relu", "num_labels": 3})
            >>> config.hidden_act, config.num_labels
            ('relu', 3)
        """
        changed = self.from_dict(self.to_dict(), **config_dict)
        changed.name_or_path = changed.name_or_path or self.name_or_path
        self.__dict__.update(vars(changed))

    @overload
    @classmethod
    def from_dict(
        cls, config_dict: dict[str, Any], *, return_unused_kwargs: Literal[True], **overrides: Any
    ) -> tuple[Self, dict[str, Any]]: ...

    @overload
    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **overrides: Any) -> Self: ...

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], *, return_unused_kwargs: bool = False, **overrides: Any) -> Any:
        """A configuration from the result of `to_dict`, or from the JSON of transformers or Google.

        Args:
            config_dict: by key, unknown keys too; Google's files have `embedding_size` for `input_embedding_size`.
            return_unused_kwargs: also return the overrides with unknown keys, instead of raising an error.
            **overrides: keys to replace, known ones or those in `config_dict`. Labels are replaced together.

        Returns:
            The configuration, or (configuration, unused overrides) with `return_unused_kwargs`.

        Raises:
            ConfigError: `config_dict` is not a dictionary, or a value is invalid.
            KeywordError: the key of an override is unknown.

        Example:
            >>> from rembert import RemBertConfig
            >>> RemBertConfig.from_dict({"embedding_size": 128}).input_embedding_size
            128
        """
        if not isinstance(config_dict, dict):
            raise ConfigError(
                "`config_dict` must be a dictionary (a JSON object). Received: "
                f"{type(config_dict).__name__} {config_dict!r:.80}."
            )
        unused = cls._take_unused(overrides, cls._known(config_dict), return_unused_kwargs, cls.__name__)
        content = {key: value for key, value in config_dict.items() if key not in _DROPPED}
        overrides = {key: value for key, value in overrides.items() if value is not None or key not in _LABELS}
        if "embedding_size" in content and "input_embedding_size" not in content:
            content["input_embedding_size"] = content.pop("embedding_size")
        labels_change = {"id2label", "label2id"} & overrides.keys() or (
            "num_labels" in overrides and len(content.get("id2label") or ()) != overrides["num_labels"]
        )
        if labels_change:
            content = {key: value for key, value in content.items() if key not in _LABELS}
        if "torch_dtype" in overrides:
            content.pop("dtype", None)
        content.update(overrides)
        named = cls._known({})
        config = cls(**{key: value for key, value in content.items() if key in named})
        config._keep({key: value for key, value in content.items() if key not in named})
        return (config, unused) if return_unused_kwargs else config

    @staticmethod
    def _take_unused(
        overrides: dict[str, Any], known: Collection[str], are_returned: bool, caller: str
    ) -> dict[str, Any]:
        """Take the unknown keys out of `overrides`, or refuse them unless they are returned."""
        unused = {key: overrides.pop(key) for key in list(overrides) if are_returned and key not in known}
        check_known(overrides, known, caller)
        return unused

    @classmethod
    def from_json_file(cls, json_file: str | os.PathLike[str]) -> Self:
        """The configuration in a JSON file; the errors are those of `from_pretrained`."""
        return cls.from_pretrained(os.path.join(os.curdir, json_file))

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **keywords: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The content of a checkpoint's configuration file, and the keywords that are not those of the hub."""
        hub, rest = take_hub_options(keywords)
        return read_config_dict(pretrained_model_name_or_path, hub)[0], rest

    @overload
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        return_unused_kwargs: Literal[True],
        **keywords: Any,
    ) -> tuple[Self, dict[str, Any]]: ...

    @overload
    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], **keywords: Any) -> Self: ...

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        return_unused_kwargs: bool = False,
        **keywords: Any,
    ) -> Any:
        """The configuration of a checkpoint.

        In a directory, `config.json` is read, or else Google's `rembert_config.json` or `bert_config.json`. In a
        BLEURT directory (with `bleurt_config.json`), `gelu` is the tanh form, so that `hidden_act` becomes `gelu_new`.

        Args:
            pretrained_model_name_or_path: a checkpoint directory, a JSON file, or a name on the Hugging Face Hub.
            return_unused_kwargs: also return the keywords with unknown keys, instead of raising an error.
            **keywords: keys to replace, and those of `rembert.common.keywords.HubOptions`, such as `revision`, `token`
                and `subfolder`.

        Returns:
            The configuration, or (configuration, unused keywords) with `return_unused_kwargs`.

        Raises:
            NotFoundError: there is no such path or repository, or no configuration in it.
            ConfigError: the file is no JSON object, has a key twice, or a value is invalid.
            KeywordError: a keyword is unknown; the message suggests the nearest known one.

        Example:
            >>> from rembert import RemBertConfig
            >>> RemBertConfig.from_pretrained("google/rembert", num_labels=3).num_labels
            3
        """
        hub, overrides = take_hub_options(keywords)
        content, path = read_config_dict(pretrained_model_name_or_path, hub)
        known, caller = cls._known(content), f"{cls.__name__}.from_pretrained"
        unused = cls._take_unused(overrides, known, return_unused_kwargs, caller)
        try:
            config = cls.from_dict(content, **overrides)
        except ConfigError as problem:
            try:
                cls.from_dict(content)
            except ConfigError:
                raise ConfigError(f"{path}: {problem}") from None
            raise  # the file is valid, an override is not
        config.name_or_path = pretrained_model_name_or_path
        return (config, unused) if return_unused_kwargs else config

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], *, push_to_hub: bool = False, **keywords: Any
    ) -> None:
        """Write `config.json`.

        Args:
            save_directory: made if it is missing.
            push_to_hub: upload the file as well.
            **keywords: those of `push_to_hub`; `repo_id` is by default the directory's name.

        Raises:
            InputError: `save_directory` is a file.
            KeywordError: a keyword is unknown.
        """
        target = make_directory(save_directory)
        options = upload_options(push_to_hub, keywords, target)
        write_json(target / CONFIG_NAME, self.to_diff_dict())
        if options is not None:
            upload(target, [CONFIG_NAME], options)

    # ------------------------------------------------------------------ comparison

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ConfigBase) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]  # a config can be changed

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.to_json_string()}"
