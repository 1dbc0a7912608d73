"""Names like `google/rembert`: looked up on the Hugging Face Hub if `huggingface_hub` is installed.

Its cache is used as it is, and its offline mode (`HF_HUB_OFFLINE=1`) is respected: then only the cache is searched.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from rembert.common.dependencies import require_packages
from rembert.common.errors import InputError, NotFoundError
from rembert.common.keywords import HubOptions
from rembert.common.saves import finish_save

# The files of a checkpoint beside its weights.
_COMPANIONS = ("*.json", "sentencepiece.model", "sent_piece.model")
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_PROXY_VARIABLES = {"http": "HTTP_PROXY", "https": "HTTPS_PROXY"}


def locate(
    name_or_path: str | os.PathLike[str], hub: HubOptions | None = None, *, weights: Sequence[Sequence[str]] = ()
) -> Path:
    """The path of a checkpoint: the path itself if it exists, or else the repository of this name on the Hub.

    What begins with ".", "/" or "~" or ends with a separator is a path; "~" is the user's home.

    Args:
        name_or_path: a path; one that does not exist and looks like `owner/name` is looked up.
        hub: how to download, and the subfolder.
        weights: patterns of the files of weights, for each format that can be read. The first format that the
            repository holds is downloaded. Without any, only the configuration and the tokenizer are downloaded.

    Returns:
        the path, or the directory of the cache that holds the repository's files. A path that does not exist is
        returned unchanged: the caller knows what was expected, and raises `not_found`.

    Raises:
        MissingDependencyError: it looks like a name, and `huggingface_hub` is not installed.
        NotFoundError: there is no such repository, revision or subfolder.
        CheckpointError: the repository cannot be reached and is not in the cache.
        InputError: an argument is not allowed.
    """
    hub = HubOptions() if hub is None else hub
    if not isinstance(name_or_path, str | os.PathLike):
        raise InputError(
            f"`pretrained_model_name_or_path` must be a path or a name. Received: {name_or_path!r:.100}, which is a "
            f"{type(name_or_path).__name__}."
        )
    name = os.fspath(name_or_path)
    path = Path(name).expanduser()
    if path.exists() or is_path(name_or_path):
        path = path / hub.subfolder
        finish_save(path if path.is_dir() else path.parent)
        return path
    require_packages(
        "huggingface_hub", needed_for=f"`{name}` is not a path here. Looking it up on the Hugging Face Hub"
    )
    with _proxies(hub.proxies):
        return _download(name, hub, weights) / hub.subfolder


def is_path(name_or_path: str | os.PathLike[str]) -> bool:
    """Whether this can only be a path, and no name on the Hub.

    Example:
        >>> [is_path(each) for each in ("./out/model", "out/model/", "~/model", "google/rembert")]
        [True, True, True, False]
    """
    name = os.fspath(name_or_path)
    return (
        not isinstance(name_or_path, str)
        or name.startswith((".", "~", os.sep))
        or name.endswith((os.sep, "/"))
        or not _NAME.fullmatch(name)
    )


def not_found(path: Path, expected: str) -> NotFoundError:
    """The error for a path that does not exist.

    Args:
        path: the path.
        expected: what should be there, such as "a checkpoint's directory".
    """
    return NotFoundError(f"There is no file or directory {path}. Expected: {expected}.")


def _download(name: str, hub: HubOptions, weights: Sequence[Sequence[str]]) -> Path:
    """The directory of the cache that holds a repository's files."""
    import huggingface_hub
    from huggingface_hub import constants, errors

    cached = {**hub.download, "local_files_only": True, "force_download": False}
    try:
        if constants.HF_HUB_OFFLINE or hub.local_files_only:
            return Path(huggingface_hub.snapshot_download(name, **cached))
        files = []
        if weights:
            api = huggingface_hub.HfApi()
            files = api.list_repo_files(name, revision=hub.revision, token=hub.token)
        wanted = _wanted(files, weights, hub)
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=wanted, **hub.download))
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError) as problem:
        raise NotFoundError(
            f"`{name}` is neither a path here nor a repository on the Hugging Face Hub"
            f"{f' with the revision {hub.revision!r}' if hub.revision else ''}: {_first_line(problem)}"
        ) from problem
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, OSError) as problem:
        try:
            return Path(huggingface_hub.snapshot_download(name, **cached))
        except (errors.LocalEntryNotFoundError, OSError):
            asked = "was not asked" if constants.HF_HUB_OFFLINE or hub.local_files_only else "cannot be asked"
            raise NotFoundError(
                f"`{name}` is no path here, not in the cache, and the Hugging Face Hub {asked}: {_first_line(problem)}"
            ) from problem


def _wanted(files: list[str], weights: Sequence[Sequence[str]], hub: HubOptions) -> list[str]:
    """The patterns to download: one format's weights, and the other files of a checkpoint."""
    folder = Path(hub.subfolder).as_posix()  # "." for none
    prefix = "" if folder == "." else f"{glob.escape(folder)}/"
    chosen = [f"{prefix}{name}" for name in _COMPANIONS]
    for patterns in weights:
        patterns = [f"{prefix}{pattern}" for pattern in patterns]
        if any(fnmatch(file, pattern) for file in files for pattern in patterns):
            return [*chosen, *patterns]
    return chosen


@contextmanager
def _proxies(proxies: Mapping[str, str] | None) -> Iterator[None]:
    """Have the client use proxies. It reads them from the environment: since version 1 it takes no argument."""
    if not proxies:
        yield
        return
    unknown = [key for key in proxies if key not in _PROXY_VARIABLES]
    if unknown:
        raise InputError(f"`proxies` must have the keys `http` and `https`. Received: the key {unknown[0]!r:.100}.")
    import huggingface_hub

    def restart() -> None:
        getattr(huggingface_hub, "close_session", lambda: None)()  # a new session reads the environment

    set_here = {_PROXY_VARIABLES[key]: address for key, address in proxies.items()}
    before = {variable: os.environ.get(variable) for variable in set_here}
    os.environ.update(set_here)
    restart()
    try:
        yield
    finally:
        for variable, value in before.items():
            os.environ.pop(variable)
            if value is not None:
                os.environ[variable] = value
        restart()


def _first_line(problem: Exception) -> str:
    lines = str(problem).strip().splitlines()
    return lines[0] if lines else type(problem).__name__
