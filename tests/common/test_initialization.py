"""The initial values that conversion and training give to parameters which a checkpoint lacks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rembert.bridge import convert, open_checkpoint
from rembert.common.initialization import initial_values
from rembert.common.parameters import Kind, parameters
from tests.frameworks import small_config

GOLDEN = Path(__file__).parent.parent / "fixtures" / "golden"


def test_values_follow_the_kind() -> None:
    drawn = []
    for parameter in parameters(small_config(), "masked-lm", pooler=True).values():
        values = initial_values(parameter, deviation=0.3, seed=4)
        assert values.shape == parameter.shape
        assert values.dtype == np.float32
        if parameter.kind in (Kind.KERNEL, Kind.EMBEDDING):
            drawn.append(values.ravel() / 0.3)
        else:
            assert (values == (parameter.kind is Kind.SCALE)).all()
    assert len({values[0] for values in drawn}) == len(drawn)  # no two from the same numbers
    numbers = np.concatenate(drawn)
    # A standard normal's moments within five standard errors, and its tail beyond two deviations.
    assert abs(numbers.mean()) < 5 / np.sqrt(numbers.size)
    assert abs(numbers.std() - 1) < 5 / np.sqrt(2 * numbers.size)
    assert abs((np.abs(numbers) > 2).mean() - 0.0455) < 5 * np.sqrt(0.0455 / numbers.size)


def test_the_seed_and_the_name_decide() -> None:
    table = parameters(small_config(), "masked-lm")
    query, key = (table[f"rembert.encoder.layer.0.attention.self.{name}.weight"] for name in ("query", "key"))
    one = initial_values(query, 0.02, seed=1)
    np.testing.assert_array_equal(one, initial_values(query, 0.02, seed=1))
    assert (one != initial_values(query, 0.02, seed=2)).all()
    assert (one != initial_values(key, 0.02, seed=1)).all()


def test_a_converted_head_has_these_values(tmp_path: Path) -> None:
    convert(GOLDEN / "masked_lm", tmp_path / "out", "pt", head="sequence-classification")
    with open_checkpoint(tmp_path / "out") as checkpoint:
        assert checkpoint.config is not None
        parameter = parameters(checkpoint.config, "sequence-classification")["classifier.weight"]
        wanted = initial_values(parameter, checkpoint.config.initializer_range)
        np.testing.assert_array_equal(checkpoint.read("classifier.weight"), wanted)
