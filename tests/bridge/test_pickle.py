"""The pickle reader and writer against torch and transformers' own files."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from rembert.bridge import TensorSource, convert, open_checkpoint, save_pickle
from rembert.bridge.formats.pickle import _StorageClaims
from rembert.common.errors import CheckpointError
from tests.bridge.support import GOLDEN, source, sources

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("name", ["model", "masked_lm"])
def test_files_of_transformers_are_read(name: str) -> None:
    expected = safetensors.numpy.load_file(GOLDEN / name / "model.safetensors")
    with open_checkpoint(GOLDEN / name / "bin") as checkpoint:
        assert checkpoint.format == "pickle"
        assert set(checkpoint.tensors) == set(expected)
        for tensor, values in expected.items():
            np.testing.assert_array_equal(checkpoint.read(tensor), values, strict=True)


@pytest.mark.parametrize("name", ["model", "masked_lm"])
def test_a_round_trip_preserves_every_bit(tmp_path: Path, name: str) -> None:
    convert(GOLDEN / name / "tf_model.h5", tmp_path / "bin", "torch-bin")
    convert(tmp_path / "bin", tmp_path / "pt", "pt")
    expected = (GOLDEN / name / "model.safetensors").read_bytes()
    assert (tmp_path / "pt" / "model.safetensors").read_bytes() == expected
    loaded = torch.load(tmp_path / "bin" / "pytorch_model.bin", weights_only=True)
    for tensor, values in safetensors.numpy.load_file(GOLDEN / name / "model.safetensors").items():
        assert loaded[tensor].is_contiguous()
        np.testing.assert_array_equal(loaded[tensor].numpy(), values)


def test_every_dtype_and_order_is_kept(tmp_path: Path) -> None:
    values = np.arange(12).reshape(3, 4)
    tensors = {
        "plain": source(values.astype(np.float32)),
        "half": source(values.astype(np.float16)),
        "brain": source(values.astype(ml_dtypes.bfloat16)),
        "transposed": TensorSource((4, 3), np.dtype(np.float32), lambda: values.astype(np.float32).T),
        "narrowed": TensorSource((3, 4), np.dtype(ml_dtypes.bfloat16), lambda: values.astype(np.float32)),
    }
    save_pickle(tmp_path, tensors)
    with open_checkpoint(tmp_path) as checkpoint:
        for name, tensor in tensors.items():
            assert checkpoint.tensors[name].dtype == tensor.dtype
            np.testing.assert_array_equal(checkpoint.read(name), tensor.read().astype(tensor.dtype), strict=True)
    loaded = torch.load(tmp_path / "pytorch_model.bin", weights_only=True)
    assert loaded["brain"].dtype == loaded["narrowed"].dtype == torch.bfloat16


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    tensors = sources(a=np.ones((5, 7), np.float32), b=np.zeros(3, np.float16))
    first, second = (save_pickle(tmp_path / name, tensors)[0].read_bytes() for name in "ab")
    assert first == second


def test_shards(tmp_path: Path) -> None:
    tensors = sources(a=np.ones(10, np.float32), b=np.zeros(10, np.float32))
    files = [path.name for path in save_pickle(tmp_path, tensors, max_shard_size=40)]
    assert files == [
        "pytorch_model-00001-of-00002.bin",
        "pytorch_model-00002-of-00002.bin",
        "pytorch_model.bin.index.json",
    ]
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.read("a").tolist() == [1] * 10
        assert checkpoint.read("b").tolist() == [0] * 10


class _Harmful:
    """Unpickling this makes a directory."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


def test_nothing_in_a_pickle_is_executed(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2), "b": _Harmful(tmp_path / "harm")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(
        CheckpointError, match=r"pytorch_model\.bin: .* nothing else in one is executed: it refers to `\w+\.mkdir`"
    ):
        open_checkpoint(tmp_path)
    assert not (tmp_path / "harm").exists()


def test_an_old_bare_pickle_is_not_even_opened(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(_Harmful(tmp_path / "harm")))
    with pytest.raises(CheckpointError, match="not a ZIP archive"):
        open_checkpoint(tmp_path)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([torch.ones(2)], "tensors by name. Received: list"),
        ({"a": 3}, "Received: int under 'a'"),
        ({"a": {"b": torch.ones(2)}}, "Received: dict under 'a'"),
        ({3: torch.ones(2)}, "tensors by name"),
        ({"a": torch.ones(1).expand(1000)}, "`a` claims more values"),
        ({"a": torch.eye(3).to_sparse()}, "`a` must hold plain values"),
    ],
)
def test_other_objects_than_tensors_are_refused(tmp_path: Path, content: Any, reason: str) -> None:
    torch.save(content, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=reason):
        open_checkpoint(tmp_path)


def test_a_changed_value_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    content = bytearray((GOLDEN / "model" / "bin" / "pytorch_model.bin").read_bytes())
    values = safetensors.numpy.load_file(GOLDEN / "model" / "model.safetensors")
    place = content.index(values["embeddings.word_embeddings.weight"].tobytes()) + 1000
    content[place] ^= 1
    path.write_bytes(content)
    with open_checkpoint(path) as checkpoint, pytest.raises(CheckpointError, match="checksum"):
        checkpoint.read("embeddings.word_embeddings.weight")


def test_compressed_members_are_refused(tmp_path: Path) -> None:
    with (
        zipfile.ZipFile(GOLDEN / "model" / "bin" / "pytorch_model.bin") as original,
        zipfile.ZipFile(tmp_path / "pytorch_model.bin", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for member in original.namelist():
            packed.writestr(member, original.read(member))
    with pytest.raises(CheckpointError, match="compressed"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("size", [0, 100, 50_000, 105_000])
def test_a_truncated_file_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes((GOLDEN / "model" / "bin" / "pytorch_model.bin").read_bytes()[:size])
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin"):
        open_checkpoint(path)


def _shorten_member(path: Path, name: str, size: int) -> None:
    """Store a member of an archive again with its first `size` bytes only, and a checksum that fits them."""
    with zipfile.ZipFile(path) as original:
        content = {member: original.read(member) for member in original.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in content.items():
            archive.writestr(member, data[:size] if member.endswith(name) else data)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool], ids=str)
def test_a_storage_longer_than_its_member_is_refused(tmp_path: Path, dtype: Any) -> None:
    """torch maps such a file and takes the bytes of the next member's header for values."""
    path = tmp_path / "pytorch_model.bin"
    first, second = torch.zeros(64, dtype=dtype), torch.ones(64, dtype=dtype)
    torch.save({"first": first, "second": second}, path)
    assert open_checkpoint(path).tensors["second"].shape == (64,)
    _shorten_member(path, "data/0", 16)
    assert torch.load(path, weights_only=True, mmap=True)["first"].shape == (64,)
    size = 64 * dtype.itemsize
    with pytest.raises(CheckpointError, match=rf"storage `0` must take {size} bytes\. Received: 16 bytes"):
        open_checkpoint(path)


def test_a_byte_array_is_not_allocated() -> None:
    """A damaged one may claim any number of bytes; torch refuses such a pickle before it is read here."""
    with pytest.raises(KeyError):
        _StorageClaims(io.BytesIO(b"\x80\x05\x96" + (2**45).to_bytes(8, "little") + b".")).load()
