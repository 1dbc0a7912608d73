"""The public base class of the models: loading and saving of checkpoints."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from rembert.bridge import TensorSource
from rembert.bridge.loading import open_stored
from rembert.bridge.saving import save_model, save_pickle, superseded_files
from rembert.bridge.tensors import DTYPES
from rembert.common.arguments import check_argument, one_of
from rembert.common.config import RemBertConfig
from rembert.common.errors import InputError
from rembert.common.keywords import take_hub_options
from rembert.common.loading import arguments_and_config, check_match
from rembert.common.name_matching import canonical_name, check_complete, check_shapes, kept_tensors, match
from rembert.common.parameters import CUSTOM, Kind, Parameter
from rembert.common.public_names import with_methods_of
from rembert.pt.base import RemBertModelBase
from rembert.pt.inference import check_kept, warn_if_slow
from rembert.pt.initialization import initialize, skip_initialization

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "float64": torch.float64}
_AUTOMATIC = ("auto", "balanced", "balanced_low_0", "sequential")


@with_methods_of(RemBertModelBase)
class RemBertPreTrainedModel(RemBertModelBase):
    """Base of the seven model classes: loading, saving, embeddings, training and inference.

    Example:
        >>> from rembert.pt import RemBertConfig, RemBertForMaskedLM, RemBertPreTrainedModel
        >>> issubclass(RemBertForMaskedLM, RemBertPreTrainedModel)
        True
    """

    head = CUSTOM
    base_class: ClassVar[Any]  # of the encoder inside a head: `RemBertModel`, or a subclass
    # The constructor's arguments beside `config` that `from_pretrained` passes on.
    _own_arguments: ClassVar[tuple[str, ...]] = ()
    _superseded = staticmethod(superseded_files)

    @classmethod
    def from_config(cls, config: RemBertConfig, *, dtype: str | torch.dtype | None = None, **keywords: Any) -> Self:
        """A new model, with the keys of the configuration in `keywords` replaced.

        Args:
            config: the configuration.
            dtype: of the parameters.
            **keywords: keys of the configuration to replace, and the class's own arguments.

        Example:
            >>> from rembert.pt import RemBertConfig, RemBertModel
            >>> config = RemBertConfig(vocab_size=1000, hidden_size=72, num_hidden_layers=2)
            >>> RemBertModel.from_config(config, dtype="float16", hidden_act="relu").dtype
            torch.float16
        """
        own, changed = arguments_and_config(cls._own_arguments, config, keywords, cls.config_class)
        model = cls(changed, **own)
        wanted = _as_dtype(dtype)
        return model if wanted is None else model.to(wanted)

    # Long: the steps from keywords to a model, each a few lines.
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str] | None,
        *,
        config: RemBertConfig | str | os.PathLike[str] | None = None,
        dtype: str | torch.dtype | None = None,
        torch_dtype: str | torch.dtype | None = None,
        device_map: Any = None,
        state_dict: Mapping[str, Tensor] | None = None,
        key_mapping: Mapping[str, str] | None = None,
        output_loading_info: bool = False,
        ignore_mismatched_sizes: bool = False,
        **keywords: Any,
    ) -> Any:
        """Load a checkpoint, in evaluation mode.

        The file is mapped into memory and its tensors become the parameters: they are read when they are used, and
        only what training changes is copied. The file itself is never changed.

        Args:
            pretrained_model_name_or_path: a checkpoint directory, a file of weights, or a name on the Hugging Face
                Hub. None beside `config` and `state_dict`.
            config: replaces that of the checkpoint: a configuration, or the path or name of a checkpoint that has it.
            dtype: of the parameters, by name or as a `torch.dtype`; by default ('auto') that of the checkpoint.
            torch_dtype: `dtype` under its older name.
            device_map: one device ('cuda:0', 0, {'': 'cpu'}); 'auto' is a GPU if there is one. By default the CPU.
            state_dict: tensors by name, which replace those of the checkpoint. They are copied.
            key_mapping: regular expressions and what replaces them in the names of tensors, the first one that is
                found in a name.
            output_loading_info: also return a report of missing, unexpected and mismatched parameters; those missing
                or unexpected then raise neither an error nor a warning.
            ignore_mismatched_sizes: initialise parameters that have another shape instead of raising an error.
            **keywords: keys of the configuration to replace (`num_labels=3`), the class's own arguments
                (`add_pooling_layer=False`), and those of `rembert.common.keywords.HubOptions`, such as `revision`,
                `token`, `subfolder` and `variant`. Keywords of transformers that ask for nothing are accepted.

        Returns:
            The model, or (model, report) with `output_loading_info`.

        Raises:
            NotFoundError: there is no such path or repository, or no checkpoint in it.
            CheckpointError: the checkpoint is damaged, or does not fit the model.
            ConfigError: the configuration is missing or invalid.
            KeywordError: a keyword is unknown; the message suggests the nearest known one.

        Warns:
            UserWarning: there is no GPU, the processor computes the checkpoint's half precision slowly, and no
                `dtype` is given.

        Example:
            >>> from rembert.pt import RemBertForMaskedLM, RemBertForSequenceClassification
            >>> model = RemBertForMaskedLM.from_pretrained("google/rembert")
            >>> model.training
            False
            >>> model, report = RemBertForSequenceClassification.from_pretrained(
            ...     "google/rembert", num_labels=3, output_loading_info=True
            ... )
            >>> report["missing_keys"]
            ['classifier.weight', 'classifier.bias']
        """
        hub, rest = take_hub_options(keywords)
        arguments = {key: rest.pop(key) for key in cls._own_arguments if key in rest}
        wanted_dtype = _as_dtype(dtype if dtype is not None else torch_dtype)
        device = _one_device(device_map)
        given = (
            None if state_dict is None else {name: _as_source(each, copy=True) for name, each in state_dict.items()}
        )
        with open_stored(
            pretrained_model_name_or_path,
            hub,
            config=config,
            overrides=rest,
            tensors=given,
            key_mapping=key_mapping,
            report_only=output_loading_info,
            config_class=cls.config_class,
        ) as stored:
            with torch.device("meta"), skip_initialization():
                model = cls(stored.config, **arguments)
            added = model._added(model.state_dict())
            if added:  # their initial values come from their own constructors
                model = cls(stored.config, **arguments)
            own_state, own_names = model.state_dict(keep_vars=True), model._added_names(model.state_dict())
            fit = match({**model.parameter_table(), **added}, stored.shapes)
            report = check_match(
                fit,
                source=stored.source,
                model=cls.__name__,
                head=model.head,
                ignore_mismatched_sizes=ignore_mismatched_sizes,
                report_only=output_loading_info,
            )
            integers = {name for name, own in own_names.items() if not own_state[own].is_floating_point()}
            stored.require_floats(name for canonical, name in fit.found.items() if canonical not in integers)
            state = {}
            for canonical, name in fit.found.items():
                tensor = _as_tensor(stored.tensors[name].read())
                own_name = own_names.get(canonical) or model._own_name(canonical)
                converts = wanted_dtype is not None and canonical not in integers
                state[own_name] = tensor.to(wanted_dtype) if converts else tensor
            kept = kept_tensors(fit, stored.config, stored.shapes)
            model.kept = {canonical: stored.tensors[name].read() for canonical, name in kept.items()}
        model.load_state_dict(state, strict=False, assign=True)
        dtypes = (tensor.dtype for tensor in state.values() if tensor.is_floating_point())
        common = wanted_dtype or next(dtypes, torch.get_default_dtype())
        model._initialize_missing({model._own_name(name) for name in fit.fresh if name not in added}, common)
        for name in set(fit.fresh) & set(added):
            tensor = own_state[own_names[name]]
            if tensor.is_floating_point():
                tensor.data = tensor.data.to(common)
        stored.config.dtype = str(common).removeprefix("torch.")
        model.eval()
        if device is not None:
            model.to(device)
        if wanted_dtype is None and model.device.type == "cpu":
            warn_if_slow(common)
        return (model, report) if output_loading_info else model

    def _config_to_save(self) -> RemBertConfig:
        """A copy of the configuration that names the model's class, not one that PyTorch derives from it (FSDP2)."""
        config = type(self.config).from_dict(self.config.to_dict())
        own = next(kind for kind in type(self).__mro__ if not kind.__module__.startswith("torch."))
        config.architectures = [own.__name__]
        return config

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        *,
        is_main_process: bool = True,
        state_dict: Mapping[str, Tensor] | None = None,
        save_function: Callable[..., Any] | None = None,
        push_to_hub: bool = False,
        max_shard_size: int | str = "5GB",
        safe_serialization: bool = True,
        variant: str | None = None,
        **keywords: Any,
    ) -> None:
        """Write `model.safetensors` (or shards and their index) and `config.json` into `save_directory`.

        The weights of modules that a subclass adds are written too, and `from_pretrained` of the subclass reads them.
        So is a pooler that the checkpoint had and this head does not use. Other files in the directory are left
        unchanged. Each file is written completely or not at all.

        Args:
            save_directory: created if missing.
            is_main_process: False writes nothing, for all processes but one of a distributed run.
            state_dict: replaces the model's own, for example one that distributed training has gathered.
            save_function: writes each file in place of `torch.save`, if `safe_serialization` is False.
            push_to_hub: upload the files as well.
            max_shard_size: bytes, or text such as '5GB'; larger models are split into several files.
            safe_serialization: False writes `pytorch_model.bin`, a pickle, in place of `model.safetensors`.
            variant: the weights' file is `model.VARIANT.safetensors`.
            **keywords: those of `push_to_hub`; `repo_id` is by default the directory's name.

        Raises:
            InputError: `save_directory` is a file, `state_dict` lacks a parameter, a shape contradicts the
                configuration, or the parameters were dropped for inference.
            KeywordError: a keyword is unknown.

        Example:
            >>> from rembert.pt import RemBertConfig, RemBertModel
            >>> config = RemBertConfig(vocab_size=1000, hidden_size=72, num_hidden_layers=2)
            >>> RemBertModel(config).save_pretrained("my-rembert")
            >>> sorted(os.listdir("my-rembert"))
            ['config.json', 'model.safetensors']
        """
        if not is_main_process:
            return
        if state_dict is None:
            check_kept(self, "saved")
        state = self.state_dict() if state_dict is None else state_dict
        table = self.parameter_table()
        check_complete(state, map(self._own_name, table))
        check_shapes(table, {name: tuple(state[self._own_name(name)].shape) for name in table})
        names = [*map(self._own_name, table), *self._added_names(state).values()]
        tensors = {name: _as_source(state[name]) for name in names}
        config = self._config_to_save()
        config.dtype = str(next(iter(state.values())).dtype).removeprefix("torch.")
        for canonical, array in self.kept.items():
            source = TensorSource(array.shape, DTYPES[config.dtype], partial(np.asarray, array))
            tensors.setdefault(self._own_name(canonical), source)

        def write_one(path: Path, sources: Mapping[str, TensorSource], *, shard: bool = False) -> None:
            own = {name: state[name] if name in state else _as_tensor(sources[name].read()) for name in sources}
            assert save_function is not None
            save_function(own, str(path))

        def write_pickle(directory: Path) -> list[Path]:
            write = None if save_function is None else write_one
            return save_pickle(directory, tensors, max_shard_size=max_shard_size, variant=variant, write=write)

        save_model(
            save_directory,
            tensors,
            config,
            max_shard_size=max_shard_size,
            variant=variant,
            push_to_hub=push_to_hub,
            keywords=keywords,
            write=None if safe_serialization else write_pickle,
        )

    def _added(self, state: Mapping[str, Tensor]) -> dict[str, Parameter]:
        """The parameters and buffers in `state` that a subclass or a caller added, by canonical name."""
        names = self._added_names(state)
        return {name: Parameter(name, tuple(state[own].shape), Kind.BIAS) for name, own in names.items()}

    def _added_names(self, state: Mapping[str, Tensor]) -> dict[str, str]:
        """The names in `state` of what was added, by canonical name, which may not lead back: `pooler.weight`."""
        known = set(map(self._own_name, self.parameter_table()))
        return {canonical_name(name) or name: name for name in state if name not in known}

    def _initialize_missing(self, names: set[str], dtype: torch.dtype) -> None:
        """Allocate and initialise the parameters of these names; the others come from the checkpoint."""
        for path, module in self.named_modules():
            own = {f"{path}.{name}".lstrip("."): name for name, _ in module.named_parameters(recurse=False)}
            missing = {full: name for full, name in own.items() if full in names}
            if not missing:
                continue
            loaded = {name: getattr(module, name) for full, name in own.items() if full not in names}
            for name in own.values():
                memory = torch.empty_like(getattr(module, name), dtype=dtype, device="cpu")
                setattr(module, name, nn.Parameter(memory))
            initialize(module, self.config.initializer_range)
            for name, parameter in loaded.items():
                setattr(module, name, parameter)


def _as_dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    if dtype is None or dtype == "auto" or isinstance(dtype, torch.dtype):
        return None if dtype == "auto" else dtype  # type: ignore[return-value]
    check_argument("dtype", dtype, one_of(("auto", *_DTYPES)))
    return _DTYPES[dtype]


def _one_device(device_map: Any) -> torch.device | None:
    """The device that `device_map` names, for all of the model."""
    devices = list(device_map.values()) if isinstance(device_map, Mapping) else [device_map]
    if devices == [None]:
        return None
    if len(set(map(str, devices))) != 1:
        raise InputError(
            f"`device_map` must name one device, for the whole model. Received: `device_map={device_map!r:.200}`. "
            "Load the model and pass it to Accelerate's `dispatch_model`, or shard it with FSDP."
        )
    if devices[0] in _AUTOMATIC:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(f"cuda:{devices[0]}" if isinstance(devices[0], int) else devices[0])
    except (RuntimeError, TypeError):
        raise InputError(
            f"`device_map` must be a device, 'auto' or None. Received: `device_map={device_map!r:.200}`."
        ) from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"`device_map` must name a device of this machine, which has {torch.cuda.device_count()} GPUs. Received: "
            f"`device_map={device_map!r:.200}`."
        )
    return device


def _as_tensor(array: np.ndarray) -> Tensor:
    """A tensor that shares the array's memory. PyTorch cannot read NumPy's bfloat16: its bits are passed as int16."""
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _as_source(tensor: Tensor, copy: bool = False) -> TensorSource:
    kind = type(tensor.detach()) if isinstance(tensor, Tensor) else Tensor
    if kind is not Tensor:
        raise InputError(
            f"Parameters must be plain tensors to be saved. Received: {kind.__name__} of shape {tuple(tensor.shape)}. "
            "Save the model before it is quantized, or write its `state_dict()` with `torch.save`."
        )
    name = str(tensor.dtype).removeprefix("torch.")

    def read() -> np.ndarray:
        held = tensor.detach().cpu().contiguous()
        held = held.clone() if copy else held
        if held.dtype == torch.bfloat16:
            return held.view(torch.int16).numpy().view(DTYPES["bfloat16"])
        return held.numpy()

    return TensorSource(shape=tuple(tensor.shape), dtype=DTYPES.get(name) or np.dtype(name), read=read)
