"""SavedModel and LiteRT files: the goldens' numbers in a process without this library, and what cannot be exported."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")

from rembert.cli.main import main  # noqa: E402
from rembert.common import exporting as common  # noqa: E402
from rembert.common.errors import ExportError, InputError  # noqa: E402
from rembert.tf import exporting  # noqa: E402
from rembert.tf.exporting import SIGNATURE, VARIANTS, export_litert, export_savedmodel  # noqa: E402
from tests.frameworks import GOLDEN, TF, difference, small_config  # noqa: E402
from tests.parity.cases import CASES, Case, build  # noqa: E402
from tests.parity.test_goldens import GOLDENS, Golden, _real  # noqa: E402

QUICK = "sequence_classification"
TAKEN = ("input_ids", "attention_mask", "token_type_ids", "encoder_hidden_states", "encoder_attention_mask")

# Loads an export where neither this library nor Keras can be imported, and writes down what it gives.
STRANGER = """
import sys
sys.modules["rembert"] = sys.modules["keras"] = None
import numpy as np
import tensorflow as tf
for served, inputs, outputs in zip(*[iter(sys.argv[1:])] * 3):
    function = tf.saved_model.load(served).signatures["serving_default"]
    given = {name: tf.constant(array) for name, array in np.load(inputs).items()}
    np.savez(outputs, **{name: array.numpy() for name, array in function(**given).items()})
"""

# The same for LiteRT, without TensorFlow where LiteRT's own package is installed.
RUNTIME = """
import sys
sys.modules["rembert"] = sys.modules["keras"] = None
import numpy as np
try:
    from ai_edge_litert.interpreter import Interpreter
except ImportError:
    import tensorflow as tf
    Interpreter = tf.lite.Interpreter
file, inputs, outputs = sys.argv[1:]
runner = Interpreter(file + "/model.tflite").get_signature_runner()
np.savez(outputs, **runner(**np.load(inputs)))
"""


def _inputs(golden: Golden) -> dict[str, np.ndarray]:
    inputs = {name: array for name, array in golden.read()["in"].items() if name in TAKEN}
    return {name: array if array.dtype.kind == "f" else array.astype(np.int32) for name, array in inputs.items()}


def _served_elsewhere(
    directory: Path, inputs: dict[str, np.ndarray], scratch: Path, program: str = STRANGER
) -> dict[str, np.ndarray]:
    np.savez(scratch / "in.npz", **inputs)
    _run_elsewhere(program, [(directory, scratch / "in.npz", scratch / "out.npz")])
    return dict(np.load(scratch / "out.npz"))


def _run_elsewhere(program: str, exports: list[tuple[Path, Path, Path]]) -> None:
    """Run exports, each with its file of inputs and its file of outputs, in one process without this library."""
    command = [sys.executable, "-c", program, *(str(path) for paths in exports for path in paths)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "TF_USE_LEGACY_KERAS": "0"}
    scratch = exports[0][1].parent
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=scratch, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def _interpreted(directory: Path, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    runner = tf.lite.Interpreter(str(directory / "model.tflite")).get_signature_runner()
    return dict(runner(**inputs))


def _agrees(found: dict[str, np.ndarray], golden: Golden) -> None:
    wanted, mask = golden.read()["out"], golden.read()["in"]["attention_mask"]
    assert found
    for name, array in found.items():
        assert array.shape == wanted[name].shape
        assert difference(_real(name, array, mask), _real(name, wanted[name], mask)) <= 1e-5, name


@pytest.mark.slow
def test_served_by_a_process_without_this_library(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (golden,) = (golden for golden in GOLDENS if golden.directory == QUICK)
    assert main(["export", str(GOLDEN / QUICK), str(tmp_path / "out"), "--to", "savedmodel"]) == 0
    assert "logits" in capsys.readouterr().out
    _agrees(_served_elsewhere(tmp_path / "out", _inputs(golden), tmp_path), golden)


@pytest.mark.slow
def test_versions_in_a_repository_of_tf_serving(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The server loads the version with the highest number, by the tag `serve` and the method of the signature."""
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    (golden,) = (golden for golden in GOLDENS if golden.directory == QUICK)
    (tmp_path / "topics" / "9").mkdir(parents=True)
    command = ["export", str(GOLDEN / QUICK), str(tmp_path / "topics"), "--server", "tf-serving", "--quiet", "--to"]
    assert main([*command, "savedmodel"]) == 0
    assert {path.name for path in (tmp_path / "topics").iterdir()} == {"9", "10"}
    version = tmp_path / "topics" / "10"
    assert (version / "variables" / "variables.index").is_file()
    [graph] = SavedModel.FromString((version / "saved_model.pb").read_bytes()).meta_graphs
    assert list(graph.meta_info_def.tags) == ["serve"]
    signature = graph.signature_def["serving_default"]
    assert signature.method_name == "tensorflow/serving/predict"
    taken = {
        name: (each.dtype, [dim.size for dim in each.tensor_shape.dim]) for name, each in signature.inputs.items()
    }
    names = ("input_ids", "attention_mask", "token_type_ids")
    assert taken == dict.fromkeys(names, (tf.int32.as_datatype_enum, [-1, -1]))
    _agrees(_served_elsewhere(version, _inputs(golden), tmp_path), golden)
    assert main([*command, "litert"]) == 2
    assert "must be used with `--to savedmodel`" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
def test_the_interpreter_gives_the_goldens_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (golden,) = (golden for golden in GOLDENS if golden.directory == QUICK)
    assert main(["export", str(GOLDEN / QUICK), str(tmp_path / "out"), "--to", "litert", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["files"] == ["config.json", "model.tflite"]
    assert 0 < report["differences"]["logits"] <= 1e-5
    _agrees(_interpreted(tmp_path / "out", _inputs(golden)), golden)
    command = ["export", str(GOLDEN / QUICK), str(tmp_path / "small"), "--to", "litert", "--int8", "--json"]
    assert main(command) == 0
    assert 1e-5 < json.loads(capsys.readouterr().out)["differences"]["logits"] <= 0.1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
def test_litert_in_another_process_with_lora_and_in_int8(tmp_path: Path) -> None:
    config = small_config(num_hidden_layers=1, vocab_size=1000, hidden_size=48, intermediate_size=96)
    model = TF.build(config, "sequence-classification")
    ids = np.array([[3, 4, 5], [6, 7, 0]], np.int32)
    inputs = {"input_ids": ids, "attention_mask": np.minimum(ids, 1), "token_type_ids": ids * 0}
    plain = model(inputs).logits
    model.enable_lora(2, targets=("query", "value", "dense"))
    for variable in model.trainable_variables:
        variable.assign(tf.random.stateless_normal(variable.shape, (1, 2), stddev=0.2))
    expected = model(inputs).logits
    assert difference(plain, expected) > 0.01
    sizes: list[int] = []
    for int8, tolerance in ((False, 1e-5), (True, 0.1)):
        export_litert(model, tmp_path / "out", int8=int8, force=True)
        found = _served_elsewhere(tmp_path / "out", inputs, tmp_path, RUNTIME)["logits"]
        assert tolerance / 1e4 < difference(found, expected) <= tolerance
        sizes.append((tmp_path / "out" / "model.tflite").stat().st_size)
    assert sizes[0] - sizes[1] > 2 * model.num_parameters()  # of the 4 bytes of each
    model.quantize("int8")
    for export in (export_litert, lambda *_: model.export(tmp_path / "other", format="litert")):
        with pytest.raises(InputError, match=r"cannot be converted to LiteRT.*int8=True.* in int8"):
            export(model, tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
def test_every_golden(tmp_path: Path) -> None:
    exports = []
    for golden in GOLDENS:
        folder, source = tmp_path / golden.directory, str(GOLDEN / golden.directory)
        for target in ("savedmodel", "litert"):
            assert main(["export", source, str(folder / target), "--to", target, "--quiet"]) == 0
        _agrees(_interpreted(folder / "litert", _inputs(golden)), golden)
        np.savez(folder / "in.npz", **_inputs(golden))
        exports.append((folder / "savedmodel", folder / "in.npz", folder / "out.npz"))
    _run_elsewhere(STRANGER, exports)
    for golden in GOLDENS:
        _agrees(dict(np.load(tmp_path / golden.directory / "out.npz")), golden)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_head_in_float64_with_hidden_states(case: Case, tmp_path: Path) -> None:
    config = case.config(num_hidden_layers=1, output_hidden_states=True, output_attentions=True)
    done = export_savedmodel(build(TF, case, config), tmp_path / "out")
    assert {"hidden_states.0", "hidden_states.1", "attentions.0"} <= set(done.outputs)
    assert len(done.shapes) == 3
    assert max(done.differences.values()) <= 1e-10


@pytest.mark.slow
def test_half_precision(tmp_path: Path) -> None:
    model = TF.build(small_config(num_hidden_layers=1), "sequence-classification", dtype="mixed_bfloat16")
    assert export_savedmodel(model, tmp_path / "out").differences["logits"] <= 1e-1


@pytest.mark.slow
def test_keras_own_export_knows_the_inputs(tmp_path: Path) -> None:
    config = small_config(num_hidden_layers=1)
    model = TF.build(config, "sequence-classification")
    model.export(tmp_path / "out", verbose=False)
    ids = np.array([[3, 4, 5], [6, 7, 0]], np.int32)
    inputs = {"input_ids": ids, "attention_mask": np.minimum(ids, 1), "token_type_ids": ids * 0}
    loaded = tf.saved_model.load(str(tmp_path / "out"))
    expected = model(inputs).logits
    # Some logits are near 0: what is left of larger terms has their rounding.
    for served in (loaded.serve(inputs), keras.layers.TFSMLayer(tmp_path / "out")(inputs)):
        np.testing.assert_allclose(served["logits"], expected, rtol=1e-6, atol=1e-9)


@pytest.mark.slow
def test_signatures_take_both_dtypes_and_token_types_are_optional(tmp_path: Path) -> None:
    model = TF.build(small_config(num_hidden_layers=1), "sequence-classification")
    ids = np.array([[3, 4, 5], [6, 7, 0]])
    inputs = {"input_ids": ids, "attention_mask": np.minimum(ids, 1), "token_type_ids": ids * 0}
    expected = model(inputs).logits
    export_savedmodel(model, tmp_path / "served")
    signatures = tf.saved_model.load(str(tmp_path / "served")).signatures
    assert set(signatures) == {SIGNATURE, *VARIANTS}
    kinds = {SIGNATURE: (tf.int32, True), **VARIANTS}
    for name, (dtype, with_types) in kinds.items():
        given = {key: tf.constant(array, dtype) for key, array in inputs.items() if with_types or "type" not in key}
        np.testing.assert_allclose(signatures[name](**given)["logits"], expected, rtol=1e-5, atol=1e-7, err_msg=name)

    tf.saved_model.save(model, str(tmp_path / "plain"))
    signature = tf.saved_model.load(str(tmp_path / "plain")).signatures[SIGNATURE]
    given = {name: tf.constant(array, tf.int32) for name, array in inputs.items()}
    np.testing.assert_allclose(signature(**given)["logits"], expected, rtol=1e-5, atol=1e-7)


def test_too_large_for_litert(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"can hold 2 GB\. Received: .* 4\.0 GB"):
        common.check_litert_size(993_263_548)
    common.check_litert_size(2**29 - 1)
    monkeypatch.setattr(common, "LITERT_LIMIT", 1000)
    monkeypatch.setattr(
        "rembert.cli.export.load_trained", lambda *_, **__: pytest.fail("loaded before the size was known")
    )
    assert main(["export", str(GOLDEN / QUICK), str(tmp_path / "out"), "--to", "litert"]) == 2
    with pytest.raises(InputError, match="can hold 2 GB"):
        export_litert(TF.build(small_config(num_hidden_layers=1), "model"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unsupported_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"one of rembert\.tf's models\. Received: Sequential"):
        export_savedmodel(keras.Sequential(), tmp_path / "out")
    model = TF.build(small_config(num_hidden_layers=1), "model", dtype="mixed_bfloat16")
    with pytest.raises(InputError, match=r"must be of float32.*Received: a model of mixed_bfloat16"):
        export_litert(model, tmp_path / "out")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "notes.txt").write_text("mine")
    for force in (False, True):
        with pytest.raises(InputError, match="there"):
            export_savedmodel(model, tmp_path / "there", force=force)
    assert (tmp_path / "there" / "notes.txt").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["there"]
    with pytest.raises(InputError, match=r"`format` must be .*Received: `format='onnx'`"):
        model.export(tmp_path / "out", format="onnx")


@pytest.mark.slow
def test_an_export_with_other_results_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = TF.build(small_config(num_hidden_layers=1), "sequence-classification")
    monkeypatch.setattr(exporting, "_TOLERANCES", {"float32": -1.0})
    with pytest.raises(ExportError, match="`logits` differs by"):
        export_savedmodel(model, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_no_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = tf.saved_model.save
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def save_on_a_full_disk(*arguments: Any, **options: Any) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))  # the weights have more
        try:
            save(*arguments, **options)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    monkeypatch.setattr(tf.saved_model, "save", save_on_a_full_disk)
    monkeypatch.setattr(exporting, "VARIANTS", {})
    model = TF.build(small_config(vocab_size=2000), "model")
    with pytest.raises(ExportError, match=r"SavedModel cannot be written: .*out.*File too large"):
        export_savedmodel(model, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
