"""Conversion between formats, against the same weights as other software wrote them."""

import json
import shutil

import numpy as np
import pytest

from rembert.bridge import convert, inspect, open_checkpoint
from rembert.common.errors import CheckpointError, ConfigError, InputError
from tests.bridge.support import GOLDEN, MODELS


def weights(directory):
    return (directory / "model.safetensors").read_bytes()


@pytest.mark.parametrize("name", MODELS)
def test_there_and_back_is_bit_for_bit(tmp_path, name):
    convert(GOLDEN / name, tmp_path / "tf", "tf")
    convert(tmp_path / "tf", tmp_path / "pt", "pt")
    assert weights(tmp_path / "pt") == weights(GOLDEN / name)
    assert json.loads((tmp_path / "pt" / "config.json").read_text()) == json.loads(
        (GOLDEN / name / "config.json").read_text()
    )


@pytest.mark.parametrize("name", MODELS)
def test_transformers_h5_becomes_transformers_safetensors(tmp_path, name):
    done = convert(GOLDEN / name / "tf_model.h5", tmp_path / "pt", "pt")
    assert done.source_format == "h5"
    assert weights(tmp_path / "pt") == weights(GOLDEN / name)


def test_the_report_says_what_was_done(tmp_path):
    progress = []
    done = convert(GOLDEN / "masked_lm", tmp_path / "tf", "tf", progress=lambda *counts: progress.append(counts))
    with np.load(GOLDEN / "masked_lm" / "expected.npz") as expected:
        names = {key.split(".", 1)[1] for key in expected if key.startswith(("grad.", "gradnorm."))}
    assert done.head == "masked-lm"
    assert names, "the golden lists its parameters"
    assert done.nbytes == 4 * done.parameters
    assert [count for count, _ in progress] == sorted(count for count, _ in progress)
    assert progress[-1] == (done.nbytes, done.nbytes)
    assert done.files == ["tf_model.h5", "config.json"]
    assert sorted(path.name for path in (tmp_path / "tf").iterdir()) == sorted(done.files)


def test_tokenizer_files_travel(tmp_path):
    source = tmp_path / "source"
    shutil.copytree(GOLDEN / "model", source)
    (source / "sentencepiece.model").write_bytes(b"pieces")
    (source / "tokenizer.json").write_text("{}")
    (source / "notes.txt").write_text("mine")
    done = convert(source, tmp_path / "tf", "tf")
    assert (tmp_path / "tf" / "sentencepiece.model").read_bytes() == b"pieces"
    assert (tmp_path / "tf" / "tokenizer.json").read_text() == "{}"
    assert not (tmp_path / "tf" / "notes.txt").exists()
    assert set(done.files) == {"tf_model.h5", "config.json", "sentencepiece.model", "tokenizer.json"}


def copy_with(tmp_path, name="model", **changes):
    """A golden with a changed config; None removes a key."""
    target = tmp_path / "source"
    target.mkdir()
    shutil.copyfile(GOLDEN / name / "model.safetensors", target / "model.safetensors")
    content = json.loads((GOLDEN / name / "config.json").read_text())
    content.update(changes)
    (target / "config.json").write_text(json.dumps({k: v for k, v in content.items() if v is not None}))
    return target


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("model", "model"),
        ("masked_lm", "masked-lm"),
        ("causal_lm", "causal-lm"),
        ("sequence_classification", "sequence-classification"),
        ("token_classification", "token-classification"),
        ("question_answering", "question-answering"),
    ],
)
def test_a_head_is_recognised_without_architectures(tmp_path, name, head):
    found = inspect(copy_with(tmp_path, name, architectures=None))
    assert found.head == head
    assert found.fits


def test_refuses_what_does_not_fit_the_config(tmp_path):
    with pytest.raises(CheckpointError, match=r"shape \[160, 20\], the config says \[161, 20\]"):
        convert(copy_with(tmp_path, vocab_size=161), tmp_path / "out", "tf")
    assert not (tmp_path / "out").exists()


def test_refuses_missing_and_unknown_layers(tmp_path):
    source = copy_with(tmp_path, num_hidden_layers=3)
    with pytest.raises(CheckpointError, match=r"16 missing \(`rembert.encoder.layer.2"):
        convert(source, tmp_path / "out", "tf")
    shutil.rmtree(source)
    with pytest.raises(CheckpointError, match=r"16 unknown \(`encoder.layer.1"):
        convert(copy_with(tmp_path, num_hidden_layers=1), tmp_path / "out", "tf")


def test_refuses_a_source_without_config(tmp_path):
    shutil.copyfile(GOLDEN / "model" / "model.safetensors", tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match=r"holds no config\.json"):
        convert(tmp_path / "x.safetensors", tmp_path / "out", "tf")


def test_refuses_a_broken_config(tmp_path):
    source = copy_with(tmp_path)
    (source / "config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"config\.json"):
        convert(source, tmp_path / "out", "tf")


def test_refuses_an_existing_target(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="exists"):
        convert(GOLDEN / "model", tmp_path, "tf")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_refuses_an_unknown_target_format(tmp_path):
    with pytest.raises(InputError, match="`to` must be one of"):
        convert(GOLDEN / "model", tmp_path / "out", "onnx")


def test_a_directory_is_read_in_the_order_of_formats(tmp_path):
    for file in ("config.json", "model.safetensors", "tf_model.h5"):
        shutil.copyfile(GOLDEN / "model" / file, tmp_path / file)
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.format == "safetensors"
    (tmp_path / "model.safetensors").unlink()
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.format == "h5"
    with pytest.raises(CheckpointError, match="of format safetensors"):
        open_checkpoint(tmp_path, format="safetensors")


def test_old_buffers_are_left_out(tmp_path):
    from safetensors.numpy import load_file, save_file

    source = copy_with(tmp_path)
    tensors = load_file(source / "model.safetensors")
    tensors["embeddings.position_ids"] = np.arange(40)[None]
    save_file(tensors, source / "model.safetensors")
    done = convert(source, tmp_path / "out", "pt")
    assert done.left_out == ["embeddings.position_ids"]
    assert weights(tmp_path / "out") == weights(GOLDEN / "model")
