"""How fast `RemBertScorer` is: against the same model as BLEURT runs it by default (batches of 16 in the order of the
file, padded to 512), and against the model's own throughput without padding.

    python tools/bench_score.py udhr.tsv [--pairs 2000] [--layers 4] [--baseline-batches 12] [--framework pt]

The file holds texts, one a line; of a table the last column is taken. A pair is a text of up to `--longest` characters
(a sentence; longer ones are paragraphs) and the next one. The model has RemBERT's width, random weights, and the
vocabulary of the SentencePiece model. The baseline takes minutes, so it is measured on batches spread over the file
and scaled by their number; with `--baseline-batches 0` all of them run.

The model's own throughput is the time of its forward calls alone on batches of pairs that are encoded already, sorted
by length, as large as the scorer's. What the scorer needs beside them is tokenizing, sorting and finding equal pairs.
(Putting a batch's tokens into one array counts for both: 0.01 s for 2,000 pairs.)
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from rembert import RemBertConfig
from rembert.bleurt.pairs import Pair, PairEncoder
from rembert.bleurt.regressors import padded
from rembert.bridge import TensorSource, save_checkpoint
from rembert.common.parameters import Kind, Parameter, parameters
from rembert.tasks import RemBertScorer
from rembert.tasks.batching import in_sorted_batches

BATCH, LENGTH = 16, 512  # BLEURT's defaults
clock: Callable[[], float] = time.perf_counter


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="texts, one a line; of a table the last column")
    parser.add_argument("--sentencepiece", type=Path, default=Path("tests/fixtures/tokenizer/sentencepiece.model"))
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--longest", type=int, default=250, help="characters of a text (default: %(default)s)")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--baseline-batches", type=int, default=12, help="0 for all")
    parser.add_argument("--framework", choices=("pt", "tf"), default="pt")
    parser.add_argument("--device")
    parser.add_argument("--rounds", type=int, default=3, help="the scorer and its model are timed in turn")
    parser.add_argument("--processor-time", action="store_true", help="count processor seconds, on a busy machine")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    global clock
    clock = time.process_time if args.processor_time else time.perf_counter
    candidates, references = read_pairs(args.file, args.pairs, args.longest)
    with tempfile.TemporaryDirectory() as directory:
        make_checkpoint(Path(directory), args.sentencepiece, args.layers)
        load = lambda: RemBertScorer.from_pretrained(  # noqa: E731
            directory, framework=args.framework, device=args.device
        )
        scorer = load()
        pairs = PairEncoder(scorer.tokenizer, scorer.max_length)(candidates, references)
        report = measure(scorer, pairs, candidates, references, args)
    print(json.dumps(report, indent=2) if args.json else "\n".join(f"{key:34} {report[key]}" for key in report))


def read_pairs(path: Path, count: int, longest: int) -> tuple[list[str], list[str]]:
    """Candidates and references: sentences of the file, each with the one that follows it, the pairs shuffled."""
    texts = [line.split("\t")[-1] for line in path.read_text(encoding="utf-8").splitlines()]
    texts = [text for text in texts if 20 <= len(text) <= longest]
    pairs = list(dict.fromkeys(pairwise(texts)))  # equal ones would cost the scorer nothing
    chosen = random.Random(0).sample(pairs, count)
    return [one for one, _ in chosen], [other for _, other in chosen]


def make_checkpoint(directory: Path, sentencepiece: Path, layers: int) -> None:
    """A regressor of RemBERT's width with random weights."""
    from rembert import RemBertTokenizer

    tokenizer = RemBertTokenizer(sentencepiece)
    tokenizer.save_pretrained(directory)
    config = RemBertConfig(
        vocab_size=tokenizer.vocab_size,
        num_hidden_layers=layers,
        num_labels=1,
        hidden_act="gelu_new",
        architectures=["RemBertForSequenceClassification"],
    )
    table = parameters(config, "sequence-classification")
    save_checkpoint(directory, {name: _random(parameter) for name, parameter in table.items()}, config)


def _random(parameter: Parameter) -> TensorSource:
    def read() -> np.ndarray:
        if parameter.kind in (Kind.BIAS, Kind.SHIFT):
            return np.zeros(parameter.shape, np.float32)
        if parameter.kind is Kind.SCALE:
            return np.ones(parameter.shape, np.float32)
        return np.random.default_rng(len(parameter.name)).standard_normal(parameter.shape, np.float32) * 0.02

    return TensorSource(parameter.shape, np.dtype(np.float32), read)


def measure(
    scorer: RemBertScorer, pairs: Sequence[Pair], candidates: list[str], references: list[str], args: Any
) -> dict[str, Any]:
    """All numbers."""
    run = scorer._regressor
    budget = run.batch_tokens
    ready: list[list[Pair]] = []

    def keep(batch: list[Pair]) -> list[int]:
        ready.append(list(batch))
        return [0] * len(batch)

    for _ in in_sorted_batches(
        pairs, keep, length=lambda pair: len(pair.ids), batch_size=len(pairs), max_tokens=budget, window=len(pairs)
    ):
        pass
    run(ready[-1])  # what is made on the first call is not measured
    ours, own, found = [], [], np.zeros(0)
    for _ in range(args.rounds):
        scorer._cache.clear()
        seconds, found = timed(lambda: scorer.score(candidates, references))
        ours.append(seconds)
        own.append(timed(lambda: [run(batch) for batch in ready])[0])
    baseline, differs = measure_baseline(scorer, pairs, found, args.baseline_batches)
    tokens = sum(len(pair.ids) for pair in pairs)
    ratios = [model / whole for model, whole in zip(own, ours, strict=True)]
    return {
        "framework": scorer.framework,
        "pairs": len(pairs),
        "tokens": tokens,
        "longest": max(len(pair.ids) for pair in pairs),
        "scorer_seconds": [round(seconds, 2) for seconds in ours],
        "model_alone_seconds": [round(seconds, 2) for seconds in own],
        "padded_to_512_seconds": round(baseline, 2),
        "pairs_per_second": round(len(pairs) / min(ours), 2),
        "pieces_per_second": round(tokens / min(ours)),
        "times_faster_than_padded": round(baseline / min(ours), 2),
        "part_of_the_models_throughput": [round(ratio, 3) for ratio in ratios],
        "largest_difference": differs,
    }


def measure_baseline(
    scorer: RemBertScorer, pairs: Sequence[Pair], scores: np.ndarray, count: int
) -> tuple[float, float]:
    """Seconds for all pairs in batches of 16 padded to 512, computed as BLEURT's graph does; and how scores differ."""
    batches = range(0, len(pairs), BATCH)
    chosen = batches if not count else [batches[int(at)] for at in np.linspace(0, len(batches) - 1, count)]
    forward = dense_forward(scorer)
    seconds, differs = 0.0, 0.0
    forward(padded(pairs[:1]))
    for start in chosen:
        batch = pairs[start : start + BATCH]
        took, found = timed(lambda batch=batch: forward(padded(batch, LENGTH)))  # type: ignore[misc]
        seconds += took / len(batch)
        differs = max(differs, float(np.abs(found - scores[start : start + BATCH]).max()))
    return seconds / len(chosen) * len(pairs), differs


def dense_forward(scorer: RemBertScorer) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    """The model on padded arrays with every position computed, as graphs without unpadding do."""
    model = scorer.model
    if scorer.framework == "tf":
        import tensorflow as tf

        def masked(ids: Any, mask: Any, types: Any) -> Any:
            # A mask for each query leaves the padding in.
            pairwise = tf.repeat(mask[:, None, :], tf.shape(mask)[1], axis=1)
            return model(input_ids=ids, attention_mask=pairwise, token_type_ids=types, training=False).logits[:, 0]

        signature = [tf.TensorSpec([None, None], tf.int32)] * 3
        graph = tf.function(masked, input_signature=signature)
        return lambda arrays: graph(arrays["input_ids"], arrays["attention_mask"], arrays["token_type_ids"]).numpy()
    import torch

    def forward(arrays: dict[str, np.ndarray]) -> np.ndarray:
        inputs = {name: torch.from_numpy(array).to(model.device) for name, array in arrays.items()}
        length = inputs["attention_mask"].shape[1]
        inputs["attention_mask"] = inputs["attention_mask"][:, None, :].expand(-1, length, -1)
        with torch.inference_mode():
            return model(**inputs).logits[:, 0].double().cpu().numpy()

    return forward


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and the result."""
    started = clock()
    result = work()
    return clock() - started, result


if __name__ == "__main__":
    main()
