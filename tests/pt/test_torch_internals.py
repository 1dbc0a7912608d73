"""PyTorch's internal names: that the installed version has each, and what happens where it has not.

All were seen in PyTorch 2.13.0. A test that fails in a newer version says which name went.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from rembert.common.errors import InputError  # noqa: E402
from rembert.common.internals import warn_missing  # noqa: E402
from rembert.common.outputs import ModelOutput  # noqa: E402
from rembert.pt import inference, torch_internals  # noqa: E402
from rembert.pt.linear_cross_entropy import is_plain_linear  # noqa: E402
from tests.frameworks import PT, difference  # noqa: E402
from tests.parity.cases import CASES, as_dtype, build  # noqa: E402

CASE = next(case for case in CASES if case.name == "one_label_each")
needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this PyTorch has no oneDNN")


@pytest.fixture(autouse=True)
def unsaid() -> Iterator[None]:
    """No name was missed before, and none after."""
    for function in (warn_missing, torch_internals._packs):
        function.cache_clear()
    yield
    for function in (warn_missing, torch_internals._packs):
        function.cache_clear()


@pytest.fixture
def packed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The packed kernel is taken as the fastest."""
    monkeypatch.setattr(inference, "_fastest", lambda _linear, _activation, kernels: next(iter(kernels)))


@contextmanager
def one_warning(name: str) -> Iterator[None]:
    """Exactly one warning of a missing name inside the block, and it is of this one."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    said = [str(each.message) for each in caught if "docs/versions.md" in str(each.message)]
    assert len(said) == 1, said
    assert f"PyTorch {torch.__version__} has no `{name}`: " in said[0]


def _model() -> Any:
    return build(PT, CASE, CASE.config(), dtype="float32")


def _inputs() -> dict[str, np.ndarray]:
    return as_dtype(CASE.inputs(CASE.config()), "float32")


def _logits(model: Any) -> np.ndarray:
    return PT.call(model, **_inputs()).logits.numpy()


# ---------------------------------------------------------------------- present, in PyTorch 2.13.0


def test_changes_in_place_are_counted() -> None:
    tensor = torch.zeros(3)
    before = torch_internals.change_count(tensor)
    assert before == torch_internals.change_count(tensor)
    tensor.add_(1)
    assert before != torch_internals.change_count(tensor)
    with torch.inference_mode():
        assert torch_internals.change_count(torch.zeros(3)) is None


@pytest.mark.parametrize("kind", ["forward_hook", "forward_pre_hook", "full_backward_hook", "full_backward_pre_hook"])
def test_hooks_are_seen(kind: str) -> None:
    layer = torch.nn.Linear(2, 2)
    assert not torch_internals.has_hooks(layer)
    handle = getattr(layer, f"register_{kind}")(lambda *_: None)
    assert torch_internals.has_hooks(layer)
    assert not is_plain_linear(layer)
    handle.remove()
    assert not torch_internals.has_hooks(layer)


@pytest.mark.parametrize("convert", [torch.nn.Module.double, lambda module: module.to("meta"), torch.nn.Module.cpu])
def test_conversions_are_seen(convert: Callable[[Any], Any]) -> None:
    seen = []

    class Watcher(torch_internals.ConversionWatcher):
        def before_conversion(self, change: Callable[[Any], Any]) -> None:
            seen.append(change(torch.zeros(1)))

    convert(torch.nn.Sequential(Watcher()))
    assert len(seen) == 1


@needs_onednn
@pytest.mark.parametrize(
    ("name", "algorithm", "function"),
    [
        ("none", "", lambda states: states),
        ("relu", "", torch.relu),
        ("gelu", "none", torch.nn.functional.gelu),
        ("gelu", "tanh", lambda states: torch.nn.functional.gelu(states, approximate="tanh")),
    ],
)
def test_packed_products(name: str, algorithm: str, function: Callable[[Any], Any]) -> None:
    assert torch_internals.can_pack()
    states, weight, bias = torch.randn(3, 5, 32), torch.randn(16, 32), torch.randn(16)
    actual = torch_internals.packed_product(states, torch_internals.pack(weight), bias, name, algorithm)
    wanted = function(torch.nn.functional.linear(states, weight, bias))
    assert difference(actual.numpy(), wanted.numpy()) <= 1e-5


@needs_onednn
def test_features_of_the_processor_are_read() -> None:
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    if "flags" not in flags:
        pytest.skip("this system does not report the processor's features")
    assert torch_internals.has_vnni() == ("avx512_vnni" in flags)
    assert torch_internals.can_compute(torch.bfloat16) or "avx512bw" not in flags
    assert torch_internals.can_compute(torch.float32)


def test_products_in_eight_bits() -> None:
    states, weight, bias = torch.randn(7, 32), torch.randn(16, 32), torch.randn(16)
    product = torch_internals.EightBitProduct(weight, bias)
    assert product.packed is not None
    wanted = torch.nn.functional.linear(states, weight, bias)
    assert difference(product(states).numpy(), wanted.numpy()) <= 0.03  # two roundings, of 1/127 and 1/63


def test_outputs_are_unpacked() -> None:
    from torch.utils import _pytree as pytree

    outputs = PT.call(_model(), **_inputs())
    leaves, structure = pytree.tree_flatten(outputs)
    assert [leaf.shape for leaf in leaves] == [value.shape for value in outputs.values()]
    assert type(pytree.tree_unflatten(leaves, structure)) is type(outputs)
    with_paths, _ = pytree.tree_flatten_with_path(outputs)
    assert [str(path[-1]) for path, _ in with_paths] == [f"['{key}']" for key in outputs]


# ---------------------------------------------------------------------- absent


@needs_onednn
def test_without_counted_changes_weights_are_packed_again(packed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(_: Any) -> int:
        raise AttributeError("_version")

    plain, model = _model(), _model()
    monkeypatch.setattr(torch_internals, "_version", version)
    with one_warning("Tensor._version"):
        model.optimize_for_inference(keep_parameters=True)
        for each in (plain, model):
            with torch.no_grad():
                each.base_model.encoder.layer[0].output.dense.weight.mul_(3)
        assert difference(_logits(model), _logits(plain)) <= 1e-5


@needs_onednn
def test_without_hooks_that_can_be_seen_layers_stay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plain, model = _model(), _model()
    monkeypatch.setattr(torch_internals, "_HOOKS", ("_hooks_by_another_name",))
    with one_warning("Module._forward_hooks"):
        for prepare in (model.optimize_for_inference, model.quantize_dynamic):
            prepare()
            assert not any(isinstance(module, inference.InferenceLinear) for module in model.modules())
    assert np.array_equal(_logits(model), _logits(plain))
    language_model = next(case for case in CASES if case.name == "masked_lm")
    inputs = {name: PT.tensor(array) for name, array in language_model.inputs(language_model.config()).items()}
    model = build(PT, language_model, language_model.config())
    slow = model(**inputs).loss
    monkeypatch.undo()
    torch.testing.assert_close(model(**inputs).loss, slow)
    model.save_pretrained(tmp_path)


@needs_onednn
def test_without_the_hook_of_conversions_nothing_is_refused(
    packed: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plain = _model()
    plain.save_pretrained(tmp_path)
    monkeypatch.delattr(torch.nn.Module, "_apply")
    model = PT.load(tmp_path, CASE.head)
    with one_warning("Module._apply"):
        model.optimize_for_inference()
    assert difference(_logits(model), _logits(plain)) <= 1e-5
    with pytest.raises(InputError, match="dropped"):
        model.save_pretrained(tmp_path)


@needs_onednn
@pytest.mark.parametrize("found", [{}, {"_reorder_linear_weight": lambda weight: weight}], ids=["none", "changed"])
def test_without_packed_products_layers_stay(found: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    plain, model = _model(), _model()
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace(**found))
    with one_warning("ops.mkldnn._linear_pointwise"):
        model.optimize_for_inference()
        model.optimize_for_inference()
    assert not any(isinstance(module, inference.InferenceLinear) for module in model.modules())
    assert np.array_equal(_logits(model), _logits(plain))


@needs_onednn
def test_without_the_check_of_bfloat16_float32_is_computed(packed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    operators = torch.ops.mkldnn
    monkeypatch.setattr(
        torch.ops,
        "mkldnn",
        SimpleNamespace(
            _reorder_linear_weight=operators._reorder_linear_weight, _linear_pointwise=operators._linear_pointwise
        ),
    )
    model = _model().bfloat16()
    with one_warning("ops.mkldnn._is_mkldnn_bf16_supported"):
        model.optimize_for_inference()
    assert any(isinstance(module, inference.WidenedLinear) for module in model.modules())
    assert not any(isinstance(module, inference.PackedLinear) for module in model.modules())
    assert any(isinstance(module, inference.PackedLinear) for module in _model().optimize_for_inference().modules())


def test_without_the_check_of_vnni_inputs_have_seven_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    model, wanted = _model(), _logits(_model())
    monkeypatch.setattr(torch, "cpu", SimpleNamespace())
    with one_warning("torch.cpu._is_vnni_supported"):
        model.quantize_dynamic()
    assert model.base_model.encoder.layer[0].output.dense.packed.reduce_range
    assert difference(_logits(model), wanted) <= 0.1


def test_the_private_check_of_vnni_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch 2.4 and later; the public `get_capabilities` came afterwards."""
    for name in ("_is_vnni_supported", "_is_cpu_support_avx512_vnni"):
        for answer in (True, False):
            monkeypatch.setattr(torch, "cpu", SimpleNamespace(**{name: lambda answer=answer: answer}))
            assert torch_internals.has_vnni() is answer


@pytest.mark.parametrize("missing", ["operator", "dtype"])
def test_without_products_in_eight_bits_the_weights_have_them(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, wanted = _model(), _logits(_model())
    if missing == "operator":
        monkeypatch.setattr(torch.ops, "quantized", SimpleNamespace())
    else:
        monkeypatch.delattr(torch, "quantize_per_channel")
    with one_warning("ops.quantized.linear_prepack"):
        model.quantize_dynamic()
    layer = model.base_model.encoder.layer[0].output.dense
    assert layer.packed.weight.dtype == torch.int8
    assert difference(_logits(model), wanted) <= 0.05  # one rounding of 1/127 over two layers


@pytest.mark.parametrize("missing", ["register_pytree_node", "MappingKey"])
def test_without_structures_models_still_run(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.utils import _pytree as pytree

    class Own(ModelOutput):
        logits: Any

    def flatten(output: ModelOutput) -> tuple[list[Any], list[str]]:
        return list(output.values()), list(output)

    monkeypatch.delattr(pytree, missing)
    if missing == "MappingKey":  # of use to error messages alone
        torch_internals.register_mapping(Own, flatten, lambda values, names: Own(zip(names, values, strict=True)))
        assert pytree.tree_leaves(Own(logits=1)) == [1]
        return
    with one_warning("torch.utils._pytree"):
        for _ in range(2):
            torch_internals.register_mapping(Own, flatten, lambda values, names: Own(zip(names, values, strict=True)))
    assert _logits(_model()).shape[-1] == CASE.config().num_labels
