"""The public base class of the models: loading and saving of checkpoints."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from rembert.bridge import TensorSource, open_checkpoint
from rembert.bridge.loading import open_stored
from rembert.bridge.names import KERAS_ATTRIBUTES
from rembert.bridge.saving import save_h5, save_model, superseded_files
from rembert.bridge.tensors import DTYPES, is_float
from rembert.common.config import RemBertConfig
from rembert.common.errors import CheckpointError, InputError
from rembert.common.keywords import take_hub_options
from rembert.common.loading import check_exact_match, check_match
from rembert.common.name_matching import check_shapes, kept_tensors, match, replaced
from rembert.common.parameters import CUSTOM, Kind, Parameter, file_name
from rembert.common.public_names import with_methods_of
from rembert.tf.adaptation import NO_CHECKPOINT, NO_LITERT, check_plain, is_adapted, merged
from rembert.tf.additions import Addition, build_additions, built_additions, is_extended
from rembert.tf.base import TFRemBertModelBase
from rembert.tf.initialization import Stored, skip_initialization
from rembert.tf.serving import keep_padding, serve, serving_signature

_AUTOMATIC = ("auto", "balanced", "balanced_low_0", "sequential")


@with_methods_of(TFRemBertModelBase)
class TFRemBertPreTrainedModel(TFRemBertModelBase):
    """Base of the seven model classes: loading, saving, embeddings and training.

    Example:
        >>> from rembert.tf import TFRemBertForMaskedLM, TFRemBertPreTrainedModel
        >>> issubclass(TFRemBertForMaskedLM, TFRemBertPreTrainedModel)
        True
    """

    head = CUSTOM
    _superseded = staticmethod(superseded_files)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str] | None,
        *,
        config: RemBertConfig | str | os.PathLike[str] | None = None,
        dtype: Any = None,
        torch_dtype: Any = None,
        device_map: Any = None,
        state_dict: Mapping[str, Any] | None = None,
        key_mapping: Mapping[str, str] | None = None,
        output_loading_info: bool = False,
        ignore_mismatched_sizes: bool = False,
        **keywords: Any,
    ) -> Any:
        """Load a checkpoint.

        The file is mapped into memory and each tensor copied once, into the memory of its variable. No dummy input is
        needed, and no initialiser runs for a weight that the file holds.

        Args:
            pretrained_model_name_or_path: a checkpoint directory, a file of weights, or a name on the Hugging Face
                Hub. None beside `config` and `state_dict`.
            config: replaces that of the checkpoint: a configuration, or the path or name of a checkpoint that has it.
            dtype: a dtype or Keras dtype policy ('float32', 'bfloat16', 'mixed_bfloat16', …), or 'auto' for that of
                the checkpoint; by default Keras' global policy.
            torch_dtype: `dtype` under its older name.
            device_map: 'auto', or the device that TensorFlow uses anyway: it places operations itself.
            state_dict: arrays by name, in PyTorch's orientation, which replace those of the checkpoint.
            key_mapping: regular expressions and what replaces them in the names of tensors, the first one that is
                found in a name.
            output_loading_info: also return a report of missing, unexpected and mismatched parameters; those missing
                or unexpected then raise neither an error nor a warning.
            ignore_mismatched_sizes: initialise parameters that have another shape instead of raising an error.
            **keywords: keys of the configuration to replace (`num_labels=3`), the class's own arguments
                (`add_pooling_layer=False`, `name="encoder"`), and those of `rembert.common.keywords.HubOptions`, such
                as `revision`, `token`, `subfolder` and `variant`. Keywords of transformers that ask for nothing are
                accepted.

        Returns:
            The model, or (model, report) with `output_loading_info`.

        Raises:
            NotFoundError: there is no such path or repository, or no checkpoint in it.
            CheckpointError: the checkpoint is damaged, or does not fit the model.
            ConfigError: the configuration is missing or invalid.
            KeywordError: a keyword is unknown; the message suggests the nearest known one.

        Example:
            >>> from rembert.tf import TFRemBertForMaskedLM, TFRemBertForSequenceClassification
            >>> model = TFRemBertForMaskedLM.from_pretrained("google/rembert")
            >>> model.variable_dtype
            'float32'
            >>> model, report = TFRemBertForSequenceClassification.from_pretrained(
            ...     "google/rembert", num_labels=3, output_loading_info=True
            ... )
            >>> report["missing_keys"]
            ['classifier.weight', 'classifier.bias']
        """
        hub, rest = take_hub_options(keywords)
        arguments = {key: rest.pop(key) for key in (*cls._own_arguments, "name") if key in rest}
        _check_device(device_map)
        with open_stored(
            pretrained_model_name_or_path,
            hub,
            config=config,
            overrides=rest,
            tensors=None
            if state_dict is None
            else {name: _as_array_source(each) for name, each in state_dict.items()},
            key_mapping=key_mapping,
            report_only=output_loading_info,
            config_class=cls.config_class,
        ) as stored:
            wanted = dtype if dtype is not None else torch_dtype
            if wanted == "auto":
                # The first floating-point tensor's: an old checkpoint may hold integers beside its weights.
                wanted = next((info.dtype.name for info in stored.tensors.values() if is_float(info.dtype)), None)
            with skip_initialization():
                model = cls(stored.config, dtype=getattr(wanted, "name", wanted), **arguments)
            added = built_additions(model)
            table = {**model.parameter_table(), **{name: each.parameter for name, each in added.items()}}
            fit = match(table, stored.shapes)
            report = check_match(
                fit,
                source=stored.source,
                model=cls.__name__,
                head=model.head,
                ignore_mismatched_sizes=ignore_mismatched_sizes,
                report_only=output_loading_info,
            )
            integers = {name for name, each in added.items() if not keras.backend.is_float_dtype(each.variable.dtype)}
            stored.require_floats(held for name, held in fit.found.items() if name not in integers)
            kept = kept_tensors(fit, stored.config, stored.shapes)
            model.kept = {canonical: stored.tensors[name].read() for canonical, name in kept.items()}
            found = {table[name]: stored.tensors[held].read for name, held in fit.found.items()}
            if model.built:  # for what a subclass adds
                model._assign(found, added)
            else:
                model._build_from(found)
        stored.config.dtype = model.variable_dtype
        return (model, report) if output_loading_info else model

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        *,
        is_main_process: bool = True,
        push_to_hub: bool = False,
        max_shard_size: int | str = "5GB",
        safe_serialization: bool = True,
        variant: str | None = None,
        **keywords: Any,
    ) -> None:
        """Write `model.safetensors` (or shards and their index) and `config.json` into `save_directory`.

        The weights of layers that a subclass adds are written too, and `from_pretrained` of the subclass reads them.
        So is a pooler that the checkpoint had and this head does not use. `rembert.pt` writes and reads the same
        files. LoRA's update is added to the weights. Other files in the directory are left unchanged. Each file is
        written completely or not at all.

        Args:
            save_directory: created if missing.
            is_main_process: False writes nothing, for all processes but one of a distributed run.
            push_to_hub: upload the files as well.
            max_shard_size: bytes, or text such as '5GB'; larger models are split into several files.
            safe_serialization: False writes `tf_model.h5`, in the layout of transformers' TensorFlow classes, in place
                of `model.safetensors`.
            variant: the weights' file is `model.VARIANT.safetensors`.
            **keywords: those of `push_to_hub`; `repo_id` is by default the directory's name.

        Raises:
            InputError: `save_directory` is a file, the model is quantized (a checkpoint holds floating-point weights),
                or a shape contradicts the configuration.
            KeywordError: a keyword is unknown.

        Example:
            >>> from rembert.tf import RemBertConfig, TFRemBertModel
            >>> config = RemBertConfig(vocab_size=1000, hidden_size=72, num_hidden_layers=2)
            >>> TFRemBertModel(config).save_pretrained("my-rembert")
            >>> sorted(os.listdir("my-rembert"))
            ['config.json', 'model.safetensors']
        """
        if not is_main_process:
            return
        if variant is not None and not safe_serialization:
            raise InputError(f"`variant` must be None for `tf_model.h5`. Received: `variant={variant!r}`.")
        table = self.parameter_table()
        for parameter in table.values():
            layer = self._holder(parameter)
            if not hasattr(layer, KERAS_ATTRIBUTES[parameter.kind]):
                own = file_name(parameter.name, self.head).rpartition(".")[0]
                parts = [variable.path for variable in layer.weights]
                raise InputError(f"A model must have every parameter to be saved. {replaced(own, parts)}")
        check_plain(self, NO_CHECKPOINT)
        check_shapes(table, {name: self._shape(parameter) for name, parameter in table.items()})
        canonical = {name: _as_source(self._holder(parameter), parameter) for name, parameter in table.items()}
        canonical |= {name: addition.source for name, addition in built_additions(self).items()}
        for name, array in self.kept.items():
            canonical[name] = TensorSource(array.shape, DTYPES[self.variable_dtype], partial(np.asarray, array))
        config = type(self.config).from_dict(self.config.to_dict())
        config.architectures = [type(self).__name__.removeprefix("TF")]
        config.dtype = self.variable_dtype

        def write_h5(directory: Path) -> list[Path]:
            return save_h5(directory, canonical, config, self.head, max_shard_size=max_shard_size)

        save_model(
            save_directory,
            {file_name(name, self.head): source for name, source in canonical.items()},
            config,
            max_shard_size=max_shard_size,
            variant=variant,
            push_to_hub=push_to_hub,
            keywords=keywords,
            write=None if safe_serialization else write_h5,
        )

    def save(self, filepath: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        """Keras' `save`, which writes a `.keras` file.

        Raises:
            InputError: a name that ends in .h5: Keras would write a file that it cannot load.

        Example:
            >>> from rembert.tf import RemBertConfig, TFRemBertModel
            >>> config = RemBertConfig(vocab_size=1000, hidden_size=72, num_hidden_layers=2)
            >>> TFRemBertModel(config).save("model.keras")
        """
        if str(filepath).endswith((".h5", ".hdf5")):
            raise InputError(
                "`filepath` must end in .keras. For an H5 file use `save_weights('NAME.weights.h5')`, or "
                f"`save_pretrained` and `rembert convert --to tf`. Received: {str(filepath)!r}."
            )
        super().save(filepath, *args, **kwargs)

    def load_weights(self, filepath: str | os.PathLike[str], skip_mismatch: bool = False, **kwargs: Any) -> None:
        """Keras' `load_weights`, with an error that names every mismatch.

        Raises:
            CheckpointError: the file is damaged, or the head, sizes or quantization differ.

        Example:
            >>> from rembert.tf import RemBertConfig, TFRemBertModel
            >>> config = RemBertConfig(vocab_size=1000, hidden_size=72, num_hidden_layers=2)
            >>> TFRemBertModel(config).save_weights("model.weights.h5")
            >>> TFRemBertModel(config).load_weights("model.weights.h5")
        """
        path = Path(filepath)
        if not path.name.endswith((".weights.h5", ".keras")):
            raise InputError(
                "`filepath` must be a file of Keras 3, which ends in .weights.h5 or .keras. Received: "
                f"`filepath={str(path)!r}`. Load other checkpoints with `{type(self).__name__}.from_pretrained`."
            )
        build_additions(self)
        adapted = is_adapted(self) or is_extended(self)
        if not skip_mismatch and not adapted:
            with open_checkpoint(path) as checkpoint:
                # The reader ignores variables of the optimizer, seeds of dropout, and integer weights.
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
        """Keras' `export`; by default with the inputs `input_ids`, `attention_mask` and `token_type_ids`, by name.

        The graph for LiteRT computes padding, because LiteRT lacks the operations to remove it. The functions of
        `rembert.tf.exporting` write the same and compare the result with the model's.

        Raises:
            InputError: `format="onnx"`, or `format="litert"` of a quantized model.

        Example:
            >>> from rembert.tf import RemBertConfig, TFRemBertModel
            >>> config = RemBertConfig(vocab_size=1000, hidden_size=72, num_hidden_layers=2)
            >>> TFRemBertModel(config).export("served", verbose=False)
            >>> sorted(os.listdir("served"))
            ['assets', 'fingerprint.pb', 'saved_model.pb', 'variables']
        """
        if format == "onnx":
            # Keras uses tf2onnx; version 1.17 writes a wrong reshape that ONNX Runtime 1.32 refuses.
            raise InputError(
                "`format` must be 'tf_saved_model' or 'litert'. Use `rembert export --to onnx`, which uses "
                "PyTorch. Received: `format='onnx'`."
            )
        if format == "litert":
            check_plain(self, NO_LITERT)
        if input_signature is None:
            input_signature = [serving_signature(self.config, self.head, self.compute_dtype)]
        with contextlib.nullcontext() if format == "tf_saved_model" else keep_padding(self):
            super().export(filepath, format=format, verbose=verbose, input_signature=input_signature, **kwargs)

    def served(self) -> Any:
        """The function that `tf.saved_model.save(model, directory)` writes as the signature `serving_default`.

        Its inputs are those of `export`. `rembert.tf.exporting.export_savedmodel` writes signatures for other dtypes
        too, needs no Keras where it is served, and compares the result with the model's.
        """
        signature = serving_signature(self.config, self.head, self.compute_dtype)
        return tf.function(lambda inputs: serve(self, inputs), input_signature=[signature], autograph=False)

    def _assign(self, stored: Mapping[Parameter, Callable[[], np.ndarray]], added: Mapping[str, Addition]) -> None:
        """Give a built model with added layers the weights that are in `stored`."""
        for parameter, read in stored.items():
            if parameter.name in added:
                added[parameter.name].assign(read())
            else:
                self.variable(parameter).assign(read().T if parameter.kind is Kind.KERNEL else read())

    def _build_from(self, stored: Mapping[Parameter, Callable[[], np.ndarray]]) -> None:
        """Create the weights: from `stored` if it has them, otherwise initialised."""
        own = []
        for parameter, read in stored.items():
            holder, name = self._holder(parameter), f"{KERAS_ATTRIBUTES[parameter.kind]}_initializer"
            own.append((holder, name, getattr(holder, name)))
            setattr(holder, name, Stored(read, transposed=parameter.kind is Kind.KERNEL))
        self.build(self._ids_shape)
        for holder, name, initializer in own:
            setattr(holder, name, initializer)


def _check_device(device_map: Any) -> None:
    """Refuse a `device_map` for another device than the one that TensorFlow uses."""
    given = device_map.values() if isinstance(device_map, Mapping) else [device_map]
    devices = {str(each).lower().removeprefix("/").removeprefix("device:") for each in given}
    has_gpu = bool(tf.config.get_visible_devices("GPU"))
    usual = {"cuda", "cuda:0", "gpu", "gpu:0", "0"} if has_gpu else {"cpu", "cpu:0"}
    if len(devices) != 1 or not devices <= usual | {"none", *_AUTOMATIC}:
        raise InputError(
            "`device_map` must be None, 'auto' or the device that TensorFlow uses, which places operations itself. "
            f"Received: `device_map={device_map!r:.200}`. Use `tf.device`, or `tf.config.set_visible_devices`."
        )


def _as_array_source(value: Any) -> TensorSource:
    array = np.asarray(value)
    return TensorSource(array.shape, array.dtype, lambda: array)


def _as_source(layer: keras.layers.Layer, parameter: Parameter) -> TensorSource:
    def read() -> np.ndarray:
        value = merged(layer, parameter)
        return np.ascontiguousarray(value.T if parameter.kind is Kind.KERNEL else value)

    return TensorSource(shape=parameter.shape, dtype=DTYPES[layer.variable_dtype], read=read)


def _shortened(problem: Exception) -> str:
    text = " ".join(str(problem).split())
    return text if len(text) <= 400 else text[:400] + " …"
