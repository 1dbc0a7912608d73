"""What `predict` costs beside the model's own work, on texts of mixed lengths.

    python tools/bench_tasks.py TEXT_FILE [--framework pt] [--texts 400] [--layers 6] [--repeats 3]

TEXT_FILE holds one text per line (with a tab, what stands after it). A sequence classifier of random weights, as wide
as the released one and `--layers` deep, predicts the first `--texts` lines:

- the model alone: the same rows, encoded before, sorted by length over the whole file, in batches of `--batch-size`;
- `predict`: reading, encoding, sorting in windows, the model, decoding.

The first over the second is the throughput of `predict` as a part of the model's own; beside it stand the tokenizer's
part of the time and that of padding in the batches. The smallest of several interleaved measurements counts.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from rembert import RemBertConfig, RemBertTokenizerFast
from rembert.tasks import Task, get_task, predict
from rembert.tasks.backends import FRAMEWORKS, get_backend
from rembert.tasks.predicting import task_runner

LABELS = {0: "no", 1: "yes"}


def make(framework: str, tokenizer: RemBertTokenizerFast, layers: int) -> tuple[Task, object]:
    config = RemBertConfig(
        vocab_size=len(tokenizer),
        num_hidden_layers=layers,
        pad_token_id=tokenizer.pad_token_id,
        id2label=LABELS,
        problem_type="single_label_classification",
    )
    task = get_task("sequence-classification", tokenizer, max_length=config.max_position_embeddings)
    task.prepare(config=config)
    return task, get_backend(framework).model_class("sequence-classification")(config)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text_file", type=Path)
    default = Path(__file__).parents[1] / "tests" / "fixtures" / "tokenizer" / "sentencepiece.model"
    parser.add_argument("--tokenizer", type=Path, default=default)
    parser.add_argument("--framework", choices=FRAMEWORKS, default="pt")
    parser.add_argument("--texts", type=int, default=400)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()

    lines = [line.split("\t", 1)[-1].strip() for line in args.text_file.read_text(encoding="utf-8").split("\n")]
    # Spread over the file, so that all of its languages are there.
    texts = [line for line in lines if line]
    texts = texts[:: max(1, len(texts) // args.texts)][: args.texts]
    task, model = make(args.framework, RemBertTokenizerFast(args.tokenizer), args.layers)

    with tempfile.TemporaryDirectory() as directory, task_runner(task, model) as run:
        path = Path(directory) / "texts.tsv"
        path.write_text("text\n" + "\n".join(text.replace("\t", " ") for text in texts) + "\n", encoding="utf-8")
        examples = list(task.read(path))
        features = [feature for _, found in task.stream_features(examples) for feature in found]
        ordered = sorted(features, key=lambda feature: -task.length(feature))
        starts = range(0, len(ordered), args.batch_size)
        batches = [task.collate(ordered[at : at + args.batch_size]) for at in starts]
        run(batches[-1])  # graphs are built and buffers taken before the clock starts

        times = dict.fromkeys(("model", "predict", "tokenizer"), float("inf"))
        for _ in range(args.repeats):
            for name, action in (
                ("model", lambda: [run(batch) for batch in batches]),
                (
                    "predict",
                    lambda: list(predict(task, model, task.read(path), batch_size=args.batch_size, run=run)),
                ),
                ("tokenizer", lambda: task.tokenizer([example.text for example in examples])),
            ):
                started = time.perf_counter()
                action()
                times[name] = min(times[name], time.perf_counter() - started)

    tokens = sum(task.length(feature) for feature in features)
    padded = sum(batch["input_ids"].size for batch in batches)
    lengths = np.array([task.length(feature) for feature in features])
    print(
        f"{len(texts)} texts, {tokens} tokens, {lengths.min()} to {lengths.max()} (median {int(np.median(lengths))})"
    )
    print(f"padding in the batches       {1 - tokens / padded:8.1%}")
    print(f"the model alone              {tokens / times['model']:8.0f} tokens/s")
    print(f"predict                      {tokens / times['predict']:8.0f} tokens/s")
    print(f"predict / the model alone    {times['model'] / times['predict']:8.1%}")
    print(f"tokenizer / predict          {times['tokenizer'] / times['predict']:8.1%}")


if __name__ == "__main__":
    main()
