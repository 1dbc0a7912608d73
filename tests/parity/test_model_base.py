"""What every model has beside its forward pass, in both frameworks: its encoder, its tables, frozen embeddings."""

from __future__ import annotations

import importlib

import pytest

import rembert
from tests.frameworks import PT, Framework, on_both, train_once
from tests.parity.cases import CASES, build

CASE = next(case for case in CASES if case.name == "one_label_each")
EMBEDDINGS = 61 * 10 + 18 * 10 + 2 * 10 + 2 * 10  # words, positions, token types and LayerNorm of `small_config`


@on_both
def test_base_model_is_the_model_itself_or_the_encoder_of_a_head(framework: Framework) -> None:
    base, head = (framework.build(CASES[0].config(), name) for name in ("model", "masked-lm"))
    assert base.get_base_model() is base.base_model is base
    assert head.get_base_model() is head.base_model is head.rembert


@on_both
def test_tables_have_the_sizes_of_the_configuration(framework: Framework) -> None:
    base, head = (framework.build(CASES[0].config(), name) for name in ("model", "masked-lm"))
    words = head.get_input_embeddings()
    assert tuple((words.weight if framework is PT else words.embeddings).shape) == (61, 10)
    output = head.get_output_embeddings()
    assert tuple(output.weight.shape if framework is PT else output.kernel.shape[::-1]) == (61, 14)
    assert base.get_output_embeddings() is None


@on_both
def test_frozen_embeddings_do_not_count_as_trainable(framework: Framework) -> None:
    model = framework.build(CASE.config(), CASE.head)
    whole = model.num_parameters(only_trainable=True)
    assert whole == model.num_parameters()
    model.freeze_embeddings()
    assert model.num_parameters(only_trainable=True) == whole - EMBEDDINGS
    assert model.num_parameters() == whole


@on_both
def test_frozen_embeddings_stay_the_same_in_training(framework: Framework) -> None:
    model, inputs = build(framework, CASE, CASE.config(), dtype="float32"), CASE.inputs(CASE.config())
    model.freeze_embeddings()
    before = {name: array.copy() for name, array in framework.weights(model).items()}
    train_once(framework, model, inputs)
    unchanged = {name for name, array in framework.weights(model).items() if (array == before[name]).all()}
    # The softmax is invariant to the bias of keys, so that its gradient is 0 but for rounding.
    assert {name for name in unchanged if not name.endswith("key.bias")} == {n for n in before if "embeddings." in n}


@on_both
def test_gradient_checkpointing_is_switched_on_and_off(framework: Framework) -> None:
    model = framework.build(CASE.config(), CASE.head)
    assert not model.is_gradient_checkpointing
    model.gradient_checkpointing_enable()
    assert model.is_gradient_checkpointing
    assert model.get_base_model().is_gradient_checkpointing
    model.gradient_checkpointing_disable()
    assert not model.is_gradient_checkpointing


@on_both
def test_a_plain_tuple_keeps_the_pooler_in_its_position(framework: Framework) -> None:
    model = framework.build(CASE.config(), "model", add_pooling_layer=False)
    ids = CASE.inputs(CASE.config())["input_ids"]
    last, pooled = framework.call(model, input_ids=ids, return_dict=False)
    assert pooled is None
    last, pooled, states = framework.call(model, input_ids=ids, output_hidden_states=True, return_dict=False)
    assert pooled is None
    assert [tuple(each.shape) for each in (last, *states)] == [(3, 7, 12)] * 4


@on_both
def test_gradient_checkpointing_of_the_configuration_counts(framework: Framework) -> None:
    for head in ("model", "masked-lm"):
        model = framework.build(CASE.config(gradient_checkpointing=True), head)
        assert model.is_gradient_checkpointing
        model.gradient_checkpointing_disable()
        assert not model.is_gradient_checkpointing


@on_both
def test_python_names_the_public_class_in_its_errors(framework: Framework) -> None:
    prefix = framework.model_class("causal-lm").__name__.partition("Rem")[0]
    for method, owner in (("resize_token_embeddings", "RemBertPreTrainedModel"), ("generate", "RemBertForCausalLM")):
        with pytest.raises(TypeError, match=rf"^{prefix}{owner}\.{method}\(\) missing 1"):
            getattr(framework.model_class("causal-lm"), method)()
    with pytest.raises(TypeError, match=r"^RemBertConfig\.from_pretrained\(\) missing 1"):
        rembert.RemBertConfig.from_pretrained()


@on_both
def test_dir_shows_the_public_names(framework: Framework) -> None:
    for package in (rembert, importlib.import_module(f"rembert.{framework.name}")):
        assert dir(package) == sorted(package.__all__)
