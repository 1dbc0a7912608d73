"""Loading and saving: one file for both frameworks, and what happens where file and model do not fit."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from rembert.bridge import convert
from rembert.common.config import RemBertConfig
from rembert.common.errors import CheckpointError, ConfigError, KeywordError
from rembert.common.parameters import HEADS
from tests.frameworks import GOLDEN, PT, TF, Arrays, Framework, flat, needs_pt, needs_tf, on_both, train_once
from tests.parity.cases import CASES, Case, build, by_case, shared

BY_NAME = {case.name: case for case in CASES}
every_way = pytest.mark.parametrize(
    ("writer", "reader"), [(a, b) for a in (PT, TF) for b in (PT, TF)], ids=lambda framework: framework.name
)
across = pytest.mark.parametrize(("writer", "reader"), [(PT, TF), (TF, PT)], ids=lambda framework: framework.name)
DTYPES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float32": np.float32, "float64": np.float64}


def _save(directory: Path, framework: Framework, name: str, dtype: str = "float32", **settings: Any) -> Any:
    case = BY_NAME[name]
    model = build(framework, case, case.config(), dtype="float32")
    if dtype != "float32":
        model = framework.build(case.config(), case.head, dtype=dtype)
    model.save_pretrained(directory, **settings)
    return model


def _same(one: Arrays, other: Arrays) -> None:
    assert list(one) == list(other)
    for name in one:
        assert one[name].dtype == other[name].dtype
        assert one[name].tobytes() == other[name].tobytes(), name


def _rewrite(directory: Path, change: Any) -> None:
    """Change a checkpoint's tensors by name."""
    path = directory / "model.safetensors"
    tensors = dict(load_file(path))
    change(tensors)
    save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, path)


# ------------------------------------------------------------------ what a head does not use


@on_both
@pytest.mark.parametrize("name", ["masked_lm", "token_classification"])
def test_a_pooler_is_kept_through_training_and_saving(framework: Framework, name: str, tmp_path: Path) -> None:
    """A classifier that starts from a language model has the pooler of the checkpoint before it."""
    written = framework.weights(_save(tmp_path / "first", framework, "model"))
    head = BY_NAME[name].head
    model, report = framework.load(tmp_path / "first", head, output_loading_info=True)
    assert not report["unexpected_keys"]
    assert model.num_parameters() == framework.build(BY_NAME[name].config(), head).num_parameters()
    train_once(framework, model, BY_NAME[name].inputs(BY_NAME[name].config()))
    model.save_pretrained(tmp_path / "second")
    framework.load(tmp_path / "second", head, dtype="float16").save_pretrained(tmp_path / "third")
    assert {array.dtype.name for array in load_file(tmp_path / "third" / "model.safetensors").values()} == {"float16"}
    for directory, kind in (("second", np.float32), ("third", np.float16)):
        loaded, report = framework.load(tmp_path / directory, "sequence-classification", output_loading_info=True)
        assert not [each for each in report["missing_keys"] if "pooler" in each]
        weights = framework.weights(loaded)
        for part in ("weight", "bias"):
            pooler = f"rembert.pooler.dense.{part}"
            np.testing.assert_array_equal(weights[pooler], written[pooler].astype(kind))
        query = "rembert.encoder.layer.0.attention.self.query.weight"
        assert (weights[query] != written[query]).any()


# ------------------------------------------------------------------ there and back


@needs_pt
@needs_tf
@across
@by_case()
def test_each_framework_reads_the_files_of_the_other(
    writer: Framework, reader: Framework, case: Case, tmp_path: Path
) -> None:
    model = shared(writer, case, "float32")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.save_pretrained(tmp_path)
        loaded = reader.load(tmp_path, case.head)
    _same(reader.weights(loaded), writer.weights(model))
    assert loaded.config.architectures == [HEADS[case.head].architecture]
    loaded.save_pretrained(tmp_path / "again")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


@needs_pt
@needs_tf
@across
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_is_kept_bit_for_bit(writer: Framework, reader: Framework, dtype: str, tmp_path: Path) -> None:
    model = _save(tmp_path, writer, "one_label_each", dtype)
    stored = load_file(tmp_path / "model.safetensors")
    assert {array.dtype for array in stored.values()} == {np.dtype(DTYPES[dtype])}
    assert RemBertConfig.from_pretrained(tmp_path).dtype == dtype
    loaded = reader.load(tmp_path, "sequence-classification", dtype="auto")
    _same(reader.weights(loaded), writer.weights(model))


@needs_pt
@needs_tf
@every_way
def test_shards(writer: Framework, reader: Framework, tmp_path: Path) -> None:
    model = _save(tmp_path, writer, "masked_lm", max_shard_size=4000)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    shards = {path.name for path in tmp_path.glob("*.safetensors")}
    assert set(index["weight_map"].values()) == shards
    assert len(shards) > 3
    assert set(index["weight_map"]) == set(model.parameter_table())
    _same(reader.weights(reader.load(tmp_path, "masked-lm")), writer.weights(model))
    model.save_pretrained(tmp_path)  # whole again: no shard is left to be taken for a part
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


@on_both
@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*/model.safetensors")), ids=lambda path: path.parent.name)
def test_goldens_survive_a_round_trip_bit_for_bit(framework: Framework, path: Path, tmp_path: Path) -> None:
    config = RemBertConfig.from_pretrained(path.parent)
    (architecture,) = config.architectures or []
    head = next(head.name for head in HEADS.values() if head.architecture == architecture)
    framework.load(path.parent, head).save_pretrained(tmp_path)
    theirs, ours = load_file(path), load_file(tmp_path / "model.safetensors")
    _same(dict(sorted(ours.items())), dict(sorted(theirs.items())))


@on_both
def test_other_files_stay(framework: Framework, tmp_path: Path) -> None:
    (tmp_path / "sentencepiece.model").write_bytes(b"tokens")
    model = _save(tmp_path, framework, "model")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json",
        "model.safetensors",
        "sentencepiece.model",
    ]
    assert (tmp_path / "sentencepiece.model").read_bytes() == b"tokens"
    # A model loaded from a file is saved over that very file.
    loaded = framework.load(tmp_path, "model")
    loaded.save_pretrained(tmp_path)
    _same(framework.weights(loaded), framework.weights(model))
    _same(framework.weights(framework.load(tmp_path, "model")), framework.weights(model))


@on_both
def test_training_leaves_the_file_alone(framework: Framework, tmp_path: Path) -> None:
    model = _save(tmp_path, framework, "one_label_each")
    before = (tmp_path / "model.safetensors").read_bytes()
    loaded = framework.load(tmp_path, "sequence-classification")
    framework.set_weights(loaded, {name: array * 2 for name, array in framework.weights(loaded).items()})
    assert (tmp_path / "model.safetensors").read_bytes() == before
    _same(framework.weights(framework.load(tmp_path, "sequence-classification")), framework.weights(model))


@on_both
def test_a_file_by_its_path(framework: Framework, tmp_path: Path) -> None:
    model = _save(tmp_path, framework, "model")
    loaded = framework.load(tmp_path / "model.safetensors", "model")
    _same(framework.weights(loaded), framework.weights(model))
    (tmp_path / "config.json").rename(tmp_path / "elsewhere.json")
    with pytest.raises(ConfigError, match="config=RemBertConfig"):
        framework.load(tmp_path, "model")
    framework.load(tmp_path, "model", config=RemBertConfig.from_pretrained(tmp_path / "elsewhere.json"))


@on_both
def test_dtype_of_choice(framework: Framework, tmp_path: Path) -> None:
    model = _save(tmp_path, framework, "model")
    for dtype in DTYPES:
        for key in ("dtype", "torch_dtype"):
            loaded = framework.load(tmp_path, "model", **{key: dtype})
            assert loaded.config.dtype == dtype
        values = {name: array.astype(DTYPES[dtype]) for name, array in framework.weights(model).items()}
        for name, array in framework.weights(loaded).items():
            assert (array == values[name].astype(array.dtype)).all()


# ------------------------------------------------------------------ heads, encoders, and what does not fit


@on_both
def test_a_head_from_a_bare_encoder(framework: Framework, tmp_path: Path) -> None:
    encoder = _save(tmp_path, framework, "model")
    with pytest.warns(UserWarning, match=r"newly initialised: classifier\.weight, classifier\.bias") as caught:
        model = framework.load(tmp_path, "sequence-classification")
    assert len(caught) == 1
    assert str(caught[0].filename) == __file__.replace("parity/test_checkpoints", "frameworks")  # where it was called
    weights = framework.weights(model)
    _same({name: weights[name] for name in encoder.parameter_table()}, framework.weights(encoder))
    assert (weights["classifier.bias"] == 0).all()
    assert weights["classifier.weight"].std() > 0
    with pytest.warns(UserWarning, match="classifier"):
        framework.load(tmp_path, "token-classification")  # the pooler is passed over without a word


@on_both
def test_a_bare_encoder_from_a_head(framework: Framework, tmp_path: Path) -> None:
    head = _save(tmp_path / "a", framework, "one_label_each")
    with pytest.warns(UserWarning, match=r"not used by this model: classifier"):
        encoder = framework.load(tmp_path / "a", "model")
    weights = framework.weights(head)
    _same(framework.weights(encoder), {name: weights[name] for name in encoder.parameter_table()})
    _save(tmp_path / "b", framework, "masked_lm")
    with pytest.warns(UserWarning, match=r"initialised: rembert\.pooler\.dense\.weight.*not used.*cls\.predictions"):
        framework.load(tmp_path / "b", "model")
    with pytest.warns(UserWarning, match=r"not used.*cls\.predictions") as caught:
        framework.load(tmp_path / "b", "model", add_pooling_layer=False)
    assert "initialised" not in str(caught[0].message)


@on_both
def test_old_names_and_silent_extras(framework: Framework, tmp_path: Path) -> None:
    model = _save(tmp_path, framework, "masked_lm")
    numbers = np.random.default_rng(0)

    def age(tensors: Arrays) -> None:
        for name in list(tensors):
            old = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
            tensors[old] = tensors.pop(name)
        tensors["rembert.embeddings.position_ids"] = np.arange(18)[None]
        tensors["rembert.pooler.dense.weight"] = numbers.random((12, 12)).astype(np.float32)
        tensors["rembert.pooler.dense.bias"] = numbers.random(12).astype(np.float32)

    _rewrite(tmp_path, age)
    for dtype in (None, "auto"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            loaded = framework.load(tmp_path, "masked-lm", dtype=dtype)
        _same(framework.weights(loaded), framework.weights(model))


def _spoil(tensors: Arrays) -> None:
    del tensors["rembert.encoder.layer.1.output.dense.bias"]
    tensors["rembert.encoder.surprise"] = np.zeros(3, np.float32)
    tensors["classifier.weight"] = np.zeros((7, 12), np.float32)
    tensors["rembert.embeddings.word_embeddings.weight"] = np.zeros((60, 10), np.float32)


@on_both
def test_one_error_lists_everything_that_does_not_fit(framework: Framework, tmp_path: Path) -> None:
    _save(tmp_path, framework, "one_label_each")
    _rewrite(tmp_path, _spoil)
    with pytest.raises(CheckpointError) as error:
        framework.load(tmp_path, "sequence-classification")
    said = str(error.value)
    assert f"{tmp_path} does not fit {framework.model_class('sequence-classification').__name__}" in said
    assert "Missing (1): rembert.encoder.layer.1.output.dense.bias" in said
    assert "Unexpected (1): rembert.encoder.surprise" in said
    assert "With another shape (2):" in said
    assert "classifier.weight [7, 12] (the model has [5, 12])" in said
    assert "rembert.embeddings.word_embeddings.weight [60, 10] (the model has [61, 10])" in said
    assert "ignore_mismatched_sizes=True" in said


@on_both
def test_one_report_lists_everything_that_does_not_fit(framework: Framework, tmp_path: Path) -> None:
    _save(tmp_path, framework, "one_label_each")
    _rewrite(tmp_path, _spoil)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model, report = framework.load(
            tmp_path, "sequence-classification", output_loading_info=True, ignore_mismatched_sizes=True
        )
    assert report["missing_keys"] == ["rembert.encoder.layer.1.output.dense.bias"]
    assert report["unexpected_keys"] == ["rembert.encoder.surprise"]
    assert sorted(report["mismatched_keys"]) == [
        ("classifier.weight", (7, 12), (5, 12)),
        ("rembert.embeddings.word_embeddings.weight", (60, 10), (61, 10)),
    ]
    weights = framework.weights(model)
    assert all(np.isfinite(array).all() for array in weights.values())
    assert (weights["rembert.encoder.layer.1.output.dense.bias"] == 0).all()
    fresh = weights["rembert.embeddings.word_embeddings.weight"]
    assert 0.015 < fresh.std() < 0.025  # initializer_range, from 610 numbers
    framework.call(model, input_ids=np.array([[1, 60]]))


@on_both
def test_a_report_uses_the_names_of_the_model(framework: Framework, tmp_path: Path) -> None:
    """A base model's parameters have no prefix in its file, nor in PyTorch's `state_dict`."""
    _save(tmp_path, framework, "masked_lm")
    model, report = framework.load(tmp_path, "model", output_loading_info=True)
    assert report["missing_keys"] == ["pooler.dense.weight", "pooler.dense.bias"]
    model.save_pretrained(tmp_path / "again")
    assert set(report["missing_keys"]) <= set(load_file(tmp_path / "again" / "model.safetensors"))


@on_both
def test_a_report_of_a_checkpoint_that_fits_is_empty(framework: Framework, tmp_path: Path) -> None:
    _save(tmp_path, framework, "model")
    _, report = framework.load(tmp_path, "model", output_loading_info=True)
    assert report == {"missing_keys": [], "unexpected_keys": [], "mismatched_keys": []}


@on_both
def test_another_number_of_labels(framework: Framework, tmp_path: Path) -> None:
    _save(tmp_path, framework, "one_label_each")
    with pytest.raises(CheckpointError, match=r"classifier\.weight \[5, 12\] \(the model has \[3, 12\]\)"):
        framework.load(tmp_path, "sequence-classification", num_labels=3)
    with pytest.warns(UserWarning, match=r"classifier\.weight, classifier\.bias"):
        model = framework.load(tmp_path, "sequence-classification", num_labels=3, ignore_mismatched_sizes=True)
    assert model.config.num_labels == 3
    assert framework.weights(model)["classifier.weight"].shape == (3, 12)


@on_both
def test_fresh_parameters_follow_the_seed(framework: Framework, tmp_path: Path) -> None:
    _save(tmp_path, framework, "model")
    drawn = []
    for seed in (1, 1, 2):
        framework.seed(seed)
        with pytest.warns(UserWarning, match="newly initialised"):
            drawn.append(framework.weights(framework.load(tmp_path, "masked-lm"))["cls.predictions.dense.weight"])
    assert (drawn[0] == drawn[1]).all()
    assert (drawn[0] != drawn[2]).any()


@on_both
def test_checkpoints_that_do_not_fit_are_refused(framework: Framework, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere"):
        framework.load(tmp_path / "nowhere", "model")
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        framework.load(tmp_path, "model")
    _save(tmp_path, framework, "model")
    with pytest.raises(KeywordError, match=r"'hidden_sizes'\. Did you mean `hidden_size`"):
        framework.load(tmp_path, "model", hidden_sizes=4)
    with pytest.raises(ConfigError, match="hidden_size=-4"):
        framework.load(tmp_path, "model", hidden_size=-4)
    with pytest.raises(ConfigError, match="`config` must be a RemBertConfig"):
        framework.load(tmp_path, "model", config={"hidden_size": 4})
    with pytest.raises(ValueError, match="float7"):
        framework.load(tmp_path, "model", dtype="float7")
    data = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(data[:-5])
    with pytest.raises(CheckpointError, match="truncated"):
        framework.load(tmp_path, "model")


@on_both
def test_a_failed_save_changes_nothing(framework: Framework, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _save(tmp_path, framework, "model")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def refuse(*_: Any) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr("rembert.bridge.formats.safetensors.write_values", refuse)
    with pytest.raises(OSError, match="disk is full"):
        _save(tmp_path, framework, "one_label_each")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@on_both
def test_overrides_change_the_configuration_and_not_the_callers(framework: Framework, tmp_path: Path) -> None:
    _save(tmp_path, framework, "model")
    given = RemBertConfig.from_pretrained(tmp_path)
    model = framework.load(tmp_path, "model", config=given, hidden_dropout_prob=0.3, output_attentions=True)
    assert model.config.hidden_dropout_prob == 0.3
    assert given.hidden_dropout_prob == 0.0
    assert "attentions" in framework.call(model, input_ids=np.array([[1, 2]]))


@on_both
def test_question_answering_has_two_labels_whatever_its_configuration_says(
    framework: Framework, tmp_path: Path
) -> None:
    given = BY_NAME["question_answering"].config(num_labels=5)
    model = framework.build(given, "question-answering")
    assert given.num_labels == 5  # the caller's own object
    assert model.config.num_labels == 2
    assert model.config is framework.base(model).config
    model.save_pretrained(tmp_path)
    assert RemBertConfig.from_pretrained(tmp_path).num_labels == 2
    tagger = framework.build(given, "token-classification")
    assert tagger.config is given


# ------------------------------------------------------------------ another library


@needs_pt
@pytest.mark.filterwarnings("ignore")
@by_case([case for case in CASES if case.name != "decoder"])
def test_transformers_and_rembert_read_each_others_files(case: Case, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    import torch

    config = case.config()
    model = build(PT, case, config, dtype="float32")
    model.save_pretrained(tmp_path / "ours")
    kind = getattr(transformers, HEADS[case.head].architecture)
    theirs, report = kind.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(report.values())
    theirs.eval().save_pretrained(tmp_path / "theirs")
    again = PT.load(tmp_path / "theirs", case.head)
    _same(PT.weights(again), PT.weights(model))
    inputs = {
        name: array.astype(np.float32) if array.dtype == np.float64 else array
        for name, array in case.inputs(config).items()
        if not name.startswith(("labels", "start", "end"))
    }
    inputs["attention_mask"][:] = 1
    outputs = flat(
        PT, PT.call(again, **inputs, use_cache=False) if case.head == "causal-lm" else PT.call(again, **inputs)
    )
    with torch.no_grad():
        wanted = theirs(**{name: torch.from_numpy(array) for name, array in inputs.items()})
    for name, array in outputs.items():
        assert np.abs(array - wanted[name].numpy()).max() <= 1e-5 * np.abs(array).max(), name


@on_both
@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.bool_])
def test_integers_are_no_weights(tmp_path: Path, framework: Framework, dtype: Any) -> None:
    source = tmp_path / "model"
    _save(source, framework, "model")
    name = "encoder.layer.0.output.dense.weight"

    def change(tensors: Any) -> None:
        tensors[name] = tensors[name].astype(dtype)

    _rewrite(source, change)
    message = rf"`{name}` must hold floating-point numbers .*Received: {np.dtype(dtype)}"
    with pytest.raises(CheckpointError, match=message):
        framework.load(source, "model")
    with pytest.raises(CheckpointError, match=message):
        convert(source, tmp_path / "converted", "pt")
    assert not (tmp_path / "converted").exists()
