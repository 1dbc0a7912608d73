"""LoRA, int8 and frozen weights: what trains, and what comes back from each way of saving."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")

from rembert.common.errors import CheckpointError, InputError  # noqa: E402
from rembert.tf import TFRemBertForSequenceClassification, TFRemBertModel  # noqa: E402
from rembert.tf.adaptation import adaptations, enable_lora  # noqa: E402
from rembert.tf.layers import named_layers  # noqa: E402
from tests.frameworks import TF, random_weights, small_config  # noqa: E402

HEAD = "sequence-classification"
IDS = np.random.default_rng(0).integers(1, 20, (6, 7)).astype("int32")
INPUTS = {"input_ids": IDS, "attention_mask": (np.arange(7) < np.array([7, 5, 3, 6, 1, 2])[:, None]).astype("int32")}
LABELS = np.array([0, 1, 1, 0, 1, 0], np.int32)

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have a `quantize` method")


def _model() -> TFRemBertForSequenceClassification:
    config = small_config(num_hidden_layers=1)
    model = TF.build(config, HEAD)
    TF.set_weights(model, random_weights(config, HEAD, 0, "float32"))
    return model


def _logits(model: keras.Model) -> np.ndarray:
    return np.asarray(model(INPUTS).logits)


def _train(model: keras.Model) -> list[str]:
    """One step; the names of the variables that it changed."""
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    before = [variable.numpy() for variable in model.weights]
    model.fit(INPUTS, LABELS, verbose=0)
    return [
        variable.path.split("/", 1)[1]
        for variable, old in zip(model.weights, before, strict=True)
        if (variable.numpy() != old).any()
    ]


def _difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).max() / np.abs(other).max())


def test_lora_trains_its_own_part_and_the_head() -> None:
    model = _model()
    before = _logits(model)
    enable_lora(model, 2, alpha=4)
    np.testing.assert_array_equal(_logits(model), before)
    changed = _train(model)
    self_attention = "encoder/layer_0/attention/self"
    # B is zero at first, so the first step moves B alone: A has no gradient yet (Hu et al., section 4.1).
    wanted = [f"{self_attention}/{name}/lora_kernel_b" for name in ("query", "value")]
    assert [name.removeprefix("rembert/") for name in changed] == [*wanted, "classifier/kernel", "classifier/bias"]
    assert f"{self_attention}/query/lora_kernel_a" in " ".join(_train(model))


def test_lora_is_merged_by_save_pretrained_and_by_weights_files(tmp_path: Path) -> None:
    model = _model()
    plain = _logits(model)
    enable_lora(model, 2, alpha=4, targets=("query", "value", "dense"))
    for _ in range(2):
        _train(model)
    trained = _logits(model)
    assert _difference(trained, plain) > 1e-3
    model.save_pretrained(tmp_path)
    loaded = TFRemBertForSequenceClassification.from_pretrained(tmp_path)
    assert _difference(_logits(loaded), trained) <= 1e-5  # W + A B is rounded once to float32
    assert adaptations(loaded) == {}
    model.save_weights(tmp_path / "model.weights.h5")
    fresh = TFRemBertForSequenceClassification(model.config)
    fresh.load_weights(tmp_path / "model.weights.h5")
    assert _difference(_logits(fresh), trained) <= 1e-5


def test_a_keras_file_keeps_lora_and_training_continues(tmp_path: Path) -> None:
    model = _model()
    enable_lora(model, 2, alpha=4)
    _train(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert _difference(_logits(loaded), _logits(model)) <= 1e-5
    assert adaptations(loaded) == adaptations(model)
    assert [each.path for each in loaded.trainable_variables] == [each.path for each in model.trainable_variables]
    assert all("lora" in name or name.startswith("classifier") for name in _train(loaded))


def test_frozen_weights_stay_frozen_in_a_keras_file(tmp_path: Path) -> None:
    model = _model()
    model.rembert.embeddings.trainable = False
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert [each.path for each in loaded.trainable_variables] == [each.path for each in model.trainable_variables]
    assert len(loaded.trainable_variables) == len(model.weights) - 5
    assert [path for path, layer in named_layers(loaded) if not layer.trainable] == [
        path for path, layer in named_layers(model) if not layer.trainable
    ]
    assert not loaded.rembert.embeddings.trainable


def test_a_name_that_ends_in_h5_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must end in \.keras"):
        _model().save(tmp_path / "model.h5")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("lora", [False, True])
def test_int8(lora: bool, tmp_path: Path) -> None:
    model = _model()
    exact = _logits(model)
    model.quantize("int8", filters=lambda layer: layer.name != "classifier")
    assert 1e-4 < _difference(_logits(model), exact) <= 0.1  # 8 bits for weights and for each token's state
    if lora:
        enable_lora(model, 2)
        assert all("lora" in name or name.startswith("classifier") for name in _train(model))
    now = _logits(model)
    # LoRA's part is added to the weights, which are rounded to 8 bits again; without it nothing changes.
    tolerance = 0.1 if lora else 0.0
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert adaptations(loaded) == adaptations(model)
    assert _difference(_logits(loaded), now) <= tolerance
    model.save_weights(tmp_path / "model.weights.h5")
    fresh = TFRemBertForSequenceClassification(model.config)
    with pytest.raises(CheckpointError, match=r"holds quantized weights.*not quantized"):
        fresh.load_weights(tmp_path / "model.weights.h5")
    fresh.quantize("int8", filters=lambda layer: layer.name != "classifier")
    fresh.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(_logits(fresh), _logits(loaded))
    with pytest.raises(InputError, match=r"quantized model cannot be saved.*Received: rembert\.\S+ in int8"):
        model.save_pretrained(tmp_path / "directory")
    assert not (tmp_path / "directory").exists()


def test_lora_of_unsupported_layers_is_refused() -> None:
    model = TFRemBertModel(small_config(num_hidden_layers=1))
    for rank in (0, 2.0, True, "4"):
        with pytest.raises(InputError, match=f"`rank` must be .* Received: `rank={rank!r}`"):
            enable_lora(model, rank)
    with pytest.raises(InputError, match=r"`targets` must be names of .*query.*Received: querry"):
        enable_lora(model, 2, targets=("querry", "value"))
    assert len(model.trainable_variables) == len(model.weights)  # a refusal leaves the model alone
    enable_lora(model, 2)
    with pytest.raises(InputError, match="has LoRA already"):
        enable_lora(model, 2)


def test_weights_of_another_head_or_size(tmp_path: Path) -> None:
    model = _model()
    file = tmp_path / "model.weights.h5"
    model.save_weights(file)
    other = TF.build(small_config(num_hidden_layers=1), "question-answering")
    with pytest.raises(CheckpointError, match=r"Missing \(2\): qa_outputs\.weight.*Not in the model.*classifier"):
        other.load_weights(file)
    wide = TF.build(small_config(num_hidden_layers=1, num_labels=7), HEAD)
    with pytest.raises(CheckpointError, match=r"classifier\.weight \[\d, 12\] \(the model has \[7, 12\]\)"):
        wide.load_weights(file)
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match=r"model\.weights\.h5"):
        _model().load_weights(file)
    with pytest.raises(CheckpointError, match=r"no\.weights\.h5"):
        _model().load_weights(tmp_path / "no.weights.h5")
