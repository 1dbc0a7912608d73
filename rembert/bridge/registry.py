"""The formats, and the format of a path."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from rembert.bridge.format import Format, variant_name, without_index
from rembert.bridge.formats import h5, keras3, pickle, safetensors, tf1
from rembert.common.errors import CheckpointError, NotFoundError
from rembert.common.hub import locate, not_found
from rembert.common.keywords import HubOptions

FORMATS: dict[str, Format] = {
    format.name: format
    for format in (safetensors.FORMAT, pickle.FORMAT, h5.FORMAT, keras3.FORMAT, tf1.TF1, tf1.SAVED_MODEL)
}
"""The formats by name, in the order in which a directory is searched for them."""


class _Targets(Mapping[str, Format]):
    """The formats that can be written, those with a `target`, by its name."""

    def __getitem__(self, target: str) -> Format:
        for format in FORMATS.values():
            if format.target is not None and format.target == target:
                return format
        raise KeyError(target)

    def __iter__(self) -> Iterator[str]:
        return (format.target for format in FORMATS.values() if format.target is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)


TARGETS: Mapping[str, Format] = _Targets()
"""The formats that can be written, by the name that `to` and `--to` take."""


def locate_checkpoint(name_or_path: str | os.PathLike[str], hub: HubOptions | None = None) -> Path:
    """The path of a checkpoint; a name on the Hugging Face Hub is downloaded with the weights of one format.

    Raises:
        MissingDependencyError, CheckpointError: as `rembert.common.hub.locate`.
    """
    hub = HubOptions() if hub is None else hub
    weights = [[variant_name(file, hub.variant) for file in format.files] for format in FORMATS.values()]
    return locate(name_or_path, hub, weights=weights)


def find(path: Path, format: str | None, variant: str | None = None) -> tuple[Format, Path]:
    """The format and the main file (values, or an index of shards) of `path`.

    Raises:
        NotFoundError: there is none; names what was searched for.
        CheckpointError: the name of a file belongs to no format.
    """
    wanted = [FORMATS[format]] if format else list(FORMATS.values())
    known = ", ".join(variant_name(candidate.files[0], variant) for candidate in wanted)
    if path.name == "saved_model.pb":
        path = path.parent
    if path.is_dir():
        for candidate in wanted:
            main = candidate.find_in(path, variant)
            if main is not None:
                return candidate, main
        raise NotFoundError(
            f"{path} holds no checkpoint{f' of format {format}' if format else ''}. Looked for: {known}, and indexes "
            "of shards."
        )
    # In TensorFlow, the common prefix of its files is a checkpoint's name.
    bundle = path.with_name(re.sub(r"(\.index|\.data-\d+-of-\d+)?$", "", path.name) + ".index")
    main = bundle if bundle.is_file() else path
    if not os.path.lexists(main):
        raise not_found(path, "a checkpoint, a directory or a file of weights")
    for candidate in wanted:
        if re.fullmatch(candidate.pattern, without_index(main.name)):
            return candidate, main
    raise CheckpointError(f"The name of {path} belongs to no known format. Known: {known}.")
