"""RemBERT as the first module of a Sentence-Transformers model: from texts to token embeddings, which are then pooled.

encoder = RemBertTransformer.from_checkpoint("path/to/rembert")
model = SentenceTransformer(modules=[encoder, Pooling(encoder.get_embedding_dimension(), "mean")])
model.encode(["The train leaves at seven."])
"""

from __future__ import annotations

import os
from typing import Any

from torch import Tensor

from rembert.common.arguments import check_argument, integer, optional
from rembert.common.dependencies import is_installed
from rembert.common.errors import InputError, MissingDependencyError
from rembert.common.tokenization import RemBertTokenizer
from rembert.pt.encoder import RemBertModel

if not is_installed("sentence_transformers"):
    raise MissingDependencyError(
        "sentence_transformers", needed_for="rembert.pt.sentence_transformers", extra="sentence-transformers"
    )
from sentence_transformers.base.modules import InputModule


class RemBertTransformer(InputModule):
    """Tokenizer and base model. Padding is not computed, so texts need not be sorted by length.

    Args:
        model: the encoder; its pooler, if it has one, is not used.
        tokenizer: of the same checkpoint.
        max_seq_length: longer texts are truncated; by default the model's limit.

    Raises:
        InputError: the tokenizer has more tokens than the model has rows, or `max_seq_length` does not fit the model.

    Example:
        >>> encoder = RemBertTransformer.from_checkpoint("google/rembert", max_seq_length=64)
        >>> features = encoder(encoder.preprocess(["The train leaves at seven."]))
        >>> features["token_embeddings"].shape[2] == encoder.get_embedding_dimension()
        True
    """

    config_file_name = "rembert_sentence_config.json"
    config_keys = ["max_seq_length"]  # noqa: RUF012  # as the class above declares it

    def __init__(self, model: RemBertModel, tokenizer: RemBertTokenizer, max_seq_length: int | None = None) -> None:
        super().__init__()
        config = model.config
        if len(tokenizer) > config.vocab_size:
            raise InputError(
                f"The model must have a row for each token of the tokenizer. Received: {len(tokenizer)} tokens and "
                f"`vocab_size={config.vocab_size}`."
            )
        longest = config.max_position_embeddings
        check_argument("max_seq_length", max_seq_length, optional(integer(at_least=3, at_most=longest)))
        self.model = model
        self.tokenizer = tokenizer
        self.max_seq_length = max_seq_length or longest

    @classmethod
    def from_checkpoint(
        cls, name_or_path: str | os.PathLike[str], max_seq_length: int | None = None, **settings: Any
    ) -> RemBertTransformer:
        """From a RemBERT checkpoint of any head; `settings` are those of `RemBertModel.from_pretrained`."""
        model = RemBertModel.from_pretrained(name_or_path, add_pooling_layer=False, **settings)
        return cls(model, RemBertTokenizer.from_pretrained(name_or_path), max_seq_length)

    @property
    def processor(self) -> RemBertTokenizer:
        """The tokenizer, under the name that Sentence-Transformers' trainer uses."""
        return self.tokenizer

    def get_embedding_dimension(self) -> int:
        """Width of a token's embedding."""
        return self.model.config.hidden_size

    def preprocess(self, inputs: Any, prompt: str | None = None, **kwargs: Any) -> dict[str, Tensor]:
        """Texts, or pairs of texts, to padded tensors; `prompt` is put before each text.

        Returns:
            `input_ids`, `attention_mask` and `token_type_ids`, each [b, s]; with a prompt also `prompt_length`, the
            number of its tokens with `[CLS]`, which pooling can exclude.
        """
        pairs = [(text, None) if isinstance(text, str) else tuple(text) for text in inputs]
        firsts = [(prompt or "") + first for first, _ in pairs]
        seconds = [second for _, second in pairs]
        batch = self.tokenizer(
            firsts,
            seconds if any(second is not None for second in seconds) else None,
            padding=True,
            truncation=True,
            max_length=self.max_seq_length,
            return_tensors="pt",
        )
        features: dict[str, Any] = dict(batch)
        if prompt:
            features["prompt_length"] = len(self.tokenizer(prompt)["input_ids"]) - 1  # without the one at the end
        return features

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Adds `token_embeddings` [b, s, e] to the features; rows of padding are zeros."""
        names = ("input_ids", "attention_mask", "token_type_ids")
        outputs = self.model(**{name: features[name] for name in names if name in features}, return_dict=True)
        return {**features, "token_embeddings": outputs.last_hidden_state}

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        """Write a RemBERT checkpoint with its tokenizer, and this module's settings.

        Raises:
            InputError: `safe_serialization` is False.
        """
        if not safe_serialization:
            raise InputError("Checkpoints are saved as safetensors. Received: `safe_serialization=False`.")
        self.model.save_pretrained(output_path)
        self.tokenizer.save_pretrained(output_path)
        self.save_config(output_path)

    @classmethod
    def load(
        cls,
        model_name_or_path: str,
        subfolder: str = "",
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        model_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> RemBertTransformer:
        """What `save` wrote; `model_kwargs` are those of `RemBertModel.from_pretrained`."""
        hub: dict[str, Any] = {
            "subfolder": subfolder,
            "token": token,
            "cache_folder": cache_folder,
            "revision": revision,
            "local_files_only": local_files_only,
        }
        settings = cls.load_config(model_name_or_path, **hub)
        directory = cls.load_dir_path(model_name_or_path, **hub)
        assert directory is not None  # its settings were there
        return cls.from_checkpoint(directory, **settings, **(model_kwargs or {}))
