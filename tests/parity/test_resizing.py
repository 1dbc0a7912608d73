"""Another number of tokens: both tables and the output bias of a model change, kept rows are equal bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rembert.common.errors import InputError
from tests.frameworks import Framework, on_both
from tests.parity.cases import CASES, build

TABLES = (
    "rembert.embeddings.word_embeddings.weight",
    "cls.predictions.decoder.weight",
    "cls.predictions.decoder.bias",
)
MASKED = next(case for case in CASES if case.name == "masked_lm")


@on_both
@pytest.mark.parametrize(("wanted", "multiple", "size"), [(70, None, 70), (40, None, 40), (None, 8, 64), (65, 8, 72)])
def test_tables_are_resized(
    framework: Framework, wanted: int | None, multiple: int | None, size: int, tmp_path: Path
) -> None:
    config = MASKED.config(num_hidden_layers=1, initializer_range=0.5, eos_token_id=3)
    model = build(framework, MASKED, config, dtype="float32")
    before = framework.weights(model)
    table = model.resize_token_embeddings(wanted, pad_to_multiple_of=multiple, mean_resizing=False)
    assert table is model.get_input_embeddings()
    assert model.config.vocab_size == size
    after = framework.weights(model)
    kept = min(size, 61)
    for name, array in before.items():
        if name not in TABLES:
            np.testing.assert_array_equal(after[name], array)
            continue
        assert after[name].shape == (size, *array.shape[1:])
        np.testing.assert_array_equal(after[name][:kept], array[:kept])
        fresh = after[name][kept:]
        if name.endswith("bias"):
            assert (fresh == 0).all()
        elif len(fresh):
            assert 0.3 < fresh.std() < 0.7
    inputs = {name: array % 40 if name != "labels" else array for name, array in MASKED.inputs(config).items()}
    inputs["labels"] = np.where(inputs["labels"] == -100, -100, size - 1)
    outputs = framework.call(model, **inputs)
    assert tuple(outputs.logits.shape) == (3, 7, size)
    gradients = framework.gradients(model, **inputs)
    assert gradients["cls.predictions.decoder.weight"].shape == (size, 14)

    model.save_pretrained(tmp_path)
    again = framework.load(tmp_path, MASKED.head)
    assert again.config.vocab_size == size
    np.testing.assert_array_equal(
        framework.array(framework.call(again, **inputs).logits), framework.array(outputs.logits)
    )


@on_both
def test_new_rows_are_drawn_from_the_old_ones(framework: Framework) -> None:
    """By default, as transformers draws them: the mean, with 1e-9 of the covariance."""
    model = build(framework, MASKED, MASKED.config(num_hidden_layers=1), dtype="float32")
    before = framework.weights(model)
    model.resize_token_embeddings(61 + 2000)
    after = framework.weights(model)
    for name in TABLES:
        old, new = before[name].astype(np.float64), after[name][61:].astype(np.float64)
        deviation = 1e-9**0.5 * old.std(0)  # about 1e-5, of which float32 keeps two digits near 0.4
        assert np.abs(new - old.mean(0)).max() <= 6 * deviation.max() + 1e-7
        if name.endswith("weight"):
            np.testing.assert_allclose(new.std(0), deviation, rtol=0.15)
            assert np.abs(new.mean(0) - old.mean(0)).max() <= 5 * deviation.max() / 2000**0.5 + 1e-7
            correlation = np.corrcoef(old.T)
            assert np.abs(np.corrcoef(new.T) - correlation).max() <= 5 / 2000**0.5  # 5 standard errors


@on_both
def test_a_head_without_output_table(framework: Framework) -> None:
    case = next(case for case in CASES if case.name == "one_label_each")
    model = build(framework, case, case.config())
    model.resize_token_embeddings(99)
    assert framework.weights(model)["rembert.embeddings.word_embeddings.weight"].shape == (99, 10)


@on_both
def test_tables_of_two_sizes_are_not_saved(framework: Framework, tmp_path: Path) -> None:
    """Nobody could load them: the encoder inside shares the model's configuration, and knows no output table."""
    model = build(framework, MASKED, MASKED.config())
    framework.base(model).resize_token_embeddings(70)
    with pytest.raises(InputError, match=r"`cls\.predictions\.decoder\.weight`.*\[70, 14\]. Received: \[61, 14\]"):
        model.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())


@on_both
def test_invalid_sizes_are_refused(framework: Framework) -> None:
    model = build(framework, MASKED, MASKED.config(eos_token_id=50))
    before = framework.weights(model)
    for arguments, says in (
        ((0,), r"`new_num_tokens=0`"),
        ((7.5,), r"`new_num_tokens=7.5`"),
        ((70, -1), r"`pad_to_multiple_of=-1`"),
        ((50,), r"50 tokens and `eos_token_id=50`"),
    ):
        with pytest.raises(InputError, match=says):
            model.resize_token_embeddings(*arguments)
    after = framework.weights(model)
    assert all((after[name] == array).all() for name, array in before.items())
