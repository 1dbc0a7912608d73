"""Checkpoints of metrics: what is opened, and what is refused with which message."""

from __future__ import annotations

import json
import random
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rembert.bleurt.checkpoint import open_metric
from rembert.bridge import convert
from rembert.common.errors import CheckpointError, ConfigError, InputError, RemBertError, TokenizerError
from rembert.tasks import RemBertScorer
from tests.amounts import DAMAGED
from tests.bleurt.cases import BERT_CONFIG, BLEURT_CONFIG, MODEL, make_variables, write_saved_model
from tests.bridge.support import GOLDEN
from tests.frameworks import needs_pt, needs_tf

VARIABLES = make_variables()


def _open(path: Path, **options: Any) -> Any:
    with open_metric(path, **options) as found:
        return found


def test_a_saved_model_is_opened(tmp_path: Path) -> None:
    found = _open(write_saved_model(tmp_path / "m", VARIABLES))
    assert (found.name, found.max_length) == ("tiny-32k", 48)
    assert (found.config.head_dim, found.config.num_attention_heads, found.config.hidden_act) == (8, 3, "gelu_new")
    assert _open(tmp_path / "m", max_length=20).max_length == 20
    assert _open(tmp_path / "m" / "saved_model.pb").fingerprint == found.fingerprint


def test_a_checkpoint_needs_no_bleurt_config(tmp_path: Path) -> None:
    found = _open(write_saved_model(tmp_path / "mine", VARIABLES, bleurt_config=None))
    assert (found.name, found.max_length) == ("mine", BERT_CONFIG["max_position_embeddings"])


def test_max_length_is_limited_by_the_positions(tmp_path: Path) -> None:
    long = {**BLEURT_CONFIG, "max_seq_length": 512}
    assert _open(write_saved_model(tmp_path / "m", VARIABLES, bleurt_config=long)).max_length == 64
    for length in (65, 3, True, "20"):
        with pytest.raises(InputError, match="`max_length` must be an integer from 4 to 64"):
            _open(tmp_path / "m", max_length=length)


def test_the_fingerprint_depends_on_the_weights(tmp_path: Path) -> None:
    other = {name: value + (name == "dense/bias") for name, value in VARIABLES.items()}
    one, two = (_open(write_saved_model(tmp_path / name, v)) for name, v in (("a", VARIABLES), ("b", other)))
    assert one.fingerprint != two.fingerprint


@pytest.mark.parametrize("length", [0, 3, None, "64", True, 64.0])
def test_a_wrong_length_in_the_settings_is_refused(tmp_path: Path, length: Any) -> None:
    settings = {**BLEURT_CONFIG, "max_seq_length": length}
    with pytest.raises(CheckpointError, match=r"bleurt_config\.json: `max_seq_length` must be"):
        _open(write_saved_model(tmp_path / "m", VARIABLES, bleurt_config=settings))


def test_settings_must_be_an_object(tmp_path: Path) -> None:
    directory = write_saved_model(tmp_path / "m", VARIABLES)
    (directory / "bleurt_config.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"must hold a JSON object\. Received: list"):
        _open(directory)


def test_a_bert_is_refused(tmp_path: Path) -> None:
    settings = {**BLEURT_CONFIG, "vocab_file": "vocab.txt", "do_lower_case": True, "sp_model": None}
    bert = {name: value for name, value in VARIABLES.items() if "embedding_hidden_mapping_in" not in name}
    sizes = {key: value for key, value in BERT_CONFIG.items() if key != "embedding_size"}
    with pytest.raises(CheckpointError, match="is not a RemBERT: its tokens are WordPieces"):
        _open(write_saved_model(tmp_path / "bert", bert, sizes, settings, sentencepiece=None))
    with pytest.raises(CheckpointError, match="is not a RemBERT: its embeddings are as wide as its layers"):
        _open(write_saved_model(tmp_path / "other", bert, sizes))


@needs_pt
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("masked_lm", "is not a regressor.*Received: a masked-lm model without that layer"),
        ("model", "is not a regressor.*Received: a model model without that layer"),
        ("sequence_classification", "is not a regressor.*Received: a classifier with 3 outputs"),
        ("token_classification", "is not a regressor.*Received: a token-classification model"),
    ],
)
def test_other_heads_are_refused(name: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        RemBertScorer.from_pretrained(GOLDEN / name)


@pytest.mark.parametrize("without", ["dense/kernel", "bert/pooler/dense/kernel"])
def test_an_incomplete_regressor_is_refused(tmp_path: Path, without: str) -> None:
    variables = {name: value for name, value in VARIABLES.items() if name != without}
    with pytest.raises(CheckpointError, match=r"not a regressor|1 missing"):
        _open(write_saved_model(tmp_path / "m", variables))


def test_hidden_layers_before_the_output_are_refused(tmp_path: Path) -> None:
    # Made with BLEURT's `n_hidden_layers=1`: `dense` is then a hidden layer, `dense_1` the output.
    variables = {**VARIABLES, "dense/kernel": np.zeros((24, 5), np.float32), "dense/bias": np.zeros(5, np.float32)}
    variables |= {"dense_1/kernel": np.zeros((5, 1), np.float32), "dense_1/bias": np.zeros(1, np.float32)}
    with pytest.raises(CheckpointError, match="Received: a classifier with 5 outputs"):
        _open(write_saved_model(tmp_path / "m", variables))


def test_a_converted_classifier_of_another_problem_type_is_refused(tmp_path: Path) -> None:
    convert(write_saved_model(tmp_path / "m", VARIABLES), tmp_path / "pt", "pt")
    file = tmp_path / "pt" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "problem_type": "multi_label_classification"}))
    with pytest.raises(CheckpointError, match="problem_type='multi_label_classification'"):
        _open(tmp_path / "pt")


def test_the_number_of_attention_heads_is_required(tmp_path: Path) -> None:
    sizes = {key: value for key, value in BERT_CONFIG.items() if key != "num_attention_heads"}
    with pytest.raises(ConfigError, match="must have `num_attention_heads`"):
        _open(write_saved_model(tmp_path / "m", VARIABLES, sizes))


def test_a_missing_sentencepiece_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"must have a SentencePiece model.*Put sent_piece\.model"):
        _open(write_saved_model(tmp_path / "m", VARIABLES, sentencepiece=None))


def test_the_settings_name_the_sentencepiece_model(tmp_path: Path) -> None:
    settings = {**BLEURT_CONFIG, "sp_model": "mine"}
    directory = write_saved_model(tmp_path / "m", VARIABLES, bleurt_config=settings, sentencepiece=None)
    shutil.copyfile(MODEL, directory / "mine.model")
    assert _open(directory).tokenizer.sentencepiece_model.size == 32000


def test_a_sentencepiece_model_larger_than_the_table_is_refused(tmp_path: Path) -> None:
    sizes = {**BERT_CONFIG, "vocab_size": 160}
    with pytest.raises(TokenizerError, match="32000 tokens for a table of 160 rows"):
        _open(write_saved_model(tmp_path / "m", make_variables(sizes=sizes), sizes))


@needs_pt
@needs_tf
def test_wrong_arguments_are_refused(tmp_path: Path) -> None:
    directory = write_saved_model(tmp_path / "m", VARIABLES)
    with pytest.raises(InputError, match="`framework` must be one of pt, tf"):
        RemBertScorer.from_pretrained(directory, framework="jax")
    with pytest.raises(InputError, match="`device` must be None in TensorFlow"):
        RemBertScorer.from_pretrained(directory, framework="tf", device="cuda")
    with pytest.raises(InputError, match="`device` must be one that PyTorch has here"):
        RemBertScorer.from_pretrained(directory, device="no device")
    with pytest.raises(TypeError, match="unexpected keyword: 'hidden_activation'"):
        RemBertScorer.from_pretrained(directory, hidden_activation="gelu")
    with pytest.raises(CheckpointError, match="There is no file or directory"):
        RemBertScorer.from_pretrained(tmp_path / "nowhere")


# ---------------------------------------------------------------------- archives


def _archive(path: Path, contents: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


def test_an_archive_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="must hold a checkpoint"):
        _open(_archive(tmp_path / "m.zip", {"readme.txt": b"text"}))


def test_a_file_that_is_not_an_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.zip").write_bytes(b"text")
    with pytest.raises(CheckpointError, match="is not a valid ZIP archive"):
        _open(tmp_path / "m.zip")


def test_a_damaged_archive_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {str(file.relative_to(tmp_path)): file.read_bytes()
             for file in write_saved_model(tmp_path / "m", VARIABLES).rglob("*") if file.is_file()}  # fmt: skip
    archive = _archive(tmp_path / "m.zip", files)
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 0xFF  # in the deflated variables, nearly all of the file
    archive.write_bytes(content)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    with pytest.raises(CheckpointError, match="is not a valid ZIP archive"):
        _open(archive)
    assert list(temporary.iterdir()) == []


def test_names_outside_the_archive_are_ignored(tmp_path: Path) -> None:
    directory = write_saved_model(tmp_path / "inside" / "m", VARIABLES)
    files = {f"m/{file.relative_to(directory)}": file.read_bytes() for file in directory.rglob("*") if file.is_file()}
    evil = {"m/../../../evil.json": b"{}", "m/variables/../../evil.json": b"{}", "/evil.json": b"{}"}
    _open(_archive(tmp_path / "m.zip", {**files, **evil}))
    assert not list(tmp_path.rglob("evil.json"))


def test_errors_of_an_archive_name_it_and_not_where_it_was_extracted(tmp_path: Path) -> None:
    files = {str(file.relative_to(tmp_path)): file.read_bytes()
             for file in write_saved_model(tmp_path / "m", VARIABLES).rglob("*") if file.is_file()}  # fmt: skip
    long = {f"m/{'x' * 5000}.json": b"{}"}
    no_tokenizer = {name: content for name, content in files.items() if not name.endswith(".model")}
    for number, contents in enumerate(({**files, **long}, {**files, "m/bert_config.json": b"[]"}, no_tokenizer)):
        archive = _archive(tmp_path / f"{number}.zip", contents)
        with pytest.raises(RemBertError, match=re.escape(str(archive))) as refused:
            _open(archive)
        assert "rembert-" not in str(refused.value)


@pytest.mark.parametrize("name", ["../other/sent_piece", "/etc/passwd", "x" * 1000, "a\0b", "../x"])
def test_the_tokenizer_of_a_metric_is_a_file_beside_it(tmp_path: Path, name: str) -> None:
    (tmp_path / "other").mkdir()
    shutil.copy(MODEL, tmp_path / "other" / "sent_piece.model")
    path = write_saved_model(tmp_path / "m", VARIABLES, bleurt_config={**BLEURT_CONFIG, "sp_model": name})
    with pytest.raises(CheckpointError, match=r"bleurt_config\.json: `sp_model` must be"):
        _open(path)


def _damaged_archive(whole: bytes, draw: random.Random) -> bytes:
    """Sizes, offsets and flags in the directory of an archive changed."""
    content = bytearray(whole)
    end = content.rindex(b"PK\5\6")
    start = int.from_bytes(content[end + 16 : end + 20], "little")
    for _ in range(draw.choice((1, 1, 1, 4))):
        width = draw.choice((1, 2, 4))
        value = draw.choice((0, 1, 2**15, 2**31, 2**32 - 1, len(content), draw.randrange(len(content))))
        place = draw.choice((draw.randrange(start, len(content) - 4), end + draw.choice((8, 12, 16))))
        content[place : place + width] = (value % 2 ** (8 * width)).to_bytes(width, "little")
    return bytes(content)


@pytest.mark.parametrize(
    "seeds", [range(60), pytest.param(range(60, 60 + DAMAGED), marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_archives_with_a_damaged_directory(tmp_path: Path, seeds: range) -> None:
    """Each is refused by name, or read as if it were whole."""
    files = {str(file.relative_to(tmp_path)): file.read_bytes()
             for file in write_saved_model(tmp_path / "m", VARIABLES).rglob("*") if file.is_file()}  # fmt: skip
    archive = _archive(tmp_path / "m.zip", files)
    expected, whole = _open(archive).fingerprint, archive.read_bytes()
    refused = 0
    for seed in seeds:
        archive.write_bytes(_damaged_archive(whole, random.Random(seed)))
        try:
            assert _open(archive).fingerprint == expected, seed
        except RemBertError as problem:
            refused += 1
            if str(archive) not in str(problem):
                raise AssertionError(f"seed {seed}: the archive is not named") from problem
    assert refused > len(seeds) // 4


def test_an_archive_larger_than_the_free_space_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = _archive(tmp_path / "m.zip", {"variables/variables.index": bytes(1000)})
    monkeypatch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(10, 1, 9))
    with pytest.raises(CheckpointError, match="needs 1,000 bytes of disk space"):
        _open(archive)
