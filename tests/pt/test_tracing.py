"""Tracers without values to read: fake tensors, `make_fx`, `torch.jit.trace`, `torch.func.vmap`; other devices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402
from torch.fx.experimental.proxy_tensor import make_fx  # noqa: E402

from rembert.common.errors import InputError  # noqa: E402
from tests.frameworks import PT  # noqa: E402
from tests.parity.cases import CASES, WITH_LOSS, Case, as_dtype, build, by_case, shared  # noqa: E402

TRACED = [case for case in CASES if case.name in ("model", "masked_lm", "question_answering")]


def _inputs(case: Case, **flags: Any) -> dict[str, Any]:
    arrays = as_dtype(case.inputs(case.config(), length=9), "float32")
    return {**{name: PT.tensor(array) for name, array in arrays.items()}, **flags}


def _tensors(outputs: Any) -> list[Any]:
    return torch.utils._pytree.tree_leaves(outputs)


@by_case([case for case in WITH_LOSS if case.name in ("masked_lm", "one_label_each", "question_answering")])
def test_fake_tensors_are_checked_by_shape_alone(case: Case) -> None:
    inputs = _inputs(case)
    wanted = PT.call(shared(PT, case, "float32"), **inputs)
    with FakeTensorMode() as mode:
        model = PT.model_class(case.head)(case.config()).eval()
        fakes = {name: mode.from_tensor(tensor) for name, tensor in inputs.items()}
        outputs = model(**fakes)
        assert [each.shape for each in _tensors(outputs)] == [each.shape for each in _tensors(wanted)]
        model.train()(**fakes).loss.backward()
        assert all(parameter.grad is not None for parameter in model.parameters())


@by_case(TRACED)
@pytest.mark.parametrize(
    "mode", ["fake", *(pytest.param(mode, marks=pytest.mark.slow) for mode in ("real", "symbolic"))]
)
def test_make_fx(case: Case, mode: str) -> None:
    model, inputs = shared(PT, case, "float32"), _inputs(case)

    def call(parameters: Any, given: Any) -> Any:
        return _tensors(torch.func.functional_call(model, parameters, kwargs=given))

    parameters = {name: each.detach() for name, each in model.named_parameters()}
    graph = make_fx(call, tracing_mode=mode)(parameters, inputs)
    other = _inputs(case)
    other["attention_mask"] = torch.flip(other["attention_mask"], [1])
    for given in (inputs, other):
        torch.testing.assert_close(graph(parameters, given), call(parameters, given), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@by_case(TRACED)
def test_jit_trace(case: Case) -> None:
    """The result is a dict by field, of any mask."""
    model = shared(PT, case, "float32")
    inputs = {
        name: tensor for name, tensor in _inputs(case).items() if not name.startswith(("labels", "start", "end"))
    }
    traced = torch.jit.trace(model, example_kwarg_inputs=inputs, strict=False, check_trace=False)
    inputs["attention_mask"] = torch.flip(inputs["attention_mask"], [1])
    wanted, actual = model(**inputs), traced(**inputs)
    assert actual.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(actual[name], tensor, rtol=1e-4, atol=1e-5)


def test_vmap() -> None:
    case = CASES[0]
    model, inputs = shared(PT, case, "float32"), _inputs(case)
    both = {name: torch.stack([tensor, tensor.flip(0)]) for name, tensor in inputs.items()}
    states = torch.func.vmap(lambda given: model(**given).last_hidden_state)(both)
    wanted = model(**inputs).last_hidden_state
    torch.testing.assert_close(states, torch.stack([wanted, wanted.flip(0)]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["input_ids", "attention_mask", "token_type_ids"])
def test_tensors_on_another_device_are_named(name: str) -> None:
    inputs = _inputs(CASES[0])
    inputs[name] = inputs[name].to("meta")
    with pytest.raises(InputError, match=f"`{name}` must be on the model's device, cpu. Received: a tensor on meta"):
        shared(PT, CASES[0], "float32")(**inputs)


@pytest.mark.parametrize("head", ["masked-lm", "sequence", "multiple-choice", "token", "question-answering"])
def test_labels_on_another_device_are_named(head: str) -> None:
    case = next(case for case in WITH_LOSS if case.head.startswith(head))
    inputs = _inputs(case)
    name = next(name for name in inputs if name.startswith(("labels", "start")))
    inputs[name] = inputs[name].to("meta")
    with pytest.raises(InputError, match=f"`{name}` must be on the device of the inputs, cpu. .* a tensor on meta"):
        shared(PT, case, "float32")(**inputs)


def test_a_model_on_another_device() -> None:
    with torch.device("meta"):
        model = PT.build(CASES[0].config(), "model")
    ids = torch.ones(1, 3, dtype=torch.long)
    with pytest.raises(InputError, match=r"`input_ids` must be on the model's device, meta.*`model.to\('cpu'\)`"):
        model(ids)
    assert model(ids.to("meta")).last_hidden_state.shape == (1, 3, 12)


def test_weights_that_accelerate_moves() -> None:
    accelerate = pytest.importorskip("accelerate")
    case = CASES[0]
    model, inputs = build(PT, case, case.config(), dtype="float32"), _inputs(case)
    wanted = PT.array(PT.call(model, **inputs).last_hidden_state)
    accelerate.cpu_offload(model, execution_device="cpu")
    assert model.get_input_embeddings().weight.device.type == "meta"
    np.testing.assert_allclose(PT.array(PT.call(model, **inputs).last_hidden_state), wanted, rtol=1e-4, atol=1e-5)
