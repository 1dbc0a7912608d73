"""A small metric with the fixture's 32,000 tokens, as a BLEURT SavedModel, and its scores by numpy in float64."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from rembert.bridge.crc32c import crc32c, masked
from rembert.common.config import RemBertConfig
from rembert.common.parameters import parameters
from tests.bridge.support import make_index, put_varint
from tests.common.tokenizer_cases import MODEL, processor
from tests.frameworks import random_weights

CLS, SEP = 3, 4  # of the fixture's model

# No two sizes are the same, and none is RemBERT's own: 3 heads of width 8, as a distilled checkpoint has its own.
BERT_CONFIG: dict[str, Any] = {
    "vocab_size": 32000,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 64,
    "type_vocab_size": 2,
    "initializer_range": 0.02,
    "embedding_size": 10,
}
BLEURT_CONFIG: dict[str, Any] = {
    "name": "tiny-32k",
    "vocab_file": None,
    "do_lower_case": None,
    "sp_model": "sent_piece",
    "dynamic_seq_length": True,
    "max_seq_length": 48,
    "tf_checkpoint_variables": "variables",
    "bert_config_file": "bert_config.json",
}


def make_variables(seed: int = 0, sizes: dict[str, Any] = BERT_CONFIG) -> dict[str, np.ndarray]:
    """Random variables under BLEURT's names, kernels [in, out]."""
    own = {key: value for key, value in sizes.items() if key != "embedding_size"}
    config = RemBertConfig(**own, input_embedding_size=sizes["embedding_size"], num_labels=1)
    weights = random_weights(config, "sequence-classification", seed, "float32")
    table = parameters(config, "sequence-classification")
    return {_bleurt_name(name, table[name].kind.name): _transposed_kernel(name, weights[name]) for name in table}


def write_saved_model(
    directory: Path, variables: dict[str, np.ndarray], bert_config: dict[str, Any] = BERT_CONFIG,
    bleurt_config: dict[str, Any] | None = BLEURT_CONFIG, sentencepiece: Path | None = MODEL,
) -> Path:  # fmt: skip
    """A SavedModel like those of BLEURT, without the operations of its graph."""
    (directory / "variables").mkdir(parents=True)
    (directory / "saved_model.pb").write_bytes(b"\x08\x01")  # a graph without operations
    (directory / "bert_config.json").write_text(json.dumps(bert_config))
    if bleurt_config is not None:
        (directory / "bleurt_config.json").write_text(json.dumps(bleurt_config))
    if sentencepiece is not None:
        shutil.copyfile(sentencepiece, directory / "sent_piece.model")
    write_bundle(directory / "variables" / "variables", variables)
    return directory


def write_bundle(prefix: Path, variables: dict[str, np.ndarray]) -> None:
    """A tensor bundle of float32 variables."""
    entries, data = [(b"", b"\x08\x01")], b""
    for name, array in sorted(variables.items()):
        content = np.ascontiguousarray(array, "<f4").tobytes()
        sizes = [b"\x08" + put_varint(size) for size in array.shape]
        shape = b"".join(b"\x12" + put_varint(len(size)) + size for size in sizes)
        checksum = masked(crc32c(np.frombuffer(content, np.uint8))).to_bytes(4, "little")
        entry = b"\x08\x01" + b"\x12" + put_varint(len(shape)) + shape
        entry += b"\x20" + put_varint(len(data)) + b"\x28" + put_varint(len(content)) + b"\x35" + checksum
        entries.append((name.encode(), entry))
        data += content
    prefix.with_name(f"{prefix.name}.data-00000-of-00001").write_bytes(data)
    make_index(prefix.with_name(f"{prefix.name}.index"), entries)


def reference_score(
    variables: dict[str, np.ndarray], sizes: dict[str, Any], ids: list[int], types: list[int]
) -> float:
    """The score of one input in float64, from the variables and the papers' formulas alone.

    Devlin et al. (2019), section 3; Chung et al. (2021), section 5 (narrow embeddings); Hendrycks & Gimpel (2016),
    section 2 (tanh form of GELU).
    """
    v = {name: array.astype(np.float64) for name, array in variables.items()}
    heads = sizes["num_attention_heads"]

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ v[f"{name}/kernel"] + v[f"{name}/bias"]

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
        return scaled * v[f"{name}/LayerNorm/gamma"] + v[f"{name}/LayerNorm/beta"]

    table = "bert/embeddings"
    x = v[f"{table}/word_embeddings"][ids] + v[f"{table}/token_type_embeddings"][types]
    x = norm(x + v[f"{table}/position_embeddings"][: len(ids)], table)
    x = linear(x, "bert/encoder/embedding_hidden_mapping_in")
    for number in range(sizes["num_hidden_layers"]):
        layer = f"bert/encoder/layer_{number}"
        query, key, value = (
            np.stack(np.split(linear(x, f"{layer}/attention/self/{part}"), heads, axis=-1))  # (h, s, d)
            for part in ("query", "key", "value")
        )
        scores = query @ key.transpose(0, 2, 1) / math.sqrt(query.shape[-1])
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        context = np.concatenate(list(weights / weights.sum(-1, keepdims=True) @ value), axis=-1)
        x = norm(linear(context, f"{layer}/attention/output/dense") + x, f"{layer}/attention/output")
        inner = linear(x, f"{layer}/intermediate/dense")
        inner = 0.5 * inner * (1 + np.tanh(math.sqrt(2 / math.pi) * (inner + 0.044715 * inner**3)))
        x = norm(linear(inner, f"{layer}/output/dense") + x, f"{layer}/output")
    pooled = np.tanh(linear(x[0], "bert/pooler/dense"))
    return float(linear(pooled, "dense")[0])


def reference_input(candidate: str, reference: str, max_length: int) -> tuple[list[int], list[int]]:
    """Ids and types of a pair, truncated one token at a time by the definition; ids from SentencePiece."""
    first, second = (list(processor().encode(text)) for text in (reference, candidate))
    while len(first) + len(second) > max_length - 3:
        (first if len(first) > len(second) else second).pop()
    return [CLS, *first, SEP, *second, SEP], [0] * (len(first) + 2) + [1] * (len(second) + 1)


def _bleurt_name(name: str, kind: str) -> str:
    leaf = {"EMBEDDING": None, "KERNEL": "kernel", "BIAS": "bias", "SCALE": "gamma", "SHIFT": "beta"}[kind]
    path = name.rpartition(".")[0].replace("rembert.", "bert.").replace("classifier", "dense")
    path = path.replace(".layer.", ".layer_").replace(".", "/")
    return path if leaf is None else f"{path}/{leaf}"


def _transposed_kernel(name: str, array: np.ndarray) -> np.ndarray:
    return array.T if array.ndim == 2 and "embeddings." not in name else array
