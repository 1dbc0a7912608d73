"""Generation inside transformers: its own code with these models gives the tokens of its own models."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from transformers import DynamicCache, StaticCache  # noqa: E402

from rembert.common.errors import InputError  # noqa: E402
from rembert.transformers import RemBertForCausalLM  # noqa: E402
from tests.parity.cases import DECODERS  # noqa: E402
from tests.transformers.support import build_both  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
SETTINGS = {"max_position_embeddings": 40, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
CAUSAL, CROSS = (case for case in DECODERS if case.head == "causal-lm")
OPTIONS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "without a cache": {"use_cache": False},
    "beams": {"num_beams": 4, "num_return_sequences": 2, "no_repeat_ngram_size": 2},
    "samples": {"do_sample": True, "top_k": 7, "top_p": 0.9, "temperature": 0.7, "min_new_tokens": 3},
    "static cache": {"cache_implementation": "static", "disable_compile": True},
    "several ends": {"eos_token_id": [2, 5, 9], "repetition_penalty": 1.3},
}


@pytest.fixture(scope="module")
def both() -> tuple[Any, Any]:
    return build_both(CAUSAL, **SETTINGS)


@pytest.fixture(scope="module")
def prompts() -> dict[str, Any]:
    """Two prompts, one of them with padding on the left."""
    ids = torch.randint(3, 61, (2, 6), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "attention_mask": torch.tensor([[0, 0, 1, 1, 1, 1], [1] * 6])}


@pytest.mark.parametrize("name", OPTIONS)
def test_tokens_are_those_of_transformers(both: tuple[Any, Any], prompts: dict[str, Any], name: str) -> None:
    found = []
    for model in both:
        torch.manual_seed(1)
        found.append(model.generate(**prompts, max_new_tokens=9, **OPTIONS[name]))
    assert found[0].shape[1] > 8
    assert torch.equal(*found)


def test_the_source_is_cached(prompts: dict[str, Any]) -> None:
    theirs, ours = build_both(CROSS, **SETTINGS)
    source = {
        "encoder_hidden_states": torch.randn(2, 4, 12, dtype=torch.float64),
        "encoder_attention_mask": torch.tensor([[1, 1, 1, 0], [1] * 4]),
    }
    wanted = theirs.generate(**prompts, **source, max_new_tokens=6, use_cache=False)
    assert torch.equal(ours.generate(**prompts, **source, max_new_tokens=6), wanted)
    outputs = ours(**prompts, **source)
    assert outputs.past_key_values.cross_attention_cache.get_seq_length() == 4


def test_caches_give_the_logits_of_one_call(both: tuple[Any, Any], prompts: dict[str, Any]) -> None:
    theirs, ours = both
    real = {"input_ids": prompts["input_ids"]}
    with torch.no_grad():
        wanted = theirs(**real, use_cache=False).logits
        for cache in (DynamicCache(), StaticCache(config=ours.config, max_cache_len=9)):
            parts = []
            for piece in real["input_ids"].split([3, 2, 1], dim=1):
                outputs = ours(piece, past_key_values=cache)
                assert outputs.past_key_values is cache
                parts.append(outputs.logits)
            torch.testing.assert_close(torch.cat(parts, 1), wanted, rtol=0, atol=1e-10)


def test_masks_of_four_dimensions(both: tuple[Any, Any], prompts: dict[str, Any]) -> None:
    theirs, ours = both
    allowed = torch.ones(6, 6).tril().bool() & prompts["attention_mask"].bool()[:, None, None, :]
    allowed |= torch.eye(6).bool()
    added = torch.zeros(2, 1, 6, 6, dtype=torch.float64).masked_fill(~allowed, torch.finfo(torch.float64).min)
    ids = prompts["input_ids"]
    with torch.no_grad():
        wanted = theirs(ids, attention_mask=added, use_cache=False).logits
        for mask in (allowed, added):
            found = ours(ids, attention_mask=mask, use_cache=False).logits
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)
    with pytest.raises(InputError, match="the same for all heads"):
        ours(ids, attention_mask=allowed.expand(-1, 3, -1, -1))
    for mask in (added[:1], added[:, :, 2:3]):  # for all rows, for all queries
        with torch.no_grad():
            wanted = theirs(ids, attention_mask=mask, use_cache=False).logits
            found = ours(ids, attention_mask=mask, use_cache=False).logits
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)


def test_chosen_positions(both: tuple[Any, Any], prompts: dict[str, Any]) -> None:
    ours: RemBertForCausalLM = both[1]
    with torch.no_grad():
        wanted = ours(**prompts).logits
        torch.testing.assert_close(ours(**prompts, logits_to_keep=2).logits, wanted[:, -2:])
        torch.testing.assert_close(ours(**prompts, logits_to_keep=torch.tensor([1, -2])).logits, wanted[:, [1, 4]])
    ids = prompts["input_ids"]
    for arguments, says in (
        ({"input_ids": ids.flatten(), "cu_seqlens": torch.tensor([0, 6, 12])}, "does not go with packed inputs"),
        ({"input_ids": ids, "logits_at": torch.tensor([[1], [2]])}, "does not go with `logits_at`"),
    ):
        with pytest.raises(InputError, match=says):
            ours(**arguments, logits_to_keep=1)
    with pytest.raises(InputError, match="Received: booleans"):
        ours(ids, logits_to_keep=torch.tensor([True, False]))
    with pytest.raises(InputError, match="must lie in"):
        ours(ids, logits_to_keep=torch.tensor([9]))


def test_other_caches_are_refused(both: tuple[Any, Any], prompts: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"a cache of transformers.*Received: tuple"):
        both[1](**prompts, past_key_values=())


def test_recomputed_layers_give_the_same_gradients(both: tuple[Any, Any], prompts: dict[str, Any]) -> None:
    model = both[1].train()
    gradients = []
    for change in (lambda: None, model.activation_checkpointing_enable):
        change()
        model.zero_grad()
        outputs = model(**prompts, labels=prompts["input_ids"], use_cache=True)
        outputs.loss.backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    assert outputs.past_key_values is None
    model.activation_checkpointing_disable()
    model.eval()
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed, rtol=0, atol=1e-12)
