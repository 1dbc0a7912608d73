"""Training on unpadded batches: gradient checkpointing, autocast, dropout."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from rembert.pt.attention import RemBertSelfAttention  # noqa: E402
from rembert.pt.packed_attention import _attend_each, _attend_padded  # noqa: E402
from rembert.pt.packing import pack_lengths, pack_mask  # noqa: E402
from tests.frameworks import PT, difference, small_config  # noqa: E402
from tests.parity.cases import CASES, WITH_LOSS, Case, build, by_case  # noqa: E402

BY_NAME = {case.name: case for case in CASES}
PADDED = [BY_NAME[name] for name in ("one_label_each", "token_classification", "causal_lm", "causal_lm_cross")]


def _inputs(case: Case) -> dict[str, Any]:
    return {name: PT.tensor(array) for name, array in case.inputs(case.config()).items()}


@by_case(PADDED)
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing(case: Case, reentrant: bool) -> None:
    model = build(PT, case, case.config(classifier_dropout_prob=0.0)).train()
    assert not model.is_gradient_checkpointing
    runs = []
    model.base_model.encoder.layer[0].intermediate.register_forward_hook(lambda *_: runs.append(1))
    wanted = PT.gradients(model, **case.inputs(case.config()))
    assert len(runs) == 1
    model.gradient_checkpointing_enable({"use_reentrant": True} if reentrant else None)
    assert model.is_gradient_checkpointing
    for name, gradient in PT.gradients(model, **case.inputs(case.config())).items():
        assert difference(gradient, wanted[name]) <= 1e-12, name
    assert len(runs) == 3  # forward, and again in the backward pass
    PT.call(model.eval(), **case.inputs(case.config()))
    assert len(runs) == 4
    model.gradient_checkpointing_disable()
    PT.gradients(model.train(), **case.inputs(case.config()))
    assert len(runs) == 5


def test_checkpointing_repeats_the_dropout() -> None:
    case = BY_NAME["token_classification"]
    model = build(PT, case, case.config(hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.3)).train()
    gradients = []
    for enable in (False, True):
        if enable:
            model.gradient_checkpointing_enable()
        PT.seed(3)
        gradients.append(PT.gradients(model, **case.inputs(case.config())))
    for name, gradient in gradients[0].items():
        assert difference(gradients[1][name], gradient) <= 1e-12, name


@by_case(WITH_LOSS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_trains_without_nan(case: Case, dtype: torch.dtype) -> None:
    model, inputs = build(PT, case, case.config(), dtype="float32").train(), _inputs(case)
    inputs = {name: each.float() if each.dtype == torch.float64 else each for name, each in inputs.items()}
    inputs["attention_mask"][-1] = 0
    with torch.autocast("cpu", dtype):
        loss = model(**inputs).loss
    assert loss.dtype == torch.float32
    loss.backward()
    assert torch.isfinite(loss)
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("setting", ["hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout_prob"])
def test_dropout_where_the_configuration_has_it(setting: str) -> None:
    case = BY_NAME["token_classification"]
    none = dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout_prob"), 0.0)
    model, inputs = build(PT, case, case.config(**{**none, setting: 0.5})), _inputs(case)
    PT.seed(0)
    first, second = (model.train()(**inputs) for _ in "ab")
    assert not torch.equal(first.logits, second.logits)
    first, second = (model.eval()(**inputs) for _ in "ab")
    assert torch.equal(first.logits, second.logits)


def test_attention_dropout_keeps_the_mean() -> None:
    """Each probability is dropped with the given chance and the others grow by as much, in every sequence."""
    attention = RemBertSelfAttention(small_config(attention_probs_dropout_prob=0.4)).train()
    packing = pack_lengths(torch.tensor([0, 40, 60]))
    torch.manual_seed(0)
    query, key = torch.randn(2, 60, 12)
    value = torch.ones(60, 12)
    contexts = torch.stack([attention.attend_packed(query, key, value, packing) for _ in range(400)])
    assert contexts.std() > 0.05
    assert abs(contexts.mean() - 1) < 0.01


# ------------------------------------------------------------------ attention of packed tokens


@pytest.mark.parametrize("causal", [False, True])
def test_both_implementations_of_attention_agree(causal: bool) -> None:
    """One call for each sequence, and the padded call that a GPU takes where its kernel for lengths cannot serve."""
    mask = torch.tensor([[1, 0, 1, 1, 0], [0, 0, 0, 0, 0], [0, 0, 0, 1, 1], [1, 1, 1, 1, 1]])
    packing = pack_mask(mask)
    torch.manual_seed(0)
    parts = [torch.randn(10, 3, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    each = _attend_each(*parts, packing.lengths, causal, 0.0)
    padded = _attend_padded(*parts, packing, causal, 0.0)
    torch.testing.assert_close(each, padded, rtol=1e-12, atol=1e-12)
    weights = torch.randn_like(each)
    for one, other in zip(*(torch.autograd.grad(way, parts, weights) for way in (each, padded)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@by_case([BY_NAME["model"], BY_NAME["decoder"]])
def test_on_a_gpu(case: Case, dtype: torch.dtype) -> None:
    config = case.config(hidden_size=48, num_attention_heads=3)
    model, inputs = build(PT, case, config, dtype="float32"), _inputs(case)
    wanted = model(**inputs, use_cache=False).last_hidden_state
    moved = {name: each.cuda() for name, each in inputs.items()}
    actual = model.cuda().to(dtype)(**moved, use_cache=False).last_hidden_state.float().cpu()
    limit = {torch.float32: 1e-3, torch.float16: 0.02, torch.bfloat16: 0.1}[dtype]  # float32 may round to TF32
    assert difference(actual.detach().numpy(), wanted.detach().numpy()) <= limit


def test_a_batch_of_nothing_but_padding_reaches_every_parameter() -> None:
    """Data parallelism waits for the gradient of each of them."""
    case = BY_NAME["one_label_each"]
    model, inputs = build(PT, case, case.config()).train(), _inputs(case)
    inputs["attention_mask"] = torch.zeros_like(inputs["attention_mask"])
    model(**inputs).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_packing_and_unpacking() -> None:
    mask = torch.tensor([[0, 1, 1], [0, 0, 0], [1, 0, 1]])
    packing = pack_mask(mask)
    assert packing.cu_seqlens.tolist() == [0, 2, 2, 4]
    assert packing.indices.tolist() == [1, 2, 6, 8]
    assert (packing.lengths, packing.max_length) == ((2, 0, 2), 2)
    states = torch.arange(18).reshape(3, 3, 2) + 1
    assert packing.pack(states)[:, 0].tolist() == [3, 5, 13, 17]
    assert torch.equal(packing.unpack(packing.pack(states)), states * mask[..., None])
    assert torch.equal(packing.mask(), mask.bool())
    given = pack_lengths(torch.tensor([0, 1, 4]))
    assert given.indices.tolist() == [0, 3, 4, 5]
    assert given.positions.tolist() == [0, 0, 1, 2]
    assert np.array_equal(given.mask().numpy(), [[True, False, False], [True, True, True]])
