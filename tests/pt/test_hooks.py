"""What is attached to modules inside a model sees padded states, [b, s, ...], as in a model that keeps padding."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch.nn.utils import parametrize  # noqa: E402

from tests.frameworks import PT  # noqa: E402
from tests.parity.cases import CASES, build  # noqa: E402

CASE = next(case for case in CASES if case.name == "one_label_each")
INSIDE = {
    "embeddings.word_embeddings": 10,
    "embeddings": 10,
    "encoder.embedding_hidden_mapping_in": 12,
    "encoder.layer.1.attention.self.query": 12,
    "encoder.layer.0.intermediate.dense": 22,
    "encoder.layer.0.output.LayerNorm": 12,
}
# float64: padding is computed or removed, and the same numbers are added in another order.
NEAR = {"rtol": 1e-12, "atol": 1e-12}


@pytest.fixture
def model() -> Any:
    return build(PT, CASE, CASE.config())


@pytest.fixture
def inputs() -> dict[str, Any]:
    return {name: PT.tensor(array) for name, array in CASE.inputs(CASE.config()).items()}


@pytest.fixture(autouse=True)
def no_global_hooks() -> Iterator[None]:
    yield
    vars(torch.nn.modules.module)["_global_forward_hooks"].clear()


def test_the_table_of_token_types_is_called_without_token_types(model: Any, inputs: dict[str, Any]) -> None:
    """As in transformers, whose hooks, adapters and parametrisations of the table count for such calls."""
    types = torch.zeros_like(inputs.pop("token_type_ids"))
    model.rembert.embeddings.token_type_embeddings.register_forward_hook(lambda _module, _taken, given: 3 * given)
    torch.testing.assert_close(model(**inputs).logits, model(**inputs, token_type_ids=types).logits, **NEAR)


@pytest.mark.parametrize("name", INSIDE)
@pytest.mark.parametrize("kind", ["forward", "forward_pre", "full_backward"])
def test_hooks_see_padded_states(model: Any, inputs: dict[str, Any], name: str, kind: str) -> None:
    wanted, seen = model(**inputs).logits, []
    if kind == "forward_pre" and name.startswith("embeddings"):
        pytest.skip("takes ids")
    module = model.rembert.get_submodule(name)

    def hook(_module: Any, first: Any, *rest: Any) -> None:
        value = rest[0] if rest else first  # the output, its gradient, or the input
        seen.append(tuple((value[0] if isinstance(value, tuple) else value).shape))

    handle = getattr(module, f"register_{kind}_hook")(hook)
    outputs = model(**inputs)
    torch.testing.assert_close(outputs.logits, wanted, **NEAR)
    outputs.loss.backward()
    assert [shape[:2] for shape in seen] == [(3, 7)]
    if kind != "forward_pre":
        assert seen[0][2] == INSIDE[name]
    handle.remove()
    assert _is_packed(model, inputs)


def test_hooks_of_all_modules_see_padded_states(model: Any, inputs: dict[str, Any]) -> None:
    seen = []
    torch.nn.modules.module.register_module_forward_hook(lambda module, _, output: seen.append((module, output)))
    model(**inputs)
    assert {tuple(output.shape[:2]) for module, output in seen if type(module) is torch.nn.Dropout} >= {(3, 7)}


@pytest.mark.parametrize("settings", [{}, {"output_attentions": True}, {"use_cache": True}], ids=str)
def test_modules_inside_return_tensors_alone(settings: dict[str, Any]) -> None:
    """Captum's layer methods take a module's output to be a tensor or a tuple of tensors."""
    case = next(case for case in CASES if case.head == "causal-lm")
    model = build(PT, case, case.config()).rembert
    seen: dict[str, Any] = {}
    for part in (model.embeddings, model.encoder.layer):
        for name, module in part.named_modules(prefix=str(len(seen))):
            if name:
                module.register_forward_hook(lambda _module, _inputs, output, name=name: seen.update({name: output}))
    ids = torch.tensor([[5, 6, 7], [8, 9, 0]])
    model(ids, attention_mask=(ids > 0).long(), **settings)
    assert len(seen) > 20
    for name, output in seen.items():
        for each in output if isinstance(output, tuple) else (output,):
            assert isinstance(each, torch.Tensor), name


def test_padding_is_removed_where_hooks_take_any_shape(model: Any, inputs: dict[str, Any]) -> None:
    """FSDP's hooks gather weights; the embeddings' own, of `enable_input_require_grads`, sets a flag."""
    model.enable_input_require_grads()
    assert _is_packed(model, inputs)


def test_noise_on_the_embeddings(model: Any, inputs: dict[str, Any]) -> None:
    """NEFTune (Jain et al., 2023): noise in proportion to 1 / sqrt(s × e) on the output of the word embeddings."""
    wanted = model(**inputs).logits
    sizes = []

    def noise(_module: Any, _inputs: Any, output: Any) -> Any:
        sizes.append(output.size(1) * output.size(2))
        bound = 5 / sizes[-1] ** 0.5
        return output + torch.zeros_like(output).uniform_(-bound, bound)

    model.get_input_embeddings().register_forward_hook(noise)
    assert (model(**inputs).logits != wanted).any()
    assert sizes == [7 * 10]


def test_parametrisations_change_weights_alone(model: Any, inputs: dict[str, Any]) -> None:
    class Doubled(torch.nn.Module):
        def forward(self, weight: Any) -> Any:
            return 2 * weight

    query = model.rembert.encoder.layer[0].attention.self.query
    parametrize.register_parametrization(query, "weight", Doubled())
    actual = model(**inputs).logits
    parametrize.remove_parametrizations(query, "weight")  # leaves the doubled weight
    torch.testing.assert_close(actual, model(**inputs).logits, **NEAR)


def _is_packed(model: Any, inputs: dict[str, Any]) -> bool:
    """Whether layers see real tokens alone, as a hook of PyTorch's own packages sees."""
    seen = []

    def hook(_module: Any, _inputs: Any, output: Any) -> None:
        seen.append(tuple(output.shape))

    hook.__module__ = "torch.distributed.fsdp"
    handle = model.rembert.encoder.embedding_hidden_mapping_in.register_forward_hook(hook)
    model(**inputs)
    handle.remove()
    return seen == [(int(inputs["attention_mask"].sum()), 12)]
