"""`fit`, `evaluate` and `predict` in both styles, held against loops written by hand with `tf.GradientTape`.

Tracing a graph takes seconds, and calls the same code. A test runs eagerly where the graph is not its subject.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")

from rembert.common.errors import InputError  # noqa: E402
from rembert.tf.training import TrainableModel  # noqa: E402
from tests.frameworks import TF, Arrays, difference, needs  # noqa: E402
from tests.parity.cases import CASES, WITH_LOSS, Case, build, by_case  # noqa: E402

# float64; graphs, XLA and loops add in another order.
TOLERANCE = 1e-10
RATE = 0.125  # exact in float32, in which Keras holds it
LABELS = ("labels", "start_positions", "end_positions")
TRACED = ("masked_lm",)  # the others in the slow part
TRAINED = [case for case in WITH_LOSS if not case.settings.get("add_cross_attention")]


def _case(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


CLASSIFIER = _case("one_label_each")


def _model(case: Case = CLASSIFIER, **settings: Any) -> Any:
    return build(TF, case, case.config(**{"num_hidden_layers": 1, "classifier_dropout_prob": 0.0, **settings}))


def _batches(case: Case = CLASSIFIER, count: int = 2) -> list[Arrays]:
    config = case.config(num_hidden_layers=1)
    return [case.inputs(config, seed=seed) for seed in range(count)]


def _dataset(batches: list[Any]) -> Any:
    """A pipeline of these batches; each may be a dict, or a tuple of dict, labels and weights."""
    signature = tf.nest.map_structure(lambda array: tf.TensorSpec([None] * array.ndim, array.dtype), batches[0])
    return tf.data.Dataset.from_generator(lambda: iter(batches), output_signature=signature)


def _sgd() -> Any:
    return keras.optimizers.SGD(RATE)


def _by_hand(
    model: Any, batches: list[Any], loss: Callable[[Any, Any], Any] = lambda model, x: model(x, training=True).loss
) -> list[float]:
    """Gradient descent, step by step; the losses."""
    losses = []
    for batch in batches:
        with tf.GradientTape() as tape:
            value = loss(model, batch)
        variables = [variable.value for variable in model.trainable_variables]
        for variable, gradient in zip(variables, tape.gradient(value, variables), strict=True):
            if gradient is not None:
                variable.assign_sub(RATE * tf.convert_to_tensor(gradient))
        losses.append(float(value))
    return losses


def _same(one: Any, other: Any, tolerance: float = TOLERANCE) -> None:
    weights = TF.weights(other)
    for name, array in TF.weights(one).items():
        assert difference(array, weights[name]) <= tolerance, name


@by_case(TRAINED)
def test_own_loss(case: Case) -> None:
    _check_own_loss(case, eager=True)


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=case.name, marks=[] if case.name in TRACED else pytest.mark.slow) for case in TRAINED],
)
def test_own_loss_in_a_graph(case: Case) -> None:
    _check_own_loss(case, eager=False)


def _check_own_loss(case: Case, eager: bool) -> None:
    batches, fitted, by_hand = _batches(case), _model(case), _model(case)
    fitted.compile(_sgd(), run_eagerly=eager)
    history = fitted.fit(_dataset(batches), verbose=0)
    losses = _by_hand(by_hand, batches)
    np.testing.assert_allclose(history.history["loss"], np.mean(losses), rtol=1e-6)  # Keras' mean is float32
    _same(fitted, by_hand)
    expected = np.mean([float(by_hand(batch).loss) for batch in batches])
    np.testing.assert_allclose(fitted.evaluate(_dataset(batches), verbose=0), expected, rtol=1e-6)


@pytest.mark.parametrize("style", ["dict and None", "arrays", "y", "y by name"])
@by_case([CLASSIFIER, _case("question_answering")])
def test_own_loss_with_labels_among_the_inputs_or_apart(case: Case, style: str) -> None:
    batches, fitted, by_hand = _batches(case), _model(case), _model(case)
    fitted.compile(_sgd(), run_eagerly=True)
    split = [
        (
            {name: array for name, array in batch.items() if name not in LABELS},
            {name: array for name, array in batch.items() if name in LABELS},
        )
        for batch in batches
    ]
    if style == "dict and None":
        fitted.fit(_dataset(batches).map(lambda batch: (batch, None)), verbose=0)
    elif style == "arrays":
        together = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
        fitted.fit(together, batch_size=3, shuffle=False, verbose=0)
    elif style == "y":
        pairs = [(x, tuple(y.values()) if len(y) > 1 else next(iter(y.values()))) for x, y in split]
        fitted.fit(_dataset(pairs), verbose=0)
    else:
        fitted.fit(_dataset(split), verbose=0)
    _by_hand(by_hand, batches)
    _same(fitted, by_hand)


XLA, SEVERAL_STEPS = {"jit_compile": True}, {"steps_per_execution": 2}


@pytest.mark.parametrize(
    ("case", "options"),
    [
        pytest.param(_case("question_answering"), XLA, id="answers-XLA", marks=pytest.mark.slow),
        pytest.param(CLASSIFIER, SEVERAL_STEPS, id="classes-several steps"),
        pytest.param(CLASSIFIER, XLA, id="classes-XLA", marks=pytest.mark.slow),
        pytest.param(_case("question_answering"), SEVERAL_STEPS, id="answers-several steps", marks=pytest.mark.slow),
    ],
)
def test_own_loss_compiled_in_other_ways(case: Case, options: dict[str, Any]) -> None:
    batches, fitted, by_hand = _batches(case, 3), _model(case), _model(case)
    fitted.compile(_sgd(), **options)
    assert fitted.jit_compile is (options is XLA)  # Keras may leave XLA out of a model
    fitted.fit(_dataset(batches), verbose=0)
    _by_hand(by_hand, batches)
    _same(fitted, by_hand)


@pytest.mark.slow
def test_own_loss_of_a_language_model_with_xla() -> None:
    # The pipeline does not say how many rows there are, as one of buckets does not.
    case = _case("masked_lm")
    batch, fitted, by_hand = _batches(case)[0], _model(case), _model(case)
    fitted.compile(_sgd(), jit_compile=True)
    fitted.fit(_dataset([batch]), verbose=0)
    _by_hand(by_hand, [batch])
    _same(fitted, by_hand)


def test_fit_succeeds_after_a_refused_one() -> None:
    # In a graph: what was traced halfway must not stay.
    batches, fitted, by_hand = _batches(), _model(), _model()
    fitted.compile(_sgd())
    with pytest.raises(InputError, match="`labels` must be among the inputs"):
        fitted.fit({name: array for name, array in batches[0].items() if name != "labels"}, verbose=0)
    fitted.fit(_dataset(batches), verbose=0)
    _by_hand(by_hand, batches)
    _same(fitted, by_hand)


@pytest.mark.parametrize("method", ["fit", "train_on_batch", "evaluate"])
def test_the_first_step_is_traced_once(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # TensorFlow traces a function that creates variables, such as the optimizer's and the metrics', a second time.
    model, (batch,) = _model(), _batches(count=1)
    traced, run = [], TrainableModel._arranged
    monkeypatch.setattr(TrainableModel, "_arranged", lambda self, data: traced.append(1) or run(self, data))
    model.compile("adam", metrics=["accuracy"])
    getattr(model, method)(batch)
    assert traced == [1]


def test_predict_leaves_labels_out() -> None:
    for case in TRAINED:
        batches, model = _batches(case), _model(case)
        model.compile(run_eagerly=True)
        outputs = model.predict(_dataset(batches), verbose=0)
        assert "loss" not in outputs
        without = [{name: array for name, array in batch.items() if name not in LABELS} for batch in batches]
        for name, array in outputs.items():
            if not name.startswith("past_key_values"):
                expected = np.concatenate([TF.call(model, **batch)[name] for batch in without])
                assert difference(array, expected) <= TOLERANCE, name


def _cross_entropy() -> Any:
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.mark.parametrize("labels", ["y", "among the inputs"])
def test_given_loss_and_metrics(labels: str) -> None:
    batches, fitted, by_hand = _batches(), _model(), _model()
    fitted.compile(_sgd(), loss=_cross_entropy(), metrics=["accuracy"], run_eagerly=labels != "y")
    pairs = [
        ({name: array for name, array in batch.items() if name != "labels"}, batch["labels"]) for batch in batches
    ]
    given = _dataset(pairs if labels == "y" else batches)
    fitted.fit(given, verbose=0)
    _by_hand(by_hand, batches)  # the own loss of a classifier is the same cross entropy
    _same(fitted, by_hand, 1e-6)  # Keras casts a loss's arguments to float32
    right = [np.asarray(by_hand(x).logits).argmax(-1) == y for x, y in pairs]
    loss, accuracy = fitted.evaluate(given, verbose=0)
    assert accuracy == pytest.approx(np.concatenate(right).mean())
    assert loss == pytest.approx(np.mean([float(by_hand(batch).loss) for batch in batches]), rel=1e-5)


def test_metrics_beside_the_own_loss() -> None:
    batches, model = _batches(), _model()
    model.compile(_sgd(), metrics=["accuracy"], run_eagerly=True)
    result = model.evaluate(_dataset(batches), verbose=0, return_dict=True)
    right = [np.asarray(model(batch).logits).argmax(-1) == batch["labels"] for batch in batches]
    assert result["accuracy"] == pytest.approx(np.concatenate(right).mean())
    model.fit(_dataset(batches), verbose=0)


def test_metrics_beside_the_own_loss_of_a_language_model() -> None:
    # Its training leaves logits out; metrics ask for them.
    case = _case("masked_lm")
    batch, fitted, by_hand = _batches(case)[0], _model(case), _model(case)
    fitted.compile(_sgd(), metrics=["accuracy"])
    history = fitted.fit(_dataset([batch]), verbose=0).history
    right = np.asarray(by_hand(batch).logits).argmax(-1) == batch["labels"]
    assert history["accuracy"][0] == pytest.approx(right.mean())
    _by_hand(by_hand, [batch])
    _same(fitted, by_hand)


@by_case([_case("masked_lm"), _case("causal_lm")])
def test_own_loss_of_a_language_model_needs_no_logits(case: Case) -> None:
    batch, model = _batches(case)[0], _model(case)
    asked = []
    loss_and_logits = model.loss_and_logits
    model.loss_and_logits = lambda *given: asked.append(given[2]) or loss_and_logits(*given)
    model.compile(_sgd(), run_eagerly=True)
    model.fit(_dataset([batch]), verbose=0)
    model.evaluate(_dataset([batch]), verbose=0)
    assert asked == [False, False]


@pytest.mark.parametrize("loss", [None, "given"])
def test_configuration_that_wants_tuples(loss: str | None) -> None:
    batches, fitted, by_hand = _batches(), _model(return_dict=False), _model()
    fitted.compile(_sgd(), loss=loss and _cross_entropy(), metrics=["accuracy"], run_eagerly=True)
    fitted.fit(_dataset(batches), verbose=0)
    _by_hand(by_hand, batches)
    _same(fitted, by_hand, 1e-6 if loss else TOLERANCE)
    fitted.evaluate(_dataset(batches), verbose=0)


def test_given_losses_of_an_answers_two_logits() -> None:
    case = _case("question_answering")
    batches, fitted, by_hand = _batches(case), _model(case), _model(case)
    for batch in batches:
        batch["attention_mask"][:] = 1  # Keras' loss knows no padding
        batch.update({name: batch[name].clip(0, 6) for name in LABELS[1:]})
    fitted.compile(_sgd(), loss=[_cross_entropy(), _cross_entropy()], run_eagerly=True)
    fitted.fit(_dataset(batches), verbose=0)
    _by_hand(by_hand, batches, lambda model, x: 2 * model(x, training=True).loss)
    _same(fitted, by_hand, 1e-6)


@pytest.mark.parametrize("kind", ["sample_weight", "class_weight"])
def test_weights(kind: str) -> None:
    batches, fitted, by_hand = _batches(), _model(), _model()
    fitted.compile(_sgd(), loss=_cross_entropy(), run_eagerly=True)
    of_class = {0: 0.5, 1: 2.0, 2: 1.0, 3: 3.0, 4: 0.1}
    pairs = [
        ({name: array for name, array in batch.items() if name != "labels"}, batch["labels"]) for batch in batches
    ]
    weights = [np.vectorize(of_class.get)(y) for _, y in pairs]
    if kind == "class_weight":
        fitted.fit(_dataset(pairs), class_weight=of_class, verbose=0)
    else:
        fitted.fit(_dataset([(*pair, weight) for pair, weight in zip(pairs, weights, strict=True)]), verbose=0)

    def loss(model: Any, batch: Any) -> Any:
        (x, y), weight = batch
        each = tf.nn.sparse_softmax_cross_entropy_with_logits(y, model(x, training=True).logits)
        return tf.reduce_mean(each * weight)

    _by_hand(by_hand, list(zip(pairs, weights, strict=True)), loss)
    _same(fitted, by_hand, 1e-6)


def test_losses_and_metrics_by_the_names_of_the_outputs() -> None:
    batch = _batches(count=1)[0]
    labels = batch.pop("labels")
    model = _model()

    def evaluate(loss: Any, **options: Any) -> Any:
        model.compile(_sgd(), loss=loss, run_eagerly=True, **options)
        return model.evaluate(batch, labels, verbose=0, return_dict=True)["loss"]

    wanted = evaluate(_cross_entropy())
    assert evaluate({"logits": _cross_entropy()}) == wanted
    assert evaluate({"logits": _cross_entropy()}, metrics={"logits": ["accuracy"]}) == wanted
    assert evaluate(_cross_entropy(), metrics={"logits": ["accuracy"]}) == wanted
    answers = _case("question_answering")
    model, batch = _model(answers), _batches(answers, count=1)[0]
    labels = tuple(np.clip(batch.pop(name), 0, 6) for name in ("start_positions", "end_positions"))
    sum_of_both = evaluate(_cross_entropy())
    assert evaluate({"start_logits": _cross_entropy(), "end_logits": _cross_entropy()}) == sum_of_both


def test_labels_of_one_rank_after_another() -> None:
    batch = _batches(count=1)[0]
    labels = batch.pop("labels")
    model = _model()
    model.compile(_sgd())
    one, other = (model.evaluate(batch, given, verbose=0) for given in (labels, labels[:, None]))
    assert one == pytest.approx(other)


def test_a_pipeline_of_unknown_rank_is_refused() -> None:
    batch = _batches(count=1)[0]
    model = _model()
    model.compile(_sgd(), run_eagerly=True)
    types = dict.fromkeys(batch, tf.int64)
    with pytest.raises(InputError, match=r"must have a known rank.*of unknown shape, `attention_mask`"):
        model.fit(tf.data.Dataset.from_generator(lambda: iter([batch]), output_types=types), verbose=0)


def test_objects_of_keras_2_are_refused() -> None:
    model = _model()
    names = {"__module__": "tf_keras.src.engine.keras_tensor"}
    legacy = type("KerasTensor", (), names)()
    for call in (
        lambda: model(legacy),
        lambda: model.rembert({"input_ids": legacy}),
        lambda: model(tf.ones((1, 2), tf.int32), attention_mask=legacy),
        lambda: model.compile(optimizer=legacy),
    ):
        with pytest.raises(InputError, match=r"must come from Keras 3.*a KerasTensor of tf_keras"):
            call()


def test_invalid_calls_are_refused() -> None:
    batches = _batches()
    without = [{name: array for name, array in batch.items() if name != "labels"} for batch in batches]
    model = _model()
    model.compile(_sgd())
    for run in (model.fit, model.evaluate):
        with pytest.raises(InputError, match=r"`labels` must be among the inputs, as TFRemBertForSequence.*input_ids"):
            run(_dataset(without), verbose=0)
    weighted = [(one, other["labels"], np.ones(3)) for one, other in zip(without, batches, strict=True)]
    with pytest.raises(InputError, match="takes no `sample_weight`"):
        model.fit(_dataset(weighted), verbose=0)
    for given in (_dataset(batches), batches[0]):
        with pytest.raises(InputError, match=r"takes no `sample_weight` and no `class_weight`.*: `class_weight`"):
            model.fit(given, class_weight={0: 2.0}, verbose=0)
    with pytest.raises(InputError, match="takes no `sample_weight`"):
        model.train_on_batch(without[0], batches[0]["labels"], class_weight={0: 2.0})
    with pytest.raises(InputError, match=r"must be among the inputs.*Received: .*lables"):
        model.fit(_dataset([{**batch, "lables": np.ones(3)} for batch in without]), verbose=0)
    model.compile(_sgd(), loss=_cross_entropy())
    with pytest.raises(InputError, match="needs `y` or `labels` among the inputs"):
        model.fit(_dataset(without), verbose=0)
    for given in (_dataset(batches), batches[0]):
        with pytest.raises(InputError, match="`class_weight` needs the labels as `y`"):
            model.fit(given, class_weight={0: 2.0}, verbose=0)
    answers = _case("question_answering")
    model = _model(answers)
    model.compile(_sgd())
    half = [{name: array for name, array in batch.items() if name != "end_positions"} for batch in _batches(answers)]
    with pytest.raises(InputError, match="`end_positions` must be among the inputs"):
        model.fit(_dataset(half), verbose=0)
    base = _model(CASES[0])
    base.compile(_sgd())
    with pytest.raises(InputError, match="has no loss of its own"):
        base.fit(_dataset(_batches(CASES[0])), verbose=0)


def test_gradient_accumulation() -> None:
    batches, fitted, by_hand = _batches(count=4), _model(), _model()
    fitted.compile(keras.optimizers.SGD(RATE, gradient_accumulation_steps=2), run_eagerly=True)
    fitted.fit(_dataset(batches), verbose=0)
    pairs = list(zip(batches[::2], batches[1::2], strict=True))
    _by_hand(by_hand, pairs, lambda model, pair: sum(model(x, training=True).loss for x in pair) / 2)
    _same(fitted, by_hand)


def test_loss_scaling() -> None:
    batches = _batches()
    full = _model()
    half = TF.build(full.config, CLASSIFIER.head, dtype="mixed_float16")
    TF.set_weights(half, TF.weights(full))
    half.compile(keras.optimizers.SGD(RATE))
    assert isinstance(half.optimizer, keras.optimizers.LossScaleOptimizer)
    half.fit(_dataset(batches), verbose=0)
    _by_hand(full, batches)
    _same(half, full, 2e-2)  # float16 holds three digits
    assert {variable.dtype for variable in half.trainable_variables} == {"float32"}


# ------------------------------------------------------------------ callbacks


class _Stop(keras.callbacks.Callback):
    def __init__(self, epoch: int) -> None:
        super().__init__()
        self.at = epoch

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch == self.at:
            raise KeyboardInterrupt


def _adam(model: Any) -> Any:
    model.compile(keras.optimizers.Adam(0.01), run_eagerly=True)
    return model


@pytest.mark.parametrize(
    "way", ["BackupAndRestore", *(pytest.param(way, marks=pytest.mark.slow) for way in ("ModelCheckpoint", "weights"))]
)
def test_stopped_training_continues(way: str, tmp_path: Path) -> None:
    batches, through = _batches(), _adam(_model())
    through.fit(_dataset(batches), epochs=4, verbose=0)
    stopped = _adam(_model())
    file = tmp_path / ("run.weights.h5" if way == "weights" else "run.keras")
    if way == "BackupAndRestore":
        callback = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    else:
        callback = keras.callbacks.ModelCheckpoint(file, save_weights_only=way == "weights")
    with pytest.raises(KeyboardInterrupt):
        stopped.fit(_dataset(batches), epochs=4, verbose=0, callbacks=[_Stop(2), callback])
    if way == "ModelCheckpoint":
        resumed = keras.models.load_model(file)
        resumed.fit(_dataset(batches), epochs=4, initial_epoch=2, verbose=0)
    elif way == "weights":
        resumed = _adam(_model())
        resumed.optimizer.build(resumed.trainable_variables)
        resumed.load_weights(file)
        resumed.fit(_dataset(batches), epochs=4, initial_epoch=2, verbose=0)
    else:
        resumed = _adam(_model())
        resumed.fit(_dataset(batches), epochs=4, verbose=0, callbacks=[callback])
    _same(resumed, through)


@needs("tensorboard")
def test_early_stopping_and_tensorboard(tmp_path: Path) -> None:
    batches, model = _batches(), _model()
    model.compile(keras.optimizers.SGD(0.0), run_eagerly=True)  # which never gets better
    before = TF.weights(model)
    stop = keras.callbacks.EarlyStopping("val_loss", patience=2, restore_best_weights=True)
    board = keras.callbacks.TensorBoard(tmp_path, histogram_freq=1)
    history = model.fit(
        _dataset(batches), epochs=9, validation_data=_dataset(batches), verbose=0, callbacks=[stop, board]
    )
    assert len(history.history["val_loss"]) == 3
    assert all((array == before[name]).all() for name, array in TF.weights(model).items())
    assert list((tmp_path / "train").glob("events*"))
    assert list((tmp_path / "validation").glob("events*"))


# ------------------------------------------------------------------ gradient checkpointing


@pytest.mark.parametrize(
    ("dropout", "graph"), [(0.0, False), (0.3, False), pytest.param(0.3, True, marks=pytest.mark.slow)]
)
def test_gradient_checkpointing(dropout: float, graph: bool) -> None:
    batch = _batches()[0]
    config = CLASSIFIER.config(
        num_hidden_layers=1 if graph else 2,
        classifier_dropout_prob=dropout,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    results = []
    for checkpointing in (False, True):
        keras.utils.set_random_seed(0)
        model = build(TF, CLASSIFIER, config)
        if checkpointing:
            model.gradient_checkpointing_enable()
        assert model.is_gradient_checkpointing is checkpointing
        variables = [variable.value for variable in model.trainable_variables]

        def gradients(model: Any = model, variables: Any = variables) -> Any:
            with tf.GradientTape() as tape:
                loss = model(batch, training=True).loss
            return loss, [tf.convert_to_tensor(each) for each in tape.gradient(loss, variables)]

        results.append((tf.function(gradients) if graph else gradients)())
    (loss, wanted), (other, again) = results
    assert float(loss) == pytest.approx(float(other), rel=1e-12)
    for one, two in zip(wanted, again, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-9, atol=1e-12)


def test_gradient_checkpointing_of_a_decoder_with_a_source() -> None:
    case = _case("causal_lm_cross")
    inputs, model = case.inputs(case.config()), build(TF, case, case.config())
    source = tf.constant(inputs.pop("encoder_hidden_states"))

    def gradient() -> np.ndarray:
        with tf.GradientTape() as tape:
            tape.watch(source)
            loss = model(inputs, encoder_hidden_states=source, training=True).loss
        return tape.gradient(loss, source).numpy()

    wanted = gradient()
    model.gradient_checkpointing_enable()
    np.testing.assert_allclose(gradient(), wanted, rtol=1e-9, atol=1e-14)
    model.gradient_checkpointing_disable()
    assert not model.is_gradient_checkpointing
