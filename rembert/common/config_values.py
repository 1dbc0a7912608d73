"""The values that a configuration may have, separately and together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rembert.common.arguments import BOOLEAN, TEXT, Constraint, check_arguments, integer, number, one_of, optional
from rembert.common.errors import ConfigError
from rembert.common.labels import PROBLEM_TYPES

ACTIVATIONS = (
    "gelu",
    "gelu_new",
    "gelu_pytorch_tanh",
    "gelu_fast",
    "quick_gelu",
    "relu",
    "silu",
    "swish",
    "tanh",
    "sigmoid",
    "mish",
)
DTYPES = ("float32", "float16", "bfloat16", "float64")
ATTENTION_IMPLEMENTATIONS = ("auto", "sdpa", "eager")
MAX_SIZE = 2**31 - 1  # ids and positions are 32-bit integers in TensorFlow
MAX_LAYERS = 1000

# Keys that transformers writes for any model, beside those that `RemBertConfig` has arguments for. They are kept.
GENERIC_KEYS = frozenset(
    {
        *("finetuning_task", "task_specific_params", "tokenizer_class", "transformers_version", "prefix", "auto_map"),
        *("chunk_size_feed_forward", "pruned_heads", "torchscript", "tf_legacy_loss", "use_bfloat16"),
        *("gradient_checkpointing", "is_encoder_decoder", "tie_encoder_decoder", "cross_attention_hidden_size"),
        *("cls_token_id", "sep_token_id", "mask_token_id", "unk_token_id", "decoder_start_token_id"),
        *("max_length", "min_length", "do_sample", "early_stopping", "num_beams", "num_beam_groups", "top_k", "top_p"),
        *("temperature", "typical_p", "repetition_penalty", "length_penalty", "diversity_penalty"),
        *("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "num_return_sequences", "output_scores"),
        *("return_dict_in_generate", "forced_bos_token_id", "forced_eos_token_id", "bad_words_ids"),
        *("remove_invalid_values", "exponential_decay_length_penalty", "suppress_tokens", "begin_suppress_tokens"),
    }
)

_SIZES = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "input_embedding_size",
    "output_embedding_size",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
)
_DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout_prob")
_FLAGS = (
    "use_cache",
    "is_decoder",
    "add_cross_attention",
    "tie_word_embeddings",
    "output_attentions",
    "output_hidden_states",
    "return_dict",
)

_ID = integer(at_least=0, at_most=MAX_SIZE)
_CONSTRAINTS: dict[str, Constraint] = {
    **dict.fromkeys(_SIZES, integer(at_least=1, at_most=MAX_SIZE)),
    "num_hidden_layers": integer(at_least=1, at_most=MAX_LAYERS),
    **dict.fromkeys(_DROPOUTS, number(at_least=0, below=1)),
    **dict.fromkeys(("initializer_range", "layer_norm_eps"), number(above=0)),
    **dict.fromkeys(_FLAGS, BOOLEAN),
    **dict.fromkeys(("pad_token_id", "bos_token_id"), optional(_ID)),
    "eos_token_id": Constraint(
        f"{_ID.wording}, a list of them or None",
        lambda value: value is None or all(map(_ID.accepts, value if isinstance(value, list) else [value])),
    ),
    "hidden_act": one_of(ACTIVATIONS),
    "problem_type": optional(one_of(PROBLEM_TYPES)),
    "no_answer_threshold": optional(number()),
    "attn_implementation": one_of(ATTENTION_IMPLEMENTATIONS),
    "dtype": optional(one_of(DTYPES)),
    "architectures": optional(
        Constraint("a list of names", lambda value: isinstance(value, list) and all(map(TEXT.accepts, value)))
    ),
}
# Of keys that a configuration need not have.
_GENERIC_CONSTRAINTS = {"gradient_checkpointing": BOOLEAN}


def check_values(values: Mapping[str, Any]) -> None:
    """Check the values of a configuration.

    Args:
        values: by key.

    Raises:
        ConfigError: a value is invalid; the message quotes it.
    """
    present = {name: constraint for name, constraint in _GENERIC_CONSTRAINTS.items() if name in values}
    check_arguments({**_CONSTRAINTS, **present}, values, ConfigError)
    if values["pad_token_id"] is not None and values["pad_token_id"] >= values["vocab_size"]:
        raise ConfigError(
            "`pad_token_id` must be less than `vocab_size`. Received: "
            f"`pad_token_id={values['pad_token_id']}` and `vocab_size={values['vocab_size']}`."
        )
    if values["hidden_size"] % values["num_attention_heads"]:
        raise ConfigError(
            "`hidden_size` must be a multiple of `num_attention_heads`. Received: "
            f"`hidden_size={values['hidden_size']}` and `num_attention_heads={values['num_attention_heads']}`."
        )
    if values["problem_type"] == "single_label_classification" and values["num_labels"] == 1:
        raise ConfigError(
            "`problem_type='single_label_classification'` needs at least two labels: with one, the loss is always "
            "zero. Received: `num_labels=1`. Use 'regression', or two labels."
        )
    if values["add_cross_attention"] and not values["is_decoder"]:
        raise ConfigError(
            "`add_cross_attention=True` needs `is_decoder=True`. Received: `is_decoder=False` and "
            "`add_cross_attention=True`."
        )
    if values["tie_word_embeddings"]:
        raise ConfigError(
            "RemBERT's input and output embeddings are decoupled and differ in width: `tie_word_embeddings` must "
            "be False. Received: `tie_word_embeddings=True`."
        )
