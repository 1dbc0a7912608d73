"""What every model class has: construction, loading, saving."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np

from rembert.bridge import TensorSource, open_checkpoint, save_safetensors
from rembert.bridge.tensors import DTYPES, is_float
from rembert.common.arguments import check_argument, instance_of
from rembert.common.checks import resized_vocabulary
from rembert.common.config import RemBertConfig
from rembert.common.errors import CheckpointError, ConfigError, InputError
from rembert.common.label_smoothing import LabelSmoothing
from rembert.common.loading import check_exact_match, check_match, loading_config
from rembert.common.name_matching import check_shapes, match
from rembert.common.outputs import ModelOutput
from rembert.common.parameters import HEADS, Kind, Parameter, file_name, head_config, parameters
from rembert.tf.adaptation import adapt, adaptations, check_plain, is_adapted, merged
from rembert.tf.initialization import Stored, building_left_out, is_building_left_out, normal
from rembert.tf.keras_internals import replace_variables
from rembert.tf.layers import build_parts, layers_inside
from rembert.tf.serving import padding_left_in, serving_signature
from rembert.tf.training import TrainableModel

# What Keras calls a parameter, by kind: the attribute of the layer that holds it.
_ATTRIBUTES = {
    Kind.EMBEDDING: "embeddings",
    Kind.KERNEL: "kernel",
    Kind.BIAS: "bias",
    Kind.SCALE: "gamma",
    Kind.SHIFT: "beta",
}


class TFRemBertPreTrainedModel(LabelSmoothing, TrainableModel):
    """Base of the model classes. A subclass sets `head`, a key of the parameter table's `HEADS`."""

    head: ClassVar[str]
    config_class = RemBertConfig
    base_model_prefix = "rembert"
    main_input_name = "input_ids"

    def __init__(self, config: RemBertConfig, **kwargs: Any) -> None:
        """Raises: ConfigError where no model can be built from `config`."""
        check_argument("config", config, instance_of(RemBertConfig), ConfigError)
        config.validate()
        # Keras would cast every float argument to the compute dtype, labels included; the layers cast what they use.
        super().__init__(**{"autocast": False, **kwargs})
        self.config = head_config(config, self.head)

    def post_init(self) -> None:
        """Make the weights: all shapes follow from the configuration, no input is needed."""
        if not is_building_left_out():
            self.build()

    def build_parts(self, /, **widths: int | None) -> None:
        """Make the weights of parts; see `rembert.tf.layers.build_parts`."""
        build_parts(self, widths)

    def get_config(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in self._own_arguments}
        dtype = keras.saving.serialize_keras_object(self.dtype_policy)
        return {"config": self.config.to_dict(), "name": self.name, "dtype": dtype, **own, **self._adaptations()}

    def _adaptations(self) -> dict[str, Any]:
        done = adaptations(self)
        return {"adaptations": done} if done else {}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> TFRemBertPreTrainedModel:
        settings = dict(config)
        settings["dtype"] = keras.saving.deserialize_keras_object(settings["dtype"])
        done = settings.pop("adaptations", {})
        model = cls(RemBertConfig.from_dict(settings.pop("config")), **settings)
        adapt(model, done)
        return model

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

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None
    ) -> keras.layers.Embedding:
        """Change how many pieces the vocabulary has: the input table, and a language model's output table and bias.

        Rows that stay keep their numbers; rows that come are initialised as those of a new model are, and the new
        biases are 0. A model that was compiled must be compiled anew: its optimiser knows the old tables.

        Args:
            new_num_tokens: pieces wanted; None for as many as there are.
            pad_to_multiple_of: rounds the number up to a multiple of this.

        Returns:
            The input embeddings.

        Raises:
            InputError: a number that is none, one that would cut off a special piece, or a table that is no plain one
                (quantised, or with an adapter).
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
        draw = normal(self.config.initializer_range)
        replace_variables(table, {"embeddings": _resized(table.embeddings, 0, size, draw)})
        table.input_dim = size
        if output is not None:
            kernel = _resized(output.kernel, 1, size, draw)
            bias = _resized(output.bias, 0, size, keras.initializers.Zeros())
            replace_variables(output, {"kernel": kernel, "bias": bias})
            output.units = size
        self.config.vocab_size = size
        self.train_function = self.test_function = self.predict_function = None  # traced with the old tables
        return table

    def gradient_checkpointing_enable(self) -> None:
        """Train with the insides of every layer computed again in the backward pass and not kept: less memory."""
        self.get_base_model().encoder.checkpointing = True

    def gradient_checkpointing_disable(self) -> None:
        """Keep the insides of the layers for the backward pass again."""
        self.get_base_model().encoder.checkpointing = False

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether gradient checkpointing is on."""
        return self.get_base_model().encoder.checkpointing

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """How many numbers the parameters hold, with or without those of the input tables."""
        layers = layers_inside(self) if exclude_embeddings else ()
        tables = {id(layer.embeddings) for layer in layers if isinstance(layer, keras.layers.Embedding)}
        variables = self.trainable_weights if only_trainable else self.weights
        return sum(int(np.prod(variable.shape)) for variable in variables if id(variable) not in tables)

    def parameter_table(self) -> dict[str, Parameter]:
        """This model's entries of the parameter table, by canonical name."""
        return parameters(self.config, self.head, pooler=getattr(self.get_base_model(), "pooler", None) is not None)

    def variable(self, parameter: Parameter) -> keras.Variable:
        """The variable of a parameter; a dense kernel is [in, out], the transpose of the table's shape."""
        return getattr(self._holder(parameter), _ATTRIBUTES[parameter.kind])

    def _shape(self, parameter: Parameter) -> tuple[int, ...]:
        """The shape of a parameter's variable, in PyTorch's orientation as the table has it."""
        shape = tuple(self.variable(parameter).shape)
        return shape[::-1] if parameter.kind is Kind.KERNEL else shape

    def _holder(self, parameter: Parameter) -> Any:
        """The layer that has a parameter."""
        *steps, _ = file_name(parameter.name, self.head).split(".")
        holder: Any = self
        for step in steps:
            # `output` is a property of every Keras layer: the part of that name is the attribute `out`.
            holder = holder[int(step)] if step.isdigit() else getattr(holder, "out" if step == "output" else step)
        return holder

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

        The file is mapped into memory and each tensor copied once, into the memory of its variable. No dummy input is
        needed, no initialiser runs for a weight that the file holds.

        Args:
            name_or_path: a checkpoint directory, a file of weights, or a name on the Hugging Face Hub.
            config: in place of the checkpoint's own.
            dtype: a dtype or Keras dtype policy ('float32', 'bfloat16', 'mixed_bfloat16', …), or 'auto' for the
                checkpoint's own dtype; by default Keras' global policy.
            torch_dtype: `dtype` under its older name.
            output_loading_info: also return what was missing, unexpected and of another shape, instead of refusing
                or warning of missing and unexpected parameters.
            ignore_mismatched_sizes: initialise parameters of another shape instead of raising an error.
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
        with open_checkpoint(name_or_path, revision=revision) as checkpoint:
            model_config = loading_config(checkpoint.config, config, overrides, source)
            wanted = dtype if dtype is not None else torch_dtype
            if wanted == "auto":
                # Of weights: beside them an old checkpoint may have integers, which are none.
                wanted = next(info.dtype.name for info in checkpoint.tensors.values() if is_float(info.dtype))
            with building_left_out():
                model = cls(model_config, dtype=getattr(wanted, "name", wanted), **arguments)
            table = model.parameter_table()
            fit = match(table, {name: info.shape for name, info in checkpoint.tensors.items()})
            report = check_match(
                fit,
                source=source,
                model=cls.__name__,
                ignore_mismatched_sizes=ignore_mismatched_sizes,
                report_only=output_loading_info,
            )
            model._build_from({table[name]: partial(checkpoint.read, fit.found[name]) for name in fit.found})
        model_config.dtype = model.variable_dtype
        return (model, report) if output_loading_info else model

    def save_pretrained(self, directory: str | os.PathLike[str], *, max_shard_size: int | str = "5GB") -> None:
        """Write `model.safetensors` (or shards and their index) and `config.json` into `directory`.

        The files are the ones that PyTorch writes and reads. What LoRA has learned is added to the weights. Other
        files in the directory stay as they are. Every file appears complete, or not at all.

        Args:
            directory: made where it is missing.
            max_shard_size: bytes, or text such as '5GB'; larger models are split into several files.

        Raises:
            InputError: the model is quantized (a checkpoint holds floating-point weights), or a parameter has another
                shape than the configuration says.
        """
        check_plain(self, "saved as a checkpoint")
        table = self.parameter_table()
        check_shapes(table, {name: self._shape(parameter) for name, parameter in table.items()})
        tensors = {}
        for canonical, parameter in table.items():
            tensors[file_name(canonical, self.head)] = _as_source(self._holder(parameter), parameter)
        config = RemBertConfig.from_dict(self.config.to_dict())
        config.architectures = [HEADS[self.head].architecture]
        config.dtype = self.variable_dtype
        os.makedirs(directory, exist_ok=True)
        save_safetensors(directory, tensors, max_shard_size=max_shard_size)
        config.save_pretrained(directory)

    def load_weights(self, filepath: str | os.PathLike[str], skip_mismatch: bool = False, **kwargs: Any) -> None:
        """Keras' `load_weights`, which first says all that does not fit.

        Raises:
            CheckpointError: a damaged file, or one of another head, size or quantization.
        """
        path = Path(filepath)
        adapted = is_adapted(self)
        if not skip_mismatch and not adapted and path.name.endswith((".weights.h5", ".keras")):
            with open_checkpoint(path) as checkpoint:
                # What the reader takes for no weights: the optimizer's, dropout's seeds, and weights in integers.
                if any(not re.search(r"optimizer/|seed_generator", name) for name in checkpoint.left_out):
                    raise CheckpointError(
                        f"{path} holds quantized weights. Call `model.quantize` before `load_weights`. Received: a "
                        f"{type(self).__name__} that is not quantized."
                    )
                fit = match(self.parameter_table(), {name: info.shape for name, info in checkpoint.tensors.items()})
            check_exact_match(fit, source=str(path), model=type(self).__name__)
        try:
            super().load_weights(filepath, skip_mismatch=skip_mismatch, **kwargs)
        except (ValueError, KeyError, OSError) as problem:
            raise CheckpointError(f"{path} does not fit {type(self).__name__}. {_shortened(problem)}") from problem

    def export(
        self,
        filepath: str | os.PathLike[str],
        format: str = "tf_saved_model",
        verbose: bool | None = None,
        input_signature: Any = None,
        **kwargs: Any,
    ) -> None:
        """Keras' `export`, of the three usual inputs by name where `input_signature` is left out.

        LiteRT gets a graph that computes padding too: it has nothing to take it out with. `rembert.tf.exporting`
        writes the same and compares the result.

        Raises:
            InputError: `format="onnx"`.
        """
        if format == "onnx":
            # Keras goes through tf2onnx, whose 1.17 writes a wrong reshape that ONNX Runtime 1.32 stops at.
            raise InputError(
                "`format` must be 'tf_saved_model' or 'litert'. Use `rembert export --to onnx`, which goes through "
                "PyTorch. Received: `format='onnx'`."
            )
        if input_signature is None:
            input_signature = [serving_signature(self.config, self.head, self.compute_dtype)]
        with contextlib.nullcontext() if format == "tf_saved_model" else padding_left_in(self):
            super().export(filepath, format=format, verbose=verbose, input_signature=input_signature, **kwargs)

    # The constructor's arguments beside `config` that `from_pretrained` passes on and `get_config` writes.
    _own_arguments: ClassVar[tuple[str, ...]] = ()

    def _build_from(self, stored: Mapping[Parameter, Callable[[], np.ndarray]]) -> None:
        """Make the weights: of what is stored where it is, fresh ones for the rest."""
        own = []
        for parameter, read in stored.items():
            holder, name = self._holder(parameter), f"{_ATTRIBUTES[parameter.kind]}_initializer"
            own.append((holder, name, getattr(holder, name)))
            setattr(holder, name, Stored(read, turned=parameter.kind is Kind.KERNEL))
        self.build()
        for holder, name, initializer in own:
            setattr(holder, name, initializer)


def _resized(variable: keras.Variable, axis: int, size: int, initializer: Any) -> np.ndarray:
    """A variable's values with `size` rows or columns: the first ones as they are, new ones from the initialiser."""
    kept = np.take(np.asarray(variable.value), range(min(size, variable.shape[axis])), axis)
    shape = [*variable.shape]
    shape[axis] = size - kept.shape[axis]
    return np.concatenate([kept, np.asarray(initializer(shape, dtype=variable.dtype))], axis)


def _as_source(layer: keras.layers.Layer, parameter: Parameter) -> TensorSource:
    def read() -> np.ndarray:
        value = merged(layer, parameter)
        return np.ascontiguousarray(value.T if parameter.kind is Kind.KERNEL else value)

    return TensorSource(shape=parameter.shape, dtype=DTYPES[layer.variable_dtype], read=read)


def _shortened(problem: Exception) -> str:
    text = " ".join(str(problem).split())
    return text if len(text) <= 400 else text[:400] + " …"
