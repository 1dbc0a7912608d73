"""The parameter table: every parameter of every head, declared once.

Canonical names are those of the public PyTorch checkpoints, shapes are PyTorch's. Loading, saving, format
conversion, inspection and completeness tests all read this table; nothing else in the library spells a name out.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cache

from rembert.common.config import RemBertConfig
from rembert.common.errors import CheckpointError, InputError

BASE_PREFIX = "rembert."


class Kind(Enum):
    """What a parameter is. The kind decides its transposition and its names in other formats."""

    EMBEDDING = "embedding"  # [rows, width], the same in every framework
    KERNEL = "kernel"  # [out, in] in PyTorch, [in, out] in TensorFlow
    BIAS = "bias"
    SCALE = "scale"  # of a LayerNorm
    SHIFT = "shift"  # of a LayerNorm


@dataclass(frozen=True)
class Parameter:
    """One parameter: its canonical name (with the `rembert.` prefix), PyTorch shape, and kind."""

    name: str
    shape: tuple[int, ...]
    kind: Kind

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Head:
    """One of the model classes: `name` as commands say it, the class's name, and what it has beside the encoder.

    `num_labels` is the number of labels that the class has whatever its configuration says; None: the configuration's.
    """

    name: str
    architecture: str
    has_pooler: bool
    num_labels: int | None = None


HEADS: dict[str, Head] = {
    head.name: head
    for head in (
        Head("model", "RemBertModel", has_pooler=True),
        Head("masked-lm", "RemBertForMaskedLM", has_pooler=False),
        Head("causal-lm", "RemBertForCausalLM", has_pooler=False),
        Head("sequence-classification", "RemBertForSequenceClassification", has_pooler=True),
        Head("multiple-choice", "RemBertForMultipleChoice", has_pooler=True),
        Head("token-classification", "RemBertForTokenClassification", has_pooler=False),
        Head("question-answering", "RemBertForQuestionAnswering", has_pooler=False, num_labels=2),
    )
}
HEADS_BY_ARCHITECTURE: dict[str, Head] = {head.architecture: head for head in HEADS.values()}


def head_config(config: RemBertConfig, head: str) -> RemBertConfig:
    """The configuration that a model of this head holds: `config` itself, or a copy with the head's number of labels.

    transformers sizes the output of question answering by `num_labels`, so a saved one has to say 2.
    """
    count = HEADS[head].num_labels
    if count is None or config.num_labels == count:
        return config
    config = copy.deepcopy(config)
    config.num_labels = count
    return config


def parameters(config: RemBertConfig, head: str, *, pooler: bool | None = None) -> dict[str, Parameter]:
    """The parameters of one model class by canonical name, in the order of the forward pass.

    Args:
        config: gives the sizes.
        head: a key of `HEADS`.
        pooler: whether the pooler is among them; by default as the head has it.
    """
    with_pooler = HEADS[head].has_pooler if pooler is None else pooler
    table = [*_embeddings(config), *_encoder(config)]
    if with_pooler:
        table += _dense("rembert.pooler.dense", config.hidden_size, config.hidden_size)
    table += _head(config, head)
    return {parameter.name: parameter for parameter in table}


def parameter_count(config: RemBertConfig, head: str) -> int:
    """How many numbers a model of this class holds."""
    return sum(parameter.size for parameter in parameters(config, head).values())


def _embeddings(config: RemBertConfig) -> Iterator[Parameter]:
    width = config.input_embedding_size
    for table, rows in (
        ("word_embeddings", config.vocab_size),
        ("position_embeddings", config.max_position_embeddings),
        ("token_type_embeddings", config.type_vocab_size),
    ):
        yield Parameter(f"rembert.embeddings.{table}.weight", (rows, width), Kind.EMBEDDING)
    yield from _norm("rembert.embeddings.LayerNorm", width)


def _encoder(config: RemBertConfig) -> Iterator[Parameter]:
    yield from _dense("rembert.encoder.embedding_hidden_mapping_in", config.hidden_size, config.input_embedding_size)
    for index in range(config.num_hidden_layers):
        layer = f"rembert.encoder.layer.{index}"
        yield from _attention(f"{layer}.attention", config.hidden_size)
        if config.add_cross_attention:
            yield from _attention(f"{layer}.crossattention", config.hidden_size)
        yield from _dense(f"{layer}.intermediate.dense", config.intermediate_size, config.hidden_size)
        yield from _dense(f"{layer}.output.dense", config.hidden_size, config.intermediate_size)
        yield from _norm(f"{layer}.output.LayerNorm", config.hidden_size)


def _head(config: RemBertConfig, head: str) -> Iterator[Parameter]:
    if head in ("masked-lm", "causal-lm"):
        width = config.output_embedding_size
        yield from _dense("cls.predictions.dense", width, config.hidden_size)
        yield from _norm("cls.predictions.LayerNorm", width)
        yield from _dense("cls.predictions.decoder", config.vocab_size, width)
    elif head in ("sequence-classification", "token-classification"):
        yield from _dense("classifier", config.num_labels, config.hidden_size)
    elif head == "multiple-choice":
        yield from _dense("classifier", 1, config.hidden_size)
    elif head == "question-answering":
        yield from _dense("qa_outputs", 2, config.hidden_size)


def _attention(name: str, width: int) -> Iterator[Parameter]:
    for projection in ("query", "key", "value"):
        yield from _dense(f"{name}.self.{projection}", width, width)
    yield from _dense(f"{name}.output.dense", width, width)
    yield from _norm(f"{name}.output.LayerNorm", width)


def _dense(name: str, outputs: int, inputs: int) -> Iterator[Parameter]:
    yield Parameter(f"{name}.weight", (outputs, inputs), Kind.KERNEL)
    yield Parameter(f"{name}.bias", (outputs,), Kind.BIAS)


def _norm(name: str, width: int) -> Iterator[Parameter]:
    yield Parameter(f"{name}.weight", (width,), Kind.SCALE)
    yield Parameter(f"{name}.bias", (width,), Kind.SHIFT)


# ---------------------------------------------------------------------- matching a checkpoint's names


def canonical_name(name: str) -> str | None:
    """The canonical spelling of a name found in a checkpoint, or None for what is no parameter.

    Understands `LayerNorm.gamma`/`beta`, and adds the `rembert.` prefix that a bare encoder's checkpoint lacks.
    Old `position_ids` buffers are no parameters.
    """
    if name.endswith(".position_ids"):
        return None
    name = name.removeprefix("module.")  # a model saved from inside a data-parallel wrapper
    for old, new in ((".gamma", ".weight"), (".beta", ".bias")):
        if name.endswith(old):
            name = name.removesuffix(old) + new
    if name.startswith(("embeddings.", "encoder.", "pooler.")):
        name = BASE_PREFIX + name
    return name


def file_name(name: str, head: str) -> str:
    """The name under which a model of this head saves the canonical `name`: the bare encoder drops the prefix."""
    return name.removeprefix(BASE_PREFIX) if head == "model" else name


@dataclass(frozen=True)
class Mismatch:
    """A parameter whose shape in the checkpoint differs from the model's."""

    name: str
    in_checkpoint: tuple[int, ...]
    in_model: tuple[int, ...]


@dataclass(frozen=True)
class Match:
    """How a checkpoint's tensors fit a model's parameters, by canonical name.

    `found` maps a parameter to the tensor that holds it. Tensors that no parameter takes are in one of three lists:
    `ignored` are passed over in silence (a pooler beside a head without one, old buffers), `unused` belong to a
    RemBERT with another head or more layers, `unexpected` belong to no RemBERT.
    """

    found: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[Mismatch] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)

    @property
    def fresh(self) -> list[str]:
        """Parameters that the checkpoint does not give: missing or mismatched."""
        return [*self.missing, *(mismatch.name for mismatch in self.mismatched)]


def match(wanted: Mapping[str, Parameter], tensors: Mapping[str, tuple[int, ...]]) -> Match:
    """Find the tensor of every wanted parameter.

    Args:
        wanted: the model's parameters by canonical name.
        tensors: a checkpoint's tensor names, as they stand in its files, and shapes in PyTorch's orientation.

    Raises:
        CheckpointError: two tensors are the same parameter under two spellings.
    """
    result = Match()
    known = _known_names()
    for name in tensors:
        canonical = canonical_name(name)
        if canonical is None:
            result.ignored.append(name)
        elif canonical in result.found:
            raise CheckpointError(
                f"Two tensors are the same parameter `{canonical}`: `{result.found[canonical]}` and `{name}`."
            )
        elif canonical in wanted:
            result.found[canonical] = name
        elif canonical.startswith("rembert.pooler."):
            result.ignored.append(name)
        elif _LAYER_INDEX.sub(".layer.0.", canonical) in known:
            result.unused.append(name)
        else:
            result.unexpected.append(name)
    for name, parameter in wanted.items():
        if name not in result.found:
            result.missing.append(name)
        elif (shape := tensors[result.found[name]]) != parameter.shape:
            result.mismatched.append(Mismatch(name, shape, parameter.shape))
            del result.found[name]
    return result


def check_shapes(wanted: Mapping[str, Parameter], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse to save tensors that the model's own configuration would not take back.

    Args:
        wanted: the model's parameters by canonical name.
        shapes: of the tensors, by the same names, in PyTorch's orientation.

    Raises:
        InputError: quotes the first that does not fit.
    """
    for name, parameter in wanted.items():
        if shapes[name] != parameter.shape:
            raise InputError(
                f"`{name}` must have the shape that the configuration says, {list(parameter.shape)}. Received: "
                f"{list(shapes[name])}. `resize_token_embeddings` of the whole model changes all tables together."
            )


_LAYER_INDEX = re.compile(r"\.layer\.\d+\.")


@cache
def _known_names() -> frozenset[str]:
    """The names of every head's parameters, all features on, with a single layer standing for any."""
    config = RemBertConfig(num_hidden_layers=1, is_decoder=True, add_cross_attention=True)
    return frozenset(name for head in HEADS for name in parameters(config, head, pooler=True))
