"""The settings of generation, their defaults, and the checks of its arguments. Needs no framework."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

from rembert.common.arguments import (
    BOOLEAN,
    Constraint,
    boolean_or,
    check_argument,
    check_arguments,
    integer,
    number,
    plain,
)
from rembert.common.config import RemBertConfig
from rembert.common.errors import InputError

_POSITIVE = number(above=0)
_CONSTRAINTS = {
    "max_new_tokens": integer(at_least=1),
    "num_beams": integer(at_least=1),
    "do_sample": BOOLEAN,
    "temperature": _POSITIVE,
    "top_k": integer(at_least=0),
    "top_p": number(above=0, at_most=1),
    "repetition_penalty": _POSITIVE,
    "length_penalty": number(),
    "early_stopping": boolean_or(("never",)),
}


EXCLUDED = (
    -1.0e9
)  # added to the score of a beam that must not be chosen; transformers adds the same, so that ties are equal


class Default(Enum):
    """The default of an argument for which None is a value."""

    CONFIG = "the configuration's"


@dataclass(frozen=True)
class GenerationSettings:
    """How tokens are chosen, after all checks and defaults. `RemBertForCausalLM.generate` describes the fields."""

    max_new_tokens: int
    do_sample: bool
    num_beams: int
    temperature: float
    top_k: int
    top_p: float
    repetition_penalty: float
    length_penalty: float
    early_stopping: bool | str
    eos_token_ids: tuple[int, ...]
    pad_token_id: int

    @property
    def num_candidates(self) -> int:
        """The number of continuations that a step of beam search considers: enough to fill the open beams."""
        return max(2, 1 + len(self.eos_token_ids)) * self.num_beams

    @property
    def stops_when_full(self) -> bool:
        """Whether beam search ends as soon as it has `num_beams` ended texts."""
        return self.early_stopping is True

    @property
    def assumes_full_length(self) -> bool:
        """Whether the best score that an open beam can reach is that of the longest text."""
        return self.early_stopping == "never" and self.length_penalty > 0


def generation_settings(
    config: RemBertConfig,
    *,
    max_new_tokens: Any,
    do_sample: Any,
    num_beams: Any,
    temperature: Any,
    top_k: Any,
    top_p: Any,
    repetition_penalty: Any,
    length_penalty: Any,
    early_stopping: Any,
    eos_token_id: Any,
    pad_token_id: Any,
    has_streamer: bool,
) -> GenerationSettings:
    """The settings from the given arguments.

    Raises:
        InputError: the model is not a decoder, or an argument is outside its range.
    """
    if not config.is_decoder:
        raise InputError("Generation needs a model with `is_decoder=True`. Received: `is_decoder=False`.")
    given = {
        "max_new_tokens": max_new_tokens,
        "num_beams": num_beams,
        "do_sample": do_sample,
        "temperature": temperature,
        "top_k": 0 if top_k is None else top_k,
        "top_p": 1.0 if top_p is None else top_p,
        "repetition_penalty": repetition_penalty,
        "length_penalty": length_penalty,
        "early_stopping": early_stopping,
    }
    given = {name: plain(value) for name, value in given.items()}
    check_arguments(_CONSTRAINTS, given)
    if has_streamer and given["num_beams"] > 1:
        raise InputError(
            "`streamer` needs final tokens, which beam search has only at its end. Received: "
            f"`num_beams={num_beams}`. Omit one of the two."
        )
    if config.vocab_size < 2:
        raise InputError(f"Generation needs two tokens to choose from. Received: `vocab_size={config.vocab_size}`.")
    ends = _eos_token_ids(config, eos_token_id)
    if pad_token_id is None:
        pad_token_id = next((each for each in (config.pad_token_id, *ends) if each is not None), 0)
    pad_token_id = plain(pad_token_id)
    check_argument("pad_token_id", pad_token_id, _token_id(config))
    given["top_k"] = min(given["top_k"], config.vocab_size)
    numbers = ("temperature", "top_p", "repetition_penalty", "length_penalty")
    given.update({name: float(given[name]) for name in numbers})
    return GenerationSettings(**given, eos_token_ids=ends, pad_token_id=pad_token_id)


def _eos_token_ids(config: RemBertConfig, given: Any) -> tuple[int, ...]:
    """The ids that end a text, from an id, a sequence, an array or a tensor of them, or None."""
    ends = config.eos_token_id if given is Default.CONFIG else given
    if ends is None:
        ends = ()
    elif hasattr(ends, "__array__"):  # a framework's tensor, or NumPy's
        ends = np.asarray(ends).tolist()
    ids = tuple(map(plain, ends)) if isinstance(ends, Sequence) and not isinstance(ends, str) else (ends,)
    if given is Default.CONFIG:  # the default ids may be outside a small vocabulary
        ids = tuple(token for token in ids if token < config.vocab_size)
    for token in ids:
        check_argument("eos_token_id", token, _token_id(config))
    return ids


def _token_id(config: RemBertConfig) -> Constraint:
    return integer(at_least=0, at_most=config.vocab_size - 1)


def check_source_mask(dimensions: int) -> None:
    """Refuse a mask of the source with a dimension for the prompt's tokens, as new tokens have no row in it.

    Raises:
        InputError: quotes the number of dimensions.
    """
    if dimensions != 2:
        raise InputError(
            "`encoder_attention_mask` must have the shape [batch, source] in generation. Received: "
            f"{dimensions} dimensions."
        )


def check_length(config: RemBertConfig, longest_prompt: int, max_new_tokens: int) -> None:
    """Refuse a prompt that is too long for the new tokens to have positions.

    Raises:
        InputError: quotes the lengths.
    """
    limit = config.max_position_embeddings
    if longest_prompt + max_new_tokens > limit:
        raise InputError(
            f"Prompt and new tokens may be at most `max_position_embeddings={limit}` tokens together. Received: "
            f"{longest_prompt} tokens in the longest prompt and `max_new_tokens={max_new_tokens}`. Shorten one."
        )


def check_padding_side(last_tokens_are_real: bool) -> None:
    """Refuse prompts with padding at the end.

    Raises:
        InputError: names the side on which padding belongs.
    """
    if not last_tokens_are_real:
        raise InputError(
            "Prompts must be padded on the left: new tokens follow the last one. Received: an `attention_mask` with a "
            "0 in its last column. Use a tokenizer with `padding_side='left'`."
        )
