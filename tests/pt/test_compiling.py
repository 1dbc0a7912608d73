"""Graphs of any length: how often torch.compile compiles, and what torch.export leaves open."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from functorch.compile import make_boxed_func  # noqa: E402
from torch._dynamo.backends.common import aot_autograd  # noqa: E402

from tests.frameworks import PT, difference, flat, needs_one_graph  # noqa: E402
from tests.parity.cases import CASES, Case, as_dtype, build, by_case  # noqa: E402

# None is a batch's size, nor the first the number of choices or labels: sizes that are the same at first are taken
# for one.
LENGTHS = (7, 3, 5, 4, 11, 16, 9, 2, 18, 13)
QUICK = ("one_label_each",)


def _inputs(case: Case, length: int, batch: int = 6) -> dict[str, Any]:
    """Padded inputs; the last row has no more than one real token."""
    inputs = as_dtype(case.inputs(case.config(), seed=length, batch=batch, length=length), "float32")
    inputs["attention_mask"][-1, ..., 1:] = 0
    return inputs


def _same(case: Case, model: Any, other: Any, inputs: dict[str, Any]) -> None:
    wanted, found = flat(PT, PT.call(model, **inputs)), flat(PT, PT.call(other, **inputs))
    assert list(found) == list(wanted)
    for name, array in wanted.items():
        scale = max(1.0, np.abs(array).max(initial=0))
        assert np.abs(found[name] - array).max(initial=0) <= 1e-5 * scale, (name, inputs["input_ids"].shape)


def _graphs_for_ten_lengths(
    case: Case, positions: int | None = None, batches: tuple[int, ...] = (6,), **settings: Any
) -> int:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model = build(PT, case, case.config(num_hidden_layers=1), dtype="float32")
    # What is compiled, and not the code made of it, is at stake: this backend runs the graph as it is.
    compiled = torch.compile(model, fullgraph=True, backend="eager", **settings)
    for batch, length in zip(itertools.cycle(batches), LENGTHS, strict=False):
        inputs = _inputs(case, length, batch)
        if positions is not None:
            del inputs["labels"]
            inputs["logits_at"] = np.arange(batch * positions).reshape(batch, positions) % length
        _same(case, model, compiled, inputs)
    assert not torch._dynamo.utils.counters["graph_break"]
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


@needs_one_graph
@by_case([case for case in CASES if case.name in QUICK])
def test_one_graph_for_ten_lengths(case: Case) -> None:
    assert _graphs_for_ten_lengths(case, batches=(6, 8, 10), dynamic=True) == 1


@pytest.mark.slow
@needs_one_graph
@by_case([case for case in CASES if case.name in QUICK])
def test_by_default_one_more_for_the_second_length(case: Case) -> None:
    assert _graphs_for_ten_lengths(case) == 2


@needs_one_graph
def test_one_graph_for_chosen_positions() -> None:
    case = next(case for case in CASES if case.name == "masked_lm")
    assert _graphs_for_ten_lengths(case, positions=8, dynamic=True) == 1


def _rows(case: Case, length: int, batch: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Padded ids and their mask, and the same packed; the first row is as long as the batch is wide."""
    ids = case.inputs(case.config(), seed=length, batch=batch, length=length)["input_ids"]
    mask = np.arange(length) < np.random.default_rng(length).integers(1, length + 1, (batch, 1))
    mask[0] = True
    starts = np.concatenate([[0], mask.sum(1).cumsum()])
    return {"input_ids": ids, "attention_mask": mask.astype(np.int64)}, {"input_ids": ids[mask], "cu_seqlens": starts}


@needs_one_graph
@pytest.mark.parametrize("way", ["packed", "layers"])
@by_case([case for case in CASES if case.name in QUICK])
def test_one_graph_without_padding(case: Case, way: str) -> None:
    """For inference: attention reads the lengths when it runs, so no graph depends on them."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model = build(PT, case, case.config(), dtype="float32")
    compiled = build(PT, case, case.config(), dtype="float32")
    if way == "packed":
        compiled = torch.compile(compiled, fullgraph=True, dynamic=True, backend="eager")
    else:
        for layer in compiled.get_base_model().encoder.layer:
            layer.compile(fullgraph=True, dynamic=True, backend="eager")
    graphs: list[int] = []
    for batch, length in zip(itertools.cycle((6, 8, 10)), LENGTHS, strict=False):
        padded, packed = _rows(case, length, batch)
        inputs = packed if way == "packed" else padded
        settings = {"use_cache": False} if case.settings.get("is_decoder") else {}
        wanted = PT.call(model, **padded, **settings)
        found = PT.call(compiled, **inputs, **settings)
        real = padded["attention_mask"] != 0
        expected = wanted.logits.numpy()
        expected = expected[real] if way == "packed" and expected.ndim == 3 else expected
        assert difference(found.logits.numpy(), expected) <= 1e-5
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert graphs == [1] * len(LENGTHS)
    assert not torch._dynamo.utils.counters["graph_break"]


@needs_one_graph
@pytest.mark.slow
@by_case([case for case in CASES if case.name not in QUICK])
def test_one_graph_for_ten_lengths_of_any_head(case: Case) -> None:
    assert _graphs_for_ten_lengths(case, batches=(6, 8, 10), dynamic=True) == 1
    assert _graphs_for_ten_lengths(case) == 2


@needs_one_graph
@pytest.mark.slow
def test_one_graph_in_training() -> None:
    case = next(case for case in CASES if case.name == "one_label_each")
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model = build(PT, case, case.config(num_hidden_layers=1), dtype="float32").train()
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="aot_eager")
    for length in LENGTHS:
        model.zero_grad()
        compiled(**{name: PT.tensor(array) for name, array in _inputs(case, length).items()}).loss.backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


@needs_one_graph
@pytest.mark.slow
@pytest.mark.parametrize("way", ["packed", "layers"])
@by_case([case for case in CASES if case.name in QUICK])
def test_gradients_without_padding(case: Case, way: str) -> None:
    """One graph for all lengths, no [t, t] tensor in it, and the gradients of uncompiled calls."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    shapes: list[list[str]] = []  # as text: reading a number would make a graph for it alone

    def backend(graph: Any, _: Any) -> Any:
        values = (node.meta.get("val") for node in graph.graph.nodes)
        parts = (part for value in values for part in (value if isinstance(value, (tuple, list)) else (value,)))
        shapes.extend([str(size) for size in part.shape] for part in parts if isinstance(part, torch.Tensor))
        return make_boxed_func(graph.forward)

    backend = aot_autograd(fw_compiler=backend, bw_compiler=backend)
    model = build(PT, case, case.config(num_hidden_layers=1), dtype="float64").train()
    twin = build(PT, case, case.config(num_hidden_layers=1), dtype="float64").train()
    if way == "packed":
        compiled = torch.compile(twin, fullgraph=True, dynamic=True, backend=backend)
    else:
        compiled = twin
        for layer in twin.get_base_model().encoder.layer:
            layer.compile(fullgraph=True, dynamic=True, backend=backend)
    for batch, length in ((6, 11), (8, 5), (10, 16)):
        padded, packed = _rows(case, length, batch)
        for each, inputs in ((model, padded), (compiled, packed if way == "packed" else padded)):
            each.zero_grad()
            torch.manual_seed(0)  # of the classifier's dropout
            tensors = {name: PT.tensor(array) for name, array in inputs.items()}
            each(**tensors, labels=torch.arange(batch) % 2).loss.backward()
        for (name, one), other in zip(model.named_parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(other.grad, one.grad, rtol=1e-9, atol=1e-12, msg=name)
    open_sizes = [shape for shape in shapes if any(not size.isdigit() for size in shape)]
    assert open_sizes
    assert not any(len(set(shape[-2:])) == 1 < len(shape) and not shape[-1].isdigit() for shape in open_sizes)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


@needs_one_graph
def test_dropout_of_packed_attention_in_a_graph() -> None:
    """The gradients have the dropout of the call: with values that are one, a context is the sum of what is kept."""
    from rembert.pt.attention import RemBertSelfAttention
    from rembert.pt.packing import pack_lengths

    config = next(case for case in CASES if case.name == "one_label_each").config(attention_probs_dropout_prob=0.5)
    attention = RemBertSelfAttention(config).double().train()
    query, key = torch.randn(2, 9, config.hidden_size, dtype=torch.float64)
    value = torch.ones(9, config.hidden_size, dtype=torch.float64, requires_grad=True)
    ends = torch.tensor([0, 2, 9])

    @torch.compile(fullgraph=True, backend="aot_eager")
    def attend(value: torch.Tensor) -> torch.Tensor:
        return attention.attend_packed(query, key, value, pack_lengths(ends))

    context = attend(value)
    assert not torch.equal(context, attend(value))  # other draws in every call
    (gradient,) = torch.autograd.grad(context.sum(), value)
    torch.testing.assert_close((gradient * value).sum(), context.sum())  # linear in the values


def _exported(case: Case) -> None:
    model = build(PT, case, case.config(num_hidden_layers=1), dtype="float32")
    # PyTorch 2.6 and 2.7 refuse a batch without an upper bound, and 2.6 no mapping unless `strict` is off.
    batch, length = torch.export.Dim("batch", max=2**31 - 1), torch.export.Dim("length", max=18)
    taken = {
        name: array for name, array in _inputs(case, 7).items() if not name.startswith(("labels", "start", "end"))
    }
    axes = {0: batch, 2: length} if case.head == "multiple-choice" else {0: batch, 1: length}
    shapes = {name: {0: batch} if name.startswith("encoder") else axes for name in taken}
    if case.settings.get("is_decoder"):
        taken["use_cache"], shapes["use_cache"] = False, None
    arguments = {name: PT.tensor(value) for name, value in taken.items()}
    program = torch.export.export(model, (), arguments, dynamic_shapes=shapes, strict=False)
    for rows, size in ((1, 18), (4, 2), (2, 11)):
        other = {name: array for name, array in _inputs(case, size, rows).items() if name in taken}
        if "use_cache" in taken:
            other["use_cache"] = False
        _same(case, model, program.module(), other)


@by_case([case for case in CASES if case.name in QUICK])
def test_exported_with_open_axes(case: Case) -> None:
    _exported(case)


@pytest.mark.slow
@by_case([case for case in CASES if case.name not in QUICK])
def test_exported_with_open_axes_of_any_head(case: Case) -> None:
    _exported(case)
