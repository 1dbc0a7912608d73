"""`convert`, `inspect` and `diff` as programs read them, and as people do."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from rembert.cli.main import main
from rembert.cli.text import byte_size
from tests.bridge.support import GOLDEN


def test_convert_reports_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["convert", str(GOLDEN / "tf1_pretraining"), str(tmp_path / "pt"), "--to", "pt", "--json"])
    assert code == 0
    streams = capsys.readouterr()
    report = json.loads(streams.out)
    assert streams.err == ""
    assert report["head"] == "masked-lm"
    assert report["source_format"] == "tf1"
    assert report["files"] == ["model.safetensors", "config.json"]
    assert "global_step" in report["left_out"]


def test_convert_passes_every_option_to_the_function(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--head", "causal-lm", "--dtype", "bfloat16", "--max-shard-size", "20KB", "--hidden-act", "gelu_new"]
    assert main(["convert", str(GOLDEN / "masked_lm"), str(tmp_path / "out"), "--to", "pt", *options]) == 0
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["architectures"], config["dtype"], config["hidden_act"]) == (
        ["RemBertForCausalLM"],
        "bfloat16",
        "gelu_new",
    )
    assert (tmp_path / "out" / "model.safetensors.index.json").is_file()
    assert main(["convert", str(GOLDEN / "model"), str(tmp_path / "out"), "--to", "tf"]) == 2
    capsys.readouterr()
    assert main(["convert", str(GOLDEN / "model"), str(tmp_path / "out"), "--to", "tf", "--force", "--quiet"]) == 0
    streams = capsys.readouterr()
    assert streams.out == streams.err == ""
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["config.json", "tf_model.h5"]


@pytest.mark.parametrize("name", ["masked_lm", "bleurt_savedmodel"])
def test_convert_verifies_by_running_both_sides(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("tensorflow")
    call = ["convert", str(GOLDEN / name), str(tmp_path / "tf"), "--to", "tf", "--verify"]
    assert main(call) == 0
    out = capsys.readouterr().out
    assert "logits" in out
    assert "run in pt" in out
    assert "run in tf" in out
    # Another activation gives other outputs, and that is said.
    other = {"masked_lm": "tanh", "bleurt_savedmodel": "relu"}[name]
    assert main([*call[:2], str(tmp_path / "pt"), "--to", "pt", "--verify", "--quiet", "--hidden-act", other]) == 1
    streams = capsys.readouterr()
    assert streams.out == ""
    assert "differ" in streams.err


def test_convert_refuses_and_allows_nonfinite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tensors = load_file(GOLDEN / "model" / "model.safetensors")
    tensors["pooler.dense.bias"][:] = np.nan
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((GOLDEN / "model" / "config.json").read_bytes())
    call = ["convert", str(tmp_path), str(tmp_path / "out"), "--to", "pt"]
    assert main(call) == 1
    assert "--allow-nonfinite" in capsys.readouterr().err
    assert main([*call, "--allow-nonfinite"]) == 0
    assert "1 tensors with NaN or infinite values (rembert.pooler.dense.bias)" in capsys.readouterr().out


def test_inspect_reports_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(GOLDEN / "masked_lm"), "--json", "--tensors"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["format"], report["head"], report["fits"]) == ("safetensors", "masked-lm", True)
    assert report["parameters"] == sum(
        values.size for values in load_file(GOLDEN / "masked_lm" / "model.safetensors").values()
    )
    assert report["tensors"]["cls.predictions.decoder.weight"] == {
        "shape": [160, 48],
        "dtype": "float32",
        "bytes": 160 * 48 * 4,
    }


def test_inspect_lists_tensors_and_the_kind_of_checksums(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(GOLDEN / "bleurt_savedmodel"), "--tensors"]) == 0
    out = capsys.readouterr().out
    assert "CRC-32C" in out
    assert any(line.split() == ["classifier.weight", "1x32", "float32", "128", "B"] for line in out.split("\n"))
    assert main(["inspect", str(GOLDEN / "model")]) == 0
    assert "a changed value cannot be detected" in capsys.readouterr().out


def test_diff_across_formats(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", str(GOLDEN / "model"), str(GOLDEN / "model" / "tf_model.h5")]) == 0
    assert "41 of 41 tensors that both have are the same" in capsys.readouterr().out
    assert main(["diff", str(GOLDEN / "masked_lm"), str(GOLDEN / "tf1_pretraining")]) == 1
    assert "only in B: rembert.pooler.dense.weight" in capsys.readouterr().out


@pytest.fixture
def changed(tmp_path: Path) -> Path:
    """A golden with one value moved, one tensor NaN, one of another dtype, one of another shape."""
    tensors = load_file(GOLDEN / "model" / "model.safetensors")
    tensors["pooler.dense.weight"][1, 2] += 32
    tensors["pooler.dense.bias"][0] = np.nan
    tensors["embeddings.LayerNorm.weight"] = tensors["embeddings.LayerNorm.weight"].astype(np.float64)
    tensors["embeddings.LayerNorm.bias"] = np.zeros(3, np.float32)
    save_file(tensors, tmp_path / "model.safetensors")
    return tmp_path


def test_diff_measures(changed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", str(GOLDEN / "model"), str(changed), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    tensors = {tensor["name"].removeprefix("rembert."): tensor for tensor in report["tensors"]}
    assert not report["same"]
    assert sum(not tensor["same"] for tensor in tensors.values()) == 4
    kernel = tensors["pooler.dense.weight"]
    assert kernel["largest"] == pytest.approx(32, rel=1e-6)
    assert kernel["mean"] == pytest.approx(32 / 32**2, rel=1e-6)
    assert tensors["pooler.dense.bias"]["largest"] == "infinite"
    scale = tensors["embeddings.LayerNorm.weight"]
    assert (scale["a"]["dtype"], scale["b"]["dtype"], scale["largest"]) == ("float32", "float64", 0)
    shift = tensors["embeddings.LayerNorm.bias"]
    assert (shift["a"]["shape"], shift["b"]["shape"], shift["largest"]) == ([20], [3], None)


def test_nan_equals_nan(changed: Path) -> None:
    assert main(["diff", str(changed), str(changed)]) == 0


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (2_303_681_536, "2.3 GB"), (5e15, "5000.0 TB"), (1500, "1.5 kB")]
)
def test_sizes(count: float | int, text: str) -> None:
    assert byte_size(count) == text
