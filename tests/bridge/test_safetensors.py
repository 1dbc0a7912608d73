"""The safetensors reader and writer against the safetensors package and transformers' files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from rembert.bridge import TensorSource, open_checkpoint, save_safetensors
from rembert.common.errors import CheckpointError, InputError
from tests.bridge.support import GOLDEN, MODELS, raw_safetensors, source, sources
from tests.frameworks import needs_pt


@pytest.mark.parametrize("name", MODELS)
def test_files_of_the_package_are_read(name: str) -> None:
    path = GOLDEN / name / "model.safetensors"
    expected = safetensors.numpy.load_file(path)
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.format == "safetensors"
        assert checkpoint.config is not None
        assert set(checkpoint.tensors) == set(expected)
        for tensor, values in expected.items():
            assert checkpoint.tensors[tensor].shape == values.shape
            np.testing.assert_array_equal(checkpoint.read(tensor), values, strict=True)


@needs_pt
def test_every_dtype_reads_and_writes_as_the_package_does(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    dtypes = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16]
    dtypes += [torch.int8, torch.uint8, torch.bool]
    written = {f"t{n}": (torch.arange(n + 3) % 2).to(dtype) for n, dtype in enumerate(dtypes)}
    save_file(written, tmp_path / "model.safetensors")
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.tensors["t3"].dtype == ml_dtypes.bfloat16
        again = {name: source(checkpoint.read(name)) for name in checkpoint.tensors}
        save_safetensors(tmp_path / "again", again)
    loaded = load_file(tmp_path / "again" / "model.safetensors")
    assert loaded.keys() == written.keys()
    for name, tensor in written.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor)


def test_values_are_a_private_view_of_the_file(tmp_path: Path) -> None:
    safetensors.numpy.save_file({"a": np.ones((4, 8), np.float32)}, tmp_path / "model.safetensors")
    with open_checkpoint(tmp_path) as checkpoint:
        first = checkpoint.read("a")
        assert not first.flags.owndata
        assert first.flags.writeable
        first[0, 0] = 5  # a user may train on it
        assert checkpoint.read("a")[0, 0] == 5, "two reads are one map"
    assert safetensors.numpy.load_file(tmp_path / "model.safetensors")["a"][0, 0] == 1, "the file never changes"
    assert first[0, 0] == 5, "closing leaves what was read"
    with pytest.raises(CheckpointError, match="closed"):
        checkpoint.read("a")


def test_misaligned_values_are_copied(tmp_path: Path) -> None:
    header = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    path = raw_safetensors(tmp_path / "x.safetensors", header, np.float32([1, 2]).tobytes())
    assert (8 + len(str(header))) % 4, "this test needs a header of odd length"
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.read("a").flags.aligned
        assert checkpoint.read("a").tolist() == [1, 2]


def test_scalars_and_empty_tensors(tmp_path: Path) -> None:
    save_safetensors(tmp_path, sources(scalar=np.array(3.5, np.float32), empty=np.zeros((0, 4), np.float32)))
    loaded = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    assert loaded["scalar"] == 3.5
    assert loaded["empty"].shape == (0, 4)
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.read("scalar").shape == ()
        assert checkpoint.read("empty").shape == (0, 4)


def test_a_source_may_be_transposed_and_of_another_dtype(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((300, 257)).astype(np.float32)
    tensor = TensorSource((257, 300), np.dtype(np.float16), lambda: values.T)
    save_safetensors(tmp_path, {"a": tensor})
    loaded = safetensors.numpy.load_file(tmp_path / "model.safetensors")["a"]
    np.testing.assert_array_equal(loaded, values.T.astype(np.float16), strict=True)


def test_metadata_is_what_transformers_requires(tmp_path: Path) -> None:
    save_safetensors(tmp_path, sources(a=np.zeros(2, np.float32)))
    with safetensors.safe_open(tmp_path / "model.safetensors", "np") as file:
        assert file.metadata() == {"format": "pt"}


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("header", "values", "reason"),
    [
        ({"a": ENTRY}, 7, "not fully covered"),
        ({"a": ENTRY}, 9, "not fully covered"),
        ({"a": ENTRY, "b": {**ENTRY, "data_offsets": [4, 12]}}, 12, "invalid offset for tensor `b`"),
        ({"a": ENTRY, "b": {**ENTRY, "data_offsets": [12, 20]}}, 20, "invalid offset for tensor `b`"),
        ({"a": {**ENTRY, "shape": [3]}}, 8, "invalid shape"),
        ({"a": {**ENTRY, "shape": [-2]}}, 8, "integer `-2`"),
        ({"a": {**ENTRY, "shape": [True, 2]}}, 8, "boolean `true`"),
        ({"a": {**ENTRY, "shape": [2**62, 2**62]}}, 8, "overflow"),
        ({"a": {**ENTRY, "shape": [2, *[1] * 8]}}, 8, "tensor `a` must have at most 8 dimensions"),
        (
            {"a": {**ENTRY, "shape": [0, 2**62], "data_offsets": [0, 0]}},
            0,
            "tensor `a` must have at most 8 dimensions",
        ),
        ({"a": {**ENTRY, "data_offsets": [8, 0]}}, 8, "invalid offset|invalid shape"),
        ({"a": {**ENTRY, "data_offsets": [0]}}, 8, "invalid JSON"),
        ({"a": {**ENTRY, "dtype": "F33"}}, 8, "unknown variant `F33`"),
        (
            {"a": {**ENTRY, "dtype": "C64", "shape": [1]}},
            8,
            "one of the dtypes .* Received: C64|unknown variant `C64`",
        ),
        ({"a": {**ENTRY, "dtype": ["F32"]}}, 8, "invalid JSON"),
        ({"a": {"dtype": "F32", "shape": [2]}}, 8, "missing field `data_offsets`"),
        ({"a": 3}, 0, "invalid JSON"),
        ([], 0, "invalid JSON"),
        ({"__metadata__": {"a": 3}}, 0, "invalid JSON"),
        (b"{", 0, "invalid JSON"),
        (b'{"\xff": 1}', 0, "invalid UTF-8"),
        (b"[" * 100_000, 0, "invalid JSON"),
        # The package takes the last of two.
        (
            json.dumps({"a": ENTRY})[:-1].encode() + b', "a": ' + json.dumps(ENTRY).encode() + b"}",
            8,
            "`a` occurs twice",
        ),
    ],
)
def test_damaged_files_are_refused(
    tmp_path: Path, header: bytes | dict[str, Any] | list[Any], values: int, reason: str
) -> None:
    path = raw_safetensors(tmp_path / "x.safetensors", header, bytes(values))
    with pytest.raises(CheckpointError, match=reason) as error:
        open_checkpoint(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("size", [0, 7, 8, 9, 100, 5000, 90000])
def test_a_truncated_file_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes((GOLDEN / "model" / "model.safetensors").read_bytes()[:size])
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        open_checkpoint(path)


def test_a_header_larger_than_the_limit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with path.open("wb") as file:
        file.write((2**30).to_bytes(8, "little"))
        file.truncate(2**31)
    with pytest.raises(CheckpointError, match="at most"):
        open_checkpoint(path)


def test_shards_are_named_and_indexed_as_transformers_does(tmp_path: Path) -> None:
    with open_checkpoint(GOLDEN / "masked_lm") as checkpoint:
        tensors = {name: source(checkpoint.read(name)) for name in checkpoint.tensors}
        files = save_safetensors(tmp_path, tensors, max_shard_size="50KB")
    assert [file.name for file in files] == [
        "model-00001-of-00003.safetensors",
        "model-00002-of-00003.safetensors",
        "model-00003-of-00003.safetensors",
        "model.safetensors.index.json",
    ]
    index = json.loads(files[-1].read_text())
    assert index["metadata"] == {"total_size": sum(tensor.nbytes for tensor in tensors.values())}
    for name, tensor in tensors.items():
        shard = safetensors.numpy.load_file(tmp_path / index["weight_map"][name])
        np.testing.assert_array_equal(shard[name], tensor.read(), strict=True)
    with open_checkpoint(tmp_path) as again:
        assert set(again.tensors) == set(tensors)
        for name, tensor in tensors.items():
            np.testing.assert_array_equal(again.read(name), tensor.read(), strict=True)


def test_a_layout_replaces_the_other_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "sentencepiece.model").write_text("kept")
    (tmp_path / "model-of-mine.safetensors").write_text("kept")
    tensors = sources(a=np.ones(10, np.float32), b=np.ones(10, np.float32))
    kept = {"sentencepiece.model", "model-of-mine.safetensors"}
    index, shards = "model.safetensors.index.json", {f"model-0000{n}-of-00002.safetensors" for n in (1, 2)}
    save_safetensors(tmp_path, tensors)
    assert {path.name for path in tmp_path.iterdir()} == {*kept, "model.safetensors"}
    save_safetensors(tmp_path, tensors, max_shard_size=50)
    assert {path.name for path in tmp_path.iterdir()} == {*kept, index, *shards}
    save_safetensors(tmp_path, tensors, max_shard_size=None)
    assert {path.name for path in tmp_path.iterdir()} == {*kept, "model.safetensors"}


def test_a_failed_save_leaves_the_directory_as_it_was(tmp_path: Path) -> None:
    save_safetensors(tmp_path, sources(a=np.ones(10, np.float32)))
    before = (tmp_path / "model.safetensors").read_bytes()

    def fails() -> np.ndarray:
        raise OSError("no space left")

    broken = {"a": source(np.zeros(10, np.float32)), "b": TensorSource((10,), np.dtype(np.float32), fails)}
    with pytest.raises(OSError, match="no space"):
        save_safetensors(tmp_path, broken, max_shard_size=40)
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
    assert (tmp_path / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(("size", "count"), [("40", 3), (119, 2), ("1KB", 1), ("0.08 kb", 2), ("1GiB", 1), (None, 1)])
def test_shard_sizes(tmp_path: Path, size: int | str | None, count: int) -> None:
    tensors = sources(a=np.ones(10, np.float32), b=np.ones(10, np.float32), c=np.ones(10, np.float32))
    files = save_safetensors(tmp_path, tensors, max_shard_size=size)
    assert len([file for file in files if file.suffix == ".safetensors"]) == count


@pytest.mark.parametrize("size", ["", "GB", "-1GB", "0", 0, -5, True, 1.5, "1TB"])
def test_invalid_shard_sizes_are_refused(tmp_path: Path, size: Any) -> None:
    with pytest.raises(InputError, match="max_shard_size"):
        save_safetensors(tmp_path, sources(a=np.ones(1, np.float32)), max_shard_size=size)
