"""The outputs as PyTorch's structures: pytree, data parallelism, compilers."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.nn.parallel.scatter_gather import gather  # noqa: E402
from torch.utils import _pytree as pytree  # noqa: E402

import rembert.pt  # noqa: E402, F401  # registers the outputs
from rembert.common.outputs import OUTPUT_TYPES, ModelOutput  # noqa: E402
from tests.frameworks import PT  # noqa: E402
from tests.parity.cases import CASES, Case, build, by_case  # noqa: E402

SEEN = {"output_attentions": True, "output_hidden_states": True}


@pytest.mark.parametrize("kind", OUTPUT_TYPES, ids=lambda kind: kind.__name__)
def test_taken_apart_and_put_together(kind: type[ModelOutput]) -> None:
    whole = kind({name: (torch.ones(2), torch.zeros(3)) for name in kind.fields})
    leaves, spec = pytree.tree_flatten(whole)
    assert len(leaves) == 2 * len(kind.fields)
    again = pytree.tree_unflatten(leaves, spec)
    assert type(again) is kind
    assert list(again) == list(whole)
    doubled = pytree.tree_map(lambda leaf: leaf * 2, whole)
    assert (doubled[0][0] == 2).all()
    assert pytree.treespec_loads(pytree.treespec_dumps(spec)) == spec
    paths = [pytree.keystr(path) for path, _ in pytree.tree_flatten_with_path(whole)[0]]
    assert paths[0] == f"['{kind.fields[0]}'][0]"


@by_case()
def test_every_heads_output(case: Case) -> None:
    config = case.config()
    output = PT.call(build(PT, case, config), **case.inputs(config), **SEEN)
    leaves, spec = pytree.tree_flatten(output)
    again = pytree.tree_unflatten(leaves, spec)
    assert type(again) is type(output)
    assert [id(leaf) for leaf in pytree.tree_leaves(again)] == [id(leaf) for leaf in leaves]
    for twin in (pickle.loads(pickle.dumps(output)), _saved(output)):
        assert type(twin) is type(output)
        assert all(map(torch.equal, pytree.tree_leaves(twin), leaves))
    as_tuple = PT.call(build(PT, case, config), **case.inputs(config), **SEEN, return_dict=False)
    assert type(as_tuple) is tuple
    assert all(map(torch.equal, pytree.tree_leaves(as_tuple), leaves))


def _saved(output: ModelOutput) -> ModelOutput:
    file = io.BytesIO()
    torch.save(output, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def test_gathered_from_devices() -> None:
    # What DataParallel does with the outputs of its replicas, on tensors that need no device.
    case = CASES[0]
    config = case.config()
    output = PT.call(build(PT, case, config), **case.inputs(config), output_hidden_states=True)
    rebuilt = type(output)((name, output[name]) for name in output)
    assert list(rebuilt) == list(output)
    if torch.cuda.is_available():
        moved = [pytree.tree_map(lambda leaf: leaf.cuda(), output) for _ in range(2)]
        both = gather(moved, 0)
        assert type(both) is type(output)
        assert both.last_hidden_state.shape[0] == 2 * output.last_hidden_state.shape[0]


@pytest.mark.parametrize("name", ["causal_lm_cross", "several_labels", "question_answering"])
def test_compiled_in_one_graph(name: str) -> None:
    case = next(case for case in CASES if case.name == name)
    config = case.config(num_hidden_layers=1)
    model, inputs = build(PT, case, config), case.inputs(config)
    # The graph and not the code made of it is at stake; this backend runs it as it is.
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    eager, traced = (PT.call(each, **inputs, **SEEN) for each in (model, compiled))
    assert type(traced) is type(eager)
    assert list(traced) == list(eager)
    for one, other in zip(pytree.tree_leaves(traced), pytree.tree_leaves(eager), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.slow
def test_compiled_by_the_default_backend() -> None:
    case = next(case for case in CASES if case.name == "one_label_each")
    config = case.config()
    model, inputs = build(PT, case, config, dtype="float32"), case.inputs(config)
    compiled = PT.call(torch.compile(model, fullgraph=True), **inputs)
    torch.testing.assert_close(compiled.logits, PT.call(model, **inputs).logits)


@pytest.mark.parametrize("name", ["causal_lm", "question_answering"])
def test_lengths_do_not_compile_anew(name: str) -> None:
    """Padded batches of several lengths and sizes: one graph for the first, one for all others of its size."""
    from torch._dynamo.utils import counters

    case = next(case for case in CASES if case.name == name)
    config = case.config(num_hidden_layers=1)
    model = build(PT, case, config)
    torch._dynamo.reset()
    counters.clear()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for batch, length in ((3, 7), (3, 9), (4, 12), (5, 14)):
        inputs = case.inputs(config, batch=batch, length=length)
        eager, traced = (PT.call(each, **inputs) for each in (model, compiled))
        for one, other in zip(pytree.tree_leaves(traced), pytree.tree_leaves(eager), strict=True):
            torch.testing.assert_close(one, other)
    assert counters["stats"]["unique_graphs"] <= 3


def test_packed_inputs_compile_in_one_graph() -> None:
    case = CASES[0]
    model = build(PT, case, case.config(num_hidden_layers=1))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for ends in ([0, 2, 7], [0, 3, 4, 9]):
        inputs = {"input_ids": np.arange(ends[-1]), "cu_seqlens": np.array(ends)}
        eager, traced = (PT.call(each, **inputs) for each in (model, compiled))
        for name in eager:
            torch.testing.assert_close(traced[name], eager[name])


@by_case([case for case in CASES if case.name in ("causal_lm", "multiple_choice")])
def test_exported_with_dynamic_axes(case: Case) -> None:
    config = case.config(num_hidden_layers=1)
    model = build(PT, case, config)
    names = ("input_ids", "attention_mask", "token_type_ids")

    def inputs(batch: int, length: int) -> dict[str, torch.Tensor]:
        arrays = case.inputs(config, batch=batch, length=length)
        return {name: PT.tensor(arrays[name]) for name in names}

    last = 2 if case.head == "multiple-choice" else 1
    axes = {0: torch.export.Dim("batch"), last: torch.export.Dim("sequence", max=18)}
    program = torch.export.export(model, (), inputs(3, 7), dynamic_shapes=dict.fromkeys(names, axes))
    for batch, length in ((2, 5), (4, 18)):
        given = inputs(batch, length)
        eager, exported = model(**given), program.module()(**given)
        for one, other in zip(pytree.tree_leaves(exported), pytree.tree_leaves(eager), strict=True):
            torch.testing.assert_close(one, other)


def test_exported() -> None:
    case = next(case for case in CASES if case.name == "one_label_each")
    model = build(PT, case, case.config(num_hidden_layers=1))
    ids = torch.ones(2, 6, dtype=torch.long)
    program = torch.export.export(model, (ids,), {"attention_mask": torch.ones(2, 6, dtype=torch.long)})
    result = program.module()(ids, attention_mask=torch.ones(2, 6, dtype=torch.long))
    torch.testing.assert_close(result.logits, PT.call(model, input_ids=np.ones((2, 6), np.int64)).logits)
