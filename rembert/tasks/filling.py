"""The likeliest pieces under a mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from rembert.common.arguments import check_argument, integer
from rembert.common.collation.padding import pad_inputs
from rembert.common.errors import InputError
from rembert.common.tokenization import RemBertTokenizer
from rembert.tasks.predicting import runner


class Filling(NamedTuple):
    """A piece for a mask: how likely it is, and the text with it in the mask's place (other masks stay)."""

    piece: str
    probability: float
    text: str


def fill_mask(
    model: Any, tokenizer: RemBertTokenizer, texts: Sequence[str], *, top_k: int = 5
) -> list[list[list[Filling]]]:
    """For each text, for each of its masks, the `top_k` likeliest pieces, the likeliest first.

    Args:
        model: a masked language model of either framework.
        tokenizer: the model's.
        texts: each with `[MASK]` in it at least once.
        top_k: how many.

    Raises:
        InputError: a text without a mask or longer than the model takes, or `top_k` is not in the vocabulary's range.
    """
    mask = tokenizer.mask_token_id
    if mask is None:
        raise InputError("A tokenizer with a mask token is needed. Received: one without `mask_token`.")
    check_argument("top_k", top_k, integer(at_least=1, at_most=model.config.vocab_size))
    result = []
    with runner(model, "logits") as run:
        for text in texts:
            ids = tokenizer(text, truncation=False)["input_ids"]
            if mask not in ids:
                raise InputError(f"A text must hold {tokenizer.mask_token!r}. Received: {text!r:.80}.")
            if len(ids) > model.config.max_position_embeddings:
                raise InputError(
                    f"A text must have at most `max_position_embeddings={model.config.max_position_embeddings}` "
                    f"pieces. Received: {len(ids)} in {text!r:.80}."
                )
            places = np.flatnonzero(np.array(ids) == mask)
            batch = pad_inputs([{"input_ids": ids, "token_type_ids": [0] * len(ids)}], mask)
            logits = run({**batch, "places": places[None]})["logits"][0]
            result.append([_fillings(tokenizer, text, number, row, top_k) for number, row in enumerate(logits)])
    return result


def _fillings(tokenizer: RemBertTokenizer, text: str, number: int, logits: np.ndarray, top_k: int) -> list[Filling]:
    """The likeliest pieces for a text's mask of that number."""
    values = logits.astype(np.float64)
    likely = np.exp(values - values.max())
    likely /= likely.sum()
    mask = str(tokenizer.mask_token)
    parts = text.split(mask)
    # The mask takes the space before it, so a piece that begins a word brings its own.
    before, after = mask.join(parts[: number + 1]).rstrip(" "), mask.join(parts[number + 1 :])
    found = []
    for index in np.argsort(-likely, kind="stable")[:top_k].tolist():
        piece = str(tokenizer.convert_ids_to_tokens(index))
        found.append(Filling(piece, float(likely[index]), (before + piece.replace("▁", " ") + after).lstrip(" ")))
    return found
