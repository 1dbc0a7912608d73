"""The H5 reader and writer against transformers' own files and h5py."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import safetensors.numpy

from rembert.bridge import open_checkpoint, save_h5
from rembert.common.errors import CheckpointError
from rembert.common.name_matching import canonical_name
from tests.bridge.support import GOLDEN, MODELS, source


def datasets(path: Path) -> dict[str, np.ndarray]:
    """Every dataset of an H5 file: values by path."""
    found = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: item[()]} if isinstance(item, h5py.Dataset) else {}))
    return found


def save_golden(name: str, directory: Path, **options: Any) -> list[Path]:
    """Write a golden's safetensors as H5."""
    with open_checkpoint(GOLDEN / name) as checkpoint:
        tensors = {canonical_name(tensor): source(checkpoint.read(tensor)) for tensor in checkpoint.tensors}
        head = name.split("_")[0] if name == "model" else HEADS[name]
        return save_h5(directory, tensors, checkpoint.config, head, **options)


HEADS = {name: name.replace("_", "-") for name in MODELS}
HEADS.update(
    causal_lm_cross="causal-lm",
    sequence_multilabel="sequence-classification",
    sequence_regression="sequence-classification",
)


@pytest.mark.parametrize("name", MODELS)
def test_files_of_transformers_are_read(name: str) -> None:
    expected = safetensors.numpy.load_file(GOLDEN / name / "model.safetensors")
    with open_checkpoint(GOLDEN / name, format="h5") as checkpoint:
        assert checkpoint.format == "h5"
        assert set(checkpoint.tensors) == {canonical_name(tensor) for tensor in expected}
        for tensor, values in expected.items():
            assert checkpoint.tensors[canonical_name(tensor)].shape == values.shape
            np.testing.assert_array_equal(checkpoint.read(canonical_name(tensor)), values, strict=True)


@pytest.mark.parametrize("name", MODELS)
def test_files_have_the_layout_of_transformers(tmp_path: Path, name: str) -> None:
    """Datasets and values as transformers wrote them, instance numbers apart, and what its loader uses."""
    save_golden(name, tmp_path)
    ours, theirs = datasets(tmp_path / "tf_model.h5"), datasets(GOLDEN / name / "tf_model.h5")
    plain = {re.sub(r"(tf_rem_bert_[a-z_]+)_\d/", r"\1/", path): values for path, values in theirs.items()}
    assert ours.keys() == plain.keys()
    for path, values in plain.items():
        np.testing.assert_array_equal(ours[path], values, strict=True)
    with h5py.File(tmp_path / "tf_model.h5") as file, h5py.File(GOLDEN / name / "tf_model.h5") as golden:
        assert file.attrs["backend"] == golden.attrs["backend"]
        assert file.attrs["keras_version"] == golden.attrs["keras_version"]
        layers = [layer for layer in golden.attrs["layer_names"] if "dropout" not in layer]
        assert list(file.attrs["layer_names"]) == layers
        for layer in layers:
            listed = list(file[layer].attrs["weight_names"])
            assert {weight.split("/", 1)[1] for weight in listed} == {
                weight.split("/", 1)[1] for weight in golden[layer].attrs["weight_names"]
            }
            assert all(weight in file[layer] for weight in listed)
        assert len(file["top_level_model_weights"].attrs["weight_names"]) == 0


def test_values_are_mapped() -> None:
    with open_checkpoint(GOLDEN / "model", format="h5") as checkpoint:
        values = checkpoint.read("rembert.embeddings.word_embeddings.weight")
        assert not values.flags.owndata
        assert values.flags.writeable


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    first, second = (save_golden("masked_lm", tmp_path / name)[0].read_bytes() for name in "ab")
    assert first == second


def test_shards_have_the_flat_layout_and_an_index(tmp_path: Path) -> None:
    files = save_golden("masked_lm", tmp_path, max_shard_size="50KB")
    assert [file.name for file in files] == [
        *(f"tf_model-0000{n}-of-00003.h5" for n in (1, 2, 3)),
        "tf_model.h5.index.json",
    ]
    with h5py.File(files[0]) as file:
        assert "rembert/embeddings/word_embeddings/weight:0" in file
        assert "rembert/embeddings/word_embeddings/weight:0" in list(file.attrs["layer_names"])
    expected = safetensors.numpy.load_file(GOLDEN / "masked_lm" / "model.safetensors")
    (tmp_path / "config.json").write_bytes((GOLDEN / "masked_lm" / "config.json").read_bytes())
    with open_checkpoint(tmp_path) as checkpoint:
        assert set(checkpoint.tensors) == set(expected)
        for tensor, values in expected.items():
            np.testing.assert_array_equal(checkpoint.read(tensor), values, strict=True)


def test_chunked_and_big_endian_datasets_are_read(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("m/classifier/kernel:0", data=values, chunks=(2, 2), compression="gzip")
        file.create_dataset("m/qa_outputs/kernel:0", data=values.astype(">f4"))
    with open_checkpoint(tmp_path / "x.h5") as checkpoint:
        for name in ("classifier.weight", "qa_outputs.weight"):
            np.testing.assert_array_equal(checkpoint.read(name), values.T, strict=True)


def _brain_float() -> h5py.h5t.TypeID:
    """bfloat16 in two bytes: the upper half of a float32."""
    kind = h5py.h5t.IEEE_F32LE.copy()
    kind.set_fields(15, 7, 8, 0, 7)
    kind.set_size(2)
    return kind


def _wide_float() -> h5py.h5t.TypeID:
    """A float32 in the lower half of eight bytes."""
    kind = h5py.h5t.IEEE_F32LE.copy()
    kind.set_size(8)
    kind.set_precision(32)
    return kind


def _other_bias() -> h5py.h5t.TypeID:
    """A float32 whose exponent has another bias."""
    kind = h5py.h5t.IEEE_F32LE.copy()
    kind.set_ebias(100)
    return kind


@pytest.mark.parametrize("make_type", [_brain_float, _wide_float, _other_bias])
def test_number_formats_that_numpy_lacks_are_converted(
    tmp_path: Path, make_type: Callable[[], h5py.h5t.TypeID]
) -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        group = file.create_group("m/qa_outputs")
        dataset = h5py.h5d.create(group.id, b"kernel:0", make_type(), h5py.h5s.create_simple(values.shape))
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, values)
    with open_checkpoint(tmp_path / "x.h5") as checkpoint:
        found = checkpoint.read("qa_outputs.weight")
        assert found.dtype == checkpoint.tensors["qa_outputs.weight"].dtype
        np.testing.assert_array_equal(found, values.T)


def test_an_instance_may_be_called_anything(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["classifier/rembert/classifier/kernel:0"] = np.zeros((2, 3), np.float32)
        file["rembert/my_classifier_2/rembert/encoder/layer_._11/output/LayerNorm/gamma:0"] = np.zeros(3, np.float32)
        file["something/else"] = np.zeros(3, np.float32)
    with open_checkpoint(tmp_path / "x.h5") as checkpoint:
        assert {name: info.shape for name, info in checkpoint.tensors.items()} == {
            "classifier.weight": (3, 2),
            "rembert.encoder.layer.11.output.LayerNorm.weight": (3,),
            "something/else": (3,),
        }


def _external_link(file: h5py.File) -> None:
    file["classifier"] = h5py.ExternalLink("other.h5", "/x")


def _soft_link(file: h5py.File) -> None:
    file["classifier"] = h5py.SoftLink("/elsewhere")


def _circle(file: h5py.File) -> None:
    file["a/b"] = file.create_group("c")
    file["c/d"] = file["a"]


def _external_storage(file: h5py.File) -> None:
    file.create_dataset("classifier/bias:0", (4,), "f4", external="other.bin")


def _virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "x", (4,))
    file.create_virtual_dataset("classifier/bias:0", layout)


def _text(file: h5py.File) -> None:
    file["classifier/bias:0"] = "text"


def _never_written(file: h5py.File) -> None:
    file.create_dataset("classifier/bias:0", (4,), "f4")


def _bomb(file: h5py.File) -> None:
    file.create_dataset("classifier/bias:0", (2**40,), "f4", chunks=(2**20,), compression="gzip")


def _chunk_bomb(file: h5py.File) -> None:
    """Values of 12,800 bytes in chunks of which libhdf5 unpacks a gigabyte at once."""
    shape, chunks = (160, 20), (2**13, 2**15)
    dataset = file.create_dataset("kernel:0", shape, "f4", maxshape=(None, None), chunks=chunks, compression="gzip")
    dataset.id.write_direct_chunk((0, 0), bytes(1000))


def _two_spellings(file: h5py.File) -> None:
    file["a/classifier/bias:0"] = np.zeros(2, np.float32)
    file["b/classifier/bias:0"] = np.zeros(2, np.float32)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_external_link, "link to another object"),
        (_soft_link, "link to another object"),
        (_circle, "has two paths"),
        (_external_storage, "other files"),
        (_virtual, "other files"),
        (_text, "numbers"),
        (_never_written, "no values"),
        (_bomb, "claims"),
        (_chunk_bomb, "claims chunks of 1073741824 bytes"),
        (_two_spellings, "is stored twice"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, make: Callable[..., Any], reason: str) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        make(file)
    with pytest.raises(CheckpointError, match=reason) as error:
        open_checkpoint(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("size", [0, 10, 2000, 100_000, 150_000])
def test_a_truncated_file_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "tf_model.h5"
    path.write_bytes((GOLDEN / "model" / "tf_model.h5").read_bytes()[:size])
    with pytest.raises(CheckpointError, match=r"tf_model\.h5"):
        open_checkpoint(path)


def test_bfloat16_is_refused(tmp_path: Path) -> None:
    import ml_dtypes

    from rembert import RemBertConfig

    tensors = {"classifier.bias": source(np.zeros(2, ml_dtypes.bfloat16))}
    with pytest.raises(CheckpointError, match=r"classifier\.bias.*bfloat16"):
        save_h5(tmp_path, tensors, RemBertConfig(), "sequence-classification")
    assert not list(tmp_path.iterdir())
