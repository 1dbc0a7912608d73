"""Files that never end, that are far too large, or that could be read but not written again are refused by name."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from rembert import RemBertConfig, RemBertTokenizer
from rembert.bridge import open_checkpoint
from rembert.common import strict_json
from rembert.common.errors import CheckpointError, ConfigError, RemBertError
from tests.training.runs import write_start

CHECKPOINTS = ("model.safetensors", "model.weights.h5", "model.keras", "tf_model.h5", "model.safetensors.index.json")


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_start(tmp_path_factory.mktemp("untrusted") / "start")


def _open(path: Path) -> Any:
    if path.name == "config.json":
        return RemBertConfig.from_pretrained(path.parent)
    if path.name in CHECKPOINTS:
        return open_checkpoint(path)
    return RemBertTokenizer.from_pretrained(path.parent)


@pytest.mark.parametrize("name", ["config.json", "sentencepiece.model", "tokenizer_config.json", *CHECKPOINTS])
@pytest.mark.parametrize("kind", ["pipe", "device", "link to a pipe"])
def test_what_is_no_regular_file_is_refused(start: Path, tmp_path: Path, name: str, kind: str) -> None:
    """A pipe that nobody writes to would keep a reader waiting, a device never ends."""
    directory = Path(shutil.copytree(start, tmp_path / "start"))
    path = directory / name
    path.unlink(missing_ok=True)
    if kind == "device":
        path.symlink_to("/dev/zero")
    else:
        target = tmp_path / "pipe" if kind.startswith("link") else path
        os.mkfifo(target)
        if target != path:
            path.symlink_to(target)
    with pytest.raises(RemBertError, match=name.replace(".", r"\.")):
        _open(path)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "sentencepiece.model", "model.weights.h5"])
@pytest.mark.parametrize("kind", ["a pipe", "a link to absent"])
def test_nothing_else_is_read_in_the_place_of_a_file_that_cannot_be(tmp_path: Path, name: str, kind: str) -> None:
    """A download whose content is gone leaves a link; the files of other names may be those of another checkpoint."""
    others = {
        "config.json": "bert_config.json",
        "sentencepiece.model": "tokenizer.json",
        "model.weights.h5": "model.keras",
    }
    (tmp_path / others.get(name, "pytorch_model.bin")).write_text("{}")
    if kind == "a pipe":
        os.mkfifo(tmp_path / name)
    else:
        (tmp_path / name).symlink_to("absent")
    read = {"config.json": RemBertConfig.from_pretrained, "sentencepiece.model": RemBertTokenizer.from_pretrained}
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(RemBertError, match=rf"{re.escape(str(tmp_path / name))} .*({kind}|No such file)"):
            read.get(name, open_checkpoint)(path)


def test_weights_that_cannot_be_opened_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.weights.h5").symlink_to("absent")
    with pytest.raises(CheckpointError, match=r"a\.weights\.h5 cannot be read: No such file"):
        open_checkpoint(tmp_path)


def test_a_file_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(2**36)  # takes no room on the disk
    with pytest.raises(ConfigError, match=r"config\.json must have at most \d+ bytes\. Received: 68719476736 bytes"):
        RemBertConfig.from_pretrained(tmp_path)


def test_json_of_millions_of_values_is_not_parsed(tmp_path: Path) -> None:
    """64 MB of `[]` and of nested objects would take 2 to 3 GB."""
    assert len(strict_json.loads(b"[" + b"1," * (strict_json.MAX_VALUES - 1) + b"1]")) == strict_json.MAX_VALUES
    for mark in (b"1,", b"[],", b"[", b'{"":'):
        text = mark * (strict_json.MAX_VALUES + 1)
        with pytest.raises(ValueError, match="more than 2097152 values"):
            strict_json.loads(text)
    (tmp_path / "config.json").write_bytes(text)
    with pytest.raises(ConfigError, match=r"config\.json .*more than 2097152 values"):
        RemBertConfig.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        ('"note": "\\ud83d"', "half of a surrogate pair"),
        ('"no\\uDE00te": 1', "half of a surrogate pair"),
        (f'"note": {"[" * 500}{"]" * 500}', "levels"),
        (f'"note": {"[" * 100_000}{"]" * 100_000}', "levels"),
        ('"note": 1, "note": 2', "twice"),
    ],
)
def test_json_that_could_not_be_written_again_is_refused(tmp_path: Path, extra: str, reason: str) -> None:
    (tmp_path / "config.json").write_text(f'{{"model_type": "rembert", {extra}}}')
    with pytest.raises(ConfigError, match=rf"config\.json .*{reason}"):
        RemBertConfig.from_pretrained(tmp_path)


def test_whole_surrogate_pairs_and_some_nesting_are_read() -> None:
    content = {"a": "\N{GRINNING FACE}", "b": [[[{"c": "\\ud83d"}]]]}
    assert strict_json.loads(json.dumps(content).encode()) == content


@pytest.mark.parametrize(
    "content",
    [
        *({key: {}} for key in ("self", "__dict__", "__weakref__", "__class__", "to_dict", "num_labels", "head_dim")),
        *({"label2id": value} for value in (["a", "b"], "x", {"a": 0.0}, {"a": "x"}, {"a": -1}, {"a": 1})),
        *(
            {"id2label": value}
            for value in (["a"], {"x": "a"}, {"0": "a", "00": "b"}, {"0": None}, {"0": []}, {"1": "a"})
        ),
        {"id2label": {"0": "a"}, "label2id": {"b": 0}},
        *({"layer_norm_eps": value} for value in (10**400, float("nan"), "1e-12", None)),
        *({key: 2**70} for key in ("bos_token_id", "eos_token_id", "pad_token_id", "hidden_size", "num_labels")),
        *({"architectures": value} for value in (5, "RemBertModel", [5])),
        *({key: "false"} for key in ("output_attentions", "gradient_checkpointing", "is_decoder", "use_cache")),
        {"hidden_act": ["gelu"]},
        {"dtype": 5},
        {"model_type": None},
    ],
    ids=str,
)
def test_values_that_no_configuration_has(tmp_path: Path, content: dict[str, Any]) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "rembert", **content}))
    with pytest.raises(
        ConfigError, match=rf"config\.json: `{next(iter(content))}`|`id2label` and `label2id` disagree|0 to n - 1"
    ):
        RemBertConfig.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ({"id2label": {"0": 1, "1": 0}}, {0: 1, 1: 0}),
        ({"id2label": {"0": 1, "1": 0}, "label2id": {"1": 0, "0": 1}}, {0: 1, 1: 0}),
        ({"id2label": {"1": "b", "0": "a"}, "label2id": {"a": "0", "b": "1"}}, {0: "a", 1: "b"}),
        ({"label2id": {"a": "1", "b": "0"}}, {0: "b", 1: "a"}),
    ],
    ids=str,
)
def test_names_of_labels_that_are_numbers_and_ids_that_are_text(
    tmp_path: Path, content: dict[str, Any], names: dict[int, Any]
) -> None:
    """As transformers reads them; a saved configuration is the same."""
    (tmp_path / "config.json").write_text(json.dumps(content))
    config = RemBertConfig.from_pretrained(tmp_path)
    assert config.id2label == names
    assert config.label2id == {name: index for index, name in names.items()}
    config.save_pretrained(tmp_path / "again")
    assert RemBertConfig.from_pretrained(tmp_path / "again") == config
