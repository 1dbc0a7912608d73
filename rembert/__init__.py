"""RemBERT for PyTorch (`rembert.pt`) and TensorFlow/Keras 3 (`rembert.tf`).

What both share is importable from here. Importing this package loads neither framework.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["AddedToken", "BatchEncoding", "RemBertConfig", "RemBertTokenizer", "RemBertTokenizerFast", "__version__"]

if TYPE_CHECKING:
    from rembert.common.config import RemBertConfig
    from rembert.common.tokenization import AddedToken, BatchEncoding, RemBertTokenizer, RemBertTokenizerFast

_HOME = {
    "AddedToken": "rembert.common.tokenization",
    "BatchEncoding": "rembert.common.tokenization",
    "RemBertConfig": "rembert.common.config",
    "RemBertTokenizer": "rembert.common.tokenization",
    "RemBertTokenizerFast": "rembert.common.tokenization",
}


def __getattr__(name: str) -> Any:
    # Loaded on first use: whoever wants only `rembert.pt` does not wait for the tokenizer packages, and the reverse.
    if name in _HOME:
        from importlib import import_module

        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
