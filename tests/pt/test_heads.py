"""Every head in PyTorch."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.utils import _pytree as pytree  # noqa: E402

from tests.frameworks import PT, Arrays, flat  # noqa: E402
from tests.heads import SEEN, HeadTests, dtype_name  # noqa: E402
from tests.parity.cases import Case, as_dtype, shared  # noqa: E402


class TestHeads(HeadTests):
    framework = PT

    def test_output_is_a_pytree(self, model: Any, inputs: Arrays) -> None:
        output = PT.call(model, **inputs, **SEEN)
        leaves, spec = pytree.tree_flatten(output)
        again = pytree.tree_unflatten(leaves, spec)
        assert type(again) is type(output)
        assert [id(leaf) for leaf in pytree.tree_leaves(again)] == [id(leaf) for leaf in leaves]
        file = io.BytesIO()
        torch.save(output, file)
        file.seek(0)
        twin = torch.load(file, weights_only=False)
        assert type(twin) is type(output)
        assert all(map(torch.equal, pytree.tree_leaves(twin), leaves))

    def test_autocast(self, case: Case, inputs: Arrays) -> None:
        model, inputs = shared(PT, case, "float32", num_hidden_layers=1), as_dtype(inputs, "float32")
        inputs["attention_mask"][-1] = 0
        wanted = flat(PT, PT.call(model, **inputs))
        with torch.autocast("cpu", torch.bfloat16):
            outputs = flat(PT, PT.call(model, **inputs))
            probabilities = PT.call(model, **inputs, output_attentions=True).attentions
        assert all(part.dtype == torch.bfloat16 for part in probabilities)
        for name, array in outputs.items():
            assert np.isfinite(array).all()
            # bfloat16 has 8 bits: three decimal digits at best, a few roundings deep.
            assert np.abs(array - wanted[name]).max() <= 0.1 * max(1.0, np.abs(wanted[name]).max()), name
        if "loss" in outputs:
            assert outputs["loss"].dtype == np.float32

    def check_stored(self, model: Any, dtype: str) -> None:
        assert {dtype_name(parameter) for parameter in model.parameters()} == {dtype}
