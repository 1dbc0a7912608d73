"""The names of classes that data store as integers: `features` as `datasets` writes them beside or into its files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rembert.common import strict_json
from rembert.common.errors import DataError
from rembert.common.files import read_json_object

Names = Mapping[str, Sequence[str]]

_OTHER_LAYOUT = (DataError, ValueError, AttributeError, LookupError, TypeError)  # files of others have any content
_SIDECARS = ("dataset_info.json", "dataset_infos.json")


def class_names(features: Any) -> dict[str, list[str]]:
    """The names of the classes of each column.

    Args:
        features: by column, as `datasets` writes them in JSON, or its own `Features`.

    Example:
        >>> class_names({"text": {"dtype": "string"}, "ner_tags": {"feature": {"names": ["O", "B-PER"]}}})
        {'ner_tags': ['O', 'B-PER']}
    """
    found = {column: _names_of(feature) for column, feature in dict(features).items()}
    return {column: names for column, names in found.items() if names}


def names_beside(path: Path) -> dict[str, list[str]]:
    """The names of the classes in a `dataset_info.json` of the file's directory; none if there is no such file."""
    for sidecar in (path.parent / name for name in _SIDECARS):
        if not sidecar.is_file():
            continue
        try:
            content = read_json_object(sidecar, DataError)
            # The older file has an entry for each configuration.
            infos = [content] if "features" in content else list(content.values())
            return class_names(infos[0].get("features") or {}) if len(infos) == 1 else {}
        except _OTHER_LAYOUT:
            return {}
    return {}


def names_in_metadata(metadata: bytes) -> dict[str, list[str]]:
    """The names of the classes in the JSON that `datasets` keeps in a file's schema; none in anything else.

    Example:
        >>> names_in_metadata(b'{"info": {"features": {"label": {"names": ["bad", "good"]}}}}')
        {'label': ['bad', 'good']}
    """
    try:
        return class_names(strict_json.loads(metadata)["info"]["features"])
    except _OTHER_LAYOUT:
        return {}


def named_classes(fields: dict[str, Any], names: Names) -> dict[str, Any]:
    """A record with names in place of the integers that stand for classes; -1 means that there is none."""
    return {**fields, **{column: _named(fields[column], each) for column, each in names.items() if column in fields}}


def _names_of(feature: Any) -> list[str] | None:
    """The names in a feature, or in the one that a sequence holds."""
    while True:
        if isinstance(feature, list) and len(feature) == 1:
            feature = feature[0]
        names = feature.get("names") if isinstance(feature, Mapping) else getattr(feature, "names", None)
        if isinstance(names, list):
            return [str(name) for name in names]
        if isinstance(names, Mapping):  # by id, as in model cards
            return [str(names[key]) for key in sorted(names, key=int)]
        feature = feature.get("feature") if isinstance(feature, Mapping) else getattr(feature, "feature", None)
        if feature is None:
            return None


def _named(value: Any, names: Sequence[str]) -> Any:
    if isinstance(value, list):
        return [_named(each, names) for each in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return None if value == -1 else names[value] if 0 <= value < len(names) else value
    return value
