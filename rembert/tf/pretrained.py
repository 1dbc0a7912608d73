"""What every model class has: construction, loading, saving."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, ClassVar

import keras
import numpy as np

from rembert.bridge import TensorSource, open_checkpoint, save_safetensors
from rembert.bridge.tensors import DTYPES, is_float
from rembert.common.config import RemBertConfig
from rembert.common.errors import ConfigError
from rembert.common.hub import locate
from rembert.common.loading import loading_config, settle
from rembert.common.outputs import ModelOutput
from rembert.common.parameters import BASE_PREFIX, HEADS, Kind, Parameter, match, parameters
from rembert.tf.initialization import initialization_left_out, normal
from rembert.tf.layers import build_parts

# What Keras calls a parameter, by kind: the attribute of the layer that holds it.
_ATTRIBUTES = {
    Kind.EMBEDDING: "embeddings",
    Kind.KERNEL: "kernel",
    Kind.BIAS: "bias",
    Kind.SCALE: "gamma",
    Kind.SHIFT: "beta",
}


class TFRemBertPreTrainedModel(keras.Model):
    """Base of the model classes. A subclass sets `head`, a key of the parameter table's `HEADS`."""

    head: ClassVar[str]
    config_class = RemBertConfig
    base_model_prefix = "rembert"
    main_input_name = "input_ids"

    def __init__(self, config: RemBertConfig, **kwargs: Any) -> None:
        """Raises: ConfigError where no model can be built from `config`."""
        if not isinstance(config, RemBertConfig):
            raise ConfigError(f"`config` must be a RemBertConfig. Received: {type(config).__name__}.")
        config.validate()
        # Keras would cast every float argument to the compute dtype, labels included; the layers cast what they use.
        super().__init__(**{"autocast": False, **kwargs})
        self.config = config

    def post_init(self) -> None:
        """Make the weights: all shapes follow from the configuration, no input is needed."""
        self.build()

    def build_parts(self, /, **widths: int | None) -> None:
        """Make the weights of parts; see `rembert.tf.layers.build_parts`."""
        build_parts(self, widths)

    def get_config(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in self._own_arguments}
        dtype = keras.saving.serialize_keras_object(self.dtype_policy)
        return {"config": self.config.to_dict(), "name": self.name, "dtype": dtype, **own}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> TFRemBertPreTrainedModel:
        settings = dict(config)
        settings["dtype"] = keras.saving.deserialize_keras_object(settings["dtype"])
        return cls(RemBertConfig.from_dict(settings.pop("config")), **settings)

    # ------------------------------------------------------------------ parts

    # A method and not a property as in PyTorch: Keras walks over attributes when it saves, and would walk in a circle.
    def get_base_model(self) -> keras.Model:
        """The `TFRemBertModel`: this model itself, or the one inside a head."""
        return getattr(self, self.base_model_prefix, self)

    def get_input_embeddings(self) -> keras.layers.Embedding:
        """The table of word embeddings, [vocab_size, input_embedding_size]."""
        return self.get_base_model().embeddings.word_embeddings

    def set_input_embeddings(self, value: keras.layers.Embedding) -> None:
        """Put another table in place of the word embeddings."""
        self.get_base_model().embeddings.word_embeddings = value

    def get_output_embeddings(self) -> keras.layers.Dense | None:
        """The output table of a language model, a linear layer to [.., vocab_size]; None for other heads."""
        return None

    def num_parameters(self, only_trainable: bool = False) -> int:
        """How many numbers the parameters hold."""
        variables = self.trainable_weights if only_trainable else self.weights
        return sum(int(np.prod(variable.shape)) for variable in variables)

    def parameter_table(self) -> dict[str, Parameter]:
        """This model's entries of the parameter table, by canonical name."""
        return parameters(self.config, self.head, pooler=getattr(self.get_base_model(), "pooler", None) is not None)

    def variable(self, parameter: Parameter) -> keras.Variable:
        """The variable of a parameter; a dense kernel is [in, out], the transpose of the table's shape."""
        path = parameter.name.removeprefix(BASE_PREFIX) if self.head == "model" else parameter.name
        *steps, _ = path.split(".")
        holder: Any = self
        for step in steps:
            # `output` is a property of every Keras layer: the part of that name is the attribute `out`.
            holder = holder[int(step)] if step.isdigit() else getattr(holder, "out" if step == "output" else step)
        return getattr(holder, _ATTRIBUTES[parameter.kind])

    def finish(self, outputs: ModelOutput, return_dict: bool | None) -> Any:
        """`outputs` itself, or its tuple where `return_dict` (by default the configuration's) is False."""
        wants_dict = self.config.return_dict if return_dict is None else return_dict
        return outputs if wants_dict else outputs.to_tuple()

    # ------------------------------------------------------------------ files

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        config: RemBertConfig | None = None,
        dtype: Any = None,
        torch_dtype: Any = None,
        output_loading_info: bool = False,
        ignore_mismatched_sizes: bool = False,
        revision: str | None = None,
        **overrides: Any,
    ) -> Any:
        """Load a checkpoint.

        The file is mapped into memory and each tensor copied once, into its variable. No dummy input is needed, no
        random number is drawn for a weight that the file holds.

        Args:
            name_or_path: a checkpoint directory, a file of weights, or a name on the Hugging Face Hub.
            config: in place of the checkpoint's own.
            dtype: a dtype or Keras dtype policy ('float32', 'bfloat16', 'mixed_bfloat16', …), or 'auto' for the
                checkpoint's own dtype; by default Keras' global policy.
            torch_dtype: `dtype` under its older name.
            output_loading_info: also return what was missing, unexpected and of another shape, instead of refusing
                or warning of missing and unexpected parameters.
            ignore_mismatched_sizes: initialise parameters of another shape afresh instead of refusing them.
            revision: a branch, tag or commit of a repository on the hub.
            **overrides: keys of the configuration to replace (`num_labels=3`), and the class's own arguments
                (`add_pooling_layer=False`, `name="encoder"`).

        Returns:
            The model, or (model, report) with `output_loading_info`.

        Raises:
            CheckpointError: no checkpoint there, a damaged one, or one that does not fit.
            ConfigError: no configuration, or an unusable one.
            TypeError: an unknown keyword.
        """
        arguments = {key: overrides.pop(key) for key in (*cls._own_arguments, "name") if key in overrides}
        source = os.fspath(name_or_path)
        with open_checkpoint(locate(name_or_path, revision)) as checkpoint:
            model_config = loading_config(checkpoint.config, config, overrides, source)
            wanted = dtype if dtype is not None else torch_dtype
            if wanted == "auto":
                # Of weights: beside them an old checkpoint may have integers, which are none.
                wanted = next(info.dtype.name for info in checkpoint.tensors.values() if is_float(info.dtype))
            with initialization_left_out():
                model = cls(model_config, dtype=getattr(wanted, "name", wanted), **arguments)
            table = model.parameter_table()
            fit = match(table, {name: info.shape for name, info in checkpoint.tensors.items()})
            report = settle(
                fit,
                source=source,
                model=cls.__name__,
                ignore_mismatched_sizes=ignore_mismatched_sizes,
                report_only=output_loading_info,
            )
            for canonical, stored in fit.found.items():
                array = checkpoint.read(stored)
                is_kernel = table[canonical].kind is Kind.KERNEL
                _assign(model.variable(table[canonical]), array.T if is_kernel else array)
        for canonical in fit.fresh:
            model._initialize_fresh(table[canonical])
        model_config.dtype = model.variable_dtype
        return (model, report) if output_loading_info else model

    def save_pretrained(self, directory: str | os.PathLike[str], *, max_shard_size: int | str = "5GB") -> None:
        """Write `model.safetensors` (or shards and their index) and `config.json` into `directory`.

        The files are the ones that PyTorch writes and reads. Other files in the directory stay as they are. Every
        file appears complete, or not at all.

        Args:
            directory: made where it is missing.
            max_shard_size: bytes, or text such as '5GB'; larger models are split into several files.
        """
        table = self.parameter_table()
        tensors = {}
        for canonical, parameter in table.items():
            name = canonical.removeprefix(BASE_PREFIX) if self.head == "model" else canonical
            tensors[name] = _as_source(self.variable(parameter), parameter)
        config = RemBertConfig.from_dict(self.config.to_dict())
        config.architectures = [HEADS[self.head].architecture]
        config.dtype = self.variable_dtype
        os.makedirs(directory, exist_ok=True)
        save_safetensors(directory, tensors, max_shard_size=max_shard_size)
        config.save_pretrained(directory)

    # The constructor's arguments beside `config` that `from_pretrained` passes on and `get_config` writes.
    _own_arguments: ClassVar[tuple[str, ...]] = ()

    def _initialize_fresh(self, parameter: Parameter) -> None:
        """Fresh values for a parameter that the checkpoint does not hold; biases and norms have theirs already."""
        if parameter.kind in (Kind.KERNEL, Kind.EMBEDDING):
            variable = self.variable(parameter)
            variable.assign(normal(self.config.initializer_range)(variable.shape, dtype=variable.dtype))


def _assign(variable: keras.Variable, array: np.ndarray) -> None:
    variable.assign(array if array.dtype.name == variable.dtype else array.astype(DTYPES[variable.dtype]))


def _as_source(variable: keras.Variable, parameter: Parameter) -> TensorSource:
    read: Callable[[], np.ndarray]
    if parameter.kind is Kind.KERNEL:

        def read() -> np.ndarray:
            return np.ascontiguousarray(np.asarray(variable.value).T)
    else:

        def read() -> np.ndarray:
            return np.ascontiguousarray(np.asarray(variable.value))

    return TensorSource(shape=parameter.shape, dtype=DTYPES[variable.dtype], read=read)
