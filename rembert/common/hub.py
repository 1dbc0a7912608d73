"""Names like `google/rembert`: looked up on the Hugging Face Hub when `huggingface_hub` is installed.

Its cache is used as it is, and its offline mode (`HF_HUB_OFFLINE=1`) is respected: then only the cache is searched.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from rembert.common.dependencies import require_packages
from rembert.common.errors import CheckpointError

# What a checkpoint is made of, beside its weights.
_COMPANIONS = ("*.json", "sentencepiece.model", "sent_piece.model")
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def locate(
    name_or_path: str | os.PathLike[str], revision: str | None = None, *, weights: Sequence[Sequence[str]] = ()
) -> Path:
    """The path of a checkpoint: what is there under this path, or else the repository of this name on the Hub.

    Args:
        name_or_path: a path; one that does not exist and looks like `owner/name` is looked up.
        revision: a branch, tag or commit of the repository; by default its main branch.
        weights: patterns of the files of weights, for each format that can be read. The first format that the
            repository holds is downloaded. Without any, a configuration or a tokenizer alone is.

    Returns:
        the path, or the directory of the cache that holds the repository's files. A path that is neither there nor a
        name is returned as it is: whoever reads it can say what was looked for.

    Raises:
        MissingDependencyError: it looks like a name, and `huggingface_hub` is not installed.
        CheckpointError: there is no such repository, or it cannot be reached and is not in the cache.
    """
    path = Path(name_or_path)
    name = os.fspath(name_or_path)
    if path.exists() or not _NAME.fullmatch(name):
        return path
    require_packages("huggingface_hub", needed_for=f"`{name}` is no path here. Looking it up on the Hugging Face Hub")
    import huggingface_hub
    from huggingface_hub import constants, errors

    try:
        if constants.HF_HUB_OFFLINE:
            return Path(huggingface_hub.snapshot_download(name, revision=revision, local_files_only=True))
        files = huggingface_hub.HfApi().list_repo_files(name, revision=revision) if weights else []
        return Path(huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=_wanted(files, weights)))
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError) as problem:
        raise CheckpointError(
            f"`{name}` is neither a path here nor a repository on the Hugging Face Hub"
            f"{f' with the revision {revision!r}' if revision else ''}: {_first_line(problem)}"
        ) from problem
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, OSError) as problem:
        try:
            return Path(huggingface_hub.snapshot_download(name, revision=revision, local_files_only=True))
        except (errors.LocalEntryNotFoundError, OSError):
            raise CheckpointError(
                f"`{name}` is no path here, not in the cache, and the Hugging Face Hub cannot be asked: "
                f"{_first_line(problem)}"
            ) from problem


def _wanted(files: list[str], weights: Sequence[Sequence[str]]) -> list[str]:
    """The patterns to download: one format's weights, and what goes with them."""
    for patterns in weights:
        if any(fnmatch(file, pattern) for file in files for pattern in patterns):
            return [*_COMPANIONS, *patterns]
    return list(_COMPANIONS)


def _first_line(problem: Exception) -> str:
    lines = str(problem).strip().splitlines()
    return lines[0] if lines else type(problem).__name__
