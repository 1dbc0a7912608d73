"""Every head in TensorFlow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")

from tests.frameworks import TF, Arrays  # noqa: E402
from tests.heads import SEEN, HeadTests  # noqa: E402

TAKEN_FIRST = ("input_ids", "attention_mask", "token_type_ids")


class TestHeads(HeadTests):
    framework = TF
    dtypes = ("float16", "bfloat16", "mixed_float16", "mixed_bfloat16")

    @pytest.fixture
    def tensors(self, inputs: Arrays) -> dict[str, Any]:
        return {name: TF.tensor(array) for name, array in inputs.items()}

    def test_graph(self, model: Any, tensors: dict[str, Any]) -> None:
        actual, expected = tf.function(model)(**tensors, **SEEN), model(**tensors, **SEEN)
        assert type(actual) is type(expected)
        self.check_near(actual, expected)

    def test_saved_and_loaded_by_keras(self, model: Any, inputs: Arrays, tmp_path: Path) -> None:
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        assert type(loaded) is type(model)
        assert loaded.config == model.config
        self.check_near(TF.call(loaded, **inputs), TF.call(model, **inputs))

    def test_inputs_as_a_dict_or_a_tuple(self, model: Any, tensors: dict[str, Any]) -> None:
        expected = model(**tensors)
        self.check_near(model(tensors), expected)
        self.check_near(model({**tensors, "position_ids": None}), expected)
        ordered = [tensors.pop(name) for name in TAKEN_FIRST]
        self.check_near(model(tuple(ordered), **tensors), expected)
        self.check_near(model(ordered, **tensors), expected)

    def check_stored(self, model: Any, dtype: str) -> None:
        assert {variable.dtype for variable in model.weights} == {dtype}
