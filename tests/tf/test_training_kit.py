"""The helpers that transformers' TensorFlow classes had: batches, optimizer, metrics over whole predictions."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")

from rembert.common.errors import InputError  # noqa: E402
from rembert.tf import (  # noqa: E402
    KerasMetricCallback,
    TFRemBertForCausalLM,
    TFRemBertForMultipleChoice,
    TFRemBertForQuestionAnswering,
    TFRemBertForSequenceClassification,
    TFRemBertForTokenClassification,
    WarmUp,
    create_optimizer,
)
from tests.frameworks import difference, small_config  # noqa: E402

LENGTHS = [3, 7, 2, 5, 6]


def _columns() -> dict[str, list[Any]]:
    draw = np.random.default_rng(0)
    return {
        "text": ["unused"] * len(LENGTHS),
        "input_ids": [draw.integers(5, 61, length).tolist() for length in LENGTHS],
        "label": [draw.integers(0, 5, length).tolist() for length in LENGTHS],
    }


class _Dataset:
    """What `prepare_tf_dataset` asks of a dataset of the package `datasets`."""

    def __init__(self, columns: dict[str, list[Any]]) -> None:
        self._columns, self.column_names = columns, list(columns)

    def __len__(self) -> int:
        return len(self._columns["input_ids"])

    def select_columns(self, names: list[str]) -> _Dataset:
        return _Dataset({name: self._columns[name] for name in names})

    def __getitem__(self, rows: list[int]) -> dict[str, list[Any]]:
        return {name: [column[row] for row in rows] for name, column in self._columns.items()}


def _huggingface(columns: dict[str, list[Any]]) -> Any:
    return pytest.importorskip("datasets").Dataset.from_dict(columns)


def _examples(columns: dict[str, list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


@pytest.mark.parametrize("kind", [dict, _examples, _Dataset, _huggingface])
def test_batches_are_padded_to_their_longest_row(kind: Callable[[Any], Any]) -> None:
    model, columns = TFRemBertForTokenClassification(small_config(num_hidden_layers=1)), _columns()
    tokenizer = SimpleNamespace(pad_token_id=4, padding_side="right")
    batches = model.prepare_tf_dataset(kind(columns), batch_size=2, shuffle=False, tokenizer=tokenizer)
    assert len(batches) == 3
    for start, (inputs, labels) in zip((0, 2, 4), batches, strict=True):
        rows = slice(start, start + 2)
        width = max(LENGTHS[rows])
        assert sorted(inputs) == ["attention_mask", "input_ids"]
        for ids, mask, label, row, kept in zip(
            *(inputs["input_ids"], inputs["attention_mask"], labels),
            *(columns["input_ids"][rows], columns["label"][rows]),
            strict=True,
        ):
            padding = width - len(row)
            assert ids.numpy().tolist() == row + [4] * padding
            assert mask.numpy().tolist() == [1] * len(row) + [0] * padding
            assert label.numpy().tolist() == kept + [-100] * padding


def test_batches_are_shuffled_by_epoch_and_drop_the_rest_as_in_transformers() -> None:
    model = TFRemBertForSequenceClassification(small_config(num_hidden_layers=1))
    rows = {"input_ids": np.arange(5, 30)[:, None], "labels": np.arange(25)}
    keras.utils.set_random_seed(1)
    batches = model.prepare_tf_dataset(rows, batch_size=4)
    epochs = [[int(label) for _, labels in batches for label in labels] for _ in range(2)]
    assert [len(set(epoch)) for epoch in epochs] == [24, 24]
    assert epochs[0] != epochs[1]
    keras.utils.set_random_seed(1)
    again = model.prepare_tf_dataset(rows, batch_size=4)
    assert [int(label) for _, labels in again for label in labels] == epochs[0]


def test_padding_on_the_left_and_choices_and_several_labels() -> None:
    config = small_config(num_hidden_layers=1)
    tokenizer = SimpleNamespace(pad_token_id=4, padding_side="left")
    rows = [
        {"input_ids": [[7, 8, 9], [5, 6]], "token_type_ids": [[0, 1, 1], [0, 1]], "label": 1},
        {"input_ids": [[7], [5, 6, 7, 8]], "token_type_ids": [[0], [0, 1, 1, 0]], "label": 0},
    ]
    ((inputs, labels),) = TFRemBertForMultipleChoice(config).prepare_tf_dataset(
        rows, shuffle=False, tokenizer=tokenizer
    )
    pad = tokenizer.pad_token_id
    assert inputs["input_ids"].numpy().tolist() == [
        [[pad, 7, 8, 9], [pad, pad, 5, 6]],
        [[pad, pad, pad, 7], [5, 6, 7, 8]],
    ]
    assert inputs["attention_mask"].numpy()[0].tolist() == [[0, 1, 1, 1], [0, 0, 1, 1]]
    assert inputs["token_type_ids"].numpy()[1].tolist() == [[0, 0, 0, 0], [0, 1, 1, 0]]
    assert labels.numpy().tolist() == [1, 0]

    answers = {"input_ids": [[5, 6], [7]], "start_positions": [1, 0], "end_positions": [1, 0], "id": ["a", "b"]}
    model = TFRemBertForQuestionAnswering(config)
    ((_, labels),) = model.prepare_tf_dataset(answers, shuffle=False)
    assert {name: value.numpy().tolist() for name, value in labels.items()} == {
        "start_positions": [1, 0],
        "end_positions": [1, 0],
    }
    ((inputs, labels),) = TFRemBertForSequenceClassification(config).prepare_tf_dataset(
        {"input_ids": [[5, 6], [7]], "labels": [[1, 0.5], [0, 1]]}, shuffle=False
    )
    assert labels.dtype == tf.float32


def test_a_collate_function_of_ones_own() -> None:
    def collate(examples: list[dict[str, Any]], width: int) -> dict[str, Any]:
        ids = np.zeros((len(examples), width), np.int64)
        for row, example in zip(ids, examples, strict=True):
            row[: len(example["input_ids"])] = example["input_ids"]
        return {"input_ids": ids, "labels": np.array([example["labels"][0] for example in examples])}

    model = TFRemBertForSequenceClassification(small_config(num_hidden_layers=1))
    columns = _columns()
    batches = model.prepare_tf_dataset(
        columns, batch_size=5, shuffle=False, collate_fn=collate, collate_fn_args={"width": 9}
    )
    ((inputs, labels),) = batches
    assert inputs["input_ids"].shape == (5, 9)
    assert labels.numpy().tolist() == [row[0] for row in columns["label"]]


def test_unusable_datasets_are_refused() -> None:
    model = TFRemBertForSequenceClassification(small_config(num_hidden_layers=1))
    for dataset, message in (
        ([], r"must have examples\. Received: none"),
        ([{"input_ids": [5]}, {"text": "b"}], r"example 1 without input_ids"),
        (3, r"a list of examples\. Received: int"),
        ({"input_ids": [[5]], "label": [0, 1]}, r"one length\. Received: \{'input_ids': 1, 'label': 2\}"),
        ({"text": ["a"], "label": [0]}, r"must have inputs of the model\. Received: text, label"),
    ):
        with pytest.raises(InputError, match=message):
            model.prepare_tf_dataset(dataset)
    with pytest.raises(InputError, match=r"`batch_size` must be"):
        model.prepare_tf_dataset(_columns(), batch_size=0)


@pytest.mark.slow
def test_predict_pads_batches_of_several_lengths() -> None:
    config = small_config(num_hidden_layers=1)
    for model_class in (TFRemBertForTokenClassification, TFRemBertForQuestionAnswering):
        model = model_class(config)
        batches = model.prepare_tf_dataset(_columns(), batch_size=2, shuffle=False).map(lambda *pair: pair[0])
        found = model.predict(batches, verbose=0)
        start = 0
        for inputs in batches:
            expected = model(inputs)
            size, width = inputs["input_ids"].shape
            for name, whole in found.items():
                assert whole.shape[:2] == (5, 7)
                rows = whole[start : start + size]
                np.testing.assert_allclose(rows[:, :width], expected[name], rtol=1e-4, atol=1e-5)
                assert (rows[:, width:] == -100).all()
            start += size
    base = model.rembert
    states = base.predict(batches, verbose=0)["last_hidden_state"]
    assert (states[2:4, 5:] == 0).all()
    half = TFRemBertForTokenClassification(config, dtype="bfloat16")
    assert half.predict(batches, verbose=0)["logits"].shape == (5, 7, 5)


@pytest.mark.parametrize(("warmup", "ratio", "power"), [(4, 0.0, 1.0), (0, 0.1, 1.0), (3, 0.2, 2.0)])
def test_the_rate_rises_and_falls_as_transformers_defines_it(warmup: int, ratio: float, power: float) -> None:
    peak, steps = 0.5, 12
    optimizer, schedule = create_optimizer(peak, steps, warmup, min_lr_ratio=ratio, power=power)
    assert optimizer._learning_rate is schedule
    restored = type(optimizer).from_config(optimizer.get_config())
    for step in range(steps + 3):
        if step < warmup:
            expected = peak * step / warmup  # transformers 4.57 gives `power` to the fall alone
        else:
            done = min(step - warmup, steps - warmup) / (steps - warmup)
            expected = peak * (ratio + (1 - ratio) * (1 - done) ** power)
        assert float(schedule(step)) == pytest.approx(expected, rel=1e-6, abs=1e-9)
        restored.iterations.assign(step)
        assert float(restored.learning_rate) == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("include", [None, ["bias"], [r"LayerNorm"]])
def test_matrices_alone_decay_unless_others_are_included(include: list[str] | None) -> None:
    model = TFRemBertForSequenceClassification(small_config(num_hidden_layers=1))
    model.trainable_variables[-1].assign([1.0] * 5)  # the classifier's bias, 0 in a new model
    optimizer, _ = create_optimizer(0.5, 10, 0, weight_decay_rate=0.1, include_in_weight_decay=include)
    for each in (optimizer, type(optimizer).from_config(optimizer.get_config())):
        before = [np.asarray(variable.value).copy() for variable in model.trainable_variables]
        each.apply([tf.zeros(variable.shape) for variable in model.trainable_variables], model.trainable_variables)
        for variable, old in zip(model.trainable_variables, before, strict=True):
            kind = {"gamma": "LayerNorm", "beta": "LayerNorm"}.get(variable.name, variable.name)
            decays = kind in ("kernel", "embeddings") or kind in (include or [])
            assert difference(np.asarray(variable.value), old * (0.95 if decays else 1.0)) < 1e-6, variable.path


def test_steps_outside_their_range_are_refused() -> None:
    with pytest.raises(InputError, match="`warmup_steps` must be"):
        WarmUp(0.5, lambda step: step, warmup_steps=0)
    with pytest.raises(InputError, match=r"`num_train_steps` must be more than `num_warmup_steps`"):
        create_optimizer(1e-4, 10, 10)
    with pytest.raises(InputError, match=r"`num_warmup_steps` must be"):
        create_optimizer(1e-4, 10, -1)


def test_metrics_see_whole_predictions() -> None:
    model = TFRemBertForTokenClassification(small_config(num_hidden_layers=1))
    columns, seen = _columns(), []

    def score(predictions_and_labels: tuple[Any, Any]) -> dict[str, float]:
        seen.append(predictions_and_labels)
        return {"val_score": float(len(seen))}

    batches = model.prepare_tf_dataset(columns, batch_size=2, shuffle=False)
    stop = keras.callbacks.EarlyStopping(monitor="val_score", mode="min", patience=1)
    model.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    history = model.fit(batches, epochs=4, callbacks=[KerasMetricCallback(score, batches), stop], verbose=0).history
    assert history["val_score"] == [1.0, 2.0]  # stopped: it did not fall
    logits, labels = seen[0]
    for row, (ids, kept) in enumerate(zip(columns["input_ids"], columns["label"], strict=True)):
        expected = model(tf.constant([ids])).logits[0]
        np.testing.assert_allclose(logits[row, : len(ids)], expected, rtol=1e-4, atol=1e-5)
        assert labels[row].tolist() == kept + [-100] * (7 - len(kept))
    assert (logits[2, 5:] == -100).all()


def test_metrics_of_generated_tokens() -> None:
    model = TFRemBertForCausalLM(small_config(num_hidden_layers=1, is_decoder=True))
    rows = {"input_ids": np.array([[5, 6, 7], [8, 9, 10], [11, 12, 13]]), "labels": np.array([[5], [6], [7]])}
    seen: list[Any] = []
    callback = KerasMetricCallback(
        lambda pair: seen.append(pair) or {}, rows, batch_size=2, predict_with_generate=True,
        generate_kwargs={"max_new_tokens": 3},
    )  # fmt: skip
    callback.set_model(model)
    callback.on_epoch_end(0, {})
    tokens, labels = seen[0]
    expected = model.generate(tf.constant(rows["input_ids"]), max_new_tokens=3)
    np.testing.assert_array_equal(tokens, expected)
    np.testing.assert_array_equal(labels, rows["labels"])


def test_metrics_need_labels_and_a_batch_size() -> None:
    with pytest.raises(InputError, match=r"`batch_size` must be given"):
        KerasMetricCallback(dict, {"input_ids": np.ones((2, 3), np.int32)})
    model = TFRemBertForSequenceClassification(small_config(num_hidden_layers=1))
    callback = KerasMetricCallback(dict, {"input_ids": np.ones((2, 3), np.int32)}, batch_size=1)
    callback.set_model(model)
    with pytest.raises(InputError, match=r"must have labels.*Received: input_ids"):
        callback.on_epoch_end(0, {})
