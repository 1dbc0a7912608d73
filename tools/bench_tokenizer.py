"""What the tokenizers cost, as multiples of SentencePiece's own work in the same run.

    python tools/bench_tokenizer.py TEXT_FILE [--model sentencepiece.model] [--repeats 7]

TEXT_FILE holds one text per line (with a tab, what stands after it). Prints the time of a call on all lines, with and
without offsets, over the time of SentencePiece's batch `encode` with its default threads; and the time to load a model
of 250,300 tokens, which is built here, over the time SentencePiece takes for it. The smallest of several interleaved
measurements counts, because whatever else the machine does only adds to them.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import sentencepiece

from rembert import RemBertTokenizer, RemBertTokenizerFast
from rembert.common.tokenization.sentencepiece_model import CONTROL, NORMAL, UNKNOWN, SentencePieceModel, build_model

TOKENS = 250_300  # of the released model


def smallest(actions: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """The smallest time of each action in seconds; the actions take turns."""
    times = dict.fromkeys(actions, float("inf"))
    for _ in range(repeats):
        for name, action in actions.items():
            start = time.perf_counter()
            result = action()
            times[name] = min(times[name], time.perf_counter() - start)
            del result
    return times


def report(times: dict[str, float], base: str) -> None:
    for name, seconds in times.items():
        print(f"{name:44} {seconds:8.3f} s {seconds / times[base]:6.2f}")


def large_model(model: SentencePieceModel) -> bytes:
    """A model of the released one's size: the tokens of `model`, and invented ones of similar lengths."""
    rng = random.Random(0)
    tokens = [(token, score, NORMAL) for token, score in zip(model.tokens, model.scores, strict=True)]
    symbols = {i: CONTROL for i, (_, score, _) in enumerate(tokens) if score == 0.0} | {model.unk_id: UNKNOWN}
    tokens = [(token, score, symbols.get(index, kind)) for index, (token, score, kind) in enumerate(tokens)]
    known = {token for token, _, _ in tokens}
    letters = "aeiounrstlkmdápñжионतरकम人大"
    while len(tokens) < TOKENS:
        token = rng.choice(["▁", ""]) + "".join(rng.choices(letters, k=rng.randint(3, 9)))
        if token not in known:
            known.add(token)
            tokens.append((token, -10.0 - len(tokens) / TOKENS, NORMAL))
    spec = model.normalizer_spec
    return build_model(
        tokens, charsmap=spec.precompiled_charsmap, dummy_prefix=True, collapse_spaces=True, source="a large model"
    ).content


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text_file", type=Path)
    default = Path(__file__).parents[1] / "tests" / "fixtures" / "tokenizer" / "sentencepiece.model"
    parser.add_argument("--model", type=Path, default=default)
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()

    lines = [line.split("\t", 1)[-1] for line in args.text_file.read_text(encoding="utf-8").split("\n")]
    processor = sentencepiece.SentencePieceProcessor(model_file=str(args.model))
    slow, fast = RemBertTokenizer(args.model), RemBertTokenizerFast(args.model)
    print(f"{len(lines)} lines, {sum(map(len, lines))} characters")
    report(
        smallest(
            {
                "SentencePiece, batch encode": lambda: processor.encode(lines),
                "RemBertTokenizer": lambda: slow(lines),
                "RemBertTokenizer, offsets": lambda: slow(lines, return_offsets_mapping=True),
                "RemBertTokenizerFast": lambda: fast(lines),
                "RemBertTokenizerFast, offsets": lambda: fast(lines, return_offsets_mapping=True),
                "RemBertTokenizerFast, padded to 128": lambda: fast(
                    lines, truncation=True, padding="max_length", max_length=128
                ),
            },
            args.repeats,
        ),
        "SentencePiece, batch encode",
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sentencepiece.model"
        path.write_bytes(large_model(SentencePieceModel.from_file(args.model)))
        print(f"\nloading {TOKENS} tokens, {path.stat().st_size} bytes")
        report(
            smallest(
                {
                    "SentencePiece, load": lambda: sentencepiece.SentencePieceProcessor(model_file=str(path)),
                    "RemBertTokenizer": lambda: RemBertTokenizer(path),
                    "RemBertTokenizerFast": lambda: RemBertTokenizerFast(path),
                },
                args.repeats,
            ),
            "SentencePiece, load",
        )


if __name__ == "__main__":
    main()
