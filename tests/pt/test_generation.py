"""Generation against transformers, and the memory of its cache."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from rembert.pt.cache import CacheBuffer  # noqa: E402
from tests.frameworks import GOLDEN, PT  # noqa: E402
from tests.parity.test_generation import _golden, _prompts  # noqa: E402

# Ends that these models do generate; where padding is 0, transformers fills ended beams with the end instead.
WAYS: list[dict[str, Any]] = [
    {"repetition_penalty": 1.5},
    {"eos_token_id": [10, 97]},
    {"num_beams": 3},
    {"num_beams": 2, "repetition_penalty": 1.3, "eos_token_id": [124, 77]},
]
LONG_WAYS = [
    {"num_beams": 3, "eos_token_id": [10, 97, 50], "early_stopping": True, "length_penalty": 2.0},
    {"num_beams": 4, "eos_token_id": 50, "early_stopping": "never", "length_penalty": -0.5},
]


@pytest.mark.parametrize("way", [*WAYS, *(pytest.param(way, marks=pytest.mark.slow) for way in LONG_WAYS)], ids=str)
def test_as_transformers(way: dict[str, Any]) -> None:
    transformers = pytest.importorskip("transformers")
    other = transformers.RemBertForCausalLM.from_pretrained(GOLDEN / "causal_lm").eval()
    for seed in range(4):
        ids, mask = map(torch.from_numpy, _prompts(seed))
        settings = {"max_new_tokens": 12, "pad_token_id": 7, **way}
        wanted = other.generate(ids, attention_mask=mask, do_sample=False, **settings)
        assert torch.equal(_golden(PT).generate(ids, mask, **settings), wanted)


@pytest.mark.parametrize("kind", [torch.int32, torch.uint8])
def test_ids_of_any_width(kind: torch.dtype) -> None:
    ids = torch.from_numpy(_prompts()[0])
    for beams in (1, 2):
        way = {"num_beams": beams, "repetition_penalty": 1.5}
        assert torch.equal(_golden(PT).generate(ids.to(kind), **way), _golden(PT).generate(ids, **way))


def test_cache_buffer_grows_in_place() -> None:
    buffer, states = CacheBuffer(6), torch.randn(2, 3, 6, 4)
    first = buffer.append(states[:, :, :4])
    memory = first.data_ptr()
    assert buffer.shape == (2, 3, 4, 4)
    both = buffer.append(states[:, :, 4:])
    assert both.data_ptr() == memory
    assert torch.equal(both, states)
    buffer.select(torch.tensor([1, 1, 0]))
    assert torch.equal(buffer.append(states[:, :, :0][:1].expand(3, 3, 0, 4)), states[[1, 1, 0]])
