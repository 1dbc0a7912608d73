"""The parameter table and the heads: every parameter and every model class, declared once.

Canonical names are those of the public PyTorch checkpoints, shapes are PyTorch's. Loading, saving, format
conversion, inspection, export, training and the parity tests all read these declarations: parameters and heads have
their names here alone.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cache

from rembert.common.config import RemBertConfig
from rembert.common.labels import PROBLEM_TYPES, LabelKind

BASE_PREFIX = "rembert."
BASE_MODEL = "model"  # the head of the bare encoder
CUSTOM = "custom"  # the head of a class of the user's own, which has no entry in `HEADS`


class Kind(Enum):
    """The kind of a parameter, which determines its orientation and its name in other formats."""

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
        """The number of its elements."""
        return math.prod(self.shape)


def dense(name: str, outputs: int, inputs: int) -> Iterator[Parameter]:
    """The parameters of a dense layer: a kernel [outputs, inputs] and a bias [outputs]."""
    yield Parameter(f"{name}.weight", (outputs, inputs), Kind.KERNEL)
    yield Parameter(f"{name}.bias", (outputs,), Kind.BIAS)


def norm(name: str, width: int) -> Iterator[Parameter]:
    """The parameters of a LayerNorm: a scale and a shift [width]."""
    yield Parameter(f"{name}.weight", (width,), Kind.SCALE)
    yield Parameter(f"{name}.bias", (width,), Kind.SHIFT)


def _no_parameters(config: RemBertConfig) -> Iterable[Parameter]:
    return ()


@dataclass(frozen=True)
class Head:
    """The declaration of a model class: its layers on top of the encoder, its inputs and its outputs.

    Attributes:
        name: its name in commands, tasks and the models' attribute `head`.
        architecture: the name of its PyTorch class; that of the TensorFlow class begins with `TF`.
        has_pooler: whether it has a pooler by default.
        own_parameters: the parameters of the head itself, by canonical name, as a function of the configuration. The
            last one has an entry for each class that a label can name. Names of layers come before `layers` in the
            alphabet: Keras' files call later ones by their class.
        labels: the names of its label arguments.
        label_kind: what one of these labels applies to.
        by_problem_type: whether the kind of its labels follows `config.problem_type`.
        logits: the names of the outputs that its loss is computed from.
        num_labels: the number of labels if the class determines it; None for that of the configuration.
        takes_choices: whether its inputs have a dimension of choices, [b, choices, s].
        takes_source: whether a decoder of this class takes `encoder_hidden_states`.
        takes_cache: whether a decoder of this class takes `past_key_values` and `use_cache`.
        predicts_next: whether the logits at a position predict the label of the next one, as in a decoder.
        auto_classes: the Auto classes of transformers that return it.
        pipeline_tag: the Hub's name of what it is for.
    """

    name: str
    architecture: str
    has_pooler: bool
    own_parameters: Callable[[RemBertConfig], Iterable[Parameter]] = _no_parameters
    labels: tuple[str, ...] = ()
    label_kind: LabelKind = LabelKind.NONE
    by_problem_type: bool = False
    logits: tuple[str, ...] = ()
    num_labels: int | None = None
    takes_choices: bool = False
    takes_source: bool = False
    takes_cache: bool = False
    predicts_next: bool = False
    auto_classes: tuple[str, ...] = ()
    pipeline_tag: str | None = None

    def kind_of_labels(self, problem_type: str | None) -> LabelKind:
        """The kind of labels that a problem type gives the head, by default `label_kind`.

        Args:
            problem_type: of the configuration, one of `PROBLEM_TYPES` or None.
        """
        return PROBLEM_TYPES[problem_type] if self.by_problem_type and problem_type is not None else self.label_kind

    def is_per_token(self, output: str) -> bool:
        """Whether an output of the model has a row for each token, [b, s, …]; rows of padding have no meaning."""
        has_token_logits = self.label_kind in (LabelKind.TOKEN, LabelKind.SPAN)
        return output == "last_hidden_state" or (has_token_logits and output in self.logits)

    def means_the_same(self, other: Head) -> bool:
        """Whether the `other` head can use this head's own trained parameters unchanged."""
        return self.own_parameters is other.own_parameters and self.label_kind is other.label_kind


# ---------------------------------------------------------------------- the heads


def _vocabulary(config: RemBertConfig) -> Iterator[Parameter]:
    width = config.output_embedding_size
    yield from dense("cls.predictions.dense", width, config.hidden_size)
    yield from norm("cls.predictions.LayerNorm", width)
    yield from dense("cls.predictions.decoder", config.vocab_size, width)


def _classifier(config: RemBertConfig) -> Iterator[Parameter]:
    return dense("classifier", config.num_labels, config.hidden_size)


def _choice(config: RemBertConfig) -> Iterator[Parameter]:
    return dense("classifier", 1, config.hidden_size)


def _span(config: RemBertConfig) -> Iterator[Parameter]:
    return dense("qa_outputs", 2, config.hidden_size)


HEADS: dict[str, Head] = {
    head.name: head
    for head in (
        Head(
            BASE_MODEL,
            "RemBertModel",
            has_pooler=True,
            takes_source=True,
            takes_cache=True,
            auto_classes=("AutoModel",),
        ),
        Head(
            "masked-lm",
            "RemBertForMaskedLM",
            has_pooler=False,
            own_parameters=_vocabulary,
            labels=("labels",),
            label_kind=LabelKind.TOKEN,
            logits=("logits",),
            takes_source=True,
            auto_classes=("AutoModelForPreTraining", "AutoModelForMaskedLM"),
            pipeline_tag="fill-mask",
        ),
        Head(
            "causal-lm",
            "RemBertForCausalLM",
            has_pooler=False,
            own_parameters=_vocabulary,
            labels=("labels",),
            label_kind=LabelKind.TOKEN,
            logits=("logits",),
            takes_source=True,
            takes_cache=True,
            predicts_next=True,
            auto_classes=("AutoModelForCausalLM",),
            pipeline_tag="text-generation",
        ),
        Head(
            "sequence-classification",
            "RemBertForSequenceClassification",
            has_pooler=True,
            own_parameters=_classifier,
            labels=("labels",),
            label_kind=LabelKind.CLASS,
            by_problem_type=True,
            logits=("logits",),
            auto_classes=("AutoModelForSequenceClassification",),
            pipeline_tag="text-classification",
        ),
        Head(
            "multiple-choice",
            "RemBertForMultipleChoice",
            has_pooler=True,
            own_parameters=_choice,
            labels=("labels",),
            label_kind=LabelKind.CLASS,
            logits=("logits",),
            takes_choices=True,
            auto_classes=("AutoModelForMultipleChoice",),
            pipeline_tag="multiple-choice",
        ),
        Head(
            "token-classification",
            "RemBertForTokenClassification",
            has_pooler=False,
            own_parameters=_classifier,
            labels=("labels",),
            label_kind=LabelKind.TOKEN,
            logits=("logits",),
            auto_classes=("AutoModelForTokenClassification",),
            pipeline_tag="token-classification",
        ),
        Head(
            "question-answering",
            "RemBertForQuestionAnswering",
            has_pooler=False,
            own_parameters=_span,
            labels=("start_positions", "end_positions"),
            label_kind=LabelKind.SPAN,
            logits=("start_logits", "end_logits"),
            num_labels=2,
            auto_classes=("AutoModelForQuestionAnswering",),
            pipeline_tag="question-answering",
        ),
    )
}


def find_head(name: str) -> Head:
    """The declaration of a head; one without parameters, labels and logits for `CUSTOM`."""
    return _CUSTOM_HEAD if name == CUSTOM else HEADS[name]


_CUSTOM_HEAD = Head(CUSTOM, "", has_pooler=False)


def head_of_architecture(architecture: str) -> Head | None:
    """The head with a class of this name, in PyTorch or in TensorFlow, or None."""
    name = architecture.removeprefix("TF")
    return next((head for head in HEADS.values() if head.architecture == name), None)


def counts_labels(head: str, layer: str) -> bool:
    """Whether the layer of this name in a model of this head has an output for each of the configuration's labels.

    Example:
        >>> counts_labels("token-classification", "classifier"), counts_labels("multiple-choice", "classifier")
        (True, False)
    """
    return layer == "classifier" and find_head(head).own_parameters is _classifier


def head_config(config: RemBertConfig, head: str) -> RemBertConfig:
    """The configuration that a model of this head holds: `config` itself, or a copy with the head's number of labels.

    transformers takes the width of question answering's output from `num_labels`, so a saved one must be 2.
    """
    count = find_head(head).num_labels
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
        pooler: whether to include a pooler; by default if the head has one.
    """
    with_pooler = find_head(head).has_pooler if pooler is None else pooler
    table = [*_embeddings(config), *_encoder(config)]
    if with_pooler:
        table += dense("rembert.pooler.dense", config.hidden_size, config.hidden_size)
    table += find_head(head).own_parameters(config)
    return {parameter.name: parameter for parameter in table}


def parameter_count(config: RemBertConfig, head: str) -> int:
    """The number of values in the parameters of a model of this class."""
    return sum(parameter.size for parameter in parameters(config, head).values())


def file_name(name: str, head: str) -> str:
    """The name under which a model of this head saves the canonical `name`: the bare encoder drops the prefix."""
    return name.removeprefix(BASE_PREFIX) if head == BASE_MODEL else name


def root_names() -> frozenset[str]:
    """The first parts of all canonical names: `rembert`, and the layers of the heads."""
    return _root_names(tuple(HEADS.values()))


@cache
def _root_names(heads: tuple[Head, ...]) -> frozenset[str]:
    config = RemBertConfig(num_hidden_layers=1)
    return frozenset(name.split(".")[0] for head in heads for name in parameters(config, head.name))


def _embeddings(config: RemBertConfig) -> Iterator[Parameter]:
    width = config.input_embedding_size
    for table, rows in (
        ("word_embeddings", config.vocab_size),
        ("position_embeddings", config.max_position_embeddings),
        ("token_type_embeddings", config.type_vocab_size),
    ):
        yield Parameter(f"rembert.embeddings.{table}.weight", (rows, width), Kind.EMBEDDING)
    yield from norm("rembert.embeddings.LayerNorm", width)


def _encoder(config: RemBertConfig) -> Iterator[Parameter]:
    yield from dense("rembert.encoder.embedding_hidden_mapping_in", config.hidden_size, config.input_embedding_size)
    for index in range(config.num_hidden_layers):
        layer = f"rembert.encoder.layer.{index}"
        yield from _attention(f"{layer}.attention", config.hidden_size)
        if config.add_cross_attention:
            yield from _attention(f"{layer}.crossattention", config.hidden_size)
        yield from dense(f"{layer}.intermediate.dense", config.intermediate_size, config.hidden_size)
        yield from dense(f"{layer}.output.dense", config.hidden_size, config.intermediate_size)
        yield from norm(f"{layer}.output.LayerNorm", config.hidden_size)


def _attention(name: str, width: int) -> Iterator[Parameter]:
    for projection in ("query", "key", "value"):
        yield from dense(f"{name}.self.{projection}", width, width)
    yield from dense(f"{name}.output.dense", width, width)
    yield from norm(f"{name}.output.LayerNorm", width)
