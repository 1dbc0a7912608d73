"""Uploads to the Hugging Face Hub, through `huggingface_hub`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from rembert.common.dependencies import require_packages
from rembert.common.errors import CheckpointError, InputError
from rembert.common.files import temporary_directory
from rembert.common.keywords import UploadOptions

Superseded = Callable[..., list[str]]  # of a repository's files and the uploaded ones, those that are to be deleted


class PushToHub:
    """The method `push_to_hub` of models, configurations and tokenizers, which have `save_pretrained`."""

    _superseded: Superseded | None = None

    def push_to_hub(self, repo_id: str, **keywords: Any) -> Any:
        """Save into a temporary directory and upload the files as one commit; the repository is made if necessary.

        A model's commit also deletes older weights that a reader would take for the new ones, or for part of them.

        Args:
            repo_id: `owner/name`, or `name` for the owner of the token.
            **keywords: `commit_message`, `commit_description`, `create_pr`, `private`, `revision` (a branch) and
                `token`; of a model also `max_shard_size`, `safe_serialization` and `variant` of `save_pretrained`.

        Returns:
            `huggingface_hub.CommitInfo`.

        Raises:
            KeywordError: a keyword is unknown.
            MissingDependencyError: `huggingface_hub` is not installed.
            CheckpointError: the Hub refuses, or cannot be reached.
        """
        saving = {name: keywords.pop(name) for name in _SAVING if name in keywords}
        with temporary_directory("upload") as directory:
            options = UploadOptions.of({**keywords, "repo_id": repo_id}, "push_to_hub")
            self.save_pretrained(directory, **saving)  # type: ignore[attr-defined]
            files = sorted(path.name for path in directory.iterdir())
            superseded = self._superseded and partial(self._superseded, variant=saving.get("variant"))
            return upload(directory, files, options, superseded)


_SAVING = ("max_shard_size", "safe_serialization", "variant")


def upload_options(push_to_hub: bool, keywords: dict[str, Any], directory: Path) -> UploadOptions | None:
    """What a `save_pretrained` uploads after it has saved: None if nothing. Called before any work.

    Args:
        push_to_hub: whether to upload.
        keywords: those beside the function's own arguments.
        directory: where is saved; its name is the default of `repo_id`.

    Raises:
        KeywordError: a keyword is unknown.
        MissingDependencyError: `huggingface_hub` is not installed.
    """
    options = UploadOptions.of(keywords, "save_pretrained")
    if not push_to_hub:
        return None
    require_packages("huggingface_hub", needed_for="`push_to_hub`")
    return UploadOptions(**{**vars(options), "repo_id": options.repo_id or directory.resolve().name})


def upload(
    directory: str | Path, files: Iterable[str], options: UploadOptions, superseded: Superseded | None = None
) -> Any:
    """Upload files of a directory as one commit; the repository is made if it does not exist.

    Args:
        directory: that holds the files.
        files: their names.
        options: where to, and how; with a `repo_id`.
        superseded: which of the repository's files the commit deletes.

    Returns:
        `huggingface_hub.CommitInfo`.

    Raises:
        MissingDependencyError: `huggingface_hub` is not installed.
        InputError: `repo_id` is not the name of a repository.
        CheckpointError: the Hub refuses, or cannot be reached.
    """
    require_packages("huggingface_hub", needed_for="`push_to_hub`")
    import huggingface_hub
    from huggingface_hub import errors

    assert options.repo_id is not None
    client = huggingface_hub.HfApi()
    try:
        made = client.create_repo(options.repo_id, private=options.private, token=options.token, exist_ok=True)
        names = list(files)
        old: list[str] = []
        if superseded is not None:
            old = superseded(
                client.list_repo_files(made.repo_id, revision=options.revision, token=options.token), names
            )
        # Not `upload_folder`, which may commit the files of a large folder one after the other.
        return client.create_commit(
            repo_id=made.repo_id,
            operations=[
                *(huggingface_hub.CommitOperationAdd(name, Path(directory) / name) for name in names),
                *map(huggingface_hub.CommitOperationDelete, old),
            ],
            commit_message=options.commit_message or "Upload with rembert",
            commit_description=options.commit_description,
            create_pr=options.create_pr,
            revision=options.revision,
            token=options.token,
        )
    except errors.HFValidationError as problem:
        raise InputError(f"`repo_id` must be `owner/name`. Received: {options.repo_id!r:.200}. {problem}") from None
    except (errors.HfHubHTTPError, OSError) as problem:
        reason = str(problem).strip().splitlines() or [type(problem).__name__]
        raise CheckpointError(f"`{options.repo_id}` cannot be uploaded: {reason[0]}") from problem
