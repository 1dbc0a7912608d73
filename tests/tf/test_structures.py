"""The outputs as Keras' structures, and the models inside graphs: tf.function, predict, functional models, files."""

from __future__ import annotations

import subprocess
import sys
from collections import UserDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")

import rembert.tf  # noqa: E402, F401  # registers the outputs
from rembert.common.errors import InputError  # noqa: E402
from rembert.common.outputs import OUTPUT_TYPES, ModelOutput  # noqa: E402
from rembert.common.tokenization import BatchEncoding  # noqa: E402
from rembert.tf.initialization import Normal  # noqa: E402
from tests.frameworks import TF, flat  # noqa: E402
from tests.parity.cases import CASES, DECODERS, FORWARDS, Case, build, by_case, shared  # noqa: E402

SEEN = {"output_attentions": True, "output_hidden_states": True}
# float64: a graph may add in another order.
TOLERANCE = 1e-12
FUNCTIONAL = ("model", "multiple_choice", "question_answering")  # inputs of two and three dimensions, two outputs
ENCODERS = [case for case in CASES if not case.settings.get("is_decoder")]


def _near(actual: ModelOutput, expected: ModelOutput) -> None:
    assert type(actual) is type(expected)
    one, other = flat(TF, actual), flat(TF, expected)
    assert list(one) == list(other)
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=TOLERANCE, atol=TOLERANCE, err_msg=name)


@pytest.mark.parametrize("kind", OUTPUT_TYPES, ids=lambda kind: kind.__name__)
def test_outputs_are_unpacked_and_rebuilt(kind: type[ModelOutput]) -> None:
    whole = kind({name: (tf.ones(2), tf.zeros(3)) for name in kind.fields})
    for map_structure in (keras.tree.map_structure, tf.nest.map_structure):
        doubled = map_structure(lambda leaf: leaf + leaf, whole)
        assert type(doubled) is kind
        assert list(doubled) == list(whole)
        assert (doubled[0][0].numpy() == 2).all()
    assert len(keras.tree.flatten(whole)) == 2 * len(kind.fields)
    keras.tree.assert_same_structure(whole, keras.tree.pack_sequence_as(whole, keras.tree.flatten(whole)))


def test_ten_sizes_trace_three_times_at_most() -> None:
    case = CASES[0]
    config = case.config(num_hidden_layers=1)
    model = build(TF, case, config)
    call = tf.function(model, reduce_retracing=True)
    for batch in (1, 2, 3, 5, 8):
        for length in (4, 9):
            inputs = {name: TF.tensor(array) for name, array in case.inputs(config, 0, batch, length).items()}
            _near(call(**inputs), model(**inputs))
    assert call.experimental_get_tracing_count() <= 3


@by_case([CASES[0], next(case for case in CASES if case.name == "decoder")])
def test_xla_and_packing_agree(case: Case) -> None:
    # XLA needs shapes that no mask decides, so there every position is computed: inside another graph too.
    config = case.config(num_hidden_layers=1)
    model, inputs = build(TF, case, config), case.inputs(config)
    inputs = {name: TF.tensor(array) for name, array in inputs.items()}
    expected = model(**inputs, use_cache=False)
    compiled = tf.function(lambda **given: model(**given, use_cache=False), jit_compile=True)
    _near(compiled(**inputs), expected)
    _near(tf.function(lambda **given: compiled(**given))(**inputs), expected)


def test_tf_function_of_unknown_sizes() -> None:
    case = next(case for case in DECODERS if case.name == "causal_lm")
    config = case.config()
    model = build(TF, case, config)
    unknown = tf.TensorSpec([None, None], tf.int64)

    @tf.function(input_signature=[unknown, unknown, unknown])
    def step(input_ids: object, attention_mask: object, labels: object) -> ModelOutput:
        return model(input_ids, attention_mask=attention_mask, labels=labels)

    for batch, length in ((1, 1), (2, 5), (3, 7)):
        inputs = case.inputs(config, batch=batch, length=length)
        del inputs["token_type_ids"]
        _near(step(**inputs), TF.call(model, **inputs))


def test_decoding_in_a_graph_with_a_growing_cache() -> None:
    case = next(case for case in DECODERS if case.name == "causal_lm")
    config = case.config()
    model, ids = build(TF, case, config), tf.constant(case.inputs(config)["input_ids"])
    layer = tuple(tf.TensorSpec([None, 3, None, 4], tf.float64) for _ in range(2))

    @tf.function(input_signature=[tf.TensorSpec([None, 1], tf.int64), (layer, layer)])
    def step(token: object, cache: object) -> ModelOutput:
        return model(token, past_key_values=cache)

    whole, cache = model(ids).logits, model(ids[:, :2]).past_key_values
    for position in range(2, 7):
        outputs = step(ids[:, position : position + 1], cache)
        cache = outputs.past_key_values
        np.testing.assert_allclose(outputs.logits[:, 0], whole[:, position], rtol=TOLERANCE, atol=TOLERANCE)


@by_case([case for case in ENCODERS if case.name in ("model", "question_answering")])  # of one output, and of two
def test_predict(case: Case) -> None:
    config = case.config(num_hidden_layers=1)
    model = build(TF, case, config)
    inputs = {
        name: array for name, array in case.inputs(config).items() if not name.startswith(("labels", "start", "end"))
    }
    outputs = model.predict(inputs, batch_size=2, verbose=0)  # two batches, put together again
    _near(outputs, TF.call(model, **inputs))


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case.name, marks=[] if case.name in FUNCTIONAL else pytest.mark.slow)
        for case in ENCODERS
        if case in FORWARDS
    ],
)
def test_functional_model_saved_and_loaded(case: Case, tmp_path: Path) -> None:
    config = case.config(num_hidden_layers=1)
    model = build(TF, case, config)
    arrays = {
        name: array for name, array in case.inputs(config).items() if not name.startswith(("labels", "start", "end"))
    }
    inputs = {
        name: keras.Input((*array.shape[1:-1], None), dtype="int64", name=name) for name, array in arrays.items()
    }
    graph = keras.Model(inputs, model(inputs))
    _near(graph(arrays), TF.call(model, **arrays))
    graph.save(tmp_path / "graph.keras")
    loaded = keras.models.load_model(tmp_path / "graph.keras")
    outputs = loaded(arrays)
    assert isinstance(outputs, dict)
    expected = TF.call(model, **arrays)
    assert list(outputs) == list(expected)
    for name in expected:
        np.testing.assert_allclose(outputs[name], expected[name], rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.slow
def test_a_model_among_other_layers(tmp_path: Path) -> None:
    """Saved, and loaded in another process that only imports the library: no custom objects by hand."""
    case = CASES[0]
    config = case.config(num_hidden_layers=1)
    base = build(TF, case, config)
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in ("input_ids", "attention_mask")}
    states = base(inputs)
    pooled = keras.layers.Concatenate()([states.pooler_output, states.last_hidden_state[:, 0]])
    graph = keras.Model(inputs, keras.layers.Dense(3, activation="softmax", name="own", dtype="float64")(pooled))
    loss = "sparse_categorical_crossentropy"
    graph.compile(keras.optimizers.Adam(1e-2), loss=loss, metrics=["accuracy"], run_eagerly=True)
    arrays = {name: array for name, array in case.inputs(config).items() if name in inputs}
    before = {name: array.copy() for name, array in TF.weights(base).items()}
    graph.fit(arrays, np.array([0, 1, 2]), verbose=0)
    name = "rembert.encoder.layer.0.attention.self.query.weight"
    assert (TF.weights(base)[name] != before[name]).any()
    graph.save(tmp_path / "graph.keras")
    np.savez(tmp_path / "arrays.npz", expected=graph(arrays), **arrays)
    program = (
        "import sys, keras, numpy, rembert.tf; directory = sys.argv[1];"
        "arrays = dict(numpy.load(directory + '/arrays.npz')); expected = arrays.pop('expected');"
        "graph = keras.models.load_model(directory + '/graph.keras');"
        "numpy.testing.assert_allclose(graph(arrays), expected, rtol=1e-12)"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)


# transformers' own class is a `UserDict`.
@pytest.mark.parametrize(
    ("kind", "tensor"), [(BatchEncoding, tf.constant), (UserDict, np.asarray)], ids=["own", "transformers"]
)
def test_a_tokenizers_result_is_an_input(kind: type, tensor: Callable[[Any], Any]) -> None:
    case = next(case for case in CASES if case.name == "one_label_each")
    model = build(TF, case, case.config(num_hidden_layers=1, classifier_dropout_prob=0.0))
    arrays = case.inputs(model.config)
    labels = arrays.pop("labels")
    batch = kind({name: tensor(array) for name, array in arrays.items()})
    expected = TF.call(model, **arrays)
    _near(model(batch), expected)
    _near(model.predict_on_batch(batch), expected)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.0), loss=loss, run_eagerly=True)
    _near(model.predict(batch, verbose=0), expected)
    loss = model.evaluate(arrays, labels, verbose=0)
    assert model.evaluate(batch, labels, verbose=0) == loss
    assert model.test_on_batch(batch, labels) == loss
    history = model.fit(batch, labels, validation_data=(batch, labels), verbose=0).history
    np.testing.assert_allclose([history["loss"], history["val_loss"]], [[loss]] * 2)
    assert model.train_on_batch(batch, labels) == loss


def test_a_tokenizers_result_goes_through_pipelines_and_trees() -> None:
    batch = BatchEncoding({"input_ids": np.array([[3, 4], [5, 0]]), "attention_mask": np.array([[1, 1], [1, 0]])})
    for element in tf.data.Dataset.from_tensor_slices(batch).batch(2):
        assert type(element) is BatchEncoding
        for map_structure in (keras.tree.map_structure, tf.nest.map_structure):
            doubled = map_structure(lambda leaf: leaf + leaf, element)
            assert type(doubled) is BatchEncoding
            np.testing.assert_array_equal(doubled.input_ids, 2 * batch.input_ids)


def test_lists_of_numbers_are_refused() -> None:
    model = shared(TF, CASES[0], num_hidden_layers=1)
    rows = [[3, 4], [5]]
    for use in (
        lambda: model(BatchEncoding({"input_ids": rows})),
        lambda: model(rows),
        lambda: model(input_ids=rows),
        lambda: model(rows[0]),
        lambda: model.predict({"input_ids": rows}),
    ):
        with pytest.raises(InputError, match=r"`input_ids` must be a tensor or an array\. Received: lists of numbers"):
            use()


def test_texts_are_refused() -> None:
    model = shared(TF, CASES[0], num_hidden_layers=1)
    for texts in ("a text", ["a text", "another"], np.array(["a text"]), tf.constant(["a text"])):
        with pytest.raises(InputError, match=r"^`input_ids` must hold token ids\. Received: text\. Pass `tokenizer"):
            model(texts)
    for given in (texts := np.array(["a text", "another"]), {"input_ids": texts}):
        with pytest.raises(InputError, match=r"^`input_ids` must hold token ids"):
            model.predict(given)


def test_labels_in_a_list_are_refused() -> None:
    case = next(case for case in CASES if case.name == "one_label_each")
    model, ids = build(TF, case, case.config(num_hidden_layers=1)), np.ones((2, 3), np.int32)
    model.compile(keras.optimizers.SGD(0.1))
    for use in (model.fit, model.evaluate, model.train_on_batch, model.test_on_batch):
        with pytest.raises(InputError, match=r"^`y` must be a tensor or an array\. Received: a list of numbers"):
            use(ids, [0, 1])


def test_ragged_ids_are_the_padded_batch() -> None:
    model = build(TF, CASES[0], CASES[0].config(num_hidden_layers=1))
    ids = tf.ragged.constant([[3, 4, 5], [6], [7, 8]])
    types = ids % 2
    mask = tf.sequence_mask(ids.row_lengths(), dtype="int32")
    padded = {"input_ids": ids.to_tensor(), "attention_mask": mask}
    plain = model(padded).last_hidden_state
    for given in (model(ids), model({"input_ids": ids}), model(input_ids=ids, attention_mask=mask)):
        np.testing.assert_array_equal(given.last_hidden_state, plain)
    model.compile(run_eagerly=True)
    batches = tf.data.Dataset.from_tensor_slices(ids).batch(2)  # of widths 3 and 2
    for given in (model.predict(ids, verbose=0), model.predict(batches, verbose=0), model.predict_on_batch(ids)):
        np.testing.assert_allclose(given["last_hidden_state"], plain, rtol=1e-10, atol=1e-15)
    np.testing.assert_allclose(tf.function(model)(ids).last_hidden_state, plain, rtol=1e-10, atol=1e-15)
    of_types = model(padded, token_type_ids=types.to_tensor()).last_hidden_state
    assert not np.allclose(of_types, plain)
    for given in (model(ids, token_type_ids=types), model({"input_ids": ids, "token_type_ids": types})):
        np.testing.assert_array_equal(given.last_hidden_state, of_types)
    packed = model(input_ids=ids.flat_values, cu_seqlens=ids.row_splits).last_hidden_state
    np.testing.assert_allclose(packed, tf.boolean_mask(plain, mask), rtol=1e-10)


def test_training_on_ragged_ids_and_labels() -> None:
    case = next(case for case in CASES if case.head == "token-classification")
    ids, labels = tf.ragged.constant([[3, 4, 5], [6]]), tf.ragged.constant([[0, 1, 2], [1]])
    model, other = (build(TF, case, case.config(num_hidden_layers=1, classifier_dropout_prob=0.0)) for _ in range(2))
    mask = tf.sequence_mask(ids.row_lengths(), dtype="int32")
    padded = {"input_ids": ids.to_tensor(), "attention_mask": mask, "labels": labels.to_tensor(-100)}
    for each, batch in ((model, {"input_ids": ids, "labels": labels}), (other, padded)):
        each.compile(keras.optimizers.SGD(0.125), run_eagerly=True)
        each.fit(batch, verbose=0)
    weights = TF.weights(other)
    for name, array in TF.weights(model).items():
        np.testing.assert_allclose(array, weights[name], rtol=1e-10, atol=1e-12, err_msg=name)


def test_other_ragged_tensors_are_refused() -> None:
    model = shared(TF, CASES[0], num_hidden_layers=1)
    ids = tf.ragged.constant([[3, 4, 5], [6]])
    for use, received in (
        (lambda: model((ids,)), "in a tuple or list"),
        (lambda: model(tf.ragged.constant([[[3, 4], [5]]])), r"of shape \(1, None, None\)"),
        (lambda: model(ids.to_tensor(), token_type_ids=ids), "of shape .*, beside `input_ids` of"),
        (lambda: model(ids, token_type_ids=tf.ragged.constant([[0], [0]])), "whose rows have other lengths"),
        (lambda: tf.function(model, jit_compile=True, autograph=False)(ids), "in a graph that XLA compiles"),
    ):
        with pytest.raises(InputError, match=f"may be ragged as.*Received: a RaggedTensor {received}"):
            use()
    decoder = shared(TF, next(case for case in CASES if case.head == "causal-lm"))
    with pytest.raises(InputError, match=r"`input_ids` must be a dense tensor\. Received: a RaggedTensor"):
        decoder.generate(ids, max_new_tokens=1)  # prompts are padded on the left


def test_a_tuple_has_transformers_order() -> None:
    model = shared(TF, CASES[0], num_hidden_layers=1)
    ids = tf.constant([[3, 4, 5]])
    embeds = tf.gather(model.get_input_embeddings().embeddings.value, ids)
    expected = model(ids, head_mask=None).last_hidden_state
    found = model((None, ids * 0 + 1, None, None, None, embeds)).last_hidden_state
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    with pytest.raises(InputError, match=r"`head_mask` must be None.*head_mask, inputs_embeds"):
        model((None, None, None, None, embeds))


def test_symbolic_ids_of_floats_are_refused() -> None:
    model = shared(TF, CASES[0], num_hidden_layers=1)
    for inputs in (keras.Input((None,)), {"input_ids": keras.Input((None,))}):
        with pytest.raises(InputError, match=r"^`input_ids` must hold integers.*dtype='int32'"):
            model(inputs)


def test_wrong_dicts_and_tuples_are_refused() -> None:
    model = TF.build(CASES[0].config(), "model")
    ids = tf.ones((1, 2), "int32")
    with pytest.raises(InputError, match=r"Received also: input_id\."):
        model({"input_id": ids, "attention_mask": ids})
    with pytest.raises(InputError, match=r"`attention_mask` was given twice"):
        model({"input_ids": ids, "attention_mask": ids}, attention_mask=ids)
    with pytest.raises(InputError, match=r"at most 16 inputs\. Received: 20"):
        model((ids,) * 20)


def test_flags_among_the_inputs() -> None:
    model = shared(TF, CASES[0], num_hidden_layers=1)
    ids = tf.ones((1, 2), "int32")
    expected = model(ids, output_hidden_states=True)
    _near(model({"input_ids": ids, "output_hidden_states": True}), expected)
    _near(tf.function(lambda batch: model({**batch, "output_hidden_states": True}))({"input_ids": ids}), expected)
    assert type(model({"input_ids": ids, "return_dict": False})) is tuple
    packed = {"input_ids": ids[0], "cu_seqlens": tf.constant([0, 2]), "max_seqlen": 2}
    np.testing.assert_allclose(model(packed).last_hidden_state, expected.last_hidden_state[0], rtol=1e-10)
    for value in (True, "text", 3):
        with pytest.raises(InputError, match=r"Received also: flag\."):
            model({"input_ids": ids, "flag": value})
    with pytest.raises(InputError, match=r"`return_dict` was given twice"):
        model({"input_ids": ids, "return_dict": True}, return_dict=False)


def test_the_global_policy() -> None:
    before = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("mixed_bfloat16")
        model = TF.model_class("model")(CASES[0].config())
    finally:
        keras.config.set_dtype_policy(before)
    assert (model.compute_dtype, model.variable_dtype) == ("bfloat16", "float32")
    assert model(tf.ones((1, 2), "int32")).last_hidden_state.dtype == tf.bfloat16


def test_a_frozen_encoder_leaves_the_head_trainable() -> None:
    head = TF.build(CASES[0].config(), "masked-lm")
    head.rembert.trainable = False
    assert head.num_parameters(only_trainable=True) == sum(int(np.prod(v.shape)) for v in head.cls.weights)


def test_large_tables_are_initialised_like_small_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a graph, for less memory; Keras' own initialiser gives the same numbers."""
    drawn = keras.initializers.RandomNormal(stddev=0.02, seed=7)((30, 20), "float32")
    monkeypatch.setattr("rembert.tf.initialization._LARGE", 1)
    mine = Normal(stddev=0.02, seed=7)
    np.testing.assert_allclose(mine((30, 20), "float32"), drawn, rtol=1e-6)
    again = keras.initializers.deserialize(keras.initializers.serialize(mine))
    assert type(again) is Normal
