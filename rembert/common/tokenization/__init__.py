"""RemBERT's tokenizers. Loads neither PyTorch nor TensorFlow."""

from rembert.common.tokenization.added_tokens import AddedToken
from rembert.common.tokenization.batch_encoding import BatchEncoding
from rembert.common.tokenization.tokenizer import RemBertTokenizer, RemBertTokenizerFast

__all__ = ["AddedToken", "BatchEncoding", "RemBertTokenizer", "RemBertTokenizerFast"]
