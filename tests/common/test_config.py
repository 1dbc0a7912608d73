"""The configuration: what it reads, what it writes, what it refuses."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rembert import RemBertConfig
from rembert.common.errors import ConfigError, InputError
from tests.frameworks import GOLDEN

# Table 1 and appendix A of the paper, as the released checkpoint's `config.json` has them.
RELEASED = {
    "vocab_size": 250300,
    "hidden_size": 1152,
    "num_hidden_layers": 32,
    "num_attention_heads": 18,
    "input_embedding_size": 256,
    "output_embedding_size": 1664,
    "intermediate_size": 4608,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "classifier_dropout_prob": 0.1,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-12,
    "use_cache": True,
    "pad_token_id": 0,
    "bos_token_id": 312,
    "eos_token_id": 313,
    "is_decoder": False,
    "add_cross_attention": False,
    "tie_word_embeddings": False,
}
LABELS = {"id2label": {"0": "no", "1": "maybe", "2": "yes"}, "label2id": {"no": 0, "maybe": 1, "yes": 2}}
# All that transformers 4.57.6 writes with every default spelled out, and older and newer versions' own keys.
GENERIC = {
    "_name_or_path": "",
    "architectures": ["RemBertForSequenceClassification"],
    "bad_words_ids": None,
    "begin_suppress_tokens": None,
    "chunk_size_feed_forward": 0,
    "cross_attention_hidden_size": None,
    "decoder_start_token_id": None,
    "diversity_penalty": 0.0,
    "do_sample": False,
    "early_stopping": False,
    "encoder_no_repeat_ngram_size": 0,
    "exponential_decay_length_penalty": None,
    "finetuning_task": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "is_encoder_decoder": False,
    "length_penalty": 1.0,
    "max_length": 20,
    "min_length": 0,
    "model_type": "rembert",
    "no_repeat_ngram_size": 0,
    "num_beam_groups": 1,
    "num_beams": 1,
    "num_return_sequences": 1,
    "output_attentions": False,
    "output_hidden_states": False,
    "output_scores": False,
    "prefix": None,
    "problem_type": None,
    "pruned_heads": {},
    "remove_invalid_values": False,
    "repetition_penalty": 1.0,
    "return_dict": True,
    "return_dict_in_generate": False,
    "sep_token_id": None,
    "suppress_tokens": None,
    "task_specific_params": None,
    "temperature": 1.0,
    "tf_legacy_loss": False,
    "tie_encoder_decoder": False,
    "tokenizer_class": None,
    "top_k": 50,
    "top_p": 1.0,
    "torchscript": False,
    "transformers_version": "4.57.6",
    "typical_p": 1.0,
    "use_bfloat16": False,
}
BY_VERSION = {
    "4": {**RELEASED, **GENERIC, **LABELS, "torch_dtype": "float32"},
    "5": {**RELEASED, **LABELS, "dtype": "float32", "model_type": "rembert", "transformers_version": "5.23.0"},
}


def _file(directory: Path, content: Any, name: str = "config.json") -> Path:
    (directory / name).write_text(json.dumps(content))
    return directory


# ------------------------------------------------------------------ reading and writing


def test_defaults_are_those_of_the_released_model() -> None:
    config = RemBertConfig()
    assert {key: getattr(config, key) for key in RELEASED} == RELEASED
    assert (config.num_labels, config.id2label) == (2, {0: "LABEL_0", 1: "LABEL_1"})
    assert (config.problem_type, config.dtype, config.return_dict) == (None, None, True)
    assert config.head_dim == 64


@pytest.mark.parametrize("version", BY_VERSION)
def test_every_key_of_transformers_is_read_and_written_back(version: str, tmp_path: Path) -> None:
    content = BY_VERSION[version]
    config = RemBertConfig.from_pretrained(_file(tmp_path, content))
    assert config.label2id == {"no": 0, "maybe": 1, "yes": 2}
    assert (config.dtype, config.torch_dtype, config.num_labels) == ("float32", "float32", 3)
    config.save_pretrained(tmp_path / "again")
    written = json.loads((tmp_path / "again" / "config.json").read_text())
    # Generic keys at their defaults need not be written; `torch_dtype` is written under its present name.
    for key, value in content.items():
        default = {"output_attentions": False, "output_hidden_states": False, "return_dict": True}
        quiet = {**default, "problem_type": None, "is_decoder": False, "add_cross_attention": False}
        if key == "torch_dtype":
            assert written["dtype"] == value
        elif key == "_name_or_path":
            assert key not in written  # where this file lay, not where the new one does
        elif key in written:
            assert written[key] == value, key
        else:
            assert quiet[key] == value, key
    assert RemBertConfig.from_pretrained(tmp_path / "again") == config


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*/config.json")), ids=lambda path: path.parent.name)
def test_goldens_are_saved_unchanged(path: Path, tmp_path: Path) -> None:
    RemBertConfig.from_pretrained(path).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text()) == json.loads(path.read_text())


def test_unknown_keys_are_kept(tmp_path: Path) -> None:
    odd = {"my_key": {"deep": [1, None, "ü"]}, "another": 3}
    config = RemBertConfig.from_pretrained(_file(tmp_path, {**RELEASED, **odd}))
    assert config.my_key == odd["my_key"]
    assert {key: config.to_dict()[key] for key in odd} == odd
    config.save_pretrained(tmp_path)
    assert RemBertConfig.from_pretrained(tmp_path).my_key == odd["my_key"]


def test_google_files_are_read(tmp_path: Path) -> None:
    config = RemBertConfig.from_pretrained(GOLDEN / "tf1_pretraining")
    assert config.input_embedding_size == 20
    assert not hasattr(config, "embedding_size")
    older = {"hidden_size": 24, "num_attention_heads": 4, "embedding_size": 6, "vocab_size": 99}
    assert RemBertConfig.from_pretrained(_file(tmp_path, older, "bert_config.json")).input_embedding_size == 6
    _file(tmp_path, {**older, "embedding_size": 7}, "rembert_config.json")
    assert RemBertConfig.from_pretrained(tmp_path).input_embedding_size == 7
    _file(tmp_path, {**older, "embedding_size": 8})
    assert RemBertConfig.from_pretrained(tmp_path).input_embedding_size == 8


def test_gelu_in_a_bleurt_directory_is_the_tanh_form(tmp_path: Path) -> None:
    assert RemBertConfig.from_pretrained(GOLDEN / "bleurt_savedmodel").hidden_act == "gelu_new"
    _file(tmp_path, {}, "bert_config.json"), _file(tmp_path, {}, "bleurt_config.json")
    assert RemBertConfig.from_pretrained(tmp_path).hidden_act == "gelu_new"  # Google's code has `gelu` as its default
    _file(tmp_path, RELEASED)
    assert RemBertConfig.from_pretrained(tmp_path).hidden_act == "gelu"  # a config.json means what it says


def test_dictionaries_and_json_give_the_configuration_back() -> None:
    config = RemBertConfig(num_labels=3, is_decoder=True, add_cross_attention=True, dtype="float16")
    config.some_key = "kept"
    content = config.to_dict()
    assert RemBertConfig.from_dict(content) == config
    assert RemBertConfig.from_dict(json.loads(json.dumps(content))) == config
    assert RemBertConfig.from_dict(json.loads(config.to_json_string())) == config
    assert RemBertConfig.from_dict(json.loads(config.to_json_string(use_diff=False))) == config
    content["id2label"][0] = "changed"
    content["vocab_size"] = 7
    assert config.id2label[0] == "LABEL_0"
    assert config.vocab_size == 250300


def test_from_dict_does_not_change_its_argument() -> None:
    content = {"embedding_size": 3, "id2label": {"0": "a"}, "model_type": "rembert"}
    before = copy.deepcopy(content)
    RemBertConfig.from_dict(content, num_labels=2)
    assert content == before


@given(
    st.dictionaries(
        st.sampled_from(["vocab_size", "hidden_size", "num_hidden_layers", "intermediate_size", "type_vocab_size"]),
        st.integers(1, 55).map(lambda number: number * 18),
    ),
    st.none() | st.integers(1, 9),
    st.dictionaries(st.text(min_size=1).map("x_".__add__), st.none() | st.booleans() | st.integers() | st.text()),
)
def test_any_configuration_survives_json(sizes: dict[str, int], labels: int | None, extra: dict[str, Any]) -> None:
    config = RemBertConfig.from_dict({**sizes, "num_labels": labels, **extra})
    assert RemBertConfig.from_dict(json.loads(config.to_json_string())) == config


def test_configurations_are_compared_by_value() -> None:
    config = RemBertConfig(num_labels=4)
    assert config == RemBertConfig(num_labels=4)
    assert config != RemBertConfig()
    assert config != config.to_dict()
    assert config != RemBertConfig.from_dict({"num_labels": 4, "extra": 1})
    for twin in (copy.copy(config), copy.deepcopy(config), pickle.loads(pickle.dumps(config))):
        assert twin == config
    assert '"id2label"' in repr(config)
    with pytest.raises(TypeError):
        hash(config)


# ------------------------------------------------------------------ overrides, labels, dtypes


def test_overrides_replace_keys(tmp_path: Path) -> None:
    _file(tmp_path, {**BY_VERSION["4"], "my_key": 0})
    config = RemBertConfig.from_pretrained(tmp_path, num_labels=5, hidden_size=36, my_key=1)
    assert (config.num_labels, config.hidden_size, config.my_key) == (5, 36, 1)
    assert config.label2id == {f"LABEL_{index}": index for index in range(5)}
    assert RemBertConfig.from_pretrained(tmp_path, torch_dtype="float16").dtype == "float16"
    assert RemBertConfig.from_pretrained(tmp_path, dtype="float16").dtype == "float16"
    assert RemBertConfig.from_pretrained(tmp_path, num_labels=3).id2label == {0: "no", 1: "maybe", 2: "yes"}
    assert RemBertConfig.from_pretrained(tmp_path, id2label={0: "a", 1: "b"}).label2id == {"a": 0, "b": 1}


def test_label_maps_are_derived_from_each_other() -> None:
    assert RemBertConfig(id2label={"1": "b", "0": "a"}).label2id == {"a": 0, "b": 1}
    assert RemBertConfig(label2id={"b": 1, "a": 0}).id2label == {0: "a", 1: "b"}
    assert RemBertConfig(label2id={"b": "1", "a": "0"}).label2id == {"a": 0, "b": 1}
    assert RemBertConfig(num_labels=1).id2label == {0: "LABEL_0"}
    config = RemBertConfig(id2label={0: "a", 1: "b"})
    config.num_labels = 2
    assert config.id2label == {0: "a", 1: "b"}
    config.num_labels = 3
    assert config.id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}


def test_numpy_numbers_are_saved(tmp_path: Path) -> None:
    RemBertConfig(vocab_size=np.int64(400), initializer_range=np.float32(0.5)).save_pretrained(tmp_path)
    config = RemBertConfig.from_pretrained(tmp_path)
    assert (config.vocab_size, config.initializer_range) == (400, 0.5)


def test_dtypes_have_one_name() -> None:
    import ml_dtypes

    for value in ("float16", np.float16, np.dtype("float16"), "torch.float16"):
        assert RemBertConfig(dtype=value).dtype == "float16"
        assert RemBertConfig(torch_dtype=value).dtype == "float16"
    assert RemBertConfig(dtype=ml_dtypes.bfloat16).dtype == "bfloat16"
    config = RemBertConfig()
    config.torch_dtype = np.float64
    assert (config.dtype, config.torch_dtype) == ("float64", "float64")


def test_labels_replace_both_maps(tmp_path: Path) -> None:
    _file(tmp_path, BY_VERSION["4"])
    config = RemBertConfig.from_pretrained(tmp_path, label2id={"a": 0, "b": 1})
    assert (config.id2label, config.num_labels) == ({0: "a", 1: "b"}, 2)
    config.update({"label2id": {"x": 0, "y": 1, "z": 2}})
    assert config.id2label == {0: "x", 1: "y", 2: "z"}
    assert RemBertConfig.from_pretrained(tmp_path, num_labels=None).num_labels == 3


# ------------------------------------------------------------------ refusals

REFUSED: list[dict[str, Any]] = [
    *({key: value} for key in ("vocab_size", "hidden_size", "num_hidden_layers") for value in (0, -1, 1.0, "8", True)),
    *({key: None} for key in ("num_attention_heads", "input_embedding_size", "output_embedding_size")),
    *({key: 0} for key in ("intermediate_size", "max_position_embeddings", "type_vocab_size")),
    *(
        {key: value}
        for key in ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout_prob")
        for value in (-0.1, 1.0, "0.1", None, float("nan"))
    ),
    *({key: value} for key in ("initializer_range", "layer_norm_eps") for value in (0, -1.0, float("inf"), "1e-5")),
    *({key: value} for key in ("use_cache", "is_decoder", "return_dict") for value in ("yes", 1)),
    {"pad_token_id": -1},
    {"pad_token_id": 250300},
    {"bos_token_id": "[CLS]"},
    {"eos_token_id": [1, None]},
    {"hidden_act": "softplus"},
    {"hidden_act": None},
    {"problem_type": "ranking"},
    {"num_labels": 0},
    {"num_labels": "3"},
    {"dtype": "int8"},
    {"torch_dtype": "float"},
    {"model_type": "bert"},
    {"id2label": {0: "a", 2: "b"}},
    {"id2label": {}},
    {"id2label": ["a", "b"]},
    {"tie_word_embeddings": True},
    {"output_attentions": "false"},
    {"output_hidden_states": 1},
    {"num_hidden_layers": 20000},
    {"vocab_size": 2**62},
    {"intermediate_size": 2**31},
    {"num_labels": 10**7},
]


@pytest.mark.parametrize("settings", REFUSED, ids=lambda settings: "{}={!r}".format(*next(iter(settings.items()))))
def test_errors_quote_key_and_value(settings: dict[str, Any], tmp_path: Path) -> None:
    ((key, value),) = settings.items()
    with pytest.raises(ConfigError, match="Received") as refusal:
        RemBertConfig(**settings)
    key = {"torch_dtype": "dtype"}.get(key, key)
    assert f"`{key}" in str(refusal.value)
    shown = sorted(value) if isinstance(value, dict) else value
    assert repr(shown) in str(refusal.value)
    assert isinstance(refusal.value, ValueError)


@pytest.mark.parametrize(
    ("settings", "quoted"),
    [
        ({"hidden_size": 10, "num_attention_heads": 3}, ["`hidden_size=10`", "`num_attention_heads=3`"]),
        ({"add_cross_attention": True}, ["`is_decoder=False`", "`add_cross_attention=True`"]),
        ({"problem_type": "single_label_classification", "num_labels": 1}, ["`num_labels=1`"]),
        ({"num_labels": 3, "id2label": {0: "a", 1: "b"}}, ["`num_labels=3`", "2 labels"]),
        ({"id2label": {0: "a", 1: "b"}, "label2id": {"a": 1, "b": 0}}, ["`id2label=", "`label2id="]),
        ({"head_dim": 5}, ["`head_dim`", "5"]),
    ],
)
def test_conflicting_values_are_refused(settings: dict[str, Any], quoted: list[str]) -> None:
    with pytest.raises(ConfigError) as refusal:
        RemBertConfig(**settings)
    assert all(part in str(refusal.value) for part in quoted)


def test_validate_checks_changed_values() -> None:
    config = RemBertConfig()
    config.hidden_size = -4
    with pytest.raises(ConfigError, match="hidden_size=-4"):
        config.validate()


def test_errors_of_files_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.json, rembert_config\.json, bert_config\.json"):
        RemBertConfig.from_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"nowhere\.json"):
        RemBertConfig.from_pretrained(tmp_path / "nowhere.json")
    with pytest.raises(ConfigError, match=r"config\.json: .*hidden_size=-4"):
        RemBertConfig.from_pretrained(_file(tmp_path, {"hidden_size": -4}))
    with pytest.raises(ConfigError, match="list"):
        RemBertConfig.from_pretrained(_file(tmp_path, [1]))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"config\.json cannot be read as JSON"):
        RemBertConfig.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"hidden_size": 12, "hidden_size": 36}')
    with pytest.raises(ConfigError, match=r"config\.json cannot be read as JSON: key `hidden_size` occurs twice"):
        RemBertConfig.from_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="NoneType"):
        RemBertConfig.from_dict(None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"must be a directory. Received: .*config\.json, which is a file"):
        RemBertConfig().save_pretrained(tmp_path / "config.json")


def test_saving_keeps_other_files(tmp_path: Path) -> None:
    (tmp_path / "sentencepiece.model").write_bytes(b"tokens")
    RemBertConfig().save_pretrained(tmp_path)
    RemBertConfig(num_labels=3).save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "sentencepiece.model"]
    assert RemBertConfig.from_pretrained(tmp_path).num_labels == 3


def test_attention_implementation_is_not_saved(tmp_path: Path) -> None:
    RemBertConfig(attn_implementation="eager").save_pretrained(tmp_path)
    assert "attn_implementation" not in json.loads((tmp_path / "config.json").read_text())
    assert RemBertConfig.from_pretrained(tmp_path).attn_implementation == "auto"
    assert RemBertConfig.from_pretrained(tmp_path, attn_implementation="sdpa").attn_implementation == "sdpa"
    with pytest.raises(ConfigError, match="attn_implementation='flash'"):
        RemBertConfig(attn_implementation="flash")
