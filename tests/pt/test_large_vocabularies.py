"""The losses over large vocabularies inside PyTorch's own tools: compilation, frozen tables, other output layers."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from rembert.pt.linear_cross_entropy import is_plain_linear, linear_cross_entropy  # noqa: E402
from tests.frameworks import PT, needs_one_graph  # noqa: E402
from tests.parity.cases import CASES, build  # noqa: E402

CASE = next(case for case in CASES if case.name == "masked_lm")
CAUSAL = next(case for case in CASES if case.name == "causal_lm")


def _tensors(seed: int = 0, case: object = CASE) -> dict:
    return {name: PT.tensor(array) for name, array in case.inputs(case.config(), seed=seed).items()}


@needs_one_graph
@pytest.mark.parametrize("case", [CASE, CAUSAL], ids=lambda case: case.name)
def test_compiled_in_one_graph(case: object) -> None:
    model = build(PT, case, case.config(num_hidden_layers=1)).train()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for seed in (0, 1):  # as many labels as come: one graph for all
        inputs = _tensors(seed, case)
        model.zero_grad()
        loss = model(**inputs).loss
        loss.backward()
        wanted = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
        model.zero_grad()
        with torch._dynamo.config.patch(error_on_recompile=seed == 1):
            again = compiled(**inputs).loss
        again.backward()
        torch.testing.assert_close(again, loss, rtol=1e-12, atol=1e-12)
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(parameter.grad, wanted[name], rtol=1e-12, atol=1e-12)


def test_a_frozen_table_takes_no_gradient() -> None:
    model = build(PT, CASE, CASE.config()).train()
    inputs = _tensors()
    model(**inputs).loss.backward()
    wanted = {name: parameter.grad for name, parameter in model.named_parameters()}
    decoder = model.get_output_embeddings()
    for frozen in (["weight"], ["bias"], ["weight", "bias"]):
        model.zero_grad()
        for name, parameter in decoder.named_parameters():
            parameter.requires_grad = name not in frozen
        model(**inputs).loss.backward()
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                assert torch.equal(parameter.grad, wanted[name]), name
            else:
                assert parameter.grad is None


def test_nothing_is_computed_for_unused_gradients() -> None:
    states, weight, bias = torch.randn(4, 3), torch.randn(5, 3, requires_grad=True), torch.zeros(5)
    with torch.no_grad():
        assert linear_cross_entropy(states, weight, bias, torch.tensor([0, 1, 2, -100])).grad_fn is None


def test_another_output_layer_is_called() -> None:
    """An adapter or a hook on the output embeddings takes part in the loss."""
    model = build(PT, CASE, CASE.config()).train()
    inputs = _tensors()
    plain = model(**inputs).loss

    class Doubled(torch.nn.Linear):
        def forward(self, states: torch.Tensor) -> torch.Tensor:
            return super().forward(states) * 2

    layer = model.get_output_embeddings()
    assert is_plain_linear(layer)
    handle = layer.register_forward_hook(lambda module, given, logits: logits * 2)
    hooked = model(**inputs).loss
    handle.remove()
    layer.__class__ = Doubled
    assert not is_plain_linear(layer)
    assert torch.equal(model(**inputs).loss, hooked)
    assert not torch.equal(plain, hooked)
    wanted = model(**inputs, return_logits=True).loss
    torch.testing.assert_close(hooked, wanted, rtol=1e-12, atol=1e-12)


def test_float32_against_float64_over_many_classes() -> None:
    numbers = np.random.default_rng(0)
    states, table = numbers.standard_normal((40, 16)), numbers.standard_normal((30000, 16))
    labels = torch.from_numpy(numbers.integers(0, 30000, 40))
    losses, gradients = [], []
    for dtype in (torch.float64, torch.float32):
        given = [torch.from_numpy(each).to(dtype).requires_grad_() for each in (states, table)]
        loss = linear_cross_entropy(*given, torch.zeros(30000, dtype=dtype), labels)
        loss.backward()
        losses.append(loss.item())
        gradients.append([each.grad.double() for each in given])
    assert abs(losses[1] - losses[0]) <= 1e-6 * abs(losses[0])
    for one, other in zip(*gradients, strict=True):
        assert (one - other).abs().max() <= 1e-6 * one.abs().max()


def test_a_mean_over_many_labels_in_float16() -> None:
    """A gradient that loss scaling brings into float16's range must not have been rounded before."""
    numbers = torch.Generator().manual_seed(0)
    states, table = torch.randn(30000, 4, generator=numbers), torch.randn(20, 4, generator=numbers) / 10
    labels = torch.randint(20, (30000,), generator=numbers)
    gradients = []
    for half in (False, True):
        given = states.clone().requires_grad_()
        with torch.autocast("cpu", torch.float16, enabled=half):
            loss = linear_cross_entropy(given, table, torch.zeros(20), labels)
        (loss * 2.0**16).backward()
        gradients.append(given.grad)
    # The products' rounding to 11 bits; without care it is 3%, as the numbers are around 3e-6.
    assert (gradients[1] - gradients[0]).norm() <= 2e-3 * gradients[0].norm()
