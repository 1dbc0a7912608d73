"""The command line as a user meets it: text, exit codes, no traceback, no framework loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rembert.cli.main import COMMANDS, main
from tests.bridge.support import GOLDEN


def test_convert_writes_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(GOLDEN / "model"), str(tmp_path / "tf"), "--to", "tf"]) == 0
    out = capsys.readouterr().out
    assert "22,896 parameters" in out
    assert "tf_model.h5" in out
    assert main(["convert", str(tmp_path / "tf"), str(tmp_path / "pt"), "--to", "pt"]) == 0
    written = (tmp_path / "pt" / "model.safetensors").read_bytes()
    assert written == (GOLDEN / "model" / "model.safetensors").read_bytes()


def test_inspect_describes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(GOLDEN / "masked_lm")]) == 0
    out = capsys.readouterr().out
    for part in ("safetensors", "masked-lm", "31,360", "float32 (45 tensors)", "complete"):
        assert part in out


def test_inspect_names_what_does_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.safetensors").write_bytes((GOLDEN / "model" / "model.safetensors").read_bytes())
    (tmp_path / "config.json").write_bytes((GOLDEN / "masked_lm" / "config.json").read_bytes())
    assert main(["inspect", str(tmp_path)]) == 1
    assert "missing     cls.predictions.decoder.weight" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        ([], 2, "required"),
        (["nonsense"], 2, "invalid choice"),
        (["convert", "a"], 2, "required"),
        (["diff", "a"], 2, "required: B"),
        (["verify"], 2, "required: A, B"),
        (["convert", "a", "b", "--to", "onnx"], 2, "invalid choice"),
        (["inspect", "/no/such/path"], 1, "no file or directory /no/such/path"),
        (["convert", str(GOLDEN / "model"), str(GOLDEN / "masked_lm"), "--to", "tf"], 2, "exists"),
        (["convert", str(GOLDEN / "model"), str(GOLDEN), "--to", "tf"], 2, "contain the source"),
        (
            ["convert", str(GOLDEN / "model"), "x", "--to", "tf", "--dtype", "bfloat16"],
            2,
            "one of float32, float16 for",
        ),
        (["convert", str(GOLDEN / "model"), "x", "--to", "tf", "--max-shard-size", "-3"], 2, "max_shard_size"),
    ],
)
def test_errors_are_one_line_and_a_code(
    capsys: pytest.CaptureFixture[str], argv: list[str], code: int, message: str
) -> None:
    assert main(argv) == code
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err
    if code == 1:
        assert err.count("\n") == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert main([command, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: rembert {command} ")


def test_help_loads_no_framework_no_numpy_and_no_command() -> None:
    program = (
        "import sys; from rembert.cli.main import main; assert main(['--help']) == 0; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'tensorflow', 'keras', 'h5py', 'numpy')) "
        "or any(name.startswith('rembert.cli.') and name != 'rembert.cli.main' for name in sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "inspect" in result.stdout


def test_a_reader_that_leaves_early_is_no_error() -> None:
    program = f"{sys.executable} -m rembert inspect {GOLDEN / 'model'} | true; exit ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", program], capture_output=True, text=True)
    assert "Traceback" not in result.stderr
    assert "Exception" not in result.stderr


@pytest.mark.parametrize(
    "argv",
    [
        ["inspect", "no/such"],
        ["convert", "no/such", "out", "--to", "pt"],
        ["diff", "no/such", "no/such"],
        ["verify", "no/such", "no/such"],
        ["trim", "no/such", "out", "--corpus", __file__],
    ],
    ids=lambda argv: argv[0],
)
def test_every_command_looks_names_up_on_the_hub(
    argv: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pytest.importorskip("huggingface_hub.constants"), "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 1
    assert (
        "`no/such` is no path here, not in the cache, and the Hugging Face Hub was not asked"
        in capsys.readouterr().err
    )
    assert not list(tmp_path.iterdir())
