"""Text as input: SentencePiece inside the graph, in a `tf.data` pipeline or in a SavedModel, with TensorFlow Text.

Serving such a model requires the package `tensorflow_text`, imported once so that TensorFlow knows the operations, but
not this library.
"""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from rembert.bridge.atomic_directory import new_directory
from rembert.common.arguments import check_argument, integer
from rembert.common.dependencies import require_packages
from rembert.common.errors import ExportError, InputError
from rembert.common.exporting import is_export
from rembert.common.parameters import HEADS
from rembert.common.trials import output_differences
from rembert.tf.exporting import SIGNATURE, write_graphs
from rembert.tf.pretrained import TFRemBertPreTrainedModel
from rembert.tf.serving import serve

PAIRS = "pairs"
# Test inputs of a written model: several scripts, spaces, an empty text, and one with too many tokens.
_TRIALS = ["Hello, world.", "  Zażółć\tgęślą jaźń ", "機械学習です。", "", "a b c " * 600]


class TextPreprocessor(tf.Module):
    """Turns batches of texts, or of pairs, into a model's inputs inside a graph, as in a `tf.data` pipeline.

    The ids are those of `tokenizer(texts, padding=True, truncation=True)`, but special tokens written in a text, such
    as `[MASK]`, are ordinary text.

    Args:
        tokenizer: a `RemBertTokenizer` that neither lower-cases nor strips accents.
        max_length: of a sequence with its special tokens, 4 or more: a longer text is truncated at its end, a pair at
            the end of its longer text.

    Raises:
        MissingDependencyError: `tensorflow_text` is not installed.
        InputError: the tokenizer changes case or accents, or `max_length` is below 4.

    Example:
        >>> from rembert import RemBertTokenizer
        >>> tokenizer = RemBertTokenizer.from_pretrained("google/rembert")
        >>> texts = tf.data.Dataset.from_tensor_slices(["Good.", "A train leaves at seven."])
        >>> for inputs in texts.batch(2).map(TextPreprocessor(tokenizer, max_length=16)):
        ...     print(sorted(inputs), len(inputs["input_ids"]))
        ['attention_mask', 'input_ids', 'token_type_ids'] 2
    """

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        super().__init__()
        require_packages("tensorflow_text", needed_for="Text as input of a graph")
        if tokenizer.do_lower_case or not tokenizer.keep_accents:
            raise InputError(
                "`tokenizer` must leave case and accents as they are: the graph has no operation that changes them in "
                "the same way. Received: one with `do_lower_case=True` or `keep_accents=False`."
            )
        check_argument("max_length", max_length, integer(at_least=4))
        self._text, self._length = import_module("tensorflow_text"), max_length
        self._sentencepiece = self._text.SentencepieceTokenizer(tokenizer._model.content)
        self._cls, self._sep, self._pad = tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id

    def __call__(self, text: Any, text_pair: Any = None) -> dict[str, Any]:
        """[b] strings, or two of them, to `input_ids`, `attention_mask` and `token_type_ids`, each int32 [b, s]."""
        segments = [self._sentencepiece.tokenize(each) for each in (text, text_pair) if each is not None]
        kept = _cut(segments, self._length - len(segments) - 1)
        ids, types = self._text.combine_segments(kept, self._cls, self._sep)
        ids = tf.cast(ids, tf.int32)
        return {
            "input_ids": ids.to_tensor(self._pad),
            "attention_mask": tf.ones_like(ids).to_tensor(0),
            "token_type_ids": tf.cast(types, tf.int32).to_tensor(0),
        }


def export_text_savedmodel(
    model: TFRemBertPreTrainedModel,
    tokenizer: Any,
    directory: str | os.PathLike[str],
    *,
    max_length: int | None = None,
    force: bool = False,
) -> float:
    """Write a SavedModel from text to the model's outputs, if the loaded SavedModel reproduces the model's results.

    Its signature `serving_default` takes `text` [b], a batch of strings; `pairs` takes `text` and `text_pair`. A text
    that is too long is truncated at its end, a pair at the end of its longer text. Only the graph adds special tokens:
    `[MASK]` in a text is ordinary text.

    Args:
        model: any of the model classes but multiple choice.
        tokenizer: a `RemBertTokenizer` that neither lower-cases nor strips accents.
        directory: a new directory; it appears complete, or not at all.
        max_length: of the sequences with their special tokens; by default the model's limit.
        force: replace an export at `directory`.

    Returns:
        The largest difference from the model on the tokenizer's ids, relative to the output's largest number.

    Raises:
        MissingDependencyError: `tensorflow_text` is not installed.
        InputError: the model or tokenizer cannot be served in this way, or `directory` exists.
        ExportError: the results differ by more than 1e-5 of an output's largest number, or the disk is full.

    Example:
        >>> from rembert import RemBertTokenizer
        >>> from rembert.tf import TFRemBertModel
        >>> model = TFRemBertModel.from_pretrained("google/rembert")
        >>> tokenizer = RemBertTokenizer.from_pretrained("google/rembert")
        >>> difference = export_text_savedmodel(model, tokenizer, "rembert-text", max_length=64)
        >>> serve = tf.saved_model.load("rembert-text").signatures["serving_default"]
        >>> outputs = serve(text=tf.constant(["The train leaves at seven."]))
        >>> sorted(outputs)
        ['last_hidden_state', 'pooler_output']
    """
    require_packages("tensorflow_text", needed_for="A model that takes text")
    if HEADS[model.head].takes_choices:
        raise InputError(f"`model` must take one text or a pair. Received: a {model.head} model.")
    longest = model.config.max_position_embeddings
    length = longest if max_length is None else max_length
    check_argument("max_length", length, integer(at_least=4, at_most=longest))
    served = _TextModel(model, TextPreprocessor(tokenizer, length))
    with new_directory(Path(directory), force=force, replaceable=is_export) as fresh:
        signatures = {SIGNATURE: served.single.get_concrete_function(), PAIRS: served.pairs.get_concrete_function()}
        write_graphs(served, fresh, signatures)
        loaded = tf.saved_model.load(str(fresh)).signatures
        others = _TRIALS[1:] + _TRIALS[:1]
        single = loaded[SIGNATURE](text=tf.constant(_TRIALS))
        pairs = loaded[PAIRS](text=tf.constant(_TRIALS), text_pair=tf.constant(others))
        differences = [
            _difference(model, tokenizer(_TRIALS, **_CALL, max_length=length), single),
            _difference(model, tokenizer(_TRIALS, others, **_CALL, max_length=length), pairs),
        ]
        if not max(differences) <= 1e-5:
            raise ExportError(f"The export differs from the model: by {max(differences):.1e}.")
    return max(differences)


_CALL = {"padding": True, "truncation": True, "return_tensors": "np"}


class _TextModel(tf.Module):
    def __init__(self, model: Any, preprocessor: TextPreprocessor) -> None:
        super().__init__()
        self._held = [variable.value for variable in model.variables]
        self._preprocessor = preprocessor
        self._serve = lambda inputs: serve(model, inputs)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")], autograph=False)
    def single(self, text: Any) -> dict[str, Any]:
        return self._serve(self._preprocessor(text))

    @tf.function(
        input_signature=[tf.TensorSpec([None], tf.string, name=name) for name in ("text", "text_pair")],
        autograph=False,
    )
    def pairs(self, text: Any, text_pair: Any) -> dict[str, Any]:
        return self._serve(self._preprocessor(text, text_pair))


def _cut(segments: list[Any], limit: int) -> list[Any]:
    """Ragged rows truncated to `limit` tokens together: the longer one at its end, of two equal ones the second."""
    lengths = [segment.row_lengths() for segment in segments]
    if len(segments) == 1:
        kept = [tf.minimum(lengths[0], limit)]
    else:
        one, other = lengths
        kept = [tf.maximum(limit - other, (limit + 1) // 2), tf.maximum(limit - one, limit // 2)]
    return [
        tf.ragged.boolean_mask(segment, tf.ragged.range(length) < count[:, None])
        for segment, length, count in zip(segments, lengths, kept, strict=True)
    ]


def _difference(model: Any, inputs: Any, found: dict[str, Any]) -> float:
    """The largest difference from the model on a tokenizer's ids, relative; infinite if the shapes differ."""
    wanted = serve(model, {key: np.asarray(inputs[key], np.int32) for key in inputs})
    differences = output_differences(wanted, found)
    return float(np.max([differences[name].relative for name in wanted]))  # NaN where one is
