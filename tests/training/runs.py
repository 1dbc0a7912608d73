"""Small runs of fine-tuning: a checkpoint to start from, examples, and the results of a run."""

from __future__ import annotations

import hashlib
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from rembert import RemBertConfig, RemBertTokenizer
from tests.common.tokenizer_cases import train as train_sentencepiece

# The sentences that runs train on. A tokenizer of a few hundred tokens is written in milliseconds, the fixture is not.
_SENTENCES = (
    "The bread and the soup again again. The soup and the lemon again. The lemon and the bread.",
    "The train and the bus again again. The bus and the bridge again. The bridge and the train to the coast at seven.",
    "The rain and the cloud again again. The cloud and the wind again. The wind and the rain.",
    "Ada lives here now. Ben works here now now. Eve lives here.",
    "It rained. So we got wet. So it was dry. When? At seven.",
    "Ferry 0 leaves from the pier. Ferry 1 leaves from the pier. Ferry 2345 leaves from the pier. 6789 ferries leave.",
)
_WORDS = {"food": ("bread", "soup", "lemon"), "road": ("train", "bus", "bridge"), "sky": ("rain", "cloud", "wind")}


def write_start(directory: Path, **changes: Any) -> Path:
    """A directory that a run from scratch starts from: a configuration of a few thousand parameters, a tokenizer."""
    directory.mkdir(parents=True, exist_ok=True)
    model = directory / "sentencepiece.model"
    special = {"control_symbols": ["[CLS]", "[SEP]", "[MASK]"], "pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    model.write_bytes(train_sentencepiece(lines=_SENTENCES * 20, vocab_size=300, **special))
    tokenizer = RemBertTokenizer(model)
    tokenizer.save_pretrained(directory)
    sizes: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "input_embedding_size": 8,
        "output_embedding_size": 12,
        "intermediate_size": 24,
        "max_position_embeddings": 32,
        "initializer_range": 0.2,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
    }
    RemBertConfig(**{**sizes, **changes}).save_pretrained(directory)
    return directory


def write_examples(path: Path, count: int) -> Path:
    """Sentences of three kinds, each told by its words."""
    lines = []
    for number, (label, words) in zip(range(count), itertools.cycle(_WORDS.items()), strict=False):
        first, second = words[number % 3], words[number // 3 % 3]
        text = f"The {first} and the {second} " + "again " * (number % 5)
        lines.append(json.dumps({"text": text.strip(), "label": label}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def lines(output: Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl`, all complete."""
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def losses(output: Path) -> np.ndarray:
    """The training losses in order."""
    return np.array([line["loss"] for line in lines(output) if "loss" in line])


def weights(output: Path) -> dict[str, np.ndarray]:
    """The weights of a run's result."""
    return load_file(output / "model.safetensors")


def farthest(one: Path, other: Path) -> float:
    """The largest difference between the weights of two results."""
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    architectures = [json.loads((each / "config.json").read_text())["architectures"] for each in (one, other)]
    assert architectures[0] == architectures[1]
    return max(float(np.abs(first[name].astype(np.float64) - second[name]).max()) for name in first)


def digest(output: Path) -> str:
    """A digest of a result's weights, losses and scores."""
    numbers = [{name: value for name, value in line.items() if "second" not in name} for line in lines(output)]
    content = (output / "model.safetensors").read_bytes() + json.dumps(numbers).encode()
    return hashlib.sha256(content).hexdigest()
