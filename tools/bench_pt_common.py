"""What the measurements of `bench_pt.py` share: models, the batch of mixed lengths, and how a call is timed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

LENGTHS = (53, 128, 26, 79, 15, 38, 60, 28, 75, 20, 58, 29, 73, 26, 54, 36)
WIDTH, BUCKETS, VOCABULARY = 128, 4, 32000
ENOUGH = 4.0  # seconds of calls after which a process makes no more
TINY = {
    "hidden_size": 64,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "input_embedding_size": 32,
    "output_embedding_size": 48,
    "num_hidden_layers": 1,
    "vocab_size": 2000,
}
SIZES: dict[str, int] = {}  # that take the place of the full ones in this process


def model_of(name: str, head: str, **settings: Any) -> Any:
    """A model of transformers or of rembert, with random weights."""
    if name == "transformers":
        import transformers as library
    else:
        import rembert.pt as library
    config = library.RemBertConfig(**{"num_hidden_layers": 4, "vocab_size": VOCABULARY, **settings, **SIZES})
    return getattr(library, f"RemBert{head}")(config)


def mixed(full: bool = False) -> dict[str, Any]:
    """The batch of mixed lengths, or one of the same size without padding."""
    import torch

    torch.manual_seed(0)  # whatever the model's initialisation drew
    lengths = torch.full((len(LENGTHS), 1), WIDTH) if full else torch.tensor(LENGTHS)[:, None]
    mask = (torch.arange(WIDTH) < lengths).long()
    return {"input_ids": tokens(*mask.shape) * mask, "attention_mask": mask}


def buckets() -> Iterator[dict[str, Any]]:
    """The batch of mixed lengths as four batches of similar lengths, each as wide as its longest text."""
    import torch

    batch = mixed()
    for rows in torch.tensor(LENGTHS).argsort().chunk(BUCKETS):
        yield {key: tensor[rows, : max(LENGTHS[row] for row in rows)] for key, tensor in batch.items()}


def real_states(outputs: list[Any]) -> Any:
    """The states of the buckets' real tokens, [t, e], from NumPy arrays or tensors."""
    import torch

    pairs = zip(outputs, buckets(), strict=True)
    return torch.cat([torch.as_tensor(states).float()[batch["attention_mask"].bool()] for states, batch in pairs])


def tokens(*shape: int) -> Any:
    """Random ids, without the special ones."""
    import torch

    return torch.randint(5, SIZES.get("vocab_size", VOCABULARY), shape)


def timed(call: Callable[[], Any], calls: int = 5) -> float:
    """Seconds of a call: the median of several, or of fewer long ones, after a first one that does not count."""
    call()
    seconds: list[float] = []
    while len(seconds) < calls and sum(seconds) < ENOUGH:
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)
