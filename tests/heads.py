"""What every head must do in either framework, written once.

A framework's own file inherits `HeadTests`, names the framework and adds what only that framework has. A new head
takes part by its declaration in `tests/parity/cases.py`.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

from rembert.common.config import RemBertConfig
from rembert.common.outputs import OUTPUT_TYPES
from rembert.common.parameters import Kind, parameters
from tests.frameworks import Arrays, Framework, flat, random_weights
from tests.parity.cases import CASES, Case, as_dtype, shared

SEEN = {"output_attentions": True, "output_hidden_states": True}
TOLERANCE = 1e-12  # float64; how numbers lie in memory decides in which order they are added
ONE_LAYER = {"num_hidden_layers": 1}


class HeadTests:
    """Tests of every case in one framework."""

    framework: Framework
    dtypes = ("float16", "bfloat16")

    @pytest.fixture(scope="class", params=CASES, ids=lambda case: case.name)
    def case(self, request: pytest.FixtureRequest) -> Case:
        return request.param

    @pytest.fixture
    def config(self, case: Case) -> RemBertConfig:
        return case.config(**ONE_LAYER)

    @pytest.fixture
    def inputs(self, case: Case, config: RemBertConfig) -> Arrays:
        return case.inputs(config)

    @pytest.fixture(scope="class")
    def model(self, case: Case) -> Any:
        """A model in float64 that no test may change."""
        return shared(self.framework, case, **ONE_LAYER)

    def test_parameters_are_those_of_the_table(self, case: Case, model: Any, tmp_path: Path) -> None:
        table = parameters(model.config, case.head)
        shapes = {name: parameter.shape for name, parameter in table.items()}
        assert {name: array.shape for name, array in self.framework.weights(model).items()} == shapes
        assert model.num_parameters() == sum(parameter.size for parameter in table.values())
        tables = sum(parameter.size for parameter in table.values() if parameter.kind is Kind.EMBEDDING)
        assert model.num_parameters(exclude_embeddings=True) == model.num_parameters() - tables
        model.save_pretrained(tmp_path)
        stored = {name: array.shape for name, array in load_file(tmp_path / "model.safetensors").items()}
        bare = case.head == "model"
        assert stored == {name.removeprefix("rembert.") if bare else name: shape for name, shape in shapes.items()}

    def test_outputs_are_the_declared_fields(self, case: Case, model: Any, inputs: Arrays) -> None:
        output = self.framework.call(model, **inputs, **SEEN)
        assert type(output) in OUTPUT_TYPES
        absent = set() if model.config.is_decoder else {"past_key_values"}
        absent |= set() if model.config.add_cross_attention else {"cross_attentions"}
        assert list(output) == [name for name in type(output).fields if name not in absent]
        assert {dtype_name(tensor) for _, tensor in named_leaves(output)} == {"float64"}
        twin = pickle.loads(pickle.dumps(output))
        assert type(twin) is type(output)
        self.check_equal(flat(self.framework, twin), flat(self.framework, output))
        as_tuple = self.framework.call(model, **inputs, **SEEN, return_dict=False)
        assert type(as_tuple) is tuple
        self.check_near(dict(zip(output, as_tuple, strict=True)), output)

    def test_saved_and_loaded(self, case: Case, model: Any, inputs: Arrays, tmp_path: Path) -> None:
        model.save_pretrained(tmp_path / "one")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            loaded = self.framework.load(tmp_path / "one", case.head, dtype="auto")
        assert type(loaded) is type(model)
        assert loaded.config.to_dict() == RemBertConfig.from_pretrained(tmp_path / "one").to_dict()
        self.check_equal(self.framework.weights(loaded), self.framework.weights(model))
        self.check_stored(loaded, "float64")
        self.check_near(*(self.framework.call(each, **inputs) for each in (loaded, model)))
        loaded.save_pretrained(tmp_path / "two")
        for name in ("config.json", "model.safetensors"):
            assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name

    def test_half_precision(self, case: Case, config: RemBertConfig, inputs: Arrays) -> None:
        """Outputs in the dtype of the computation, the loss in float32, and all finite where a row is all padding."""
        for name in inputs:
            if name.endswith("attention_mask"):
                inputs[name][-1] = 0
        weights = random_weights(config, case.head, dtype="float32")
        for dtype in self.dtypes:
            model = self.framework.build(config, case.head, dtype=dtype)
            self.framework.set_weights(model, weights)
            compute = dtype.removeprefix("mixed_")
            given = as_dtype(inputs, np.dtype(ml_dtypes.bfloat16 if compute == "bfloat16" else compute))
            # Fused attention, and its explicit form.
            for flags in ({}, SEEN):
                outputs = self.framework.call(model, **given, **flags)
                for name, tensor in named_leaves(outputs):
                    wanted = "float32" if name == "loss" else compute
                    assert dtype_name(tensor) == wanted, (dtype, name)
                    assert np.isfinite(self.framework.array(tensor)).all(), (dtype, name)
            self.check_stored(model, "float32" if dtype.startswith("mixed_") else compute)

    def test_unknown_keywords_are_refused(self, model: Any, inputs: Arrays) -> None:
        with pytest.raises(TypeError, match="attention_masks"):
            self.framework.call(model, input_ids=inputs["input_ids"], attention_masks=1)

    def check_equal(self, one: Arrays, other: Arrays) -> None:
        assert list(one) == list(other)
        for name, array in one.items():
            np.testing.assert_array_equal(array, other[name], err_msg=name, strict=True)

    def check_near(self, actual: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
        one, other = flat(self.framework, actual), flat(self.framework, expected)
        assert list(one) == list(other)
        for name, array in one.items():
            np.testing.assert_allclose(array, other[name], rtol=TOLERANCE, atol=TOLERANCE, err_msg=name)

    def check_stored(self, model: Any, dtype: str) -> None:
        """The parameters have this dtype."""
        raise NotImplementedError


def named_leaves(outputs: Any) -> Iterator[tuple[str, Any]]:
    """The tensors of an output, each with the name of its field."""

    def tensors(value: Any) -> Iterator[Any]:
        for part in value if isinstance(value, tuple) else ():
            yield from tensors(part)
        if not isinstance(value, tuple):
            yield value

    for name, value in outputs.items():
        for tensor in tensors(value):
            yield name, tensor


def dtype_name(tensor: Any) -> str:
    """`bfloat16` of torch.bfloat16 and of <dtype: 'bfloat16'>."""
    return getattr(tensor.dtype, "name", None) or str(tensor.dtype).rpartition(".")[2]
