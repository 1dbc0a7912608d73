"""The most likely tokens for a mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from rembert.common.arguments import check_argument, integer
from rembert.common.collation.padding import pad_inputs
from rembert.common.errors import InputError
from rembert.common.tokenization import RemBertTokenizer
from rembert.tasks.backends import running
from rembert.tasks.predicting import model_inputs


class Filling(NamedTuple):
    """A token for a mask, its probability, and the text with the token instead of that mask (other masks stay)."""

    token: str
    probability: float
    text: str


def fill_mask(
    model: Any,
    tokenizer: RemBertTokenizer,
    texts: Sequence[str],
    *,
    top_k: int = 5,
    targets: Sequence[str] | None = None,
) -> list[list[list[Filling]]]:
    """For each text, for each of its masks, the `top_k` most likely tokens, most likely first.

    Args:
        model: a masked language model of either framework.
        tokenizer: the model's.
        texts: each with at least one `[MASK]`.
        top_k: the number of tokens.
        targets: the only tokens to choose from, as words ("Nairobi") or, inside words, as tokens of the vocabulary.
            Their probabilities are those among all tokens. At most `top_k` of them are returned.

    Raises:
        InputError: a text has no mask or is longer than the model allows, `top_k` exceeds the vocabulary, or a target
            is not one token.

    Example:
        >>> from rembert.pt import RemBertForMaskedLM
        >>> model = RemBertForMaskedLM.from_pretrained("google/rembert")
        >>> tokenizer = RemBertTokenizer.from_pretrained("google/rembert")
        >>> [[fillings]] = fill_mask(model, tokenizer, ["The ferry leaves at [MASK]."], top_k=3)
        >>> [filling.token for filling in fillings]
        [..., ..., ...]
    """
    mask = tokenizer.mask_token_id
    if mask is None:
        raise InputError("`tokenizer` must have a mask token. Received: one without `mask_token`.")
    check_argument("top_k", top_k, integer(at_least=1, at_most=model.config.vocab_size))
    limit = model.config.max_position_embeddings
    choices = None if targets is None else _target_ids(tokenizer, targets)
    result = []
    with running(model) as runner:
        for text in texts:
            ids = tokenizer(text, truncation=False, verbose=False)["input_ids"]
            if mask not in ids:
                raise InputError(f"A text must contain {tokenizer.mask_token!r}. Received: {text!r:.80}.")
            if len(ids) > limit:
                raise InputError(
                    f"A text must have at most `max_position_embeddings={limit}` tokens. Received: {len(ids)} tokens "
                    f"of {text!r:.80}."
                )
            positions = np.flatnonzero(np.array(ids) == mask)
            batch = pad_inputs([{"input_ids": ids, "token_type_ids": [0] * len(ids)}], mask)
            [logits] = runner.outputs({**model_inputs(batch), "logits_at": positions[None]})["logits"]
            result.append(
                [_fillings(tokenizer, text, number, row, top_k, choices) for number, row in enumerate(logits)]
            )
    return result


def _target_ids(tokenizer: RemBertTokenizer, targets: Sequence[str]) -> np.ndarray:
    """The ids of the targets, each once, ascending."""
    if isinstance(targets, str) or not len(targets):
        raise InputError(f"`targets` must be a list of at least one word. Received: `targets={targets!r:.80}`.")
    vocabulary = tokenizer.get_vocab()
    found = set()
    for target in targets:
        ids = tokenizer.encode(target, add_special_tokens=False)
        if len(ids) != 1 and target in vocabulary:  # a token inside words
            ids = [vocabulary[target]]
        if len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
            tokens = tokenizer.convert_ids_to_tokens(ids)
            raise InputError(
                f"Each of `targets` must be one token of the model. Received: {target!r}, which is {tokens}."
            )
        found.add(ids[0])
    return np.array(sorted(found))


def _fillings(
    tokenizer: RemBertTokenizer, text: str, number: int, logits: np.ndarray, top_k: int, choices: np.ndarray | None
) -> list[Filling]:
    """The most likely tokens, of `choices` or of all, for the mask with this number in a text."""
    values = logits.astype(np.float64)
    likely = np.exp(values - values.max())
    likely /= likely.sum()
    mask = str(tokenizer.mask_token)
    parts = text.split(mask)
    # A token that begins a word has a space of its own, so the space before the mask is dropped.
    before, after = mask.join(parts[: number + 1]).rstrip(" "), mask.join(parts[number + 1 :])
    found = []
    best = (
        np.argsort(-likely, kind="stable") if choices is None else choices[np.argsort(-likely[choices], kind="stable")]
    )
    for index in best[:top_k].tolist():
        token = str(tokenizer.convert_ids_to_tokens(index))
        found.append(Filling(token, float(likely[index]), (before + token.replace("▁", " ") + after).lstrip(" ")))
    return found
