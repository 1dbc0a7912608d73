"""`rembert demo [CHECKPOINT]`: what the installed frameworks can do with a checkpoint, step by step."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from rembert import RemBertConfig, RemBertTokenizer
from rembert.bridge import Conversion, convert, inspect, open_checkpoint
from rembert.bridge.trimming import trim
from rembert.cli.demo_checkpoint import make_checkpoint
from rembert.cli.demo_task import SUBJECTS
from rembert.cli.demo_text import SENTENCES
from rembert.cli.text import byte_size, table
from rembert.common.errors import InputError
from rembert.common.files import temporary_directory, write_text
from rembert.common.locks import DirectoryLock
from rembert.common.parameters import HEADS
from rembert.common.trials import Arrays, output_differences, trial_inputs
from rembert.tasks.backends import FRAMEWORKS, get_backend, installed_frameworks, load_model
from rembert.tasks.definitions.sequence_classification import SequenceClassification
from rembert.tasks.predicting import evaluate, load_task, predict
from rembert.training import finetune

# Of the largest difference, relative to the largest magnitude of the logits: float32 rounding in a deep encoder.
TOLERANCE = 1e-4
# For four layers of random weights; the released model needs a fiftieth of this learning rate.
LEARNING: dict[str, Any] = {"epochs": 12, "batch_size": 12, "learning_rate": 5e-4, "max_length": 32}
# The languages that the trimmed vocabulary keeps.
KEPT_LANGUAGES = ("de", "en", "fr")
SHOWN_LANGUAGE = "fr"  # of the predictions that are printed
_NAMES = {"pt": "PyTorch", "tf": "TensorFlow"}
Result = TypeVar("Result")


def add_parser(subparsers: Any) -> None:
    """Declare the command's arguments."""
    parser = subparsers.add_parser(
        "demo",
        description="Create a small multilingual checkpoint (or use CHECKPOINT), convert it PyTorch → TensorFlow → "
        "PyTorch, and print every head's largest logit difference between the frameworks; with one framework "
        "installed, between both layouts in that one. The small checkpoint is also inspected, trimmed, fine-tuned on "
        "a task in twelve languages, and scored. With no framework installed, the demo shows the steps that need "
        "none.",
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", nargs="?", type=Path, help="a checkpoint of your own")
    parser.add_argument("--output", type=Path, help="keep the files in this new directory")
    parser.set_defaults(run=demo)


def demo(args: argparse.Namespace) -> int:
    """Run the demonstration; 1 if a step finds a difference."""
    installed = installed_frameworks()
    is_own = args.checkpoint is not None  # it may be too large to trim and train in a demonstration
    with _work_directory(args.output) as work:
        if not is_own:
            size = _step("creating a small multilingual checkpoint", lambda: make_checkpoint(work / "original"))
            print(f"    {size}")
        passed = convert_both_ways(args.checkpoint if is_own else work / "original", work)
        if not is_own:
            show_tokenizer(work)
        if installed:
            passed &= compare_heads(work, installed)
        if installed and not is_own:
            passed &= learn(work, installed)
        if len(installed) < len(FRAMEWORKS):
            print(f"\n{_what_is_missing(installed)}")
        if args.output is not None:
            print(f"\nkept in {args.output}")
    return 0 if passed else 1


# ---------------------------------------------------------------------- without a framework


def convert_both_ways(source: Path, work: Path) -> bool:
    """Convert `source` to PyTorch's layout, to TensorFlow's and back, and inspect the second one.

    Returns:
        Whether every tensor is unchanged.
    """
    _report(_step("PyTorch layout", lambda: convert(source, work / "pytorch", "pt")))
    _report(_step("PyTorch → TensorFlow", lambda: convert(work / "pytorch", work / "tensorflow", "tf")))
    _report(_step("TensorFlow → PyTorch", lambda: convert(work / "tensorflow", work / "pytorch-again", "pt")))
    changed = _step(
        "comparing the first with the last", lambda: _changed_tensors(work / "pytorch", work / "pytorch-again")
    )
    print(f"    {len(changed)} tensors changed" if changed else "    every tensor the same, bit for bit")
    found = _step("inspecting the TensorFlow layout", lambda: inspect(work / "tensorflow"))
    print(f"    {found.head}: {found.parameters:,} parameters in {len(found.tensors)} tensors")
    return not changed


def show_tokenizer(work: Path) -> None:
    """Tokenize a sentence, and trim the small checkpoint to the vocabulary of some of its languages."""
    tokenizer = RemBertTokenizer.from_pretrained(work / "pytorch")
    sentence = SENTENCES["de"][0]
    tokens = _step(f"tokenizing: {sentence}", lambda: tokenizer.tokenize(sentence))
    print(f"    {' '.join(tokens)}")
    corpus = work / "corpus.txt"
    write_text(corpus, "".join(f"{line}\n" for language in KEPT_LANGUAGES for line in SENTENCES[language]))
    done = _step(
        f"trimming the vocabulary to the text of {', '.join(KEPT_LANGUAGES)}",
        lambda: trim(work / "pytorch", work / "trimmed", corpus=[corpus]),
    )
    assert done.corpus is not None
    print(
        f"    {done.tokens_before} → {done.tokens_after} tokens, {done.parameters_before:,} → "
        f"{done.parameters_after:,} parameters; {done.corpus.changed} of {done.corpus.lines} lines changed"
    )


def _what_is_missing(installed: Sequence[str]) -> str:
    """The steps that these frameworks do not allow, and the command that installs the other."""
    if not installed:
        return (
            "Neither PyTorch nor TensorFlow is installed, so no model was run. Run `pip install 'rembert[pt]'` or "
            "`pip install 'rembert[tf]'` to compare the heads, fine-tune and predict."
        )
    (absent,) = set(FRAMEWORKS) - set(installed)
    return (
        f"{_NAMES[absent]} is not installed, so {_NAMES[installed[0]]} ran both layouts. Run "
        f"`pip install 'rembert[{absent}]'` to compare the frameworks."
    )


# ---------------------------------------------------------------------- heads


def compare_heads(work: Path, installed: Sequence[str]) -> bool:
    """Run every head from both layouts on the same input, each in its own framework if that is installed.

    Returns:
        Whether both give the same for every head.
    """
    sides = ((installed[0], work / "pytorch"), (installed[-1], work / "tensorflow"))
    where = "both frameworks" if len(installed) > 1 else f"{_NAMES[installed[0]]}, from both layouts,"
    print(f"running every head in {where} on the same input")
    rows: list[tuple[object, ...]] = [("head", "from the checkpoint", "logit difference", "largest logit", "")]
    passed = True
    for head in HEADS:
        difference, scale, is_new = compare(head, sides)
        equal = difference <= TOLERANCE * scale
        passed &= equal
        part = "encoder; new head" if is_new else "encoder and head"
        rows.append((head, part, f"{difference:.1e}", f"{scale:.2f}", "equal" if equal else "DIFFERS"))
    print(f"\n{table(rows, right=(2, 3))}\n")
    return passed


def compare(head: str, sides: Sequence[tuple[str, Path]]) -> tuple[float, float, bool]:
    """Run a head on two sides, each a framework and a checkpoint, on the same input.

    Parameters that the checkpoint lacks get the same initial values on both sides.

    Returns:
        The largest difference of the logits (base model: of the last hidden states), their largest magnitude, and
        whether the head is new.
    """
    options: dict[str, Any] = {"is_decoder": HEADS[head].predicts_next}
    if not options["is_decoder"]:
        options["add_cross_attention"] = False
    inputs: Arrays = {}
    outputs: list[Arrays] = []
    is_new = False
    for framework, path in sides:
        backend = get_backend(framework)
        model, report = load_model(framework, head, path, **options)
        backend.initialize(model, report["missing_keys"])
        is_new |= bool(report["missing_keys"])
        inputs = inputs or example_inputs(path, model.config, head)
        outputs.append(backend.run_once(model, inputs))
    found = output_differences(*outputs, head=head, mask=inputs["attention_mask"])
    logits = [found[name] for name in HEADS[head].logits or ("last_hidden_state",)]
    return max(each.largest for each in logits), max(each.scale for each in logits), is_new


def example_inputs(directory: Path, config: RemBertConfig, head: str) -> Arrays:
    """A sentence in each of four languages, tokenized; random tokens where the checkpoint has no tokenizer."""
    if not (directory / "sentencepiece.model").is_file():
        return trial_inputs(config, head)
    tokenizer = RemBertTokenizer.from_pretrained(directory)
    texts = [SENTENCES[language][0] for language in ("en", "fr", "hi", "zh")]
    encoded = tokenizer(
        texts, padding=True, truncation=True, max_length=config.max_position_embeddings, return_tensors="np"
    )
    inputs = {name: np.asarray(encoded[name]) for name in ("input_ids", "attention_mask", "token_type_ids")}
    if HEADS[head].takes_choices:  # two choices: the sentences, and the sentences in reverse order
        return {name: np.stack([array, array[::-1]], axis=1) for name, array in inputs.items()}
    return inputs


# ---------------------------------------------------------------------- a task


def learn(work: Path, installed: Sequence[str]) -> bool:
    """Fine-tune the small checkpoint, score the result in each framework, and print scores and predictions.

    Returns:
        Whether all frameworks give the same scores.
    """
    for use, lines in task_lines().items():
        write_text(work / f"{use}.jsonl", "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    name, trained = SequenceClassification.name, work / "fine-tuned"
    paths = (work / "pytorch", work / "train.jsonl")
    result = _step(
        f"fine-tuning in {_NAMES[installed[0]]}: the subjects of sentences in {len(SUBJECTS)} languages",
        lambda: finetune(name, *paths, output=trained, framework=installed[0], **LEARNING),
    )
    print(f"    final training loss {result['train_loss']:.4f}")
    scores = []
    for framework in installed:
        task, model = load_task(name, trained, framework, max_length=LEARNING["max_length"])
        examples = list(task.read(work / "test.jsonl"))
        scores.append(
            _step(
                f"scoring {len(examples)} other sentences in {_NAMES[framework]}",
                partial(evaluate, task, model, examples),
            )
        )
        print(f"    accuracy {scores[-1]['accuracy']:.4f}, F1 {scores[-1]['f1_macro']:.4f}")
        for line, found in zip(task_lines()["test"], predict(task, model, examples), strict=True):
            if line["language"] == SHOWN_LANGUAGE:
                print(f"    {line['text']} {found['label']}, {found['score']:.0%}")
    equal = all(each == scores[0] for each in scores)
    if len(scores) > 1:
        print(f"    all {len(scores[0])} scores, also by language, {'are equal' if equal else 'DIFFER'}")
    return equal


def task_lines() -> dict[str, list[dict[str, str]]]:
    """The examples of the demonstration's task, for training and for testing."""
    lines: dict[str, list[dict[str, str]]] = {"train": [], "test": []}
    for language, subjects in SUBJECTS.items():
        for label, (*train, test) in subjects.items():
            lines["train"] += [{"text": text, "label": label, "language": language} for text in train]
            lines["test"].append({"text": test, "label": label, "language": language})
    return lines


# ---------------------------------------------------------------------- steps and their report


@contextmanager
def _work_directory(output: Path | None) -> Iterator[Path]:
    """The directory `output`, which is created, or a temporary one."""
    if output is None:
        with temporary_directory("demo") as directory:
            yield directory
        return
    if output.exists() and not output.is_dir():
        raise InputError(f"`--output` must be a directory. Received: {output}, which is a file.")
    output.mkdir(parents=True, exist_ok=True)
    lock = DirectoryLock(output)
    try:
        if not lock.is_held:
            raise InputError(f"Another process is writing to `--output`. Received: {output}.")
        if any(output.iterdir()):
            raise InputError(f"`--output` must be a new or empty directory. Received: {output}.")
        yield output
    finally:
        lock.release()


def _step(what: str, do: Callable[[], Result]) -> Result:
    print(f"{what} ...", end="", flush=True)
    started = time.perf_counter()
    result = do()
    print(f" {time.perf_counter() - started:.2f} s")
    return result


def _report(done: Conversion) -> None:
    size = sum(os.path.getsize(done.target / name) for name in done.files)
    formats = f"{done.source_format} → {done.target_format}"
    print(f"    {formats}, {done.head}: {byte_size(size)} in {len(done.files)} files")


def _changed_tensors(one: Path, other: Path) -> list[str]:
    """The names of tensors that differ in any bit, or that only one of the checkpoints has."""
    with open_checkpoint(one) as first, open_checkpoint(other) as second:
        changed = sorted(first.tensors.keys() ^ second.tensors.keys())
        for name in first.tensors.keys() & second.tensors.keys():
            left, right = first.read(name), second.read(name)
            if left.dtype != right.dtype or left.shape != right.shape or left.tobytes() != right.tobytes():
                changed.append(name)
    return changed
