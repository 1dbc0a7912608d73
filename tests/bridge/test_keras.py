"""Keras 3 weights and archives, against what Keras itself writes and loads for the TensorFlow models."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from rembert.bridge import convert, open_checkpoint
from rembert.common.errors import CheckpointError, ConfigError, InputError
from rembert.common.name_matching import canonical_name
from tests.bridge import fuzzing
from tests.bridge.support import GOLDEN, MODELS


def model_of(name: str) -> Any:
    """The TensorFlow model of a golden, its weights loaded through safetensors."""
    pytest.importorskip("tensorflow")
    import rembert.tf

    architecture = json.loads((GOLDEN / name / "config.json").read_text())["architectures"][0]
    return getattr(rembert.tf, f"TF{architecture}").from_pretrained(GOLDEN / name)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One golden saved by Keras, as weights and as an archive; compiled, so that the optimizer is saved too."""
    directory = tmp_path_factory.mktemp("saved")
    model = model_of("sequence_classification")
    model.compile("adam")
    model.save_weights(directory / "model.weights.h5")
    model.save(directory / "model.keras")
    return directory


@pytest.mark.parametrize("name", MODELS)
def test_keras_loads_what_is_written(tmp_path: Path, name: str) -> None:
    model = model_of(name)
    expected = [np.array(variable) for variable in model.weights]
    for variable in model.weights:
        variable.assign(np.zeros(variable.shape))
    convert(GOLDEN / name, tmp_path / "keras", "keras")
    model.load_weights(tmp_path / "keras" / "model.weights.h5")
    for variable, values in zip(model.weights, expected, strict=True):
        np.testing.assert_array_equal(np.array(variable), values, err_msg=variable.path)


@pytest.mark.parametrize("name", MODELS)
def test_a_round_trip_preserves_every_bit(tmp_path: Path, name: str) -> None:
    convert(GOLDEN / name, tmp_path / "keras", "keras")
    done = convert(tmp_path / "keras", tmp_path / "pt", "pt")
    assert done.source_format == "keras"
    assert done.files[:2] == ["model.safetensors", "config.json"]
    expected = (GOLDEN / name / "model.safetensors").read_bytes()
    assert (tmp_path / "pt" / "model.safetensors").read_bytes() == expected


@pytest.mark.parametrize("file", ["model.weights.h5", "model.keras"])
def test_files_of_keras_are_read(saved: Path, file: str) -> None:
    expected = safetensors.numpy.load_file(GOLDEN / "sequence_classification" / "model.safetensors")
    with open_checkpoint(saved / file) as checkpoint:
        assert checkpoint.format == "keras"
        assert set(checkpoint.tensors) == {canonical_name(name) for name in expected}
        assert checkpoint.left_out
        assert all("optimizer" in name or "seed" in name for name in checkpoint.left_out)
        for name, values in expected.items():
            np.testing.assert_array_equal(checkpoint.read(canonical_name(name)), values, strict=True)


def test_an_archive_brings_its_configuration(saved: Path, tmp_path: Path) -> None:
    shutil.copyfile(saved / "model.keras", tmp_path / "mine.keras")
    done = convert(tmp_path / "mine.keras", tmp_path / "pt", "pt")
    assert done.head == "sequence-classification"
    expected = (GOLDEN / "sequence_classification" / "model.safetensors").read_bytes()
    assert (tmp_path / "pt" / "model.safetensors").read_bytes() == expected


def test_there_are_no_shards(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no shards"):
        convert(GOLDEN / "model", tmp_path / "out", "keras", max_shard_size="1MB")
    assert not list(tmp_path.iterdir())


def rewritten(source: Path, target: Path, change: Callable[..., Any]) -> Path:
    """A copy of an archive, whose members `change` renames, alters or leaves."""
    with zipfile.ZipFile(source) as original, zipfile.ZipFile(target, "w") as copy:
        for name in original.namelist():
            change(copy, name, original.read(name))
    return target


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda copy, name, data: copy.writestr(f"../{name}", data), "leads out of the archive"),
        (lambda copy, name, data: copy.writestr(f"/{name}", data), "leads out of the archive"),
        (lambda copy, name, data: copy.writestr(f"a/../../{name}", data), "leads out of the archive"),
        (lambda copy, name, data: copy.writestr(name, data, zipfile.ZIP_DEFLATED), "compressed"),
        (lambda copy, name, data: name.endswith(".h5") or copy.writestr(name, data), "holds no `model.weights.h5`"),
        (lambda copy, name, data: copy.writestr(name, data[:-5000] if name.endswith("h5") else data), "model.keras"),
        (lambda copy, name, data: copy.writestr(name, b"{" if name == "config.json" else data), "is not JSON"),
    ],
)
def test_invalid_archives_are_refused(saved: Path, tmp_path: Path, change: Callable[..., Any], reason: str) -> None:
    path = rewritten(saved / "model.keras", tmp_path / "model.keras", change)
    with pytest.raises(CheckpointError, match=reason) as error:
        open_checkpoint(path)
    assert str(path) in str(error.value)


def test_a_changed_value_in_an_archive_is_seen(saved: Path, tmp_path: Path) -> None:
    content = bytearray((saved / "model.keras").read_bytes())
    values = safetensors.numpy.load_file(GOLDEN / "sequence_classification" / "model.safetensors")
    content[content.index(values["rembert.embeddings.word_embeddings.weight"].tobytes()) + 50] ^= 1
    (tmp_path / "model.keras").write_bytes(content)
    with (
        open_checkpoint(tmp_path / "model.keras") as checkpoint,
        pytest.raises(CheckpointError, match="checksum"),
    ):
        checkpoint.read("classifier.bias")


def test_a_header_that_claims_too_much_is_refused(saved: Path, tmp_path: Path) -> None:
    content = bytearray((saved / "model.keras").read_bytes())
    entry = content.rindex(b"PK\x01\x02")  # the last member's entry in the directory: both its sizes
    content[entry + 20 : entry + 28] = (2**31 - 1).to_bytes(4, "little") * 2
    (tmp_path / "model.keras").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"outside the file|ZIP archive"):
        open_checkpoint(tmp_path / "model.keras")


def test_an_error_in_the_configuration_of_an_archive_names_the_file(tmp_path: Path) -> None:
    content = {"class_name": "TFRemBertModel", "config": {"config": {"model_type": "rembert", "label2id": ["a"]}}}
    fuzzing.make_archive(tmp_path / "made")
    with zipfile.ZipFile(tmp_path / "made" / "model.keras") as made, zipfile.ZipFile(tmp_path / "a.keras", "w") as new:
        new.writestr("config.json", json.dumps(content))
        new.writestr("model.weights.h5", made.read("model.weights.h5"))
    with pytest.raises(ConfigError, match=r"a\.keras: `label2id` must be a dictionary"):
        open_checkpoint(tmp_path / "a.keras")
