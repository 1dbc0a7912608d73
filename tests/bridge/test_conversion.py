"""Conversion between formats, against the same weights as other software wrote them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rembert.bridge import convert, inspect, open_checkpoint
from rembert.common.errors import CheckpointError, ConfigError, InputError
from rembert.common.name_matching import canonical_name
from tests.bridge.support import GOLDEN, MODELS
from tests.frameworks import WRITABLE, needs_pt


def weights(directory: Path) -> bytes:
    return (directory / "model.safetensors").read_bytes()


@pytest.mark.parametrize("name", MODELS)
def test_a_round_trip_preserves_every_bit(tmp_path: Path, name: str) -> None:
    convert(GOLDEN / name, tmp_path / "tf", "tf")
    convert(tmp_path / "tf", tmp_path / "pt", "pt")
    assert weights(tmp_path / "pt") == weights(GOLDEN / name)
    assert json.loads((tmp_path / "pt" / "config.json").read_text()) == json.loads(
        (GOLDEN / name / "config.json").read_text()
    )


@pytest.mark.parametrize("name", MODELS)
def test_transformers_h5_becomes_transformers_safetensors(tmp_path: Path, name: str) -> None:
    done = convert(GOLDEN / name / "tf_model.h5", tmp_path / "pt", "pt")
    assert done.source_format == "h5"
    assert weights(tmp_path / "pt") == weights(GOLDEN / name)


def test_the_report_describes_the_conversion(tmp_path: Path) -> None:
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


def test_tokenizer_files_are_copied(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(GOLDEN / "model", source)
    (source / "sentencepiece.model").write_bytes(b"tokens")
    (source / "tokenizer.json").write_text("{}")
    (source / "notes.txt").write_text("mine")
    done = convert(source, tmp_path / "tf", "tf")
    assert (tmp_path / "tf" / "sentencepiece.model").read_bytes() == b"tokens"
    assert (tmp_path / "tf" / "tokenizer.json").read_text() == "{}"
    assert not (tmp_path / "tf" / "notes.txt").exists()
    assert set(done.files) == {"tf_model.h5", "config.json", "sentencepiece.model", "tokenizer.json"}


def copy_with(tmp_path: Path, name: str = "model", **changes: Any) -> Path:
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
def test_a_head_is_recognised_without_architectures(tmp_path: Path, name: str, head: str) -> None:
    found = inspect(copy_with(tmp_path, name, architectures=None))
    assert found.head == head
    assert found.fits


def test_a_source_that_does_not_fit_its_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"shape \[160, 20\], the config has \[161, 20\]"):
        convert(copy_with(tmp_path, vocab_size=161), tmp_path / "out", "tf")
    assert not (tmp_path / "out").exists()


def test_missing_and_unknown_layers_are_refused(tmp_path: Path) -> None:
    source = copy_with(tmp_path, num_hidden_layers=3)
    with pytest.raises(CheckpointError, match=r"16 missing \(`rembert.encoder.layer.2"):
        convert(source, tmp_path / "out", "tf")
    shutil.rmtree(source)
    with pytest.raises(CheckpointError, match=r"16 unknown \(`encoder.layer.1"):
        convert(copy_with(tmp_path, num_hidden_layers=1), tmp_path / "out", "tf")


def test_a_source_without_configuration_is_refused(tmp_path: Path) -> None:
    shutil.copyfile(GOLDEN / "model" / "model.safetensors", tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match=r"holds no config\.json"):
        convert(tmp_path / "x.safetensors", tmp_path / "out", "tf")


def test_a_damaged_configuration_is_refused(tmp_path: Path) -> None:
    source = copy_with(tmp_path)
    (source / "config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"config\.json"):
        convert(source, tmp_path / "out", "tf")


def test_an_existing_target_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="exists"):
        convert(GOLDEN / "model", tmp_path, "tf")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_unknown_target_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="`to` must be one of"):
        convert(GOLDEN / "model", tmp_path / "out", "onnx")


def test_a_directory_is_read_in_the_order_of_formats(tmp_path: Path) -> None:
    for file in ("config.json", "model.safetensors", "tf_model.h5"):
        shutil.copyfile(GOLDEN / "model" / file, tmp_path / file)
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.format == "safetensors"
    (tmp_path / "model.safetensors").unlink()
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.format == "h5"
    with pytest.raises(CheckpointError, match="of format safetensors"):
        open_checkpoint(tmp_path, format="safetensors")


def test_old_buffers_are_left_out(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    source = copy_with(tmp_path)
    tensors = load_file(source / "model.safetensors")
    tensors["embeddings.position_ids"] = np.arange(40)[None]
    save_file(tensors, source / "model.safetensors")
    done = convert(source, tmp_path / "out", "pt")
    assert done.left_out == ["embeddings.position_ids"]
    assert weights(tmp_path / "out") == weights(GOLDEN / "model")


# ---------------------------------------------------------------------- options


@needs_pt
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_a_dtype_is_what_torch_makes_of_it(tmp_path: Path, dtype: str) -> None:
    import torch
    from safetensors.torch import load_file

    convert(GOLDEN / "model", tmp_path / "out", "pt", dtype=dtype)
    written = load_file(tmp_path / "out" / "model.safetensors")
    for name, values in load_file(GOLDEN / "model" / "model.safetensors").items():
        assert torch.equal(written[name], values.to(getattr(torch, dtype))), name
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == dtype


@pytest.mark.parametrize("to", ["tf", "keras"])
def test_half_precision_survives_hdf5(tmp_path: Path, to: str) -> None:
    convert(GOLDEN / "model", tmp_path / "half", "pt", dtype="float16")
    convert(tmp_path / "half", tmp_path / to, to)
    convert(tmp_path / to, tmp_path / "back", "pt")
    assert weights(tmp_path / "back") == weights(tmp_path / "half")


@pytest.mark.parametrize("to", ["pt", "tf", pytest.param("torch-bin", marks=needs_pt)])
def test_shards_convert_back_to_one_file(tmp_path: Path, to: str) -> None:
    done = convert(GOLDEN / "masked_lm", tmp_path / "shards", to, max_shard_size="40KB")
    assert sum("-of-" in file for file in done.files) >= 3
    assert any(file.endswith(".index.json") for file in done.files)
    convert(tmp_path / "shards", tmp_path / "one", "pt")
    assert weights(tmp_path / "one") == weights(GOLDEN / "masked_lm")


_REPRESENTATIVE = ("causal_lm_cross", "sequence_classification")  # the other eight take longer and add little


@pytest.mark.parametrize(
    "name", [name if name in _REPRESENTATIVE else pytest.param(name, marks=pytest.mark.slow) for name in MODELS]
)
def test_every_path_between_formats_is_bit_exact(tmp_path: Path, name: str) -> None:
    """Each format into each other, so that none relies on coming from safetensors."""
    with open_checkpoint(GOLDEN / name) as golden:
        expected = {canonical_name(tensor): golden.read(tensor) for tensor in golden.tensors}
    for first in WRITABLE:
        convert(GOLDEN / name, tmp_path / first, first)
        for second in WRITABLE:
            convert(tmp_path / first, tmp_path / f"{first}-{second}", second)
            with open_checkpoint(tmp_path / f"{first}-{second}") as written:
                found = {canonical_name(tensor): written.read(tensor) for tensor in written.tensors}
            assert found.keys() == expected.keys()
            for tensor, values in expected.items():
                np.testing.assert_array_equal(found[tensor], values, strict=True, err_msg=f"{first} {second}")


def test_the_encoder_alone(tmp_path: Path) -> None:
    done = convert(GOLDEN / "sequence_classification", tmp_path / "out", "pt", head="model")
    assert done.head == "model"
    assert done.fresh == []
    assert sorted(done.dropped) == ["classifier.bias", "classifier.weight"]
    found = inspect(tmp_path / "out")
    assert found.fits
    assert "embeddings.word_embeddings.weight" in found.tensors
    with (
        open_checkpoint(tmp_path / "out") as ours,
        open_checkpoint(GOLDEN / "sequence_classification") as theirs,
    ):
        for name in ours.tensors:
            np.testing.assert_array_equal(ours.read(name), theirs.read(f"rembert.{name}"))


def test_a_new_head_is_initialised(tmp_path: Path) -> None:
    done = convert(GOLDEN / "masked_lm", tmp_path / "out", "pt", head="sequence-classification")
    assert inspect(tmp_path / "out").fits
    assert sorted(done.fresh) == [
        *("classifier.bias", "classifier.weight"),
        *("rembert.pooler.dense.bias", "rembert.pooler.dense.weight"),
    ]
    assert len(done.dropped) == 6
    assert json.loads((tmp_path / "out" / "config.json").read_text())["architectures"] == [
        "RemBertForSequenceClassification"
    ]
    with open_checkpoint(tmp_path / "out") as checkpoint:
        kernel = checkpoint.read("rembert.pooler.dense.weight")
        deviation = checkpoint.config.initializer_range
        assert not checkpoint.read("classifier.bias").any()
        # Five standard errors of a deviation, and of a mean, from this many numbers.
        assert abs(kernel.std() / deviation - 1) < 5 / np.sqrt(2 * kernel.size)
        assert abs(kernel.mean()) < 5 * deviation / np.sqrt(kernel.size)
    convert(GOLDEN / "masked_lm", tmp_path / "again", "pt", head="sequence-classification")
    assert weights(tmp_path / "again") == weights(tmp_path / "out")


def test_question_answering_gets_two_labels(tmp_path: Path) -> None:
    with open_checkpoint(GOLDEN / "token_classification") as checkpoint:
        assert checkpoint.config.num_labels != 2
    convert(GOLDEN / "token_classification", tmp_path / "out", "pt", head="question-answering")
    assert inspect(tmp_path / "out").fits
    with open_checkpoint(tmp_path / "out") as checkpoint:
        assert checkpoint.config.num_labels == 2


def test_a_classifier_is_not_taken_for_another(tmp_path: Path) -> None:
    done = convert(GOLDEN / "token_classification", tmp_path / "out", "pt", head="sequence-classification")
    assert "classifier.weight" in done.fresh


def test_a_language_model_keeps_its_head_as_a_decoder(tmp_path: Path) -> None:
    done = convert(GOLDEN / "masked_lm", tmp_path / "out", "pt", head="causal-lm")
    assert done.fresh == done.dropped == []
    assert json.loads((tmp_path / "out" / "config.json").read_text())["is_decoder"] is True


def test_an_unknown_head_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="`head` must be one of"):
        convert(GOLDEN / "model", tmp_path / "out", "pt", head="next-sentence")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite(tmp_path: Path, value: float) -> None:
    from safetensors.numpy import load_file, save_file

    source = copy_with(tmp_path)
    tensors = load_file(source / "model.safetensors")
    tensors["pooler.dense.weight"][3, 4] = value
    save_file(tensors, source / "model.safetensors", {"format": "pt"})
    for to in WRITABLE:
        with pytest.raises(CheckpointError, match=r"pooler\.dense\.weight.*NaN or infinite"):
            convert(source, tmp_path / to, to)
        assert not (tmp_path / to).exists()
        done = convert(source, tmp_path / to, to, allow_nonfinite=True)
        assert done.nonfinite == ["rembert.pooler.dense.weight"]
        convert(tmp_path / to, tmp_path / f"{to}-back", "pt", allow_nonfinite=True)
        assert weights(tmp_path / f"{to}-back") == weights(source)


def test_a_dtype_too_narrow_for_a_value_is_refused(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    source = copy_with(tmp_path)
    tensors = load_file(source / "model.safetensors")
    tensors["pooler.dense.weight"][0, 0] = 1e5
    save_file(tensors, source / "model.safetensors")
    with pytest.raises(CheckpointError, match="infinite as float16"):
        convert(source, tmp_path / "out", "pt", dtype="float16")
    convert(source, tmp_path / "out", "pt", dtype="bfloat16")


def test_force_replaces_a_checkpoint_and_nothing_else(tmp_path: Path) -> None:
    convert(GOLDEN / "model", tmp_path / "out", "tf")
    convert(GOLDEN / "masked_lm", tmp_path / "out", "pt", force=True)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["config.json", "model.safetensors"]
    assert weights(tmp_path / "out") == weights(GOLDEN / "masked_lm")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("kept")
    with pytest.raises(InputError, match="is not a checkpoint"):
        convert(GOLDEN / "model", mine, "pt", force=True)
    assert (mine / "thesis.txt").read_text() == "kept"
    with pytest.raises(InputError, match="which is a file"):
        convert(GOLDEN / "model", mine / "thesis.txt", "pt", force=True)


def test_the_source_is_never_replaced(tmp_path: Path) -> None:
    source = copy_with(tmp_path)
    for target in (source, source / "model.safetensors", tmp_path):
        with pytest.raises(InputError):
            convert(source, target, "tf", force=True)
    assert weights(source) == weights(GOLDEN / "model")


def test_writing_is_the_same_on_every_run(tmp_path: Path) -> None:
    for to in WRITABLE:
        files = []
        for run in "ab":
            convert(GOLDEN / "masked_lm", tmp_path / run / to, to)
            files.append({path.name: path.read_bytes() for path in (tmp_path / run / to).iterdir()})
        assert files[0] == files[1], to


def test_an_index_is_not_trusted(tmp_path: Path) -> None:
    convert(GOLDEN / "model", tmp_path / "good", "pt", max_shard_size="40KB")
    index = tmp_path / "good" / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    shards = sorted(set(content["weight_map"].values()))

    def refused(change: dict[str, Any] | str, reason: str) -> None:
        index.write_text(change if isinstance(change, str) else json.dumps(change))
        with pytest.raises(CheckpointError, match=reason):
            open_checkpoint(tmp_path / "good")

    def renamed(name: str) -> dict[str, Any]:
        return {"weight_map": dict.fromkeys(content["weight_map"], name)}

    shutil.copyfile(tmp_path / "good" / shards[0], tmp_path / shards[0])
    for name in (f"../{shards[0]}", str(tmp_path / shards[0]), "..", "", "a\0b", f".\\{shards[0]}"):
        refused(renamed(name), "must be a file beside the index")
    refused(renamed("missing.safetensors"), "`missing.safetensors` is missing")
    refused({}, "`weight_map` must map")
    refused({"weight_map": []}, "`weight_map` must map")
    refused({"weight_map": {"a": 3}}, "`weight_map` must map")
    refused("{", "not JSON")
    refused("[" * 100_000, "not JSON")
    refused('{"weight_map": {"a": "x", "a": "y"}}', "`a` occurs twice")
    swapped = {key: shards[0] if name == shards[1] else name for key, name in content["weight_map"].items()}
    refused({"weight_map": swapped}, "lacks tensor")
    without = dict(list(content["weight_map"].items())[1:])
    refused({"weight_map": without}, "does not place tensor")
    index.write_text(json.dumps(content))
    (tmp_path / "good" / shards[0]).unlink()
    (tmp_path / "good" / shards[0]).symlink_to(tmp_path / shards[0])
    with pytest.raises(CheckpointError, match="link that leads out"):
        open_checkpoint(tmp_path / "good")


def test_a_download_cache_of_links_is_read(tmp_path: Path) -> None:
    """As huggingface_hub lays it out: every name a link into one folder of blobs."""
    convert(GOLDEN / "model", tmp_path / "blobs", "pt", max_shard_size="40KB")
    snapshot = tmp_path / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    for path in (tmp_path / "blobs").iterdir():
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    assert inspect(snapshot).fits
