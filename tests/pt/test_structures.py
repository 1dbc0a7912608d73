"""The outputs as PyTorch's structures: pytree, data parallelism, compilers."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.nn.parallel.scatter_gather import gather  # noqa: E402
from torch.utils import _pytree as pytree  # noqa: E402

import rembert.pt  # noqa: E402, F401  # registers the outputs
from rembert.common.outputs import OUTPUT_TYPES, ModelOutput  # noqa: E402
from tests.frameworks import PT, needs_one_graph  # noqa: E402
from tests.parity.cases import CASES, build  # noqa: E402

SEEN = {"output_attentions": True, "output_hidden_states": True}


@pytest.mark.parametrize("kind", OUTPUT_TYPES, ids=lambda kind: kind.__name__)
def test_outputs_are_unpacked_and_rebuilt(kind: type[ModelOutput]) -> None:
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


@needs_one_graph
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


@needs_one_graph
@pytest.mark.slow
def test_compiled_by_the_default_backend() -> None:
    case = next(case for case in CASES if case.name == "one_label_each")
    config = case.config()
    model, inputs = build(PT, case, config, dtype="float32"), case.inputs(config)
    compiled = PT.call(torch.compile(model, fullgraph=True), **inputs)
    torch.testing.assert_close(compiled.logits, PT.call(model, **inputs).logits)


@needs_one_graph
def test_packed_inputs_compile_in_one_graph() -> None:
    case = CASES[0]
    model = build(PT, case, case.config(num_hidden_layers=1))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for ends in ([0, 2, 7], [0, 3, 4, 9]):
        inputs = {"input_ids": np.arange(ends[-1]), "cu_seqlens": np.array(ends)}
        eager, traced = (PT.call(each, **inputs) for each in (model, compiled))
        for name in eager:
            torch.testing.assert_close(traced[name], eager[name])
