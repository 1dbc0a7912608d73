"""ONNX files: ONNX Runtime against the goldens, and what cannot be exported."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from rembert.cli.main import main  # noqa: E402
from rembert.common.config import RemBertConfig  # noqa: E402
from rembert.common.errors import ExportError, InputError, MissingDependencyError  # noqa: E402
from rembert.pt import exporting  # noqa: E402
from rembert.pt.exporting import export_onnx  # noqa: E402
from tests.frameworks import GOLDEN, PT, difference, small_config  # noqa: E402
from tests.parity.test_goldens import GOLDENS, Golden, _real  # noqa: E402

QUICK = "sequence_classification"


def _run(directory: Path, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(directory / "model.onnx", providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(None, inputs), strict=True))


def _inputs(golden: Golden) -> dict[str, np.ndarray]:
    taken = ("input_ids", "attention_mask", "token_type_ids", "encoder_hidden_states", "encoder_attention_mask")
    return {name: array for name, array in golden.read()["in"].items() if name in taken}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("onnx") / "out"
    assert main(["export", str(GOLDEN / QUICK), str(directory), "--to", "onnx", "--quiet"]) == 0
    return directory


def _agrees_with_the_golden(directory: Path, golden: Golden) -> None:
    inputs, wanted = _inputs(golden), golden.read()["out"]
    found = _run(directory, inputs)
    assert found
    mask = inputs["attention_mask"]
    for name, array in found.items():
        assert array.shape == wanted[name].shape
        assert difference(_real(name, array, mask), _real(name, wanted[name], mask)) <= 1e-5, name


@pytest.mark.slow
def test_onnx_runtime_gives_the_goldens_numbers(exported: Path) -> None:
    (golden,) = (golden for golden in GOLDENS if golden.directory == QUICK)
    _agrees_with_the_golden(exported, golden)
    assert sorted(path.name for path in exported.iterdir()) == ["config.json", "model.onnx"]
    assert RemBertConfig.from_pretrained(exported).architectures == ["RemBertForSequenceClassification"]
    onnx.checker.check_model(exported / "model.onnx", full_check=True)


def test_any_batch_size_and_length(exported: Path) -> None:
    model = PT.load(GOLDEN / QUICK, "sequence-classification")
    numbers = np.random.default_rng(0)
    for batch, length in ((1, 1), (1, 40), (7, 2), (3, 17)):
        ids = numbers.integers(0, model.config.vocab_size, (batch, length))
        mask = (np.arange(length) >= numbers.integers(0, length, (batch, 1))).astype(np.int64)  # padding on the left
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        ours = PT.call(model, **inputs).logits.numpy()
        assert difference(_run(exported, inputs)["logits"], ours) <= 1e-5


@pytest.mark.parametrize("keep", [False, True])
def test_padding_is_not_computed(keep: bool, exported: Path, tmp_path: Path) -> None:
    """The rows of the first LayerNorm: the real tokens alone, or every position."""
    if keep:
        command = ["export", str(GOLDEN / QUICK), str(tmp_path / "out"), "--to", "onnx", "--keep-padding", "--quiet"]
        assert main(command) == 0
        exported = tmp_path / "out"
    graph = onnx.load(exported / "model.onnx")
    norm = next(node for node in graph.graph.node if node.op_type == "LayerNormalization")
    graph.graph.output.append(onnx.helper.make_empty_tensor_value_info(norm.output[0]))
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    mask = np.array([[1, 1, 0, 1, 0], [0, 0, 0, 0, 0], [0, 1, 1, 1, 1]])  # a row has no tokens at all
    ids = np.arange(15).reshape(mask.shape)
    inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    logits, states = session.run(["logits", norm.output[0]], inputs)
    assert states[..., 0].size == (mask.size if keep else mask.sum())
    ours = PT.call(PT.load(GOLDEN / QUICK, "sequence-classification"), **inputs).logits.numpy()
    assert difference(logits, ours) <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    "golden", [each for each in GOLDENS if each.directory != QUICK], ids=lambda each: each.directory
)
def test_every_head(golden: Golden, tmp_path: Path) -> None:
    done = export_onnx(PT.load(GOLDEN / golden.directory, golden.head), tmp_path / "out")
    assert max(done.differences.values()) <= 1e-5
    assert {"input_ids", "attention_mask", "token_type_ids"} <= set(done.inputs)
    _agrees_with_the_golden(tmp_path / "out", golden)


@pytest.mark.slow
def test_hidden_states_and_attentions_on_request_of_the_configuration(tmp_path: Path) -> None:
    golden = next(golden for golden in GOLDENS if golden.directory == "model")
    model = PT.load(GOLDEN / "model", "model", output_hidden_states=True, output_attentions=True)
    done = export_onnx(model, tmp_path / "out")
    assert done.outputs[:3] == ["last_hidden_state", "pooler_output", "hidden_states.0"]
    assert done.outputs[-1] == "attentions.1"
    _agrees_with_the_golden(tmp_path / "out", golden)


@pytest.mark.slow
@pytest.mark.parametrize("opset", [20, exporting.OPSETS[-1]])
def test_other_opsets(opset: int, tmp_path: Path) -> None:
    export_onnx(PT.load(GOLDEN / QUICK, "sequence-classification"), tmp_path / "out", opset_version=opset)
    assert onnx.load(tmp_path / "out" / "model.onnx").opset_import[0].version == opset


@pytest.mark.slow
def test_half_precision_and_weights_beside_the_graph(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "in"
    shutil.copytree(GOLDEN / QUICK, source)
    (source / "sentencepiece.model").write_bytes(b"tokens")
    command = ["export", str(source), str(tmp_path / "out"), "--to", "onnx", "--dtype", "float16", "--json"]
    assert main([*command, "--external-data"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["files"] == ["config.json", "model.onnx", "model.onnx.data", "sentencepiece.model"]
    assert 1e-6 < report["differences"]["logits"] < 2e-2
    half = PT.load(GOLDEN / QUICK, "sequence-classification", dtype="float16").num_parameters() * 2
    assert (tmp_path / "out" / "model.onnx.data").stat().st_size >= half * 0.9
    assert RemBertConfig.from_pretrained(tmp_path / "out").dtype == "float16"


def test_a_graph_with_other_results_is_removed(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Program:
        def __init__(self) -> None:
            self.model = self

        graph: Any = type("Graph", (), {"inputs": []})

        def save(self, target: Path, **_: Any) -> None:
            changed = onnx.load(exported / "model.onnx")
            bias = next(each for each in changed.graph.initializer if each.name.endswith("classifier.bias"))
            bias.raw_data = (np.frombuffer(bias.raw_data, np.float32) + np.float32(1e-3)).tobytes()
            onnx.save(changed, target)

    monkeypatch.setattr(exporting, "_trace", lambda *_: Program())
    model = PT.load(GOLDEN / QUICK, "sequence-classification").train()
    with pytest.raises(ExportError, match="`logits` differs by"):
        export_onnx(model, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    assert model.training  # as it was


def test_unsupported_models_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, out = PT.build(small_config(), "sequence-classification"), tmp_path / "out"
    monkeypatch.setattr(exporting, "_trace", lambda *_: pytest.fail("work was begun"))
    with pytest.raises(InputError, match="Received: Linear"):
        export_onnx(torch.nn.Linear(2, 2), out)
    with pytest.raises(InputError, match=r"from 18 to 22\. Received: `opset_version=11`"):
        export_onnx(model, out, opset_version=11)
    with pytest.raises(InputError, match="a model of bfloat16"):
        export_onnx(PT.build(small_config(), "model", dtype="bfloat16"), out)
    monkeypatch.setattr(exporting, "_WHOLE", 1000)
    with pytest.raises(InputError, match="`external_data=False`"):
        export_onnx(model, out, external_data=False)
    prepared = PT.build(small_config(), "sequence-classification")
    with pytest.raises(InputError, match=r"quantized or prepared.*quantized layer `rembert\.encoder\."):
        export_onnx(prepared.quantize_dynamic(keep_parameters=True), out)
    prepared.quantize_dynamic()  # `optimize_for_inference` may find every layer fastest as it is
    with pytest.raises(InputError, match=r"quantized or prepared.*no plain parameter `rembert\.encoder\."):
        export_onnx(prepared, out)
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="exists and is not empty"):
        export_onnx(model, out)
    with pytest.raises(InputError, match="so it is not replaced"):
        export_onnx(model, out, force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_names_the_extra(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependencyError, match=rf"`{package}`.*rembert\[onnx\]"):
        export_onnx(PT.build(small_config(), "model"), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_head_that_the_checkpoint_lacks_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["export", str(GOLDEN / "masked_lm"), str(tmp_path / "out"), "--to", "onnx"]
    assert main([*command, "--head", "token-classification"]) == 1
    assert "classifier.weight" in capsys.readouterr().err
    assert main([*command[:-1], "paper"]) == 2
    assert list(tmp_path.iterdir()) == []


def test_versions_in_a_repository_of_triton(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def export(model: Any, directory: Path, **options: Any) -> Any:
        shutil.copytree(exported, directory)
        return exporting.Exported("onnx", directory, [], 0, [], [], [], {})

    monkeypatch.setattr(exporting, "export_onnx", export)
    command = ["export", str(GOLDEN / QUICK), str(tmp_path / "topics"), "--server", "triton", "--to"]
    for _ in range(2):
        assert main([*command, "onnx"]) == 0
    assert sorted(path.name for path in (tmp_path / "topics").iterdir()) == ["1", "2", "config.pbtxt"]
    session = onnxruntime.InferenceSession(tmp_path / "topics" / "2" / "model.onnx")
    tensors = [
        f'{kind} [ {{ name: "{each.name}" data_type: {type} dims: [ {size} ] }} ]'
        for kind, found, type, size in (
            ("input", session.get_inputs(), "TYPE_INT64", -1),
            ("output", session.get_outputs(), "TYPE_FP32", 3),
        )
        for each in found
    ]
    lines = (tmp_path / "topics" / "config.pbtxt").read_text().splitlines()
    assert lines[:3] == ['name: "topics"', 'backend: "onnxruntime"', "max_batch_size: 64"]
    assert lines[3:-1] == tensors
    assert main([*command, "savedmodel"]) == 2
    assert "must be used with `--to onnx`" in capsys.readouterr().err
