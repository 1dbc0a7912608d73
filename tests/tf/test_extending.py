"""Layers and metrics that a user's subclass or a caller adds to a model, as over a functional Keras model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")

from rembert.common.errors import InputError  # noqa: E402
from rembert.tf import (  # noqa: E402
    TFRemBertForMaskedLM,
    TFRemBertForSequenceClassification,
    TFRemBertForTokenClassification,
    TFRemBertModel,
    TFRemBertPreTrainedModel,
)
from tests.frameworks import TF  # noqa: E402
from tests.parity.cases import CASES  # noqa: E402

CASE = next(case for case in CASES if case.name == "one_label_each")


@keras.saving.register_keras_serializable("tests")
class Extended(TFRemBertForSequenceClassification):
    """As in Keras' guide to a custom `train_step`, with a layer that waits for its first input."""

    def __init__(self, config: Any, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        self.tracker = keras.metrics.Mean(name="loss")
        self.extra = [keras.layers.Dense(3), keras.Sequential([keras.layers.Dense(2), keras.layers.Dense(6)])]

    def call(self, *args: Any, **kwargs: Any) -> Any:
        outputs = super().call(*args, **kwargs)
        for layer in self.extra:
            outputs["logits"] = layer(outputs["logits"])
        return outputs

    @property
    def metrics(self) -> list[Any]:
        return [self.tracker]

    def train_step(self, data: Any) -> dict[str, Any]:
        inputs, labels = data
        with tf.GradientTape() as tape:
            logits = self(inputs, training=True)["logits"]
            losses = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
            loss = tf.reduce_mean(losses)
        self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        self.tracker.update_state(loss)
        return {"loss": self.tracker.result()}


def test_a_subclass_trains_saves_and_loads_what_it_adds(tmp_path: Path) -> None:
    config = CASE.config(num_hidden_layers=1)
    inputs = CASE.inputs(config)
    labels = inputs.pop("labels")
    model = Extended(config)
    model.compile("sgd", run_eagerly=True)
    model(inputs)
    before = [np.array(variable) for variable in model.extra[0].weights]
    assert np.isfinite(model.fit(inputs, labels, verbose=0).history["loss"]).all()
    for variable, old in zip(model.extra[0].weights, before, strict=True):
        assert (np.array(variable) != old).any()
    expected = model(inputs).logits.numpy()

    model.save_pretrained(tmp_path / "pretrained")
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    other = Extended(config)
    other.load_weights(tmp_path / "model.weights.h5")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for again in (Extended.from_pretrained(tmp_path / "pretrained"), loaded, other):
        np.testing.assert_allclose(again(inputs).logits, expected, rtol=1e-5, atol=1e-6)


class _TrainsTheHead(TFRemBertForSequenceClassification):
    """A `train_step` for some of the weights, and for a variable that is none of the model's."""

    def train_step(self, data: Any) -> dict[str, Any]:
        trained = [*self.classifier.trainable_variables, self.shared]
        with tf.GradientTape() as tape:
            loss = self(data[0], labels=data[1], training=True).loss * self.shared.value
        self.optimizer.apply_gradients(zip(tape.gradient(loss, trained), trained, strict=True))
        return {"own_loss": loss}


def test_a_train_step_of_ones_own_decides_what_the_optimizer_holds() -> None:
    config = CASE.config(num_hidden_layers=1)
    inputs = CASE.inputs(config)
    labels = inputs.pop("labels")
    model = _TrainsTheHead(config)
    vars(model)["shared"] = keras.Variable(1.0)  # which Keras does not track
    model.compile("adam", run_eagerly=True)
    before, encoder = np.array(model.classifier.kernel), np.array(model.rembert.pooler.dense.kernel)
    assert np.isfinite(model.fit(inputs, labels, verbose=0).history["own_loss"]).all()
    assert (np.array(model.classifier.kernel) != before).any()
    assert (np.array(model.rembert.pooler.dense.kernel) == encoder).all()
    assert len(model.optimizer.variables) == 2 + 2 * 3  # the step's number and the rate; two moments of each variable


@pytest.mark.parametrize("model_class", [TFRemBertForSequenceClassification, TFRemBertForTokenClassification])
def test_another_classifier_brings_its_labels(model_class: type, tmp_path: Path) -> None:
    config = CASE.config(num_hidden_layers=1)
    inputs = CASE.inputs(config)
    del inputs["labels"]
    model = model_class(config)
    count = len(model.weights)
    model.classifier = keras.layers.Dense(7)
    logits = model(inputs).logits
    assert logits.shape[-1] == 7
    assert len(model.weights) == count  # the old classifier is gone
    assert np.isfinite(model(inputs, labels=np.full(logits.shape[:-1], 6)).loss)
    model.save_pretrained(tmp_path)
    np.testing.assert_allclose(model_class.from_pretrained(tmp_path)(inputs).logits, logits, rtol=1e-5, atol=1e-6)


def test_another_table_of_embeddings(tmp_path: Path) -> None:
    config = CASE.config(num_hidden_layers=1)
    inputs = CASE.inputs(config)
    del inputs["labels"]
    model, rows = TFRemBertForSequenceClassification(config), config.vocab_size + 5
    count = len(model.weights)
    model.set_input_embeddings(keras.layers.Embedding(rows, config.input_embedding_size))
    logits = model({**inputs, "input_ids": np.full_like(inputs["input_ids"], rows - 1)}).logits
    assert len(model.weights) == count
    model.save_pretrained(tmp_path)
    again = TFRemBertForSequenceClassification.from_pretrained(tmp_path)
    again_logits = again({**inputs, "input_ids": np.full_like(inputs["input_ids"], rows - 1)}).logits
    np.testing.assert_allclose(again_logits, logits, rtol=1e-5, atol=1e-6)
    with pytest.raises(InputError, match=r"`value` must be a table of"):
        TFRemBertForMaskedLM(config).set_input_embeddings(keras.layers.Embedding(3, config.input_embedding_size))


class _PassesOn(TFRemBertForSequenceClassification):
    def call(self, *args: Any, **kwargs: Any) -> Any:
        return super().call(*args, **kwargs)


class _OneStructure(TFRemBertForSequenceClassification):
    """As in Keras' guides: all inputs are one argument."""

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return super().call(inputs, training=training)


@pytest.mark.parametrize("model_class", [_PassesOn, _OneStructure])
def test_fit_takes_named_inputs_whatever_the_signature_of_call(model_class: type) -> None:
    inputs = CASE.inputs(CASE.config())
    labels = inputs.pop("labels")
    losses = []
    for each in (TFRemBertForSequenceClassification, model_class):
        keras.utils.set_random_seed(0)
        model = each(
            CASE.config(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, classifier_dropout_prob=0.0)
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.1), loss=loss, run_eagerly=True)
        losses.append(model.fit(inputs, labels, epochs=2, verbose=0).history["loss"])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-6)


def test_the_encoder_has_the_name_of_keras_hub(tmp_path: Path) -> None:
    model, other = (TF.build(CASE.config(num_hidden_layers=1), CASE.head) for _ in range(2))
    assert model.backbone is model.rembert
    assert model.rembert.backbone is model.rembert
    model.save_weights(tmp_path / "model.weights.h5")
    with h5py.File(tmp_path / "model.weights.h5") as file:
        assert sorted(file) == ["classifier", "dropout", "layers", "vars"]  # files know no `backbone`
    other.load_weights(tmp_path / "model.weights.h5")
    weights = TF.weights(other)
    assert all((array == weights[name]).all() for name, array in TF.weights(model).items())


def test_a_subclass_has_a_backbone_of_its_own(tmp_path: Path) -> None:
    class Custom(TFRemBertPreTrainedModel):
        def __init__(self, config: Any, **kwargs: Any) -> None:
            super().__init__(config, **kwargs)
            self.backbone = TFRemBertModel(config)

        def call(self, input_ids: Any = None, **kwargs: Any) -> Any:
            return self.backbone(input_ids, **kwargs).pooler_output

    model, other = (Custom(CASE.config(num_hidden_layers=1)) for _ in range(2))
    ids = CASE.inputs(model.config)["input_ids"]
    wanted = model(ids)
    assert not np.allclose(other(ids), wanted)
    model.save_weights(tmp_path / "model.weights.h5")
    other.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(other(ids), wanted)
