"""The base of the model classes: their parts, training and inference; loading and saving are in `pretrained`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import keras
import numpy as np

from rembert.bridge.names import KERAS_ATTRIBUTES
from rembert.common.checks import check_table, resized_vocabulary
from rembert.common.config import RemBertConfig, as_config
from rembert.common.errors import InputError
from rembert.common.initialization import added_rows
from rembert.common.keywords import check_known
from rembert.common.loading import arguments_and_config
from rembert.common.loss_settings import LossSettings
from rembert.common.model_methods import ModelMethods
from rembert.common.outputs import ModelOutput
from rembert.common.parameters import (
    CUSTOM,
    Kind,
    Parameter,
    counts_labels,
    file_name,
    find_head,
    head_config,
    parameters,
)
from rembert.tf.adaptation import adapt, adaptations, enable_lora
from rembert.tf.additions import build_additions
from rembert.tf.initialization import is_initialization_skipped, normal
from rembert.tf.keras_internals import replace_layer, replace_variables
from rembert.tf.layers import Width, build_parts, layers_inside
from rembert.tf.training import TrainableModel


class _Alias(property):
    """A property that gives way to an attribute that a subclass sets under its name."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, model: Any, kind: type | None = None) -> Any:
        held = {} if model is None else vars(model)
        return held[self._name] if self._name in held else super().__get__(model, kind)

    def __set__(self, model: Any, value: Any) -> None:
        vars(model)[self._name] = value


class TFRemBertModelBase(ModelMethods, LossSettings, TrainableModel):
    """Everything in a model class but its forward pass. A subclass sets `head`, a key of `HEADS`."""

    head: ClassVar[str]
    config_class: ClassVar[type[RemBertConfig]] = RemBertConfig  # of what `from_pretrained` reads
    base_model_prefix = "rembert"
    main_input_name = "input_ids"
    # The constructor's arguments beside `config` that `from_pretrained` passes on and `get_config` writes.
    _own_arguments: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: RemBertConfig, **kwargs: Any) -> None:
        """Raises: ConfigError if no model can be built from `config`."""
        config = as_config(config)
        config.validate()
        # Keras would cast all float arguments, labels included, to the compute dtype; here layers cast their inputs.
        super().__init__(**{"autocast": False, **kwargs})
        self.config = head_config(config, self.head)
        # What the checkpoint held and this head does not use, by canonical name; saved with the model's parameters.
        self.kept: dict[str, np.ndarray] = {}

    def __setattr__(self, name: str, value: Any) -> None:
        before = getattr(self, name, None) if isinstance(value, keras.layers.Dense) and not value.built else None
        if isinstance(before, keras.layers.Dense) and before.built:
            value.build((None, before.kernel.shape[0]))  # what replaces a layer takes the same inputs
        super().__setattr__(name, value)
        if counts_labels(self.head, name) and isinstance(value, keras.layers.Dense):
            self.num_labels = self.config.num_labels = value.units  # another classifier has other labels

    def post_init(self) -> None:
        """Create the weights: all shapes follow from the configuration, no input is needed."""
        if not is_initialization_skipped():
            self.build(self._ids_shape)

    @property
    def _ids_shape(self) -> tuple[None, ...]:
        return (None,) * (3 if find_head(self.head).takes_choices else 2)

    def build_parts(self, /, **widths: Width) -> None:
        """Create the weights of parts; see `rembert.tf.layers.build_parts`."""
        build_parts(self, widths)

    def get_config(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in self._own_arguments}
        dtype = keras.saving.serialize_keras_object(self.dtype_policy)
        return {"config": self.config.to_dict(), "name": self.name, "dtype": dtype, **own, **self._adaptations()}

    def _adaptations(self) -> dict[str, Any]:
        done = adaptations(self)
        return {"adaptations": done} if done else {}

    @classmethod
    def from_config(
        cls, config: dict[str, Any] | RemBertConfig, custom_objects: Any = None, **keywords: Any
    ) -> TFRemBertModelBase:
        """A new model, from the result of `get_config` or from a configuration.

        Args:
            config: a configuration, or a dictionary from `get_config`.
            custom_objects: of Keras.
            **keywords: beside a configuration, keys to replace, the class's own arguments, and Keras' `name` and
                `dtype`.

        Raises:
            KeywordError: a keyword is unknown, or given beside a dictionary.

        Example:
            >>> from rembert.tf import RemBertConfig, TFRemBertModel
            >>> config = RemBertConfig(vocab_size=1000, hidden_size=72, num_hidden_layers=2)
            >>> TFRemBertModel.from_config(config, dtype="float16", hidden_act="relu").variable_dtype
            'float16'
        """
        if not isinstance(config, dict) or "config" not in config:
            names = (*cls._own_arguments, "name", "dtype")
            own, changed = arguments_and_config(names, config, keywords, cls.config_class)
            return cls(changed, **own)
        check_known(keywords, (), f"{cls.__name__}.from_config")
        settings = {**config, "dtype": keras.saving.deserialize_keras_object(config["dtype"])}
        done = settings.pop("adaptations", {})
        model = cls(cls.config_class.from_dict(settings.pop("config")), **settings)
        build_additions(model)
        adapt(model, done)
        return model

    # ------------------------------------------------------------------ parts

    @_Alias
    def base_model(self) -> Any:
        """`get_base_model()` as an attribute, as in PyTorch."""
        return self.get_base_model()

    def get_base_model(self) -> Any:
        """The `TFRemBertModel`: this model itself, or the encoder inside a head."""
        return getattr(self, self.base_model_prefix, self)

    @_Alias
    def backbone(self) -> Any:
        """`get_base_model()` under KerasHub's name; a subclass may set a layer of its own in its place.

        Example:
            >>> from rembert.tf import RemBertConfig, TFRemBertForMaskedLM
            >>> model = TFRemBertForMaskedLM(RemBertConfig(vocab_size=1000, hidden_size=72, num_hidden_layers=2))
            >>> model.backbone is model.rembert
            True
        """
        return self.get_base_model()

    def __dir__(self) -> list[str]:
        # Keras saves a layer under the first name in `dir`: files would hold the encoder as `backbone`.
        return [name for name in super().__dir__() if name in vars(self) or name not in ("base_model", "backbone")]

    def get_input_embeddings(self) -> keras.layers.Embedding:
        """The table of word embeddings, [vocab_size, input_embedding_size]."""
        return self.get_base_model().embeddings.word_embeddings

    def set_input_embeddings(self, value: keras.layers.Embedding) -> None:
        """Replace the table of word embeddings; `config.vocab_size` follows.

        Raises:
            InputError: the table has another width, or a language model's output table another number of rows.

        Example:
            >>> import keras
            >>> from rembert.tf import RemBertConfig, TFRemBertModel
            >>> config = RemBertConfig(vocab_size=1000, hidden_size=72, num_hidden_layers=2)
            >>> model = TFRemBertModel(config)
            >>> model.set_input_embeddings(keras.layers.Embedding(1010, 256))
            >>> model.config.vocab_size
            1010
        """
        has_output = self.get_output_embeddings() is not None
        check_table(self.config, (value.input_dim, value.output_dim), has_output)
        if not value.built:
            value.build((None, None))
        replace_layer(self.get_base_model().embeddings, "word_embeddings", value)
        self.config.vocab_size = value.input_dim
        self.train_function = self.test_function = self.predict_function = None  # traced with the old table

    def get_output_embeddings(self) -> keras.layers.Dense | None:
        """The output table of a language model, a linear layer to [..., vocab_size]; None for other heads."""
        return None

    def resize_token_embeddings(
        self,
        new_num_tokens: int | None = None,
        pad_to_multiple_of: int | None = None,
        mean_resizing: bool = True,
    ) -> keras.layers.Embedding:
        """Change the size of the vocabulary: of the input table, and of a language model's output table and bias.

        Existing rows keep their values. A compiled model must be compiled again: its optimizer refers to the old
        tables.

        Args:
            new_num_tokens: the number of tokens; by default the current one.
            pad_to_multiple_of: round the number up to a multiple of this.
            mean_resizing: draw new rows from the mean and covariance of the present ones, as
                `rembert.common.initialization.added_rows` describes, and set new biases to the mean bias. Otherwise
                rows are drawn as those of a new model, and biases are 0.

        Returns:
            The input embeddings.

        Raises:
            InputError: the number is invalid or would remove a special token, or a table is not a plain one
                (quantized, or with an adapter).

        Example:
            >>> from rembert.tf import RemBertConfig, TFRemBertForMaskedLM
            >>> config = RemBertConfig(vocab_size=1000, hidden_size=72, num_hidden_layers=2)
            >>> model = TFRemBertForMaskedLM(config)
            >>> tuple(model.resize_token_embeddings(1010, pad_to_multiple_of=64).embeddings.shape)
            (1024, 256)
            >>> tuple(model.get_output_embeddings().kernel.shape)
            (1664, 1024)
        """
        size = resized_vocabulary(self.config, new_num_tokens, pad_to_multiple_of)
        table, output = self.get_input_embeddings(), self.get_output_embeddings()
        for layer, plain in ((table, keras.layers.Embedding), (output, keras.layers.Dense)):
            if layer is not None and (type(layer) is not plain or layer.quantization_mode or layer.lora_enabled):
                raise InputError(
                    f"Only plain tables can be resized. Received: a {type(layer).__name__} with "
                    f"`quantization_mode={layer.quantization_mode}` and `lora_enabled={layer.lora_enabled}`. Resize "
                    "before quantisation and adapters."
                )
        if size == self.config.vocab_size:
            return table
        draw = None if mean_resizing else normal(self.config.initializer_range)
        replace_variables(table, {"embeddings": _resized(table.embeddings, 0, size, draw)})
        table.input_dim = size
        if output is not None:
            kernel = _resized(output.kernel, 1, size, draw)
            bias = _resized(output.bias, 0, size, None if mean_resizing else keras.initializers.Zeros())
            replace_variables(output, {"kernel": kernel, "bias": bias})
            output.units = size
        self.config.vocab_size = size
        self.train_function = self.test_function = self.predict_function = None  # traced with the old tables
        return table

    def get_memory_footprint(self, return_buffers: bool = True) -> int:
        """The bytes that the parameters take; Keras has no buffers beside them."""
        return sum(variable.value.dtype.size * int(np.prod(variable.shape)) for variable in self.weights)

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """The number of values in the parameters, with or without those of the input tables.

        Example:
            >>> from rembert.tf import RemBertConfig, TFRemBertModel
            >>> config = RemBertConfig(vocab_size=1000, hidden_size=72, num_hidden_layers=2)
            >>> model = TFRemBertModel(config)
            >>> model.num_parameters() - model.num_parameters(exclude_embeddings=True)
            387584
        """
        layers = layers_inside(self) if exclude_embeddings else ()
        tables = {id(layer.embeddings) for layer in layers if isinstance(layer, keras.layers.Embedding)}
        variables = self.trainable_weights if only_trainable else self.weights
        return sum(int(np.prod(variable.shape)) for variable in variables if id(variable) not in tables)

    def parameter_table(self) -> dict[str, Parameter]:
        """This model's entries of the parameter table, by canonical name."""
        base = self.get_base_model()
        if base is self and self.head == CUSTOM:
            return {}  # a class of the user's own, without a base model as `rembert`
        return parameters(self.config, self.head, pooler=getattr(base, "pooler", None) is not None)

    def variable(self, parameter: Parameter) -> keras.Variable:
        """The variable of a parameter; a dense kernel is [in, out], the transpose of the table's shape."""
        return getattr(self._holder(parameter), KERAS_ATTRIBUTES[parameter.kind])

    def _shape(self, parameter: Parameter) -> tuple[int, ...]:
        """The shape of a parameter's variable, in PyTorch's orientation as in the table."""
        shape = tuple(self.variable(parameter).shape)
        return shape[::-1] if parameter.kind is Kind.KERNEL else shape

    def _holder(self, parameter: Parameter) -> Any:
        """The layer that has a parameter."""
        *steps, _ = file_name(parameter.name, self.head).split(".")
        holder: Any = self
        for step in steps:
            # `output` is a property of every Keras layer: the sub-layer of that name is the attribute `out`.
            holder = holder[int(step)] if step.isdigit() else getattr(holder, "out" if step == "output" else step)
        return holder

    def compute_output_shape(self, input_shape: Any = None) -> Any:
        """The shapes of the outputs by name, or the one shape of a model with a single output.

        Args:
            input_shape: that of the ids, or a dict of shapes by the names of inputs; by default [b, s] of any size.

        Example:
            >>> from rembert.tf import RemBertConfig, TFRemBertModel
            >>> config = RemBertConfig(vocab_size=1000, hidden_size=72, num_hidden_layers=2)
            >>> TFRemBertModel(config).compute_output_shape((8, 20))
            {'last_hidden_state': (8, 20, 72), 'pooler_output': (8, 72)}
        """
        shapes = input_shape if isinstance(input_shape, Mapping) else {"input_ids": input_shape or self._ids_shape}
        inputs = {
            name: keras.KerasTensor(shape, "int32" if name.endswith(("_ids", "_mask")) else self.compute_dtype)
            for name, shape in shapes.items()
        }
        found = keras.tree.map_structure(lambda tensor: tuple(tensor.shape), self.compute_output_spec(inputs))
        return found[0] if isinstance(found, ModelOutput) and len(found) == 1 else found

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        """What a symbolic call returns. Keras would read it from `compute_output_shape`, which calls this."""
        return keras.Operation.compute_output_spec(self, *args, **kwargs)

    def finish(self, outputs: ModelOutput, return_dict: bool | None) -> Any:
        """`outputs`, or its plain tuple if `return_dict` (by default the configuration's) is False."""
        wants_dict = self.config.return_dict if return_dict is None else return_dict
        return outputs if wants_dict else outputs.to_plain_tuple()

    # ------------------------------------------------------------------ training

    def freeze_embeddings(self) -> None:
        """Exclude the input embeddings from training: a ninth of the released model's parameters.

        The model must be compiled afterwards, not before.

        Example:
            >>> from rembert.tf import RemBertConfig, TFRemBertModel
            >>> config = RemBertConfig(vocab_size=1000, hidden_size=72, num_hidden_layers=2)
            >>> model = TFRemBertModel(config)
            >>> model.freeze_embeddings()
            >>> model.get_input_embeddings().embeddings.trainable
            False
        """
        for variable in self.get_base_model().embeddings.trainable_variables:
            variable.trainable = False

    def enable_lora(
        self, rank: int, *, alpha: float | None = None, targets: Sequence[str] = ("query", "value")
    ) -> None:
        """Add Keras' LoRA; see `rembert.tf.adaptation.enable_lora`.

        Example:
            >>> from rembert.tf import RemBertConfig, TFRemBertForSequenceClassification
            >>> config = RemBertConfig(vocab_size=1000, hidden_size=72, num_hidden_layers=2)
            >>> model = TFRemBertForSequenceClassification(config)
            >>> model.enable_lora(rank=8)
            >>> model.num_parameters(only_trainable=True)
            4754
        """
        enable_lora(self, rank, alpha=alpha, targets=targets)

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether gradient checkpointing is on."""
        return self.get_base_model().encoder.checkpointing

    def gradient_checkpointing_enable(self) -> None:
        """Keep only the input of each layer in training and recompute the layer in the backward pass.

        A training step takes about a third longer; memory for activations shrinks to that of one layer and the inputs
        of all: Chen et al., "Training Deep Nets with Sublinear Memory Cost" (2016).

        Example:
            >>> from rembert.tf import RemBertConfig, TFRemBertModel
            >>> config = RemBertConfig(vocab_size=1000, hidden_size=72, num_hidden_layers=2)
            >>> model = TFRemBertModel(config)
            >>> model.gradient_checkpointing_enable()
            >>> model.is_gradient_checkpointing
            True
        """
        self.get_base_model().encoder.checkpointing = True

    def gradient_checkpointing_disable(self) -> None:
        """Keep the activations of all layers for the backward pass, as by default."""
        self.get_base_model().encoder.checkpointing = False


def _resized(variable: keras.Variable, axis: int, size: int, initializer: Any) -> np.ndarray:
    """A variable's values with `size` rows or columns: existing ones are kept, new ones come from the initialiser.

    Without an initialiser, new rows are drawn as `added_rows` describes, and new numbers are the mean.
    """
    old = np.asarray(variable.value)
    kept = np.take(old, range(min(size, old.shape[axis])), axis)
    shape = [*old.shape]
    shape[axis] = size - kept.shape[axis]
    if initializer is not None:
        new = np.asarray(initializer(shape, dtype=variable.dtype))
    elif old.ndim == 1:
        new = np.full(shape, old.mean(dtype=np.float64))
    else:
        seed = int(keras.random.randint((), 0, 2**31 - 1))
        new = added_rows(old.T if axis else old, shape[axis], seed)
        new = new.T if axis else new
    return np.concatenate([kept, new.astype(old.dtype)], axis)
