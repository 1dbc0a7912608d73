"""The model classes inside transformers: they compute what transformers computes, and are loaded and saved by it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import rembert.pt  # noqa: E402
import rembert.transformers  # noqa: E402
from rembert.common.errors import ConfigError, InputError  # noqa: E402
from rembert.common.parameters import HEADS  # noqa: E402
from rembert.transformers import models  # noqa: E402
from tests.parity.cases import CASES, WITH_LOSS, Case, by_case  # noqa: E402
from tests.transformers.support import as_transformers, build_both, real_rows, tensors  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
BY_HEAD = list({case.head: case for case in CASES}.values())


@by_case()
def test_outputs_are_those_of_transformers(case: Case) -> None:
    theirs, ours = build_both(case)
    inputs = tensors(case.inputs(case.config()))
    for name in HEADS[case.head].labels:
        del inputs[name]
    seen = {"output_hidden_states": True, "use_cache": False} if HEADS[case.head].takes_cache else {}
    with torch.no_grad():
        wanted, found = theirs(**inputs, **seen), ours(**inputs, **seen)
    assert type(found) is type(wanted)
    assert list(found) == list(wanted)
    mask = inputs["attention_mask"]
    assert mask[..., 0].all()  # where the first token is padding, transformers pools it
    for name in wanted:
        for ours_, theirs_ in zip(_flat(found[name]), _flat(wanted[name]), strict=True):
            torch.testing.assert_close(real_rows(ours_, mask), real_rows(theirs_, mask), rtol=0, atol=1e-10)


def _flat(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


@by_case(WITH_LOSS)
def test_losses_and_gradients_are_those_of_the_pytorch_models(case: Case) -> None:
    _, ours = build_both(case)
    plain = getattr(rembert.pt, HEADS[case.head].architecture)(case.config()).double()
    plain.load_state_dict(ours.state_dict())
    inputs = tensors(case.inputs(case.config()))
    losses = []
    for model in (ours.train(), plain.train()):
        torch.manual_seed(1)  # the same dropout
        losses.append(model(**inputs).loss)
        losses[-1].backward()
    torch.testing.assert_close(*losses, rtol=0, atol=1e-12)
    wanted = dict(plain.named_parameters())
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted[name].grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize("case", BY_HEAD, ids=lambda case: case.head)
def test_auto_classes_load_what_transformers_and_this_library_save(case: Case, tmp_path: Path) -> None:
    theirs, ours = build_both(case)
    inputs = tensors(case.inputs(case.config()))
    theirs.save_pretrained(tmp_path / "theirs")
    autos = HEADS[case.head].auto_classes
    assert autos
    for auto in autos:
        loaded = getattr(transformers, auto).from_pretrained(tmp_path / "theirs", dtype="float64")
        assert type(loaded) is type(ours)
    loaded.save_pretrained(tmp_path / "ours", max_shard_size="20KB")
    wanted = ours(**inputs)[0]
    again = getattr(transformers, auto).from_pretrained(tmp_path / "ours", dtype="float64")
    plain = getattr(rembert.pt, HEADS[case.head].architecture).from_pretrained(tmp_path / "ours")
    for model in (loaded, again, plain):
        torch.testing.assert_close(model(**inputs)[0], wanted, rtol=0, atol=1e-12)


def test_unregister_gives_the_auto_classes_back(tmp_path: Path) -> None:
    config = as_transformers(CASES[0].config())
    rembert.transformers.unregister()
    try:
        assert type(transformers.AutoModel.from_config(config)) is transformers.RemBertModel
    finally:
        rembert.transformers.register()
    assert type(transformers.AutoModel.from_config(config)) is models.RemBertModel


def test_a_vocabulary_grows() -> None:
    case = next(case for case in CASES if case.head == "masked-lm")
    _, model = build_both(case)
    inputs = tensors(case.inputs(case.config()))
    before = model(**inputs).logits
    model.resize_token_embeddings(70)
    assert (model.config.vocab_size, model.get_input_embeddings().num_embeddings) == (70, 70)
    after = model(**inputs).logits
    assert after.shape[-1] == 70
    torch.testing.assert_close(after[..., : before.shape[-1]], before, rtol=0, atol=1e-10)


def test_a_model_that_cannot_be_built_is_refused() -> None:
    with pytest.raises(ConfigError, match="must be a RemBertConfig"):
        models.RemBertModel(transformers.BertConfig())
    with pytest.raises(ConfigError, match="`hidden_act` must be one of"):
        models.RemBertModel(as_transformers(CASES[0].config()).__class__(hidden_act="celu"))


def test_a_model_without_its_parameters_is_not_saved(tmp_path: Path) -> None:
    _, model = build_both(next(case for case in CASES if case.name == "one_label_each"))
    model.float().eval().quantize_dynamic()
    with pytest.raises(InputError, match="saved"):
        model.save_pretrained(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def _decoder() -> tuple[Any, Any, torch.Tensor]:
    theirs, ours = build_both(next(case for case in CASES if case.name == "causal_lm"))
    return theirs, ours, torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])


def test_shifted_labels_replace_labels() -> None:
    theirs, ours, ids = _decoder()
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])
    shifted = torch.tensor([[6, 7, 8, -100], [10, -100, 12, 5]])
    logits = theirs(ids, attention_mask=mask).logits
    wanted = torch.nn.functional.cross_entropy(logits.flatten(0, 1), shifted.flatten())
    for labels in ({}, {"labels": ids}):
        found = ours(ids, attention_mask=mask, shift_labels=shifted, **labels).loss
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)


def test_a_mask_of_keys_may_have_four_dimensions() -> None:
    theirs, ours = build_both(next(case for case in CASES if case.head == "model"))
    ids = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])
    real = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])
    wanted = theirs(ids, attention_mask=real).last_hidden_state
    added = torch.zeros(2, 1, 1, 4, dtype=torch.float64).masked_fill(real[:, None, None] == 0, float("-inf"))
    for mask in (added, real[:, None, None]):
        found = ours(ids, attention_mask=mask).last_hidden_state
        torch.testing.assert_close(real_rows(found, real), real_rows(wanted, real), rtol=0, atol=1e-10)


def test_a_bias_in_a_mask_is_refused() -> None:
    _, ours, ids = _decoder()
    mask = torch.zeros(2, 1, 4, 4, dtype=torch.float64)
    mask[..., 3] = torch.finfo(mask.dtype).min
    ours(ids, attention_mask=mask)
    mask[0, 0, 1, 2] = -0.5
    with pytest.raises(InputError, match=r"`attention_mask` must hold 0 .*Received: a bias of -0\.5"):
        ours(ids, attention_mask=mask)


def test_recomputation_of_a_configuration_can_be_turned_off() -> None:
    config = as_transformers(BY_HEAD[0].config())
    config.gradient_checkpointing = True
    model = rembert.transformers.RemBertModel(config)
    model.gradient_checkpointing_disable()
    assert model.encoder.checkpointing is None
    assert not any(layer.gradient_checkpointing for layer in model.encoder.layer)
