"""Layers prepared for inference: the same numbers, weights kept or dropped, and what is refused then."""

from __future__ import annotations

import copy
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from rembert.common.config_values import ACTIVATIONS  # noqa: E402
from rembert.common.errors import InputError  # noqa: E402
from rembert.pt import inference, inference_layers, torch_internals  # noqa: E402
from tests.frameworks import PT, difference, flat  # noqa: E402
from tests.parity.cases import CASES, Case, as_dtype, build, by_case  # noqa: E402

BY_NAME = {case.name: case for case in CASES}
needs_fbgemm = pytest.mark.skipif(not torch_internals.has_fbgemm(), reason="this PyTorch has no FBGEMM")
needs_onednn = pytest.mark.skipif(not torch_internals.can_pack(), reason="this PyTorch has no oneDNN")


@pytest.fixture(params=["packed", "fused"])
def chosen(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which kernel is fastest depends on the machine: here it is said."""
    monkeypatch.setattr(
        inference, "_fastest", lambda _linear, _activation, ways: request.param if request.param in ways else "packed"
    )
    return request.param


def _model(name: str, dtype: str = "float32", **settings: Any) -> Any:
    return build(PT, BY_NAME[name], BY_NAME[name].config(**settings), dtype=dtype)


def _inputs(name: str) -> dict[str, np.ndarray]:
    return as_dtype(BY_NAME[name].inputs(BY_NAME[name].config()), "float32")


def _packed_layers(model: Any) -> int:
    return sum(isinstance(module, inference.InferenceLinear) for module in model.modules())


@needs_onednn
@by_case(CASES)
def test_every_head_gives_the_same(case: Case, chosen: str) -> None:
    model = _model(case.name)
    wanted = flat(PT, PT.call(model, **_inputs(case.name)))
    assert model.optimize_for_inference() is model
    per_layer = 10 if case.settings.get("add_cross_attention") else 6
    assert _packed_layers(model) == 1 + 2 * per_layer + (case.head in ("masked-lm", "causal-lm"))
    for name, array in flat(PT, PT.call(model, **_inputs(case.name))).items():
        assert difference(array, wanted[name]) <= 1e-5, name


@needs_onednn
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation(activation: str, chosen: str) -> None:
    model = _model("model", hidden_act=activation)
    wanted = PT.call(model, **_inputs("model")).last_hidden_state
    actual = PT.call(model.optimize_for_inference(), **_inputs("model")).last_hidden_state
    assert difference(actual.numpy(), wanted.numpy()) <= 1e-5


@needs_onednn
@pytest.mark.skipif(not torch_internals.can_compute(torch.bfloat16), reason="this processor has no bfloat16")
def test_bfloat16(chosen: str) -> None:
    model = _model("model", dtype="float32").bfloat16()
    wanted = PT.call(model, **_inputs("model")).last_hidden_state.float()
    actual = PT.call(model.optimize_for_inference(), **_inputs("model")).last_hidden_state
    assert actual.dtype == torch.bfloat16
    # bfloat16 has 8 bits; a kernel that rounds elsewhere differs by a few of the last.
    assert difference(actual.float().numpy(), wanted.numpy()) <= 0.03


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("keep", [False, True])
def test_half_precision_is_computed_in_float32(dtype: str, keep: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "_fastest", lambda _linear, _activation, kernels: "widened")
    model = _model("model").to(getattr(torch, dtype))
    weight = model.encoder.layer[0].output.dense.weight
    exact = copy.deepcopy(model).float()
    wanted = PT.call(exact, **_inputs("model")).last_hidden_state
    plain = PT.call(model, **_inputs("model")).last_hidden_state.float()
    actual = PT.call(model.optimize_for_inference(keep_parameters=keep), **_inputs("model")).last_hidden_state
    assert actual.dtype == weight.dtype
    layer = model.encoder.layer[0].output.dense
    assert isinstance(layer, inference.WidenedLinear)
    assert layer.narrow.data_ptr() == weight.data_ptr()  # no second copy
    # Products and their activations are no longer rounded inside a layer.
    assert difference(actual.float().numpy(), wanted.numpy()) <= 1.1 * difference(plain.numpy(), wanted.numpy())
    if keep:
        exact = PT.call(exact.double(), **_inputs("model")).last_hidden_state
        widened = PT.call(model.double(), **_inputs("model")).last_hidden_state
        assert difference(widened.numpy(), exact.numpy()) <= 1e-12


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_slow_half_precision_is_reported(dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    _model("model").to(getattr(torch, dtype)).save_pretrained(tmp_path)
    for supported in (False, True):
        monkeypatch.setattr(inference, "can_compute", lambda _dtype, supported=supported: supported)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            PT.load(tmp_path, BY_NAME["model"].head)
        slow = [each for each in caught if "several times slower" in str(each.message)]
        assert len(slow) == (not supported)
        assert all("rembert/pt" not in each.filename for each in slow)  # the caller's line is named
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        PT.load(tmp_path, BY_NAME["model"].head, dtype=dtype)  # asked for


def test_the_fastest_kernel_is_taken() -> None:
    wanted_model, model = _model("model"), _model("model")
    wanted = PT.call(wanted_model, **_inputs("model")).last_hidden_state
    assert difference(PT.call(model.optimize_for_inference(), **_inputs("model"))[0].numpy(), wanted.numpy()) <= 1e-5


def test_without_the_operators_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference_layers, "can_pack", lambda: False)
    model = _model("model").train().optimize_for_inference()
    assert not model.training
    assert _packed_layers(model) == 0


def test_another_dtype_stays_as_it_is() -> None:
    assert _packed_layers(_model("model", dtype="float64").optimize_for_inference()) == 0


@needs_onednn
def test_dropped_parameters(chosen: str, tmp_path: Path) -> None:
    model = _model("one_label_each").optimize_for_inference()
    assert not any("dense.weight" in name and "encoder" in name for name in model.state_dict())
    for attempt in (
        lambda: model.save_pretrained(tmp_path),
        model.train,
        model.double,
        lambda: model.to("meta"),
        model.quantize_dynamic,
        lambda: model.load_state_dict(_model("one_label_each").state_dict(), strict=False),
    ):
        with pytest.raises(InputError, match=r"dropped.*keep_parameters=True"):
            attempt()
    assert not list(tmp_path.iterdir())
    for attempt in (lambda: copy.deepcopy(model), lambda: pickle.dumps(model)):
        with pytest.raises(InputError, match="prepared for inference"):
            attempt()
    loss = model(**{name: PT.tensor(array) for name, array in _inputs("one_label_each").items()}).loss
    assert not loss.requires_grad
    embeds = torch.ones(1, 3, model.config.input_embedding_size, requires_grad=True)
    with pytest.raises(InputError, match=r"dropped.*differentiated"):
        model(inputs_embeds=embeds)
    with torch.no_grad():
        model(inputs_embeds=embeds)


@needs_onednn
@pytest.mark.parametrize("method", ["optimize_for_inference", "quantize_dynamic"])
def test_kept_parameters(chosen: str, method: str, tmp_path: Path) -> None:
    """The model is trained, saved and loaded as before, and what training changed is what inference computes with."""
    inputs = _inputs("one_label_each")
    plain, model = (_model("one_label_each", classifier_dropout_prob=0.0) for _ in range(2))
    getattr(model, method)(keep_parameters=True)
    assert list(model.state_dict()) == list(plain.state_dict())
    before = PT.call(model, **inputs).logits
    wanted = PT.gradients(plain.train(), **inputs)
    for name, gradient in PT.gradients(model.train(), **inputs).items():
        assert difference(gradient, wanted[name]) <= 1e-5, name
    for each in (plain, model):
        torch.optim.SGD(each.parameters(), lr=0.5).step()
    model.save_pretrained(tmp_path)
    loaded = PT.load(tmp_path, BY_NAME["one_label_each"].head)
    wanted_logits = PT.call(plain.eval(), **inputs).logits.numpy()
    tolerance = 1e-5 if method == "optimize_for_inference" else 0.1
    for each in (model.eval(), loaded):
        assert difference(PT.call(each, **inputs).logits.numpy(), wanted_logits) <= tolerance
    assert difference(before.numpy(), wanted_logits) > 10 * tolerance or method == "quantize_dynamic"
    model.double()
    assert PT.call(model, **inputs).logits.dtype == torch.float64


@needs_onednn
def test_a_prepared_model_is_prepared_in_another_way(chosen: str) -> None:
    """With their parameters kept, layers are made from the original, and do not stay in their first form."""
    plain, model = _model("model"), _model("model")
    wanted = PT.call(plain.quantize_dynamic(), **_inputs("model")).last_hidden_state
    model.optimize_for_inference(keep_parameters=True).quantize_dynamic(keep_parameters=True)
    kinds = [type(module).__name__ for module in model.modules()]
    assert "PackedLinear" not in kinds
    assert torch.equal(PT.call(model, **_inputs("model")).last_hidden_state, wanted)
    model.optimize_for_inference()
    assert not any(isinstance(module, inference.QuantizedLinear) for module in model.modules())
    exact = PT.call(_model("model"), **_inputs("model")).last_hidden_state
    assert difference(PT.call(model, **_inputs("model")).last_hidden_state.numpy(), exact.numpy()) <= 1e-5


@by_case([BY_NAME[name] for name in ("model", "one_label_each", "causal_lm_cross")])
def test_eight_bits(case: Case) -> None:
    model = _model(case.name)
    wanted = flat(PT, PT.call(model, **_inputs(case.name)))
    model.quantize_dynamic()
    layers = _model(case.name).base_model.encoder.layer
    linears = sum(isinstance(module, torch.nn.Linear) for module in layers.modules())
    assert _packed_layers(model) == linears + (case.head == "causal-lm")
    for name, array in flat(PT, PT.call(model, **_inputs(case.name))).items():
        # Two roundings of 1/127 (or, without VNNI, 1/63) of the largest number, over two layers.
        assert difference(array, wanted[name]) <= 0.1, name


@needs_fbgemm
@by_case(CASES)
def test_weights_in_float16(case: Case) -> None:
    model = _model(case.name)
    wanted = flat(PT, PT.call(model, **_inputs(case.name)))
    model.quantize_dynamic("float16")
    assert not any(isinstance(module, torch.nn.Linear) for module in model.base_model.encoder.modules())
    for name, array in flat(PT, PT.call(model, **_inputs(case.name))).items():
        # float16 rounds by 2^-12 at most, over two layers; logits beyond the highest have eight bits.
        rounded = name == "logits" and case.head in ("masked-lm", "causal-lm")
        assert difference(array, wanted[name]) <= (0.02 if rounded else 2e-3), name


@needs_fbgemm
@pytest.mark.parametrize("layer", [inference.TableLinear, inference.QuantizedLinear, inference.HalfLinear])
@pytest.mark.parametrize("entry", [torch.nan, torch.inf, -torch.inf])
def test_only_rows_that_are_not_finite_give_no_finite_output(layer: Any, entry: float) -> None:
    torch.manual_seed(0)
    linear = torch.nn.Linear(72, 600)
    states = torch.randn(2, 3, 72)
    states[0, 1, 7] = entry
    with torch.no_grad():
        found, wanted = layer(linear, None, False)(states), linear(states)
    assert torch.equal(found.isfinite(), wanted.isfinite())
    assert not found[0, 1].isfinite().any()
    others = wanted.isfinite()
    assert difference(found[others].numpy(), wanted[others].numpy()) <= 0.1  # as in `test_eight_bits`


def _table(rows: int = 3000, width: int = 64) -> Any:
    """An output table with rows of very different norms, and many close to the highest outputs."""
    numbers = np.random.default_rng(0)
    values = numbers.normal(size=(rows, width)) * numbers.lognormal(sigma=0.5, size=(rows, 1))
    values[1::2] = values[::2] * numbers.normal(1, 2e-3, size=(rows // 2, width))
    linear = torch.nn.Linear(width, rows)
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(values))
    return linear


@needs_fbgemm
def test_the_highest_outputs_of_a_table_in_eight_bits_are_exact() -> None:
    linear = _table()
    states = torch.from_numpy(np.random.default_rng(1).normal(size=(4, 8, 64)).astype(np.float32))
    table = inference_layers.TableLinear(linear, None, keep=False)
    exact = torch.nn.functional.linear(states.double(), linear.weight.double(), linear.bias.double()).detach()
    found = table(states)
    highest, rounded = exact.topk(64), table.rounded(states.flatten(0, 1))[0].unflatten(0, (4, 8))
    assert torch.equal(found.topk(64).indices, highest.indices)
    assert difference(found.topk(64).values.numpy(), highest.values.numpy()) <= 1e-6
    assert not torch.equal(rounded.argmax(-1), exact.argmax(-1))  # eight bits alone choose others
    norms = states.norm(dim=-1, keepdim=True)
    bound = table.rounded.errors * norms + table.rounded.norms * table.rounded(states.flatten(0, 1))[1].view(4, 8, 1)
    assert bool(((rounded - exact).abs() <= bound).all())
    assert difference(found.numpy(), exact.numpy()) <= 0.02


@needs_fbgemm
def test_a_table_whose_rows_cannot_be_told_apart_is_computed_in_full() -> None:
    linear = _table()
    with torch.no_grad():
        linear.weight.copy_(linear.weight[:1] + 1e-5 * linear.weight)
    table, states = inference_layers.TableLinear(linear, None, keep=False), torch.ones(1, 64)
    assert difference(table(states).numpy(), linear(states).detach().numpy()) <= 1e-6


@needs_fbgemm
def test_generation_in_float16_gives_the_same_tokens() -> None:
    golden = Path(__file__).parents[1] / "fixtures" / "golden" / "causal_lm"
    with np.load(golden / "expected.npz") as file:
        prompt, wanted = file["gen.prompt"], file["gen.greedy"]
    model = PT.load(golden, "causal-lm").quantize_dynamic("float16")
    assert model.generate(torch.from_numpy(prompt), max_new_tokens=12).tolist() == wanted.tolist()


@needs_fbgemm
def test_a_language_model_in_half_precision_has_its_table_in_float16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "_fastest", lambda _linear, _activation, kernels: "half")
    case = BY_NAME["masked_lm"]
    model = _model(case.name).bfloat16()
    wanted = flat(PT, PT.call(copy.deepcopy(model).float(), **_inputs(case.name)))["logits"]
    model.optimize_for_inference()
    assert isinstance(model.get_output_embeddings(), inference_layers.HalfLinear)
    outputs = PT.call(model, **_inputs(case.name))
    assert outputs.logits.dtype == torch.bfloat16
    assert difference(outputs.logits.float().numpy(), wanted) <= 0.03  # bfloat16's 8 bits, over two layers


def test_float16_that_is_not_possible_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = _model("masked_lm")
    with pytest.raises(InputError, match=r"`dtype` must be one of int8, float16\. Received: `dtype='int4'`"):
        model.quantize_dynamic("int4")
    with torch.no_grad():
        model.base_model.encoder.layer[1].output.dense.weight[0, 0] = 7e4
    with pytest.raises(InputError, match=r"float16's range.*Received: `rembert\.encoder\.layer\.1\.output\.dense"):
        model.quantize_dynamic("float16")
    monkeypatch.setattr(inference, "has_fbgemm", lambda: False)
    with pytest.raises(InputError, match="FBGEMM"):
        model.quantize_dynamic("float16")
    assert _packed_layers(model) == 0
    model.quantize_dynamic()
    assert type(model.get_output_embeddings()) is torch.nn.Linear


def test_eight_bits_of_no_rows() -> None:
    model = _model("one_label_each").quantize_dynamic()
    assert PT.call(model, input_ids=np.zeros((0, 3), np.int64)).logits.shape == (0, model.config.num_labels)


def test_eight_bits_do_not_overflow() -> None:
    """Where all numbers are large, pairs of products would not fit the 16 bits of a processor without VNNI."""
    numbers = np.random.default_rng(0)
    linear = torch.nn.Linear(64, 16)
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(numbers.uniform(0.9, 1, (16, 64))))
    states = torch.from_numpy(numbers.uniform(0.9, 1, (8, 64)).astype(np.float32))
    wanted = linear(states).detach()
    actual = inference.QuantizedLinear(linear, None, keep=False)(states)
    assert difference(actual.numpy(), wanted.numpy()) <= 0.01
