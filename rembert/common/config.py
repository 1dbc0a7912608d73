"""The configuration of a RemBERT model: sizes, special ids, head settings.

Sizes and their defaults are those of the released model: Chung et al., "Rethinking Embedding Coupling in Pre-trained
Language Models" (ICLR 2021), section 5 and appendix A.
"""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

from rembert.common.arguments import (
    BOOLEAN,
    Constraint,
    check_argument,
    check_arguments,
    integer,
    number,
    one_of,
    optional,
)
from rembert.common.errors import ConfigError
from rembert.common.files import read_json, write_json
from rembert.common.hub import locate

ACTIVATIONS = (
    "gelu",
    "gelu_new",
    "gelu_pytorch_tanh",
    "gelu_fast",
    "quick_gelu",
    "relu",
    "silu",
    "swish",
    "tanh",
    "sigmoid",
    "mish",
)
PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")
DTYPES = ("float32", "float16", "bfloat16", "float64")
ATTENTION_IMPLEMENTATIONS = ("auto", "sdpa", "eager")

CONFIG_NAME = "config.json"
GOOGLE_CONFIG_NAMES = ("rembert_config.json", "bert_config.json")

_SIZES = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "input_embedding_size",
    "output_embedding_size",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
)
_DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout_prob")
_FLAGS = (
    "use_cache",
    "is_decoder",
    "add_cross_attention",
    "tie_word_embeddings",
    "output_attentions",
    "output_hidden_states",
    "return_dict",
)

_ID = integer(at_least=0)
_CONSTRAINTS: dict[str, Constraint] = {
    **dict.fromkeys(_SIZES, integer(at_least=1)),
    **dict.fromkeys(_DROPOUTS, number(at_least=0, below=1)),
    **dict.fromkeys(("initializer_range", "layer_norm_eps"), number(above=0)),
    **dict.fromkeys(_FLAGS, BOOLEAN),
    **dict.fromkeys(("pad_token_id", "bos_token_id"), optional(_ID)),
    "eos_token_id": Constraint(
        "an integer of 0 or more, a list of them or None",
        lambda value: value is None or all(map(_ID.accepts, value if isinstance(value, list) else [value])),
    ),
    "hidden_act": one_of(ACTIVATIONS),
    "problem_type": optional(one_of(PROBLEM_TYPES)),
    "no_answer_threshold": optional(number()),
    "attn_implementation": one_of(ATTENTION_IMPLEMENTATIONS),
    "dtype": optional(one_of(DTYPES)),
}
# Written to config.json only where they differ from this: every model class has them, few checkpoints set them.
_QUIET_DEFAULTS: dict[str, Any] = {
    "architectures": None,
    "dtype": None,
    "problem_type": None,
    "no_answer_threshold": None,
    "is_decoder": False,
    "add_cross_attention": False,
    "output_attentions": False,
    "output_hidden_states": False,
    "return_dict": True,
}


class RemBertConfig:
    """Everything that a RemBERT model is built from.

    Args:
        vocab_size: pieces in the vocabulary, rows of the input and of the output table.
        hidden_size: width of the encoder; a multiple of `num_attention_heads`.
        num_hidden_layers: encoder layers.
        num_attention_heads: attention heads a layer.
        input_embedding_size: width of the input embeddings.
        output_embedding_size: width of the output embeddings (masked and causal LM heads).
        intermediate_size: width inside a layer's feed-forward part.
        hidden_act: activation, one of `ACTIVATIONS`. `gelu` is the exact (erf) form, `gelu_new` the tanh one.
        hidden_dropout_prob: dropout after embeddings and sub-layers, in [0, 1).
        attention_probs_dropout_prob: dropout on attention probabilities, in [0, 1).
        classifier_dropout_prob: dropout before a classification layer, in [0, 1).
        max_position_embeddings: longest sequence, in pieces.
        type_vocab_size: token types (segments).
        initializer_range: standard deviation of freshly initialised weights.
        layer_norm_eps: added to the variance in every LayerNorm.
        use_cache: a decoder returns its keys and values by default.
        pad_token_id, bos_token_id, eos_token_id: ids of special pieces; any may be None, `eos_token_id` a list.
        is_decoder: attend to earlier positions only.
        add_cross_attention: a decoder also attends to `encoder_hidden_states`.
        tie_word_embeddings: must be False: input and output tables differ in width.
        num_labels: labels of a classification head; follows from `id2label` where that is given.
        id2label, label2id: names of the labels; either follows from the other.
        problem_type: one of `PROBLEM_TYPES`, or None (inferred from the labels at hand).
        no_answer_threshold: where a question may have no answer: how much likelier than the best answer none must be
            to be given; None where every question has one.
        dtype: dtype the weights are stored in, one of `DTYPES`; `torch_dtype` is the same under its older name.
        architectures: class names a checkpoint was saved from.
        attn_implementation: how attention is computed, one of `ATTENTION_IMPLEMENTATIONS`. A choice of the run and
            not of the checkpoint: `config.json` does not hold it.
        output_attentions, output_hidden_states, return_dict: defaults of the models' arguments of these names.
        **extra: any other key, kept as an attribute and written back.

    Raises:
        ConfigError: a value that no model can be built from; the message quotes it.
    """

    model_type = "rembert"

    def __init__(
        self,
        vocab_size: int = 250300,
        hidden_size: int = 1152,
        num_hidden_layers: int = 32,
        num_attention_heads: int = 18,
        input_embedding_size: int = 256,
        output_embedding_size: int = 1664,
        intermediate_size: int = 4608,
        hidden_act: str = "gelu",
        hidden_dropout_prob: float = 0.0,
        attention_probs_dropout_prob: float = 0.0,
        classifier_dropout_prob: float = 0.1,
        max_position_embeddings: int = 512,
        type_vocab_size: int = 2,
        initializer_range: float = 0.02,
        layer_norm_eps: float = 1e-12,
        use_cache: bool = True,
        pad_token_id: int | None = 0,
        bos_token_id: int | None = 312,
        eos_token_id: int | list[int] | None = 313,
        *,
        is_decoder: bool = False,
        add_cross_attention: bool = False,
        tie_word_embeddings: bool = False,
        num_labels: int | None = None,
        id2label: dict[int, str] | dict[str, str] | None = None,
        label2id: dict[str, int] | None = None,
        problem_type: str | None = None,
        no_answer_threshold: float | None = None,
        dtype: Any = None,
        torch_dtype: Any = None,
        architectures: list[str] | None = None,
        output_attentions: bool | None = False,
        output_hidden_states: bool | None = False,
        return_dict: bool | None = True,
        attn_implementation: str | None = "auto",
        **extra: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.input_embedding_size = input_embedding_size
        self.output_embedding_size = output_embedding_size
        self.intermediate_size = intermediate_size
        self.hidden_act = hidden_act
        self.hidden_dropout_prob = hidden_dropout_prob
        self.attention_probs_dropout_prob = attention_probs_dropout_prob
        self.classifier_dropout_prob = classifier_dropout_prob
        self.max_position_embeddings = max_position_embeddings
        self.type_vocab_size = type_vocab_size
        self.initializer_range = initializer_range
        self.layer_norm_eps = layer_norm_eps
        self.use_cache = use_cache
        self.pad_token_id = pad_token_id
        self.bos_token_id = bos_token_id
        self.eos_token_id = eos_token_id
        self.is_decoder = is_decoder
        self.add_cross_attention = add_cross_attention
        self.tie_word_embeddings = tie_word_embeddings
        self.problem_type = problem_type
        self.no_answer_threshold = no_answer_threshold
        self.dtype = _dtype_name(dtype if dtype is not None else torch_dtype)
        self.architectures = architectures
        self.output_attentions = bool(output_attentions)
        self.output_hidden_states = bool(output_hidden_states)
        self.return_dict = True if return_dict is None else return_dict
        self.attn_implementation = "auto" if attn_implementation is None else attn_implementation
        self.id2label, self.label2id = _labels(num_labels, id2label, label2id)

        model_type = extra.pop("model_type", self.model_type)
        if model_type != self.model_type:
            raise ConfigError(
                f"This is the configuration of another model: `model_type` must be 'rembert'. Received: "
                f"`model_type={model_type!r}`."
            )
        for key, value in extra.items():
            if isinstance(getattr(type(self), key, None), property) or callable(getattr(type(self), key, None)):
                raise ConfigError(f"`{key}` cannot be a key of a configuration: it is computed. Received: {value!r}.")
            setattr(self, key, value)
        self.validate()

    # ------------------------------------------------------------------ derived values

    @property
    def num_labels(self) -> int:
        """How many labels a classification head has: the length of `id2label`."""
        return len(self.id2label)

    @num_labels.setter
    def num_labels(self, count: int) -> None:
        if count != len(self.id2label):
            self.id2label, self.label2id = _labels(count, None, None)

    @property
    def torch_dtype(self) -> str | None:
        """`dtype` under its older name."""
        return self.dtype

    @torch_dtype.setter
    def torch_dtype(self, value: Any) -> None:
        self.dtype = _dtype_name(value)

    @property
    def use_return_dict(self) -> bool:
        """`return_dict` under its older name."""
        return self.return_dict

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    # ------------------------------------------------------------------ checks

    def validate(self) -> None:
        """Refuse values that no model can be built from. Runs at construction and again when a model is built.

        Raises:
            ConfigError: names the key and quotes the value.
        """
        check_arguments(_CONSTRAINTS, vars(self), ConfigError)
        if self.pad_token_id is not None and self.pad_token_id >= self.vocab_size:
            raise ConfigError(
                "`pad_token_id` must be a row of the embedding table. Received: "
                f"`pad_token_id={self.pad_token_id}` and `vocab_size={self.vocab_size}`."
            )
        if self.hidden_size % self.num_attention_heads:
            raise ConfigError(
                "`hidden_size` must be a multiple of `num_attention_heads`. Received: "
                f"`hidden_size={self.hidden_size}` and `num_attention_heads={self.num_attention_heads}`."
            )
        if self.problem_type == "single_label_classification" and self.num_labels == 1:
            raise ConfigError(
                "`problem_type='single_label_classification'` needs at least two labels: with one, the loss is always "
                "zero. Received: `num_labels=1`. Use 'regression', or two labels."
            )
        if self.add_cross_attention and not self.is_decoder:
            raise ConfigError(
                "`add_cross_attention=True` needs `is_decoder=True`. Received: `is_decoder=False` and "
                "`add_cross_attention=True`."
            )
        if self.tie_word_embeddings:
            raise ConfigError(
                "RemBERT's input and output embeddings are decoupled and differ in width: `tie_word_embeddings` must "
                "be False. Received: `tie_word_embeddings=True`."
            )

    # ------------------------------------------------------------------ dictionaries and files

    def to_dict(self) -> dict[str, Any]:
        """Every key and value, those kept from `**extra` included, as JSON could hold them (label ids are ints)."""
        content = copy.deepcopy(self.__dict__)
        content["model_type"] = self.model_type
        return content

    def to_diff_dict(self) -> dict[str, Any]:
        """What `save_pretrained` writes: `to_dict` without generic keys at their defaults."""
        content = self.to_dict()
        for key, default in _QUIET_DEFAULTS.items():
            if content[key] == default:
                del content[key]
        del content["attn_implementation"]  # chosen for a run, as the docstring says
        if self.id2label == _labels(None, None, None)[0]:
            del content["id2label"], content["label2id"]
        else:
            content["id2label"] = {str(index): label for index, label in self.id2label.items()}
        return dict(sorted(content.items()))

    def to_json_string(self, use_diff: bool = True) -> str:
        """The configuration as JSON; `use_diff=False` spells generic defaults out."""
        return json.dumps(self.to_diff_dict() if use_diff else self.to_dict(), indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_dict(cls, content: dict[str, Any], **overrides: Any) -> RemBertConfig:
        """A configuration from `to_dict`'s result, transformers' `config.json`, or Google's JSON.

        Google's files say `embedding_size` for `input_embedding_size`. `overrides` replace keys of `content`.

        Raises:
            ConfigError: `content` is not a dictionary, or holds a value that is refused.
        """
        if not isinstance(content, dict):
            raise ConfigError(f"A configuration is a JSON object. Received: {type(content).__name__} {content!r:.80}.")
        merged = dict(content)
        if "embedding_size" in merged and "input_embedding_size" not in merged:
            merged["input_embedding_size"] = merged.pop("embedding_size")
        labels_change = {"id2label", "label2id"} & overrides.keys() or (
            "num_labels" in overrides and len(merged.get("id2label") or ()) != overrides["num_labels"]
        )
        if labels_change:
            for key in ("num_labels", "id2label", "label2id"):
                merged.pop(key, None)
        if "torch_dtype" in overrides:
            merged.pop("dtype", None)
        merged.update(overrides)
        return cls(**merged)

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | os.PathLike[str], *, revision: str | None = None, **overrides: Any
    ) -> RemBertConfig:
        """Read the configuration of a checkpoint directory, a JSON file, or a name on the Hugging Face Hub.

        In a directory `config.json` comes first, then Google's `rembert_config.json` and `bert_config.json`. A
        BLEURT directory (`bleurt_config.json` beside it) means the tanh form when it says `gelu` or nothing, so its
        `hidden_act` becomes `gelu_new`.

        Args:
            name_or_path: what to read.
            revision: of a repository on the hub.
            **overrides: keys to replace.

        Raises:
            ConfigError: there is no such file, it is not JSON, or a value is refused.
        """
        path = locate(name_or_path, revision)
        if path.is_dir():
            names = (CONFIG_NAME, *GOOGLE_CONFIG_NAMES)
            found = next((path / name for name in names if (path / name).is_file()), None)
            if found is None:
                raise ConfigError(f"{path} holds no configuration. Looked for: {', '.join(names)}.")
            path = found
        content = read_json(path, ConfigError)
        is_bleurt = path.name != CONFIG_NAME and (path.parent / "bleurt_config.json").is_file()
        if is_bleurt and isinstance(content, dict) and content.get("hidden_act", "gelu") == "gelu":
            content["hidden_act"] = "gelu_new"
        try:
            return cls.from_dict(content, **overrides)
        except ConfigError as problem:
            raise ConfigError(f"{path}: {problem}") from None

    def save_pretrained(self, directory: str | os.PathLike[str]) -> None:
        """Write `config.json` into `directory`, which is made where it is missing; other files in it stay."""
        target = Path(directory)
        target.mkdir(parents=True, exist_ok=True)
        write_json(target / CONFIG_NAME, self.to_diff_dict())

    # ------------------------------------------------------------------ as a value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemBertConfig) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]  # a config can be changed

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.to_json_string()}"


def _dtype_name(value: Any) -> str | None:
    """'float32' for 'float32', `torch.float32`, `tf.float32` and `numpy.float32` alike."""
    if value is None:
        return None
    if not isinstance(value, str):
        value = getattr(value, "name", None) or getattr(value, "__name__", None) or str(value)
    return str(value).removeprefix("torch.")


def _labels(
    count: int | None, id2label: dict[Any, str] | None, label2id: dict[str, int] | None
) -> tuple[dict[int, str], dict[str, int]]:
    """Both label maps from what is given. A `count` that disagrees with `id2label` is refused."""
    check_argument("num_labels", count, optional(integer(at_least=1)), ConfigError)
    if id2label is None and label2id is not None:
        id2label = {index: label for label, index in label2id.items()}
    if id2label is None:
        id2label = {index: f"LABEL_{index}" for index in range(2 if count is None else count)}
    try:
        by_id = {int(index): label for index, label in id2label.items()}
    except (TypeError, ValueError, AttributeError):
        raise ConfigError(f"`id2label` must map label ids to names. Received: `id2label={id2label!r:.200}`.") from None
    if sorted(by_id) != list(range(len(by_id))) or not by_id:
        raise ConfigError(
            f"`id2label` must have the ids 0 to n - 1, without gaps. Received: the ids {sorted(by_id)!r:.200}."
        )
    if count is not None and count != len(by_id):
        raise ConfigError(
            f"`num_labels` and the label map disagree. Received: `num_labels={count}` and {len(by_id)} labels."
        )
    by_label = {label: index for index, label in by_id.items()}
    if label2id is not None:
        # An id in quotes, as some files have it, is the same id.
        by_label = {label: int(index) if isinstance(index, str) else index for label, index in label2id.items()}
    if label2id is not None and any(by_id.get(index) != label for label, index in by_label.items()):
        raise ConfigError(
            "`id2label` and `label2id` disagree. Received: "
            f"`id2label={by_id!r:.200}` and `label2id={by_label!r:.200}`."
        )
    return dict(sorted(by_id.items())), by_label
