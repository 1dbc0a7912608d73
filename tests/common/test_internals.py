"""A missing internal name is said once."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest

from rembert.common.internals import warn_missing


@pytest.fixture(autouse=True)
def unsaid() -> Iterator[None]:
    warn_missing.cache_clear()
    yield
    warn_missing.cache_clear()


def test_one_warning_for_each_name() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for name in ("_one", "_one", "_other"):
            warn_missing("Library 1.2", name, "it takes longer")
    assert [str(each.message) for each in caught] == [
        f"Library 1.2 has no `{name}`: it takes longer. docs/versions.md lists the versions that rembert was tested "
        "with."
        for name in ("_one", "_other")
    ]
