"""What docs/architecture.md says about adding something is true: each kind is added at run time, used, and removed."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from rembert import RemBertConfig
from rembert.bridge import FORMATS, TARGETS, open_checkpoint
from rembert.bridge.format import Format
from rembert.bridge.heads import recognise_head
from rembert.bridge.streaming import Progress, silent
from rembert.bridge.tensors import Contents, TensorSource
from rembert.cli.main import COMMANDS, main
from rembert.common import config_values
from rembert.common.arguments import one_of, optional
from rembert.common.errors import ConfigError, InputError
from rembert.common.labels import PROBLEM_TYPES, LabelKind
from rembert.common.parameters import HEADS, Parameter
from rembert.tasks import TASKS, Recipe, get_task
from rembert.training.micro_batches import label_count, split_batch
from tests.adding_head import HEAD, pt_class, tf_class
from tests.bridge.support import GOLDEN, source
from tests.frameworks import Framework, is_installed, needs, needs_pt, needs_tf, on_both, on_both_tf_slow
from tests.parity.cases import Case, build, build_both, declared_cases
from tests.parity.test_frameworks_agree import check_gradients, check_outputs
from tests.tasks.support import TOKENIZER
from tests.training.runs import lines, write_start

# ---------------------------------------------------------------------- a checkpoint format: one file and one entry


def _read(path: Path) -> Contents:
    with np.load(path) as file:
        return Contents({name.replace("/", "."): source(file[name].T) for name in file})


def _write(
    path: Path, tensors: Mapping[str, TensorSource], *, shard: bool = False, progress: Progress = silent
) -> None:
    with path.open("wb") as file:
        np.savez(file, **{name: np.asarray(tensor.read(), tensor.dtype) for name, tensor in tensors.items()})
    progress(sum(tensor.nbytes for tensor in tensors.values()))


def _stored_name(parameter: Parameter, head: str) -> tuple[str, bool]:
    return parameter.name.replace(".", "/"), len(parameter.shape) == 2


NPZ = Format(
    name="npz",
    files=("model.npz",),
    pattern=r".*\.npz",
    read=_read,
    dtypes=("float32",),
    checksums="CRC-32 of every member",
    framework="tf",
    target="numpy",
    write=_write,
    stored_name=_stored_name,
    can_shard=False,
)


@pytest.fixture
def npz() -> Iterator[None]:
    FORMATS[NPZ.name] = NPZ
    yield
    del FORMATS[NPZ.name]


def report(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> dict[str, Any]:
    assert main([*map(str, argv), "--json"]) == 0
    content: dict[str, Any] = json.loads(capsys.readouterr().out)
    return content


@pytest.mark.usefixtures("npz")
def test_a_format_is_written_and_read_by_every_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, back = tmp_path / "out", tmp_path / "back"
    assert report(capsys, "convert", GOLDEN / "masked_lm", out, "--to", "numpy")["files"][0] == "model.npz"
    found = report(capsys, "inspect", out)
    assert (found["format"], found["fits"]) == ("npz", True)
    assert found["checksums"] == NPZ.checksums
    assert report(capsys, "diff", GOLDEN / "masked_lm", out)["same"]
    assert report(capsys, "convert", out / "model.npz", back, "--to", "pt")["source_format"] == "npz"
    assert (back / "model.safetensors").read_bytes() == (GOLDEN / "masked_lm" / "model.safetensors").read_bytes()
    assert main(["convert", "--help"]) == 0
    assert "numpy (model.npz)" in capsys.readouterr().out


@pytest.mark.usefixtures("npz")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--dtype", "float16"), "`dtype` must be one of float32 for `to='numpy'`"),
        (("--max-shard-size", "1KB"), "model.npz has no shards"),
    ],
)
def test_a_format_keeps_its_limits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], message: str
) -> None:
    assert main(["convert", str(GOLDEN / "model"), str(tmp_path / "out"), "--to", "numpy", *options]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@needs_pt
@needs_tf
@pytest.mark.usefixtures("npz")
@pytest.mark.parametrize("framework", ["pt", "tf"])
def test_a_format_is_loaded_by_both_frameworks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], framework: str
) -> None:
    assert main(["convert", str(GOLDEN / "masked_lm"), str(tmp_path / "out"), "--to", "numpy", "--quiet"]) == 0
    paths = (str(GOLDEN / "masked_lm"), str(tmp_path / "out"))
    assert main(["verify", *paths, "--frameworks", "pt", framework]) == 0
    assert "equal" in capsys.readouterr().out


def test_a_format_that_was_removed_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "numpy" not in TARGETS
    assert main(["convert", str(GOLDEN / "model"), str(tmp_path / "out"), "--to", "numpy"]) == 2
    assert "invalid choice" in capsys.readouterr().err
    with open_checkpoint(GOLDEN / "model") as checkpoint:
        assert checkpoint.format == "safetensors"


# ---------------------------------------------------------------------- a head: a declaration, its output, two classes


@pytest.fixture
def acceptability(monkeypatch: pytest.MonkeyPatch) -> None:
    """The head of `tests/adding_head.py`, as a declaration in `common/parameters.py` and two classes would be."""
    monkeypatch.setitem(HEADS, HEAD.name, HEAD)
    for package, framework, make in (("torch", "pt", pt_class), ("tensorflow", "tf", tf_class)):
        if is_installed(package):
            made = make()
            monkeypatch.setattr(import_module(f"rembert.{framework}"), made.__name__, made, raising=False)


def with_head(directory: Path, to: str = "pt") -> Path:
    """A golden encoder converted to a model with the new head."""
    call = ["convert", str(GOLDEN / "masked_lm"), str(directory), "--to", to, "--head", HEAD.name, "--quiet"]
    assert main(call) == 0
    return directory


@pytest.mark.usefixtures("acceptability")
@pytest.mark.parametrize("to", ["pt", "tf", "keras"])
def test_a_head_is_converted_and_recognised(to: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = with_head(tmp_path / "out", to)
    found = report(capsys, "inspect", out)
    assert (found["head"], found["fits"]) == (HEAD.name, True)
    back = report(capsys, "convert", out, tmp_path / "back", "--to", "pt")
    assert back["fresh"] == back["dropped"] == []
    with open_checkpoint(tmp_path / "back") as checkpoint:
        assert checkpoint.tensors["acceptability.weight"].shape == (3, 32)
        assert checkpoint.config is not None
        checkpoint.config.architectures = None
        assert recognise_head(checkpoint.config, checkpoint.tensors) == HEAD.name


@needs_pt
@needs_tf
@pytest.mark.usefixtures("acceptability")
def test_a_head_is_the_same_in_both_frameworks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [str(with_head(tmp_path / to, to)) for to in ("pt", "tf")]
    assert main(["verify", *paths, "--tolerance", "1e-5"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [(line[0], line[-1]) for line in lines[3:]] == [("loss", "equal"), ("acceptability_logits", "equal")]
    (case,) = (case for case in declared_cases() if case.head == HEAD.name)
    models, inputs = build_both(case, case.config()), case.inputs(case.config())
    check_outputs(models, inputs, 1e-10)
    check_gradients(models, inputs, 1e-10)


@needs_tf
@pytest.mark.usefixtures("acceptability")
def test_a_head_is_in_files_of_keras(tmp_path: Path) -> None:
    one = tf_class().from_pretrained(with_head(tmp_path / "pt"))  # type: ignore[attr-defined]
    other = tf_class()(one.config)
    other.load_weights(with_head(tmp_path / "keras", "keras") / "model.weights.h5")
    for mine, wanted in zip(other.weights, one.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(mine), np.asarray(wanted), err_msg=mine.path)


@pytest.mark.usefixtures("acceptability")
@pytest.mark.parametrize("target", [
    pytest.param("onnx", marks=[needs_pt, needs("onnx", "onnxruntime"), pytest.mark.slow]),
    pytest.param("savedmodel", marks=needs_tf),
])  # fmt: skip
def test_a_head_is_exported(target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = report(capsys, "export", with_head(tmp_path / "in"), tmp_path / "out", "--to", target)
    assert done["outputs"] == ["acceptability_logits"]


@on_both_tf_slow
@pytest.mark.usefixtures("acceptability")
def test_a_head_is_trained(framework: Framework, tmp_path: Path) -> None:
    """The trainer's micro-batches are weighted by the labels that count: two of them make the loss of the whole."""
    trainer = import_module(f"rembert.training.{framework.name}_trainer").Trainer
    batch = {
        "input_ids": np.arange(1, 13).reshape(3, 4),
        "attention_mask": np.ones((3, 4), int),
        "token_type_ids": np.zeros((3, 4), int),
        "judgements": np.array([2, -100, 0]),
    }
    losses = []
    for count in (1, 2):
        running = trainer(HEAD.name, with_head(tmp_path / str(count)), Recipe(dropout=0.0), {})
        parts = split_batch(batch, count, lambda rows: label_count(HEAD.name, rows))
        losses.append(float(running.train_step(parts, 0.0, 0)[0]))
        running.close()
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_a_head_that_was_removed_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(HEADS, HEAD.name, HEAD)
        out = with_head(tmp_path / "out")
    assert main(["convert", str(out), str(tmp_path / "no"), "--to", "pt", "--head", HEAD.name]) == 2
    assert "invalid choice" in capsys.readouterr().err
    assert main(["inspect", str(out)]) == 1
    assert "unknown     acceptability.weight" in capsys.readouterr().out


# ---------------------------------------------------------------------- a loss: a problem type, and two functions


@pytest.fixture
def poisson(monkeypatch: pytest.MonkeyPatch) -> str:
    """A regression of counts: the loss is exp(logit) - target * logit, the Poisson likelihood without its constant."""
    name = "poisson_regression"
    monkeypatch.setitem(PROBLEM_TYPES, name, LabelKind.NUMBER)
    monkeypatch.setitem(config_values._CONSTRAINTS, "problem_type", optional(one_of(PROBLEM_TYPES)))
    for package, framework in (("torch", "pt"), ("tensorflow", "tf")):
        if is_installed(package):
            losses = import_module(f"rembert.{framework}.losses")
            exp = import_module(package).exp
            monkeypatch.setitem(losses.NUMBER_LOSSES, name, lambda x, t, exp=exp: exp(x) - t * x)
    return name


@on_both
def test_a_loss_is_computed_and_weighted(framework: Framework, poisson: str) -> None:
    case = Case("counts", "sequence-classification", {"problem_type": poisson})
    model, inputs = build(framework, case, case.config()), case.inputs(case.config())
    found = framework.call(model, **inputs)
    logits = framework.array(found.logits)
    assert float(found.loss) == pytest.approx(np.mean(np.exp(logits) - inputs["labels"] * logits), rel=1e-12)
    assert label_count(case.head, inputs, poisson) == inputs["labels"].size
    model.label_smoothing = 0.1
    training = {"training": True} if framework.name == "tf" else {}
    if framework.name == "pt":
        model.train()
    with pytest.raises(InputError, match="`label_smoothing` must be 0"):
        framework.call(model, **inputs, **training)


@needs_pt
@needs_tf
def test_a_loss_is_the_same_in_both_frameworks(poisson: str) -> None:
    case = Case("counts", "sequence-classification", {"problem_type": poisson})
    models, inputs = build_both(case, case.config()), case.inputs(case.config())
    check_outputs(models, inputs, 1e-10)
    check_gradients(models, inputs, 1e-10)


def test_a_loss_that_was_removed_leaves_nothing() -> None:
    with pytest.raises(ConfigError, match="`problem_type` must be one of regression, single_label_classification"):
        RemBertConfig(problem_type="poisson_regression")


# ---------------------------------------------------------------------- a command: one file and one entry


@pytest.fixture
def greet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module as a file in `rembert/cli` would be, and its name among the commands."""
    module = ModuleType("rembert.cli.greet_model")

    def add_parser(subparsers: Any) -> None:
        parser = subparsers.add_parser("greet-model")
        parser.add_argument("name")
        parser.set_defaults(run=run)

    def run(args: Any) -> int:
        print(f"hello, {args.name}")
        return 0

    module.add_parser = add_parser  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(COMMANDS, "greet-model", "greet a model")


@pytest.mark.usefixtures("greet")
def test_a_command_runs_and_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["greet-model", "rembert"]) == 0
    assert capsys.readouterr().out == "hello, rembert\n"
    assert main(["--help"]) == 0
    assert "greet a model" in capsys.readouterr().out


def test_a_command_that_was_removed_leaves_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["greet-model", "rembert"]) == 2
    assert "invalid choice" in capsys.readouterr().err


# ---------------------------------------------------------------------- a task: one file, its page, and its test


@pytest.fixture
def rating(monkeypatch: pytest.MonkeyPatch) -> None:
    """The task of `tests/adding_task.py`, as a file of that name in `rembert/tasks/definitions` would be."""
    monkeypatch.setitem(TASKS, "rating", "tests.adding_task")


@on_both_tf_slow
@pytest.mark.usefixtures("rating")
def test_a_task_is_trained_evaluated_and_predicted(
    framework: Framework, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start, run, data = write_start(tmp_path / "start"), tmp_path / "run", tmp_path / "data.jsonl"
    rows = [{"text": text, "stars": stars} for text, stars in (("bread", 4), ("soup", 1), ("lemon", 2), ("rain", 3))]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ["--most-stars", "4", "--framework", framework.name]
    files = ["--train", str(data), "--eval", str(data), "--output", str(run)]
    call = ["finetune", "rating", "--model", str(start), "--from-scratch", *files, *options]
    assert main([*call, "--epochs", "4"]) == 0
    assert "eval_mean_error" in capsys.readouterr().out
    settings = json.loads((run / "run.json").read_text())
    assert (settings["options"], settings["recipe"]["batch_size"]) == ({"most_stars": 4.0}, 4)
    evaluations = {line["step"]: line["eval_mean_error"] for line in lines(run) if "best_step" not in line and
                   "eval_mean_error" in line}  # fmt: skip
    assert lines(run)[-1]["best_step"] == min(evaluations, key=lambda step: evaluations[step])  # lower is better
    model = ["rating", "--model", str(run), "--data", str(data), *options]
    assert main(["evaluate", *model]) == 0
    found = float(capsys.readouterr().out.split()[1])
    assert found == pytest.approx(min(evaluations.values()), abs=1e-4)
    assert main(["predict", *model]) == 0
    predicted = [json.loads(line)["stars"] for line in capsys.readouterr().out.splitlines()]
    errors = [abs(stars - row["stars"]) for stars, row in zip(predicted, rows, strict=True)]
    assert np.mean(errors) == pytest.approx(found, abs=1e-4)
    assert "TFRemBertForSequenceClassification" in (run / "README.md").read_text()


@pytest.mark.usefixtures("rating")
def test_a_task_is_listed_and_its_options_are_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "rating: the best rating there is (default: 5.0)" in said
    call = ["evaluate", "rating", "--model", "x", "--data", "y"]
    assert main([*call, "--stride", "3"]) == 2
    assert "`--stride` must be used with question-answering. Received: rating." in capsys.readouterr().err
    with pytest.raises(InputError, match=r"`most_stars` must be a number above 0\. Received: `most_stars=0`"):
        get_task("rating", TOKENIZER(), max_length=16, most_stars=0)
    with pytest.raises(TypeError, match=r"rating got an unexpected option: stride\. It has most_stars"):
        get_task("rating", TOKENIZER(), max_length=16, stride=3)
    assert Recipe.for_task("rating").batch_size == 4


def test_a_task_that_was_removed_leaves_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "rating", "--model", "x", "--data", "y"]) == 2
    assert "invalid choice" in capsys.readouterr().err
    assert main(["evaluate", "--help"]) == 0
    assert "most-stars" not in capsys.readouterr().out
