"""Fine-tune a small random model on every task in both frameworks, and score each result in both.

    python tools/measure_tasks.py DATA [TASK ...]

DATA holds `sib200/eng_Latn`, `masakhaner/swa`, `xquad`, `xcopa` and `udhr.tsv` as their sources publish them. Prints
the training loss of the first and last updates, and the scores that PyTorch and TensorFlow give the same weights.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from rembert import RemBertConfig, RemBertTokenizer
from rembert.cli.text import table
from rembert.tasks import TASKS, DataOptions, evaluate, finetune, load_task
from rembert.training.reporting import read_metrics

TOKENIZER = Path(__file__).parent.parent / "tests" / "fixtures" / "tokenizer" / "sentencepiece.model"


def main() -> int:
    """Run the tasks that are named, or all; 1 where a loss does not fall or scores differ."""
    parser = argparse.ArgumentParser(description="Fine-tune a small model on every task in both frameworks.")
    parser.add_argument("data", metavar="DATA", type=Path)
    parser.add_argument("tasks", metavar="TASK", nargs="*", help=", ".join(TASKS))
    parser.add_argument("--steps", type=int, default=40, help="updates (default: %(default)s)")
    args = parser.parse_args()
    rows: list[tuple[object, ...]] = [("task", "trained in", "loss", "score", "in PyTorch", "in TensorFlow", "CPU s")]
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        start = _start(Path(folder) / "start")
        for name in args.tasks or TASKS:
            # Questions, and windows of contexts, that fit into 64 positions.
            options = {"stride": 16, "max_question_length": 24} if name == "question-answering" else {}
            train, held_out = _files(args.data, name, Path(folder))
            for framework in ("pt", "tf"):
                output = Path(folder) / f"{name}-{framework}"
                began = time.process_time()
                finetune(
                    name,
                    start,
                    train,
                    output=output,
                    framework=framework,
                    data=DataOptions(skip_bad_lines=True),
                    options=options,
                    from_scratch=True,
                    max_steps=args.steps,
                    epochs=100,
                    learning_rate=1e-3,
                    batch_size=16,
                    log_steps=5,
                )
                seconds = time.process_time() - began
                losses = [line["loss"] for line in read_metrics(output / "metrics.jsonl") if "loss" in line]
                scores = {}
                for scorer in ("pt", "tf"):
                    task, model = load_task(name, output, scorer, **options)
                    scores[scorer] = evaluate(task, model, task.read(held_out))
                metric = task.metric
                values = [scores[scorer][metric] for scorer in ("pt", "tf")]
                failed |= losses[-1] >= losses[0] or abs(values[0] - values[1]) > 1e-5
                loss = f"{losses[0]:.4f} → {losses[-1]:.4f}"
                rows.append((name, framework, loss, metric, *(f"{value:.6f}" for value in values), f"{seconds:.0f}"))
                print(table(rows[-1:]), file=sys.stderr, flush=True)
    print(table(rows, right=(4, 5, 6)))
    return 1 if failed else 0


def _start(directory: Path) -> Path:
    """A configuration of two narrow layers, and the tokenizer of the tests."""
    tokenizer = RemBertTokenizer(TOKENIZER)
    directory.mkdir()
    tokenizer.save_pretrained(directory)
    RemBertConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        input_embedding_size=32,
        output_embedding_size=48,
        intermediate_size=128,
        max_position_embeddings=64,
        initializer_range=0.05,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.cls_token_id,
        eos_token_id=tokenizer.sep_token_id,
    ).save_pretrained(directory)
    return directory


def _files(data: Path, task: str, folder: Path) -> tuple[Path, Path]:
    """Files to train and to score on; the latter short, so that a small machine scores them in seconds."""
    if task == "sequence-classification":
        return data / "sib200/eng_Latn/train.tsv", data / "sib200/eng_Latn/dev.tsv"
    if task == "token-classification":
        return data / "masakhaner/swa/train.txt", data / "masakhaner/swa/dev.txt"
    if task == "question-answering":
        found = sorted((data / "xquad").rglob("*.json"))
        content = json.loads(found[0].read_text(encoding="utf-8"))
        few = folder / "few.json"
        few.write_text(json.dumps({**content, "data": content["data"][:2]}), encoding="utf-8")
        return few, few
    if task == "multiple-choice":
        found = sorted((data / "xcopa").rglob("*.jsonl"))
        return found[0], found[0]
    lines = (data / "udhr.tsv").read_text(encoding="utf-8").splitlines()
    texts = [line.split("\t")[1] for line in lines if line.startswith("eng")] or [
        line.split("\t")[1] for line in lines
    ]
    for name, part in (("lm-train.txt", texts[:300]), ("lm-dev.txt", texts[-20:])):
        (folder / name).write_text("\n".join(part) + "\n", encoding="utf-8")
    return folder / "lm-train.txt", folder / "lm-dev.txt"


if __name__ == "__main__":
    sys.exit(main())
