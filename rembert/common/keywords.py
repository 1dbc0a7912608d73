"""The keywords that `from_pretrained`, `save_pretrained` and `push_to_hub` take beside their own arguments.

Models of both frameworks, configurations and tokenizers take the same ones, under the names of transformers:

- those of the hub, which `huggingface_hub` gets: `HubOptions` for downloads, `UploadOptions` for uploads;
- those that ask for what happens anyway, or for something that has no meaning here: accepted with any value;
- those of transformers' features that this library does not have: accepted with a value that asks for nothing;
- keys of a configuration, or arguments of a tokenizer.

Any other keyword is an error that suggests the nearest known one.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import PurePath
from typing import Any, Self

from rembert.common.arguments import BOOLEAN, TEXT, Constraint, check_arguments, instance_of, optional
from rembert.common.errors import InputError, KeywordError

# Accepted with any value by everything that loads.
WITHOUT_EFFECT = frozenset(
    {
        *("use_safetensors", "weights_only", "from_tf", "from_pt", "state_dict_type"),  # the format is recognised
        *("low_cpu_mem_usage", "offload_folder", "offload_state_dict", "offload_buffers"),  # files are mapped
        *("trust_remote_code", "code_revision"),  # no code is loaded
        *("use_fast", "from_slow", "legacy", "tokenizer_type"),  # the class decides
        *("resume_download", "mirror", "tqdm_class", "user_agent", "disable_mmap"),
        *("_fast_init", "_from_auto", "_from_pipeline", "_commit_hash", "_configuration_file"),
        *("save_peft_format", "save_original_format", "legacy_format", "use_temp_dir"),
    }
)
# What to use in place of a feature of transformers, where there is something.
UNSUPPORTED = {
    "quantization_config": "Load the model and call `quantize_dynamic()` (PyTorch) or `quantize('int8')` (Keras).",
    "load_in_8bit": "Load the model and call `quantize_dynamic()` (PyTorch) or `quantize('int8')` (Keras).",
    "load_in_4bit": "",
    "from_flax": "Convert the checkpoint to safetensors first.",
    "gguf_file": "Convert the checkpoint to safetensors first.",
    "generation_config": "Pass its settings to `generate`.",
    "adapter_name": "Load adapters with PEFT.",
    "adapter_kwargs": "Load adapters with PEFT.",
    "max_memory": "`device_map` names one device.",
    "tp_plan": "",
    "tp_size": "",
    "device_mesh": "",
    "distributed_config": "",
    "distributed_checkpoint": "",
    "use_kernels": "",
    "allow_all_kernels": "",
    "kernel_config": "",
    "experts_implementation": "",
    "use_flash_attention_2": "`attn_implementation='auto'` chooses a fused kernel.",
    "saved_model": "Use `rembert.tf.exporting.export_savedmodel`, or `rembert export --to savedmodel`.",
    "signatures": "Use `rembert.tf.exporting.export_savedmodel`, or `rembert export --to savedmodel`.",
    "tags": "Write them into the repository's README.md.",
}


@dataclass(frozen=True)
class HubOptions:
    """Where and how a repository of the Hugging Face Hub is downloaded; paths use `subfolder` and `variant` too.

    Attributes:
        cache_dir: the download cache; by default that of `huggingface_hub`.
        force_download: download files again that are in the cache.
        local_files_only: only search the cache.
        proxies: addresses of proxies, by `http` and `https`.
        revision: a branch, tag or commit; by default the main branch.
        subfolder: the directory inside the repository, or inside the given directory, that holds the files.
        token: an access token; True for the stored one, False for none.
        variant: weights are read from `model.VARIANT.safetensors`.
    """

    cache_dir: str | os.PathLike[str] | None = None
    force_download: bool = False
    local_files_only: bool = False
    proxies: Mapping[str, str] | None = None
    revision: str | None = None
    subfolder: str | os.PathLike[str] = ""
    token: str | bool | None = field(default=None, repr=False)  # a secret: no message may show it
    variant: str | None = None

    def __post_init__(self) -> None:
        check_arguments(_CONSTRAINTS, vars(self))
        _check_token(self.token)

    @property
    def download(self) -> dict[str, Any]:
        """The arguments of `huggingface_hub.snapshot_download`."""
        names = ("cache_dir", "force_download", "local_files_only", "revision", "token")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class UploadOptions:
    """Where and how `push_to_hub` uploads.

    Attributes:
        repo_id: `owner/name`, or `name` for the owner of the token.
        commit_message, commit_description: of the commit.
        create_pr: open a pull request in place of a commit.
        private: whether a new repository is private; by default as the owner has set it.
        revision: the branch.
        token: an access token; by default the stored one.
    """

    repo_id: str | None = None
    commit_message: str | None = None
    commit_description: str | None = None
    create_pr: bool = False
    private: bool | None = None
    revision: str | None = None
    token: str | bool | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        _check_token(self.token)

    @classmethod
    def of(cls, keywords: Mapping[str, Any], caller: str) -> Self:
        """The options in the keywords of a `save_pretrained` or `push_to_hub` beside its own; None is not given.

        Raises:
            KeywordError: a keyword is unknown.
        """
        given = _without_noise(keywords)
        check_known(given, [each.name for each in fields(cls)], caller)
        return cls(**{name: value for name, value in given.items() if value is not None})


def take_hub_options(keywords: Mapping[str, Any]) -> tuple[HubOptions, dict[str, Any]]:
    """The options of the hub among the keywords of a `from_pretrained`, and what remains.

    Keywords without effect are left out, and None means that an option is not given.

    Raises:
        KeywordError: a feature of transformers that this library does not have.
        InputError: an invalid value.

    Example:
        >>> take_hub_options({"revision": "v1", "token": None, "use_safetensors": True, "num_labels": 3})
        (HubOptions(cache_dir=None, force_download=False, local_files_only=False, proxies=None, revision='v1',
        subfolder='', variant=None), {'num_labels': 3})
    """
    rest = _without_noise(keywords)
    options = {name: rest.pop(name) for name in HUB_NAMES if name in rest}
    return HubOptions(**{name: value for name, value in options.items() if value is not None}), rest


def check_known(keywords: Collection[str], known: Collection[str], caller: str) -> None:
    """Refuse keywords that are not known.

    Args:
        keywords: their names.
        known: the names that are allowed.
        caller: the function, for the message.

    Raises:
        KeywordError: names the unknown ones, and the nearest known one.

    Example:
        >>> check_known(["hiden_size"], ["hidden_size"], "RemBertConfig")
        Traceback (most recent call last):
        rembert.common.errors.KeywordError: RemBertConfig() got an unexpected keyword: 'hiden_size'. Did you mean
        `hidden_size`?
    """
    unknown = [name for name in keywords if name not in known]
    if not unknown:
        return
    close = get_close_matches(unknown[0], [*known, *HUB_NAMES] if "from_pretrained" in caller else known, n=1)
    hint = f" Did you mean `{close[0]}`?" if close else ""
    if unknown[0] in HUB_NAMES:
        hint = " It is a keyword of `from_pretrained`."
    raise KeywordError(f"{caller}() got an unexpected keyword: {', '.join(map(repr, unknown))}.{hint}")


def constructor_keywords(kind: type) -> frozenset[str]:
    """The names of the keywords of a class's constructor, and of those that it passes keywords on to."""
    names: set[str] = set()
    for each in kind.__mro__[:-1]:
        parameters = inspect.signature(vars(each)["__init__"]).parameters.values() if "__init__" in vars(each) else ()
        names |= {one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}
        if parameters and not any(one.kind is one.VAR_KEYWORD for one in parameters):
            break  # it passes no other keyword on
    return frozenset(names - {"self"})


def _without_noise(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords that have an effect, under their present names."""
    rest = {name: value for name, value in keywords.items() if name not in WITHOUT_EFFECT}
    for name, remedy in UNSUPPORTED.items():
        value = rest.pop(name, None)
        if value is not None and value is not False and value not in ({}, [], "", "default"):
            raise KeywordError(
                f"`{name}` is a feature of transformers that this library does not have: it must be None or False. "
                f"Received: `{name}={_shown(value)}`. {remedy}".rstrip()
            )
    older = rest.pop("use_auth_token", None)
    if rest.get("token") is None and older is not None:
        rest["token"] = older
    return rest


def _shown(value: Any) -> str:
    """A value for a message; of a collection only its class, as a token may be inside."""
    return f"{value!r:.100}" if isinstance(value, str | int | float) else f"<{type(value).__name__}>"


def _check_token(token: Any) -> None:
    if not (token is None or isinstance(token, str | bool)):
        raise InputError(f"`token` must be a string, True, False or None. Received: a {type(token).__name__}.")


def _is_inside(path: Any) -> bool:
    """Whether a path stays inside the directory that it starts from."""
    parts = PurePath(path).parts if isinstance(path, str | os.PathLike) else ("..",)
    return ".." not in parts and not PurePath(path).is_absolute()


VARIANT = optional(
    Constraint("a part of a file's name", lambda v: isinstance(v, str) and bool(re.fullmatch(r"[\w-]+(\.[\w-]+)*", v)))
)
_CONSTRAINTS = {
    "cache_dir": optional(Constraint("a path", lambda v: isinstance(v, str | os.PathLike))),
    "force_download": BOOLEAN,
    "local_files_only": BOOLEAN,
    "proxies": optional(instance_of(Mapping, "a dictionary of addresses by `http` and `https`")),
    "revision": optional(TEXT),
    "subfolder": Constraint("a relative path inside the checkpoint", _is_inside),
    "variant": VARIANT,
}
HUB_NAMES = tuple(each.name for each in fields(HubOptions))
"""The keywords of the hub that everything that loads takes."""
