"""TensorFlow's tensor bundles, read without TensorFlow: Google's TF1 checkpoints and BLEURT's SavedModel."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from rembert.bridge import convert, inspect, open_checkpoint
from rembert.bridge.crc32c import crc32c, masked
from rembert.common.errors import CheckpointError
from tests.bridge.support import GOLDEN, make_index, put_varint
from tests.frameworks import needs

TF1 = GOLDEN / "tf1_pretraining"
BLEURT = GOLDEN / "bleurt_savedmodel"


@pytest.fixture(params=[pytest.param("package", marks=needs("google_crc32c")), "numpy"])
def checksums(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checksums by the package, and without it; blocks are small, so that there are several."""
    if request.param == "numpy":
        monkeypatch.setattr("rembert.bridge.crc32c.is_installed", lambda package: False)
        monkeypatch.setattr("rembert.bridge.crc32c._BLOCK", 50_000)
        monkeypatch.setattr("rembert.bridge.crc32c._LANES", 1 << 10)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        # RFC 3720, appendix B.4, and the check value of the CRC catalogues.
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (b"123456789", 0xE3069283),
        (b"", 0),
    ],
)
@pytest.mark.usefixtures("checksums")
def test_crc32c(data: bytes, expected: int) -> None:
    assert crc32c(np.frombuffer(data, np.uint8)) == expected


@pytest.mark.usefixtures("checksums")
@pytest.mark.parametrize("size", [1, 3, 4, 7, 64, 4097, 70_003, 2**20 + 5])
def test_crc32c_of_any_length(size: int) -> None:
    """The lanes against the definition, a bit at a time over the whole (a byte's bits in a table)."""
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    data = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8)
    register = 0xFFFFFFFF
    for byte in data.tobytes():
        register = table[(register ^ byte) & 0xFF] ^ (register >> 8)
    assert crc32c(data) == register ^ 0xFFFFFFFF


def test_a_tf1_checkpoint_keeps_everything(tmp_path: Path) -> None:
    done = convert(TF1, tmp_path / "pt", "pt")
    assert done.source_format == "tf1"
    assert done.head == "masked-lm"
    written = safetensors.numpy.load_file(tmp_path / "pt" / "model.safetensors")
    expected = safetensors.numpy.load_file(GOLDEN / "masked_lm" / "model.safetensors")
    pooler = {"rembert.pooler.dense.weight", "rembert.pooler.dense.bias"}
    assert set(written) == set(expected) | pooler
    for name, values in expected.items():
        np.testing.assert_array_equal(written[name], values, strict=True)
    config = json.loads((tmp_path / "pt" / "config.json").read_text())
    assert config["architectures"] == ["RemBertForMaskedLM"]
    assert config["input_embedding_size"] == 20
    assert config["hidden_act"] == "gelu"


def test_optimizer_slots_and_counters_are_counted() -> None:
    """Two Adam slots for each of the 45 encoder variables that have them, and the step counter."""
    with open_checkpoint(TF1) as checkpoint:
        assert "global_step" in checkpoint.left_out
        slots = [name for name in checkpoint.left_out if name.endswith(("/adam_m", "/adam_v"))]
        assert len(slots) == len(checkpoint.left_out) - 1
        assert len({name.rsplit("/", 1)[0] for name in slots}) * 2 == len(slots)
    assert inspect(TF1).left_out == checkpoint.left_out


@pytest.mark.parametrize("path", ["rembert.ckpt", "rembert.ckpt.index", "rembert.ckpt.data-00000-of-00001"])
def test_a_bundle_is_found_from_any_of_its_names(path: str) -> None:
    with open_checkpoint(TF1 / path) as checkpoint:
        assert checkpoint.format == "tf1"
        assert checkpoint.config is not None


def test_hidden_act_overrides(tmp_path: Path) -> None:
    convert(TF1, tmp_path / "pt", "pt", hidden_act="gelu_new")
    assert json.loads((tmp_path / "pt" / "config.json").read_text())["hidden_act"] == "gelu_new"


def test_a_bleurt_saved_model_becomes_a_regressor(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(BLEURT, source)
    (source / "sent_piece.model").write_bytes(b"tokens")
    done = convert(source, tmp_path / "pt", "pt")
    assert done.source_format == "savedmodel"
    assert done.head == "sequence-classification"
    assert done.left_out == ["global_step"]
    expected = (GOLDEN / "sequence_regression" / "model.safetensors").read_bytes()
    assert (tmp_path / "pt" / "model.safetensors").read_bytes() == expected
    config = json.loads((tmp_path / "pt" / "config.json").read_text())
    assert config["architectures"] == ["RemBertForSequenceClassification"]
    assert config["id2label"] == {"0": "LABEL_0"}
    assert config["hidden_act"] == "gelu_new"
    assert (tmp_path / "pt" / "sentencepiece.model").read_bytes() == b"tokens"


@pytest.mark.parametrize("path", ["saved_model.pb", "variables/variables.index", "variables/variables"])
def test_a_saved_model_is_found_from_its_parts(path: str) -> None:
    with open_checkpoint(BLEURT / path) as checkpoint:
        assert checkpoint.format == "savedmodel"
        assert checkpoint.config.hidden_act == "gelu_new"
        assert checkpoint.config.num_labels == 1


def test_a_graph_with_erf_keeps_gelu(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(BLEURT, source)
    graph = source / "saved_model.pb"
    # A NodeDef named "x" with the op "Erf", as a node of a graph is written.
    graph.write_bytes(graph.read_bytes() + b"\x0a\x08\x0a\x01x\x12\x03Erf")
    with open_checkpoint(source) as checkpoint:
        assert checkpoint.config.hidden_act == "gelu"


def test_tensorflow_writes_what_is_read(tmp_path: Path) -> None:
    """A bundle with every dtype, an empty tensor, a scalar and many data files, from TensorFlow itself."""
    tf = pytest.importorskip("tensorflow")
    values = {
        "a/float": np.random.default_rng(0).standard_normal((300, 70)).astype(np.float32),
        "a/half": np.arange(5, dtype=np.float16),
        "a/double": np.arange(6, dtype=np.float64).reshape(2, 3),
        "b/empty": np.zeros((0, 3), np.float32),
    }
    prefix = str(tmp_path / "x.ckpt")
    names = list(values)
    tf.raw_ops.SaveV2(
        prefix=prefix,
        tensor_names=[*names, "text", "step"],
        shape_and_slices=[""] * (len(names) + 2),
        tensors=[*map(tf.constant, values.values()), tf.constant(["x", "yz"]), tf.constant(3, tf.int64)],
    )
    with open_checkpoint(tmp_path / "x.ckpt") as checkpoint:
        assert set(checkpoint.left_out) == {"text", "step"}
        for name, array in values.items():
            np.testing.assert_array_equal(checkpoint.read(name), array, strict=True)


def copy_bundle(tmp_path: Path) -> Path:
    shutil.copytree(TF1, tmp_path / "source")
    return tmp_path / "source"


def test_a_changed_value_is_seen(tmp_path: Path) -> None:
    source = copy_bundle(tmp_path)
    data = source / "rembert.ckpt.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    words = safetensors.numpy.load_file(GOLDEN / "masked_lm" / "model.safetensors")[
        "rembert.embeddings.LayerNorm.bias"
    ]
    position = content.index(words.tobytes())
    content[position] ^= 1
    data.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"00001: variable `bert/embeddings/LayerNorm/beta`.*checksum"):
        convert(source, tmp_path / "out", "pt")
    assert not (tmp_path / "out").exists()


def test_a_truncated_data_file_is_seen(tmp_path: Path) -> None:
    source = copy_bundle(tmp_path)
    data = source / "rembert.ckpt.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="outside the file"):
        open_checkpoint(source)


def test_a_missing_data_file_is_seen(tmp_path: Path) -> None:
    source = copy_bundle(tmp_path)
    (source / "rembert.ckpt.data-00000-of-00001").unlink()
    with pytest.raises(CheckpointError, match=r"data-00000-of-00001 is missing"):
        open_checkpoint(source / "rembert.ckpt.index")


@pytest.mark.parametrize("position", [5, 700, 2000, 4000, -46, -8, -1])
def test_a_changed_byte_of_the_index_is_seen(tmp_path: Path, position: int) -> None:
    source = copy_bundle(tmp_path)
    index = source / "rembert.ckpt.index"
    content = bytearray(index.read_bytes())
    content[position] ^= 0x10
    index.write_bytes(content)
    with pytest.raises(CheckpointError, match=re.escape(str(index))):
        open_checkpoint(source)


HEADER = b"\x08\x01"  # one data file
GOOD = b"\x08\x01" + b"\x12\x04\x12\x02\x08\x02" + b"\x28\x08"  # float32, shape [2], 8 bytes at 0


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ([(b"", b"\x08\x00"), (b"a", GOOD)], "1 to 10000 data files"),
        ([(b"", HEADER + b"\x10\x01"), (b"a", GOOD)], "little-endian"),
        ([(b"", HEADER), (b"a", GOOD + b"\x18\x05")], "data file 5 of 1"),
        ([(b"", HEADER), (b"a", GOOD + b"\x20\x04")], "outside the file"),
        ([(b"", HEADER), (b"a", GOOD), (b"b", GOOD)], "overlap"),
        ([(b"", HEADER), (b"b", GOOD), (b"a", GOOD)], "out of order"),
        ([(b"", HEADER), (b"a", GOOD), (b"a", GOOD)], "occurs twice"),
        ([(b"", HEADER), (b"a", GOOD + b"\x3a\x00")], "slices"),
        ([(b"", HEADER), (b"a", b"\x08\x01\x12\x04\x12\x02\x08\x03\x28\x08")], "takes 12 bytes"),
        ([(b"", HEADER), (b"a", b"\x08\x01\x12\x02\x18\x01\x28\x08")], "shape is unknown"),
        ([(b"", HEADER), (b"a", b"\x08\x01\x12\x7f")], "cut off"),
        ([(b"", HEADER), (b"a", b"\x0b")], "wire type"),
        ([(b"", HEADER), (b"a", b"\x28" + b"\xff" * 9 + b"\x01")], "not a number"),
        ([(b"", HEADER), (b"a", b"\x28" + b"\xff" * 11)], "64 bits"),
        ([(b"", HEADER), (b"a", b"\x12" + put_varint(36) + b"\x12\x02\x08\x01" * 9)], "at most 8 dimensions"),
    ],
)
def test_damaged_bundles_are_refused(tmp_path: Path, entries: list[tuple[bytes, bytes]], reason: str) -> None:
    make_index(tmp_path / "x.index", entries)
    (tmp_path / "x.data-00000-of-00001").write_bytes(bytes(8))
    with pytest.raises(CheckpointError, match=reason) as error:
        open_checkpoint(tmp_path / "x.index")
    assert str(tmp_path) in str(error.value)


def test_the_made_index_is_right_otherwise(tmp_path: Path) -> None:
    """The bundle that `test_damaged_bundles_are_refused` changes is valid: each refusal is due to its own change."""
    values = np.array([1, 2], np.float32)
    crc = masked(crc32c(values.view(np.uint8)))
    make_index(tmp_path / "x.index", [(b"", HEADER), (b"a", GOOD + b"\x35" + crc.to_bytes(4, "little"))])
    (tmp_path / "x.data-00000-of-00001").write_bytes(values.tobytes())
    with open_checkpoint(tmp_path / "x.index") as checkpoint:
        assert checkpoint.read("a").tolist() == [1, 2]


def test_the_pretraining_head_is_recognised_by_its_parts(tmp_path: Path) -> None:
    """Other names, the output table lying down, and a head of another task beside it."""
    tf = pytest.importorskip("tensorflow")
    expected = safetensors.numpy.load_file(GOLDEN / "masked_lm" / "model.safetensors")
    with open_checkpoint(TF1) as checkpoint:
        encoder = {name: checkpoint.read(name) for name in checkpoint.tensors if name.startswith("rembert.e")}
    variables = {}
    for name, values in encoder.items():
        path = name.replace("rembert.", "bert/").replace(".layer.", ".layer_").replace(".", "/")
        if "LayerNorm" in path:
            path = path.replace("weight", "gamma").replace("bias", "beta")
        elif path.startswith("bert/embeddings"):
            path = path.removesuffix("/weight")
        else:
            path = path.replace("weight", "kernel")
        variables[path] = values.T if path.endswith("kernel") else values
    names = {
        "head/output_embedding_table": "decoder.weight",
        "head/vocab_bias": "decoder.bias",
        "head/projection/kernel": "dense.weight",
        "head/projection/bias": "dense.bias",
        "head/norm/gamma": "LayerNorm.weight",
        "head/norm/beta": "LayerNorm.bias",
    }
    for path, part in names.items():
        values = expected[f"cls.predictions.{part}"]
        variables[path] = values.T if part in ("decoder.weight", "dense.weight") else values
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "x.ckpt"),
        tensor_names=list(variables),
        shape_and_slices=[""] * len(variables),
        tensors=[tf.constant(values) for values in variables.values()],
    )
    with open_checkpoint(tmp_path / "x.ckpt") as checkpoint:
        for name, values in expected.items():
            np.testing.assert_array_equal(checkpoint.read(name), values, strict=True)


def test_no_framework_is_imported() -> None:
    program = (
        "import sys, rembert.bridge as b; c = b.open_checkpoint(sys.argv[1]); [c.read(n) for n in c.tensors]; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'tensorflow', 'keras', 'h5py')))"
    )
    result = subprocess.run([sys.executable, "-c", program, str(TF1)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
