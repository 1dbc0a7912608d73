"""The configuration of a RemBERT model: sizes, special ids, head settings.

Sizes and their defaults are those of the released model: Chung et al., "Rethinking Embedding Coupling in Pre-trained
Language Models" (ICLR 2021), section 5 and appendix A.
"""

from __future__ import annotations

from typing import Any

from rembert.common.arguments import plain
from rembert.common.config_base import ConfigBase
from rembert.common.config_files import as_rembert_dict
from rembert.common.config_values import check_values
from rembert.common.errors import ConfigError
from rembert.common.keywords import check_known
from rembert.common.labels import label_maps
from rembert.common.public_names import with_methods_of


@with_methods_of(ConfigBase)
class RemBertConfig(ConfigBase):
    """The sizes and settings of a RemBERT model.

    Args:
        vocab_size: tokens in the vocabulary: the rows of the input and of the output embeddings.
        hidden_size: width of the hidden states; a multiple of `num_attention_heads`.
        num_hidden_layers: layers of the encoder.
        num_attention_heads: attention heads in each layer.
        input_embedding_size: width of the input embeddings.
        output_embedding_size: width of the output embeddings (masked and causal LM heads).
        intermediate_size: width of the feed-forward layers.
        hidden_act: activation, one of `ACTIVATIONS`. `gelu` is the exact (erf) form, `gelu_new` the tanh one.
        hidden_dropout_prob: dropout after embeddings and sub-layers, in [0, 1).
        attention_probs_dropout_prob: dropout on attention probabilities, in [0, 1).
        classifier_dropout_prob: dropout before a classification layer, in [0, 1).
        max_position_embeddings: length of the longest sequence, in tokens.
        type_vocab_size: number of token types (segments).
        initializer_range: standard deviation of newly initialised weights.
        layer_norm_eps: added to the variance in every LayerNorm.
        use_cache: whether a decoder returns its keys and values by default.
        pad_token_id, bos_token_id, eos_token_id: ids of special tokens, or None; `eos_token_id` may be a list.
        is_decoder: whether positions attend to earlier ones only.
        add_cross_attention: whether a decoder also attends to `encoder_hidden_states`.
        tie_word_embeddings: must be False: input and output embeddings differ in width.
        num_labels: number of labels of a classification head; by default that of `id2label`, or 2.
        id2label, label2id: names of the labels; either is derived from the other.
        problem_type: one of `PROBLEM_TYPES`, or None (inferred from the labels of a call).
        no_answer_threshold: for questions that may have no answer: "no answer" is predicted if it scores higher than
            the best answer by more than this; None if every question has an answer.
        dtype: dtype of the stored weights, one of `DTYPES`; `torch_dtype` is its older name.
        architectures: names of the classes that a checkpoint was saved from.
        attn_implementation: how attention is computed, one of `ATTENTION_IMPLEMENTATIONS`; not saved in `config.json`.
        output_attentions, output_hidden_states, return_dict: defaults of the models' arguments of these names.
        **extra: other keys that transformers writes, kept as attributes and saved. Keys of your own are set as
            attributes; those in a file are kept.

    Raises:
        ConfigError: a value is invalid; the message quotes it.
        KeywordError: a key is unknown; the message suggests the nearest known one.

    Example:
        >>> config = RemBertConfig(num_hidden_layers=4, num_labels=3)
        >>> config.hidden_size, config.num_hidden_layers
        (1152, 4)
        >>> config.id2label
        {0: 'LABEL_0', 1: 'LABEL_1', 2: 'LABEL_2'}
    """

    # Long: a line for each key.
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
        self.output_attentions = False if output_attentions is None else output_attentions
        self.output_hidden_states = False if output_hidden_states is None else output_hidden_states
        self.return_dict = True if return_dict is None else return_dict
        self.attn_implementation = "auto" if attn_implementation is None else attn_implementation
        self.id2label, self.label2id = label_maps(num_labels, id2label, label2id)

        self._name_or_path = str(extra.pop("name_or_path", None) or extra.pop("_name_or_path", None) or "")
        model_type = extra.pop("model_type", self.model_type)
        if model_type != self.model_type:
            raise ConfigError(
                f"`model_type` must be 'rembert': this is the configuration of another model. Received: "
                f"`model_type={model_type!r}`."
            )
        self._keep(extra)
        check_known(extra, self._known({}), type(self).__name__)
        self.__dict__.update({key: plain(value) for key, value in vars(self).items()})  # JSON has no NumPy numbers
        self.validate()

    # ------------------------------------------------------------------ derived values

    @property
    def num_labels(self) -> int:
        """The number of labels of a classification head: the length of `id2label`."""
        return len(self.id2label)

    @num_labels.setter
    def num_labels(self, count: int) -> None:
        if count != len(self.id2label):
            self.id2label, self.label2id = label_maps(count, None, None)

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
        """Check all values, at construction and again when a model is built.

        Raises:
            ConfigError: a value is invalid; the message quotes it.
        """
        check_values({**vars(self), "num_labels": self.num_labels})


def _dtype_name(value: Any) -> str | None:
    """'float32' for 'float32', `torch.float32`, `tf.float32` and `numpy.float32` alike."""
    if value is None:
        return None
    if not isinstance(value, str):
        value = getattr(value, "name", None) or getattr(value, "__name__", None) or str(value)
    return str(value).removeprefix("torch.")


def as_config(value: Any, kind: type[RemBertConfig] = RemBertConfig) -> RemBertConfig:
    """A configuration of the class `kind` as it is; others, such as transformers' RemBERT configuration, converted.

    Raises:
        ConfigError: it is none of these.
    """
    if isinstance(value, kind):
        return value
    content = as_rembert_dict(value)
    if content is None:
        raise ConfigError(
            f"`config` must be a RemBertConfig. Received: `config={value!r:.200}`, a {type(value).__qualname__} of "
            f"{type(value).__module__}. Make one with `RemBertConfig.from_dict` or `RemBertConfig.from_pretrained`."
        )
    return kind.from_dict(content)
