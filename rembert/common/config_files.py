"""Where a configuration comes from: a directory, a file, the Hub, or an object of transformers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from rembert.common.errors import ConfigError, NotFoundError
from rembert.common.files import first_named, read_json
from rembert.common.hub import locate, not_found
from rembert.common.keywords import HubOptions

CONFIG_NAME = "config.json"
GOOGLE_CONFIG_NAMES = ("rembert_config.json", "bert_config.json")


def read_config_dict(name_or_path: str | os.PathLike[str], hub: HubOptions) -> tuple[dict[str, Any], Path]:
    """The content of a configuration file, and its path.

    In a BLEURT directory (with `bleurt_config.json`) `gelu` is the tanh form, so `hidden_act` becomes `gelu_new`.

    Args:
        name_or_path: a checkpoint directory, a JSON file, or a name on the Hugging Face Hub.
        hub: how to download, and the subfolder.

    Raises:
        NotFoundError: there is no such path, or no configuration in it.
        ConfigError: the file is not a JSON object.
    """
    path = locate(name_or_path, hub)
    if path.is_dir():
        names = (CONFIG_NAME, *GOOGLE_CONFIG_NAMES)
        found = first_named(path, names)
        if found is None:
            raise NotFoundError(f"{path} holds no configuration. Looked for: {', '.join(names)}.")
        path = found
    elif not os.path.lexists(path):
        raise not_found(path, f"a checkpoint's directory or its {CONFIG_NAME}")
    content = read_json(path, ConfigError)
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold a JSON object. Received: a {type(content).__name__}, {content!r:.80}.")
    is_bleurt = path.name != CONFIG_NAME and (path.parent / "bleurt_config.json").is_file()
    if is_bleurt and content.get("hidden_act", "gelu") == "gelu":
        content["hidden_act"] = "gelu_new"
    return content, path


def as_rembert_dict(config: Any) -> dict[str, Any] | None:
    """The content of a RemBERT configuration of any class, such as transformers'; None if it is none.

    It is recognised by its `model_type` and `to_dict`: transformers itself is not needed.
    """
    if isinstance(config, type) or getattr(config, "model_type", None) != "rembert":
        return None
    to_dict = getattr(config, "to_dict", None)
    content = to_dict() if callable(to_dict) else None
    return content if isinstance(content, dict) else None
