"""The two frameworks' files are twins, and no file or function is too long to read at once."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "rembert"
# Files that only one framework needs; docs/architecture.md says what each is for.
ONLY_PT = {
    "inference.py",
    "inference_layers.py",
    "packed_attention.py",
    "peft_targets.py",
    "sentence_transformers.py",
    "torch_internals.py",
}
ONLY_TF = {
    "additions.py",
    "adaptation.py",
    "callbacks.py",
    "collation.py",
    "data.py",
    "keras_internals.py",
    "layers.py",
    "optimizer.py",
    "schedules.py",
    "serving.py",
    "text_serving.py",
    "training.py",
}
TWINS = sorted({path.name for path in (PACKAGE / "pt").glob("*.py")} - ONLY_PT)
# Twins that share their subject but nothing else: PyTorch exports ONNX, TensorFlow SavedModel and LiteRT.
UNLIKE = {"exporting.py"}

# What Keras requires of every layer and model, and PyTorch does not.
KERAS = {"build", "build_parts", "compute_output_shape", "compute_output_spec", "get_config", "from_config"}
# Other public names that one twin lacks, by file; a name stands for its methods too.
DECLARED = {
    "encoder.py": {
        "RemBertModel.attention_implementation": "for the plug-in; TensorFlow has no fused attention",
        "RemBertEncoder.layers": "what Keras' summary lists",
    },
    "activations.py": {
        "gelu": "TensorFlow's own is 5e-9 off in float64",
        "mish": "TensorFlow has none",
    },
    "base.py": {
        "RemBertModelBase.backbone": "KerasHub's name of the base model",
        "RemBertModelBase.accepts_loss_kwargs": "for transformers' Trainer",
        "RemBertModelBase.config": "tells PEFT its modules before it asks",
        "RemBertModelBase.dtype": "Keras has its own",
        "RemBertModelBase.enable_lora": "of Keras; PyTorch has PEFT",
        "RemBertModelBase.device": "TensorFlow chooses the device of each operation",
        "RemBertModelBase.head_modules": "for PEFT",
        "RemBertModelBase.activation_checkpointing_enable": "for transformers' Trainer",
        "RemBertModelBase.enable_input_require_grads": "for re-entrant checkpointing",
        "RemBertModelBase.init_weights": "the older name of `post_init`, which users' own heads call",
        "RemBertModelBase.train": "refuses what needs dropped parameters",
        "RemBertModelBase.load_state_dict": "refuses what needs dropped parameters",
        "RemBertModelBase.before_conversion": "refuses what needs dropped parameters",
        "RemBertModelBase.optimize_for_inference": "kernels of PyTorch",
        "RemBertModelBase.quantize_dynamic": "kernels of PyTorch; Keras has `quantize`",
        "RemBertModelBase.variable": "PyTorch finds parameters by name in `state_dict`",
    },
    "cache.py": {
        "CacheBuffer": "a graph's loop takes and returns tensors",
        "CacheView": "for transformers' caches",
    },
    "decoding.py": {
        "Decoder.prompt": "in PyTorch a call, which changes the decoder's own state",
        "Decoder.step": "in PyTorch a call, which changes the decoder's own state",
        "Decoder.shapes": "a graph's loop needs to know them",
        "Outside": "calls Python from a graph",
        "is_stopped": "in TensorFlow a method of `Outside`",
    },
    "embeddings.py": {"RemBertEmbeddings.embed_words": "PyTorch's `padding_idx` does it"},
    "initialization.py": {
        "initialize": "Keras layers have initialisers",
        "normal": "an initialiser",
        "Normal": "an initialiser",
        "Stored": "an initialiser; PyTorch assigns tensors",
        "is_initialization_skipped": "PyTorch's mode acts by itself",
    },
    "inputs.py": {
        "values_can_be_read": "TensorFlow knows whether it runs eagerly",
        "check_devices": "TensorFlow copies tensors between devices",
        "check_label_devices": "TensorFlow copies tensors between devices",
        "kept_positions": "an argument of transformers' PyTorch classes",
        "is_text": "PyTorch has no tensors of strings",
        "accepts_structures": "Keras passes inputs as one structure",
        "argument_names": "Keras passes inputs as one structure",
        "by_name": "Keras passes inputs as one structure",
    },
    "structures.py": {
        "as_structure": "PyTorch takes inputs by name only",
        "as_labels": "the `y` of Keras",
        "as_ragged": "for `predict` of Keras",
        "pad_ragged": "for `predict` of Keras",
        "check_symbolic_ids": "of Keras",
        "refuse_legacy": "of Keras",
    },
    "language_models.py": {"RemBertForCausalLM.prepare_inputs_for_generation": "for PEFT"},
    "layer.py": {"LayerContext": "Keras traces the tensors of a call one argument at a time"},
    "linear_cross_entropy.py": {
        "_LinearCrossEntropy": "PyTorch's form of a function with its own gradient",
    },
    "losses.py": {"share_of_items": "for transformers' Trainer"},
    "packing.py": {
        "GraphPacking": "ONNX graphs of unknown sizes; TensorFlow packs in every graph alike",
        "pack_in_graph": "as `GraphPacking`",
        "padding_removed_in_graphs": "as `GraphPacking`",
        "TokenIndices": "the groups of sequences that TensorFlow pads",
        "Group": "the groups of sequences that TensorFlow pads",
        "Packing": "inherits from it, or stores what the twin computes",
        "reads_when_run": "Keras compiles with XLA, which knows no lengths",
        "pad_packed": "XLA knows no lengths; PyTorch uses `Packing.unpack`",
    },
    "pretrained.py": {
        "RemBertPreTrainedModel.load_weights": "of Keras",
        "RemBertPreTrainedModel.save": "of Keras",
        "RemBertPreTrainedModel.served": "of TensorFlow",
        "RemBertPreTrainedModel.export": "of Keras",
    },
}
MOST_LINES = {"file": 400, "function": 60}
# A longer function has a comment that begins like this above it, with the reason.
REASON = "# Long: "
FILES = sorted(PACKAGE.rglob("*.py"))


def definitions(path: Path) -> list[str]:
    """Classes, methods and functions in their order, under the names that both frameworks share."""
    names = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            name = node.name.removeprefix("TF")
            names.append(name)
            if isinstance(node, ast.ClassDef):
                names += [
                    f"{name}.{'forward' if each.name == 'call' else each.name}"
                    for each in node.body
                    if isinstance(each, ast.FunctionDef)
                ]
    return list(dict.fromkeys(names))  # a property and its setter are one


def test_the_twins_have_the_same_files() -> None:
    pt, tf = ({path.name for path in (PACKAGE / each).glob("*.py")} for each in ("pt", "tf"))
    assert tf - ONLY_TF == pt - ONLY_PT
    assert tf >= ONLY_TF
    assert pt >= ONLY_PT


@pytest.mark.parametrize("name", TWINS)
def test_the_twins_have_the_same_order(name: str) -> None:
    pt, tf = (definitions(PACKAGE / each / name) for each in ("pt", "tf"))
    assert [each for each in pt if each in tf] == [each for each in tf if each in pt]


@pytest.mark.parametrize("name", [name for name in TWINS if name not in UNLIKE])
def test_the_twins_have_the_same_public_names(name: str) -> None:
    pt, tf = (set(definitions(PACKAGE / each / name)) for each in ("pt", "tf"))
    unlike = {each for each in pt ^ tf if not is_hidden(each)}
    declared = DECLARED.get(name, {})
    assert {each for each in unlike if each not in declared and each.partition(".")[0] not in declared} == set()
    assert {each for each in declared if not any(f"{one}.".startswith(f"{each}.") for one in pt ^ tf)} == set()


def is_hidden(name: str) -> bool:
    """Whether a name is private, or one that Keras requires."""
    last = name.rpartition(".")[2]
    return last.startswith("_") or last in KERAS


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES["file"]


def docstring_lines(node: ast.AST) -> int:
    """The number of lines of a definition's own docstring."""
    if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) or ast.get_docstring(node) is None:
        return 0
    return (node.body[0].end_lineno or 0) - node.body[0].lineno + 1


@pytest.mark.parametrize("framework", ["pt", "tf"])
def test_a_model_is_about_a_thousand_lines_of_code(framework: str) -> None:
    count = 0
    for name in ("embeddings", "attention", "layer", "encoder", "language_models", "heads"):
        text = (PACKAGE / framework / f"{name}.py").read_text(encoding="utf-8")
        count += len(text.splitlines()) - sum(map(docstring_lines, ast.walk(ast.parse(text))))
    assert count <= 1100


def functions(path: Path) -> Iterator[tuple[ast.FunctionDef, int, str]]:
    """Every function of a file, its number of lines without the docstring, and the line above it."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            start = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            count = (node.end_lineno or 0) - node.lineno + 1 - docstring_lines(node)
            yield node, count, lines[start - 2].strip()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_functions_are_short_or_say_why_not(path: Path) -> None:
    for node, count, above in functions(path):
        is_long = count > MOST_LINES["function"]
        assert is_long == above.startswith(REASON), f"{node.name}: {count} lines"
