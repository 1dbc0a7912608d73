"""`rembert demo [CHECKPOINT]`: a checkpoint through both frameworks, every step shown."""

from __future__ import annotations

import argparse
import io
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from rembert import RemBertConfig, RemBertTokenizer
from rembert.bridge import convert, open_checkpoint
from rembert.cli.demo_task import SUBJECTS
from rembert.cli.demo_text import SENTENCES
from rembert.cli.text import byte_size, table
from rembert.common.errors import InputError
from rembert.common.files import atomic_path, write_text
from rembert.common.parameters import HEADS, Kind, file_name
from rembert.common.trials import Arrays, output_differences, trial_inputs
from rembert.tasks import get_task
from rembert.tasks.backends import FRAMEWORKS, get_backend, load_model
from rembert.tasks.definitions.sequence_classification import SequenceClassification
from rembert.tasks.predicting import evaluate
from rembert.training import finetune

# Float32 rounding through a deep encoder; the largest difference is judged against the logits' largest magnitude.
TOLERANCE = 1e-4
# For four layers of random weights; the released model wants a hundredth of this rate.
LEARNING: dict[str, Any] = {"epochs": 12, "batch_size": 12, "learning_rate": 1e-3, "max_length": 32}
Result = TypeVar("Result")


def add_parser(subparsers: Any) -> None:
    """Declare the command's arguments."""
    parser = subparsers.add_parser(
        "demo",
        help="take a checkpoint through both frameworks and compare every head",
        description="Make a small multilingual checkpoint (or take CHECKPOINT), convert it PyTorch → TensorFlow → "
        "PyTorch, and print every head's largest logit difference between the frameworks. The small checkpoint "
        "is also fine-tuned in PyTorch on a task in twelve languages, and scored in both frameworks.",
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", nargs="?", type=Path, help="a checkpoint of your own")
    parser.add_argument("--output", type=Path, help="keep what is made in this new directory")
    parser.set_defaults(run=demo)


def demo(args: argparse.Namespace) -> int:
    """Run the demonstration; 1 where a step gives a difference."""
    for framework in FRAMEWORKS:  # one that is missing is said before any work is done
        get_backend(framework)
    with _workplace(args.output) as work:
        if args.checkpoint is None:
            source = work / "original"
            size = _step("making a small multilingual checkpoint", lambda: make_checkpoint(source))
            print(f"    {size}")
        else:
            source = args.checkpoint
        original = _step("PyTorch layout", lambda: convert(source, work / "pytorch", "pt"))
        _say(original)
        _say(_step("PyTorch → TensorFlow", lambda: convert(work / "pytorch", work / "tensorflow", "tf")))
        _say(_step("TensorFlow → PyTorch", lambda: convert(work / "tensorflow", work / "pytorch-again", "pt")))
        changed = _step(
            "comparing the first with the last", lambda: _changed(work / "pytorch", work / "pytorch-again")
        )
        print(f"    {len(changed)} tensors changed" if changed else "    every tensor the same, bit for bit")
        print("running every head in both frameworks on the same input")
        rows: list[tuple[object, ...]] = [("head", "from the checkpoint", "logit difference", "largest logit", "")]
        failed = bool(changed)
        for head in HEADS:
            difference, scale, is_fresh = compare(head, work / "pytorch", work / "tensorflow")
            equal = difference <= TOLERANCE * scale
            failed |= not equal
            part = "encoder; head made afresh" if is_fresh else "all of it"
            rows.append((head, part, f"{difference:.1e}", f"{scale:.2f}", "equal" if equal else "DIFFERS"))
        print()
        print(table(rows, right=(2, 3)))
        if args.checkpoint is None:  # one of your own may be too large to train in passing
            print()
            failed |= not learn(work)
        if args.output is not None:
            print(f"\nkept in {args.output}")
    return 1 if failed else 0


def learn(work: Path) -> bool:
    """Fine-tune the small checkpoint in PyTorch, score the result in both frameworks, and print what came out.

    Returns:
        whether both frameworks give the same scores.
    """
    for use, lines in task_lines().items():
        write_text(work / f"{use}.jsonl", "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    trained = work / "fine-tuned"
    name, held_out = SequenceClassification.name, work / "test.jsonl"
    result = _step(
        f"fine-tuning in PyTorch: what {len(SUBJECTS)} languages speak of",
        lambda: finetune(name, work / "pytorch", work / "train.jsonl", output=trained, **LEARNING),
    )
    print(f"    training loss {result['train_loss']:.4f} in the end")
    scores = {}
    for framework in FRAMEWORKS:
        model, _ = load_model(framework, name, trained)
        task = get_task(name, RemBertTokenizer.from_pretrained(trained), max_length=LEARNING["max_length"])
        task.prepare(config=model.config)
        examples = list(task.read(held_out))
        scores[framework] = _step(
            f"{len(examples)} sentences it has not seen, in {'PyTorch' if framework == 'pt' else 'TensorFlow'}",
            partial(evaluate, task, model, examples),
        )
        print(f"    accuracy {scores[framework]['accuracy']:.4f}, F1 {scores[framework]['f1_macro']:.4f}")
    equal = scores["pt"] == scores["tf"]
    print(f"    all {len(scores['pt'])} scores, those of each language too, {'are equal' if equal else 'DIFFER'}")
    return equal


def task_lines() -> dict[str, list[dict[str, str]]]:
    """The examples of the demonstration's task, to train on and to test on."""
    lines: dict[str, list[dict[str, str]]] = {"train": [], "test": []}
    for language, subjects in SUBJECTS.items():
        for label, (*train, test) in subjects.items():
            lines["train"] += [{"text": text, "label": label, "language": language} for text in train]
            lines["test"].append({"text": test, "label": label, "language": language})
    return lines


def make_checkpoint(directory: Path) -> str:
    """Write a small masked language model with random weights, its tokenizer trained on `SENTENCES`.

    Returns:
        its sizes in words.
    """
    directory.mkdir(parents=True)
    tokenizer = make_tokenizer(directory)
    config = RemBertConfig(
        vocab_size=len(tokenizer),
        hidden_size=96,
        num_hidden_layers=4,
        num_attention_heads=6,
        input_embedding_size=32,
        output_embedding_size=128,
        intermediate_size=384,
        max_position_embeddings=128,
        # Wide enough that a random model's outputs vary from token to token, as a trained one's do.
        initializer_range=0.1,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.cls_token_id,
        eos_token_id=tokenizer.sep_token_id,
    )
    import torch

    from rembert.pt import RemBertForMaskedLM

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = RemBertForMaskedLM(config)
    model.save_pretrained(directory)
    return (
        f"{len(SENTENCES)} languages, {config.vocab_size} pieces, {config.num_hidden_layers} layers of width "
        f"{config.hidden_size}, {model.num_parameters():,} parameters"
    )


def make_tokenizer(directory: Path) -> RemBertTokenizer:
    """Train a SentencePiece model on `SENTENCES`, write it with its tokenizer into `directory`, and return that."""
    import sentencepiece

    trained = io.BytesIO()
    lines = [sentence for sentences in SENTENCES.values() for sentence in sentences]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=trained,
        model_type="unigram",
        vocab_size=600,
        hard_vocab_limit=False,
        character_coverage=1.0,
        normalization_rule_name="nmt_nfkc",
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        pad_piece="<pad>",
        control_symbols=["[CLS]", "[SEP]", "[MASK]"],
        num_threads=1,
        minloglevel=2,
    )
    with atomic_path(directory / "sentencepiece.model") as temporary:
        temporary.write_bytes(trained.getvalue())
    tokenizer = RemBertTokenizer(directory / "sentencepiece.model")
    tokenizer.save_pretrained(directory)
    return tokenizer


def compare(head: str, pytorch: Path, tensorflow: Path) -> tuple[float, float, bool]:
    """Run a head in PyTorch and in TensorFlow, each from its own layout, on the same input.

    A head that the checkpoint does not have is made afresh in PyTorch and its weights copied over.

    Returns:
        the largest difference of the logits (the base model: of the last hidden states), the largest magnitude, and
        whether the head was made afresh.
    """
    with open_checkpoint(pytorch) as checkpoint:
        config = checkpoint.config
    assert config is not None  # a conversion writes one
    import_module("torch").manual_seed(0)  # the same head every time
    options: dict[str, Any] = {"is_decoder": HEADS[head].predicts_next}
    if not options["is_decoder"]:
        options["add_cross_attention"] = False
    one, report = load_model("pt", head, pytorch, **options)
    other, _ = load_model("tf", head, tensorflow, **options)
    table = one.parameter_table()
    for name in report["missing_keys"]:
        own = one.get_parameter(file_name(name, head)).detach().numpy()
        other.variable(table[name]).assign(own.T if table[name].kind is Kind.KERNEL else own)
    inputs = example_inputs(pytorch, one.config, head)
    outputs = (get_backend("pt").run_once(one, inputs), get_backend("tf").run_once(other, inputs))
    found = output_differences(*outputs, head=head, mask=inputs["attention_mask"])
    logits = [found[name] for name in HEADS[head].logits or ("last_hidden_state",)]
    return max(each.largest for each in logits), max(each.scale for each in logits), bool(report["missing_keys"])


def example_inputs(directory: Path, config: RemBertConfig, head: str) -> Arrays:
    """A sentence in each of four languages through the checkpoint's tokenizer; random tokens where it has none."""
    if not (directory / "sentencepiece.model").is_file():
        return trial_inputs(config, head)
    tokenizer = RemBertTokenizer.from_pretrained(directory)
    texts = [SENTENCES[language][0] for language in ("en", "fr", "hi", "zh")]
    encoded = tokenizer(
        texts, padding=True, truncation=True, max_length=config.max_position_embeddings, return_tensors="np"
    )
    inputs = {name: np.asarray(encoded[name]) for name in ("input_ids", "attention_mask", "token_type_ids")}
    if HEADS[head].takes_choices:  # two of them: the sentences, and the same in the other order
        return {name: np.stack([array, array[::-1]], axis=1) for name, array in inputs.items()}
    return inputs


@contextmanager
def _workplace(output: Path | None) -> Iterator[Path]:
    """The directory `output`, made new, or a temporary one."""
    if output is None:
        with tempfile.TemporaryDirectory(prefix="rembert-demo-") as directory:
            yield Path(directory)
        return
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"`--output` must be a new or empty directory. Received: {output}.")
    output.mkdir(parents=True, exist_ok=True)
    yield output


def _step(what: str, do: Callable[[], Result]) -> Result:
    print(f"{what} ...", end="", flush=True)
    started = time.perf_counter()
    result = do()
    print(f" {time.perf_counter() - started:.2f} s")
    return result


def _say(done: Any) -> None:
    size = sum(os.path.getsize(done.target / name) for name in done.files)
    formats = f"{done.source_format} → {done.target_format}"
    print(f"    {formats}, {done.head}: {byte_size(size)} in {len(done.files)} files")


def _changed(one: Path, other: Path) -> list[str]:
    """Names of the tensors that are not the same, bit for bit, or are in one of the two only."""
    with open_checkpoint(one) as first, open_checkpoint(other) as second:
        changed = sorted(first.tensors.keys() ^ second.tensors.keys())
        for name in first.tensors.keys() & second.tensors.keys():
            left, right = first.read(name), second.read(name)
            if left.dtype != right.dtype or left.shape != right.shape or left.tobytes() != right.tobytes():
                changed.append(name)
    return changed
