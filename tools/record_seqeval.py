"""Record what seqeval says of random tags, for `tests/common/test_metrics.py`.

seqeval has no wheel, so the tests read its results from a file. Run this in a virtual environment of its own:

    python -m venv seqeval-environment
    seqeval-environment/bin/python -m pip install --use-pep517 seqeval==1.2.2
    seqeval-environment/bin/python tools/record_seqeval.py tests/fixtures/metrics/seqeval.json
"""

from __future__ import annotations

import json
import math
import random
import sys
import warnings
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from seqeval.metrics import accuracy_score, f1_score, precision_score, recall_score
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import BILOU, IOB1, IOB2, IOBES, IOE1, IOE2, Entities

SEED = 17
KINDS = ("PER", "LOC", "ORG-X")
TAGS = ("O", *(f"{prefix}-{kind}" for kind in KINDS for prefix in "BI"))
STRICT = {"iob1": IOB1, "iob2": IOB2}
# Schemes that mark an entity's end, with their letters for its first, inner and last word, and for its only one.
ENDED = {"ioe2": (IOE2, "IIEE"), "iobes": (IOBES, "BIES"), "bilou": (BILOU, "BILU")}


def any_tags(rng: random.Random, length: int) -> list[str]:
    """Tags drawn one by one: most sequences break the rules of IOB2."""
    return rng.choices(TAGS, k=length)


def iob1_or_iob2(rng: random.Random, length: int, scheme: str) -> list[str]:
    """Tags of random entities, as the scheme writes them."""
    tags: list[str] = []
    before = None
    while len(tags) < length:
        kind = rng.choice((None, *KINDS))
        if kind is None:
            tags.append("O")
        else:
            first = "B" if scheme == "iob2" or kind == before else "I"
            tags += [f"{first}-{kind}"] + [f"I-{kind}"] * rng.randrange(3)
        before = kind
    return tags[:length]


def changed(rng: random.Random, tags: list[str]) -> list[str]:
    """The tags with about a fifth of them drawn again, as a model's predictions are."""
    return [rng.choice(TAGS) if rng.random() < 0.2 else tag for tag in tags]


def corpora(rng: random.Random, count: int) -> Iterable[dict[str, Any]]:
    """Sentences with expected and predicted tags, and seqeval's scores of them."""
    for number in range(count):
        expected, predicted = [], []
        for _ in range(rng.randint(1, 6)):
            length = rng.randint(1, 9)
            if number % 2:
                wanted, found = any_tags(rng, length), any_tags(rng, length)
            else:
                wanted = iob1_or_iob2(rng, length, rng.choice(tuple(STRICT)))
                found = changed(rng, wanted)
            expected.append(wanted)
            predicted.append(found)
        if number % 20 == 1:  # no entity on one side, or on either
            expected = [["O"] * len(tags) for tags in expected]
        if number % 40 == 1:
            predicted = expected
        scores = {
            "precision": precision_score(expected, predicted),
            "recall": recall_score(expected, predicted),
            "f1": f1_score(expected, predicted),
            "f1_macro": f1_score(expected, predicted, average="macro"),
            "accuracy": accuracy_score(expected, predicted),
        }
        yield {
            "expected": list(map(" ".join, expected)),
            "predicted": list(map(" ".join, predicted)),
            # seqeval's mean over no kinds is not a number, which JSON does not have.
            "scores": {name: None if math.isnan(score) else float(score) for name, score in scores.items()},
        }


def sentences(rng: random.Random, count: int) -> Iterable[dict[str, Any]]:
    """Tags by no rule, and the entities that seqeval finds by default: kind, first word, word after the last."""
    for number in range(count):
        tags = any_tags(rng, number % 13)
        yield {"tags": " ".join(tags), "entities": [(kind, start, end + 1) for kind, start, end in get_entities(tags)]}


def strict_sentences(rng: random.Random, count: int, scheme: str) -> Iterable[dict[str, Any]]:
    """Tags by the rules of a scheme, and the entities that seqeval finds by the same rules."""
    for number in range(count):
        tags = iob1_or_iob2(rng, 1 + number % 12, scheme)
        found = Entities([tags], STRICT[scheme]).entities[0]
        yield {"tags": " ".join(tags), "entities": [(entity.tag, entity.start, entity.end) for entity in found]}


def loose_sentences(rng: random.Random, count: int, is_suffix: bool) -> Iterable[dict[str, Any]]:
    """Tags of IOBES by no rule, and the entities that seqeval finds by default."""
    tags = ["O", *(f"{kind}-{letter}" if is_suffix else f"{letter}-{kind}" for kind in KINDS[:2] for letter in "BIES")]
    for number in range(count):
        drawn = rng.choices(tags, k=number % 13)
        found = get_entities(drawn, suffix=is_suffix)
        yield {"tags": " ".join(drawn), "entities": [(kind, start, end + 1) for kind, start, end in found]}


def ended_sentences(rng: random.Random, count: int, scheme: str) -> Iterable[dict[str, Any]]:
    """Tags by the rules of a scheme that marks an entity's end, and the entities that seqeval finds by them."""
    strict, (first, inner, last, only) = ENDED[scheme]
    for _ in range(count):
        tags: list[str] = []
        for _ in range(rng.randrange(5)):
            kind, length = rng.choice((None, *KINDS)), rng.randint(1, 4)
            letters = only if length == 1 else first + inner * (length - 2) + last
            tags += ["O"] if kind is None else [f"{letter}-{kind}" for letter in letters]
        found = Entities([tags], strict).entities[0]
        yield {"tags": " ".join(tags), "entities": [(entity.tag, entity.start, entity.end) for entity in found]}


def ioe1_sentences(rng: random.Random, count: int) -> Iterable[dict[str, Any]]:
    """Tags of IOE1, which has `E-` only where the next word begins an entity of the same kind."""
    for _ in range(count):
        kinds = [rng.choice((None, *KINDS)) for _ in range(rng.randrange(5))]
        tags = []
        for kind, after in zip(kinds, [*kinds[1:], None], strict=False):
            last = "E" if kind == after else "I"
            words = rng.randint(kind == after, 3)  # seqeval finds no entity of one word that ends with E-
            tags += ["O"] if kind is None else [f"I-{kind}"] * words + [f"{last}-{kind}"]
        found = Entities([tags], IOE1).entities[0]
        yield {"tags": " ".join(tags), "entities": [(entity.tag, entity.start, entity.end) for entity in found]}


def main(target: Path) -> None:
    warnings.simplefilter("ignore")  # seqeval's own, of classes without entities
    rng = random.Random(SEED)
    groups = {
        "corpora": corpora(rng, 400),
        "sentences": sentences(rng, 400),
        "iob1": strict_sentences(rng, 200, "iob1"),
        "iob2": strict_sentences(rng, 200, "iob2"),
        **{scheme: ended_sentences(rng, 60, scheme) for scheme in ENDED},
        "ioe1": ioe1_sentences(rng, 60),
        "any_iobes": loose_sentences(rng, 100, False),
        "any_iobes_suffix": loose_sentences(rng, 100, True),
    }
    blocks = [f'"made_by": "tools/record_seqeval.py, seqeval {version("seqeval")}, seed {SEED}"']
    for name, cases in groups.items():
        blocks.append(f'"{name}": [\n' + ",\n".join(json.dumps(case) for case in cases) + "\n]")
    target.write_text("{\n" + ",\n".join(blocks) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
