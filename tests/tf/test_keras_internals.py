"""Internal names of Keras and TensorFlow: that the installed versions have each, and what happens where they have not.

All were seen in Keras 3.15.1 and TensorFlow 2.21.0. A test that fails in a newer version says which name went.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")

from rembert.common.errors import InputError  # noqa: E402
from rembert.common.internals import warn_missing  # noqa: E402
from rembert.common.outputs import SequenceClassifierOutput  # noqa: E402
from rembert.tf import AdamW, TFRemBertForSequenceClassification, keras_internals  # noqa: E402
from rembert.tf.layers import layers_inside  # noqa: E402
from tests.frameworks import TF, difference, random_weights, small_config  # noqa: E402

HEAD = "sequence-classification"
IDS = np.random.default_rng(0).integers(1, 20, (4, 5)).astype("int32")
INPUTS = {"input_ids": IDS, "attention_mask": (np.arange(5) < np.array([5, 3, 4, 1])[:, None]).astype("int32")}
LABELS = np.array([0, 1, 1, 0], np.int32)


@pytest.fixture(autouse=True)
def unsaid() -> Iterator[None]:
    """No name was missed before, and none after."""
    warn_missing.cache_clear()
    yield
    warn_missing.cache_clear()


@contextmanager
def one_warning(name: str, library: str = f"Keras {keras.__version__}") -> Iterator[None]:
    """Exactly one warning of a missing name inside the block, and it is of this one."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    said = [str(each.message) for each in caught if "docs/versions.md" in str(each.message)]
    assert len(said) == 1, said
    assert f"{library} has no `{name}`: " in said[0]


def _model() -> TFRemBertForSequenceClassification:
    config = small_config(num_hidden_layers=1, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    config.classifier_dropout_prob = 0.0
    model = TF.build(config, HEAD)
    TF.set_weights(model, random_weights(config, HEAD, 0, "float32"))
    return model


def _logits(model: Any) -> np.ndarray:
    return np.asarray(model(INPUTS).logits)


def _fit(model: Any, optimizer: Any) -> list[np.ndarray]:
    """The weights after two steps in a graph."""
    model.compile(optimizer)
    model.fit(INPUTS, LABELS, epochs=2, shuffle=False, verbose=0)
    return model.get_weights()


def _check_equal(weights: list[np.ndarray], wanted: list[np.ndarray]) -> None:
    for one, other in zip(weights, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)  # sums in the order of the threads


# ---------------------------------------------------------------------- present, in Keras 3.15.1, TensorFlow 2.21.0


def test_xla_is_known_inside_graphs() -> None:
    def trace(jit_compile: bool) -> bool:
        seen = []
        tf.function(lambda: seen.append(keras_internals.in_xla()) or 0, jit_compile=jit_compile)()
        return seen[0]

    assert not keras_internals.in_xla()
    assert [trace(False), trace(True)] == [False, True]


def test_keras_builds_loss_and_metrics_in_the_method_that_is_replaced() -> None:
    """`tests/tf/test_distribution.py` trains with it on two devices."""
    own, theirs = (vars(each).get("_maybe_symbolic_build") for each in (keras_internals.DistributedModel, keras.Model))
    assert own is not theirs
    assert hasattr(keras.Model, "_maybe_symbolic_build")


def test_errors_keep_their_class_and_message() -> None:
    model = _model()
    for call in (model, tf.function(model), tf.function(lambda batch: model(batch))):
        with pytest.raises(InputError, match=r"^The inputs of .*Received also: labels_\.$"):
            call({"input_ids": IDS, "labels_": LABELS})
        with pytest.raises(InputError, match=r"^`attention_mask` must have the shape .*\.$"):
            call({"input_ids": IDS, "attention_mask": LABELS[None, None]})


def test_keras_decays_nothing_by_itself() -> None:
    variable = keras.Variable(np.ones(3), dtype="float64")
    optimizer = AdamW(0.5, weight_decay=0.25)
    assert hasattr(keras.optimizers.Optimizer, "_apply_weight_decay")
    optimizer.build([variable])
    optimizer.apply([tf.zeros(3, "float64")])
    np.testing.assert_allclose(variable.numpy(), 1 - 0.5 * 0.25, rtol=1e-12)


def test_names_leave_variables_out_of_the_decay() -> None:
    kept, decayed, listed = (
        keras.Variable(np.ones(3), dtype="float64", name=name) for name in ("bias", "kernel", "x")
    )
    optimizer = AdamW(0.5, weight_decay=0.25)
    optimizer.exclude_from_weight_decay(var_list=[listed], var_names=["^b.as"])
    optimizer.build([kept, decayed, listed])
    optimizer.apply([tf.zeros(3, "float64")] * 3)
    assert [variable.numpy()[0] for variable in (kept, decayed, listed)] == pytest.approx([1, 0.875, 1])


def test_variables_have_one_key_in_every_form() -> None:
    optimizer, variable = AdamW(), keras.Variable(np.ones(3))
    assert keras_internals.variable_key(optimizer, variable) == keras_internals.variable_key(optimizer, variable.value)
    other = keras_internals.variable_key(optimizer, keras.Variable(np.ones(3)))
    assert keras_internals.variable_key(optimizer, variable) != other
    with pytest.raises(InputError, match="`variable` must be one that the optimizer was built with"):
        optimizer.moments(variable)


def test_variables_of_another_shape() -> None:
    layer = keras.layers.Dense(3)
    layer.build((None, 2))
    kernel = np.arange(8.0, dtype="float32").reshape(2, 4)
    keras_internals.replace_variables(layer, {"kernel": kernel, "bias": np.ones(4, "float32")})
    assert [variable.name for variable in layer.trainable_variables] == ["kernel", "bias"]
    np.testing.assert_array_equal(np.asarray(layer(np.eye(2, dtype="float32"))), kernel + 1)
    with pytest.raises(ValueError, match="You cannot add new elements of state"):
        layer.add_weight(shape=(1,))


def test_outputs_are_unpacked() -> None:
    outputs = _model()(INPUTS)
    assert keras_internals.is_structure(outputs)
    assert type(keras.tree.map_structure(lambda tensor: tensor + 1, outputs)) is type(outputs)


def test_all_layers_are_found() -> None:
    """By public attributes alone; Keras' own walk finds the same."""
    model = _model()
    assert {id(layer) for layer in layers_inside(model)} == {id(layer) for layer in model._flatten_layers()}


# ---------------------------------------------------------------------- absent


@pytest.mark.slow
def test_without_the_check_of_xla_graphs_compute_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    model = _model()
    wanted = _logits(model)
    name = "tensorflow.python.ops.control_flow_util"
    monkeypatch.setitem(sys.modules, name, ModuleType(name))
    with one_warning("control_flow_util.GraphOrParentsInXlaContext", f"TensorFlow {tf.__version__}"):
        found = model.predict(INPUTS, verbose=0)
        for jit_compile in (False, True):
            model.compile(keras.optimizers.SGD(0.1), jit_compile=jit_compile)
            model.fit(INPUTS, LABELS, verbose=0)
    assert difference(found.logits, wanted) <= 1e-5


def test_without_the_build_on_devices_models_train(monkeypatch: pytest.MonkeyPatch) -> None:
    (owner,) = (each for each in keras.Model.__mro__ if "_maybe_symbolic_build" in vars(each))
    wanted = _fit(_model(), keras.optimizers.SGD(0.1))
    monkeypatch.delattr(owner, "_maybe_symbolic_build")
    with one_warning("Model._maybe_symbolic_build"):
        for _ in range(2):
            keras_internals.warn_unbuilt(SimpleNamespace(distribute_strategy=SimpleNamespace(num_replicas_in_sync=2)))
    # A version without the name does not call it either.
    monkeypatch.setattr(keras_internals.DistributedModel, "_maybe_symbolic_build", lambda *_, **__: None)
    _check_equal(_fit(_model(), keras.optimizers.SGD(0.1)), wanted)


@pytest.mark.slow
def test_without_keras_decay_the_decay_is_hidden_from_keras(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wanted = _fit(_model(), AdamW(0.01, weight_decay=0.1))
    for owner in keras.optimizers.Optimizer.__mro__:
        if "_apply_weight_decay" in vars(owner):
            monkeypatch.delattr(owner, "_apply_weight_decay")
    with one_warning("Optimizer._apply_weight_decay"):
        optimizer = AdamW(0.01, weight_decay=0.1)
    assert optimizer.weight_decay is None  # so Keras decays nothing, whatever its method is called
    assert optimizer.get_config()["weight_decay"] == 0.1
    model = _model()
    _check_equal(_fit(model, optimizer), wanted)
    model.save(tmp_path / "model.keras")


@pytest.mark.slow
def test_without_keys_of_variables_one_device_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = _fit(_model(), AdamW(0.01, weight_decay=0.1))
    # Keras itself needs the key: here only our question whether it is there is answered otherwise.
    monkeypatch.setattr(keras_internals, "hasattr", lambda value, name: name != "_var_key", raising=False)
    with one_warning("Optimizer._var_key"):
        found = _fit(_model(), AdamW(0.01, weight_decay=0.1))
    _check_equal(found, wanted)


def test_without_a_tracker_resizing_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = _model()
    before = _logits(model)
    monkeypatch.setattr(keras_internals, "getattr", lambda *_: None, raising=False)
    with pytest.raises(InputError, match=r"`Layer._tracker`.*Create a model with the new `vocab_size`"):
        model.resize_token_embeddings(99)
    np.testing.assert_array_equal(_logits(model), before)
    model.save_pretrained(tmp_path)
    np.testing.assert_array_equal(_logits(TFRemBertForSequenceClassification.from_pretrained(tmp_path)), before)


def test_without_structures_predict_gives_dicts(monkeypatch: pytest.MonkeyPatch) -> None:
    optree = pytest.importorskip("optree")

    class Own(SequenceClassifierOutput):
        pass

    def register(*_: Any, **__: Any) -> None:
        raise TypeError("another signature")

    monkeypatch.setattr(optree, "register_pytree_node", register)
    with one_warning("optree namespace 'keras'"):
        for _ in range(2):
            keras_internals.register_mapping(Own, lambda output: ([], (), ()), lambda names, values: Own())
    monkeypatch.setattr("rembert.tf.heads.SequenceClassifierOutput", Own)
    model = _model()
    wanted = np.asarray(model(INPUTS)["logits"])
    found = model.predict(INPUTS, verbose=0)
    assert type(found) is dict
    assert difference(found["logits"], wanted) <= 1e-5
