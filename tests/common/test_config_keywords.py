"""The keywords and methods that a configuration takes as transformers' does, and what it never keeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rembert import RemBertConfig
from rembert.common.config import as_config
from rembert.common.errors import ConfigError, InputError, KeywordError
from tests.common.test_config import RELEASED
from tests.common.test_config import _file as write_file

# What `run_glue` and the other example scripts of transformers pass, and users beside them.
ACCEPTED: dict[str, Any] = {
    "cache_dir": None,
    "revision": "main",
    "token": None,
    "trust_remote_code": False,
    "finetuning_task": "mnli",
    "use_auth_token": None,
    "from_tf": False,
    "from_flax": False,
    "quantization_config": None,
    "_from_auto": True,
}


def test_keywords_of_transformers_are_accepted(tmp_path: Path) -> None:
    write_file(tmp_path, RELEASED)
    config = RemBertConfig.from_pretrained(tmp_path, num_labels=3, **ACCEPTED)
    assert config.finetuning_task == "mnli"
    assert set(config.to_dict()) - set(RemBertConfig().to_dict()) == {"finetuning_task"}


def test_misspelt_keys_are_refused_with_the_nearest_one(tmp_path: Path) -> None:
    write_file(tmp_path, RELEASED)
    config = RemBertConfig()
    for give in (
        RemBertConfig,
        lambda **key: RemBertConfig.from_pretrained(tmp_path, **key),
        lambda **key: RemBertConfig.from_dict(RELEASED, **key),
        lambda **key: config.update(key),
    ):
        with pytest.raises(KeywordError, match=r"'hiden_size'. Did you mean `hidden_size`\?"):
            give(hiden_size=3)
    with pytest.raises(KeywordError, match=r"'revison'. Did you mean `revision`\?"):
        RemBertConfig.from_pretrained(tmp_path, revison="v1")
    with pytest.raises(KeywordError, match="`load_in_4bit` is a feature of transformers"):
        RemBertConfig.from_pretrained(tmp_path, load_in_4bit=True)
    assert issubclass(KeywordError, TypeError)
    assert config == RemBertConfig()


def test_tokens_are_never_written(tmp_path: Path) -> None:
    """Neither one that is passed, nor one that an older version has kept, nor one that is set as an attribute."""
    write_file(tmp_path, {**RELEASED, "token": "hf_old", "use_auth_token": "hf_old", "cache_dir": "/home"})
    config = RemBertConfig.from_pretrained(tmp_path, token="hf_new", local_files_only=True)
    config.token = "hf_set"
    config.save_pretrained(tmp_path / "saved")
    written = (tmp_path / "saved" / "config.json").read_text() + config.to_json_string(use_diff=False) + repr(config)
    assert "hf_" not in written
    assert "cache_dir" not in written
    with pytest.raises(KeywordError, match=r"'token'\. It is a keyword of `from_pretrained`") as refusal:
        RemBertConfig(token="hf_new")
    assert "hf_" not in str(refusal.value)
    with pytest.raises(InputError, match="`token` must be a string") as wrong:
        RemBertConfig.from_pretrained(tmp_path, token=b"hf_bytes")
    assert "hf_" not in str(wrong.value)


def test_a_file_is_named_for_its_own_values_only(tmp_path: Path) -> None:
    path = write_file(tmp_path, RELEASED) / "config.json"
    with pytest.raises(ConfigError, match=r"^`?hidden_size") as refusal:
        RemBertConfig.from_pretrained(tmp_path, hidden_size=-1)
    assert "config.json" not in str(refusal.value)
    path.write_text(json.dumps({**RELEASED, "hidden_size": -1}))
    with pytest.raises(ConfigError, match=r"config\.json: .*hidden_size"):
        RemBertConfig.from_pretrained(tmp_path, num_labels=3)


def test_methods_of_transformers_configurations(tmp_path: Path) -> None:
    write_file(tmp_path, {**RELEASED, "my_key": 1})
    config, unused = RemBertConfig.from_pretrained(tmp_path, return_unused_kwargs=True, hidden_act="relu", other=2)
    assert (config.hidden_act, config.my_key, unused) == ("relu", 1, {"other": 2})
    assert RemBertConfig.from_dict(RELEASED, return_unused_kwargs=True, num_labels=3, other=2)[1] == {"other": 2}
    with pytest.raises(KeywordError, match="other"):
        RemBertConfig.from_dict(RELEASED, other=2)
    content, rest = RemBertConfig.get_config_dict(tmp_path, revision="main", other=2)
    assert (content["my_key"], rest) == (1, {"other": 2})
    config.to_json_file(tmp_path / "mine.json")
    assert RemBertConfig.from_json_file(tmp_path / "mine.json") == config
    assert config.get_text_config() is config
    assert config.name_or_path == str(tmp_path)
    assert "_name_or_path" not in config.to_dict()
    config.update({"hidden_act": "gelu_new", "my_key": 3})
    assert (config.hidden_act, config.my_key, config.name_or_path) == ("gelu_new", 3, str(tmp_path))
    with pytest.raises(ConfigError, match="hidden_size=-1"):
        config.update({"vocab_size": 7, "hidden_size": -1})
    assert config.vocab_size == RELEASED["vocab_size"]


def test_subclasses_may_have_keys_of_their_own(tmp_path: Path) -> None:
    class Own(RemBertConfig):
        def __init__(self, depth: int = 3, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.depth = depth

    Own(depth=5, num_labels=3).save_pretrained(tmp_path)
    assert Own.from_pretrained(tmp_path).depth == 5
    assert Own.from_pretrained(tmp_path, depth=6).depth == 6
    assert RemBertConfig.from_pretrained(tmp_path).depth == 5
    with pytest.raises(KeywordError, match="Did you mean `depth`"):
        Own(dephts=1)


@pytest.mark.filterwarnings("ignore")
def test_configurations_of_transformers_are_taken() -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.RemBertConfig(hidden_size=36, num_labels=3, hidden_dropout_prob=0.25)
    ours = as_config(theirs)
    assert (ours.hidden_size, ours.num_labels, ours.hidden_dropout_prob) == (36, 3, 0.25)
    assert ours.id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
    with pytest.raises(ConfigError, match=r"a BertConfig of transformers\.models\.bert.*RemBertConfig\.from_dict"):
        as_config(transformers.BertConfig())
