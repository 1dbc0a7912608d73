from __future__ import annotations

import pytest

from rembert import RemBertTokenizer, RemBertTokenizerFast
from tests.common.tokenizer_cases import MODEL

_CLASSES = [RemBertTokenizer, RemBertTokenizerFast]
_LOADED: dict[type[RemBertTokenizer], RemBertTokenizer] = {}


@pytest.fixture(params=_CLASSES, ids=lambda cls: cls.__name__)
def tokenizer_class(request: pytest.FixtureRequest) -> type[RemBertTokenizer]:
    return request.param


@pytest.fixture
def tokenizer(tokenizer_class: type[RemBertTokenizer]) -> RemBertTokenizer:
    """A tokenizer of the fixture model that the test must not change."""
    if tokenizer_class not in _LOADED:
        _LOADED[tokenizer_class] = tokenizer_class(MODEL)
    return _LOADED[tokenizer_class]


@pytest.fixture
def fresh(tokenizer_class: type[RemBertTokenizer]) -> RemBertTokenizer:
    """A tokenizer of the fixture model that the test may change."""
    return tokenizer_class(MODEL)
