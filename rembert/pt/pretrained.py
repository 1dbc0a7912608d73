"""The public base class of the models: loading and saving of checkpoints."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from rembert.bridge import TensorSource, save_safetensors
from rembert.bridge.loading import open_stored
from rembert.bridge.tensors import DTYPES
from rembert.common.arguments import check_argument, one_of
from rembert.common.config import RemBertConfig
from rembert.common.errors import InputError
from rembert.common.keywords import take_hub_options
from rembert.common.loading import check_match
from rembert.common.name_matching import canonical_name, check_shapes, kept_tensors, match
from rembert.common.parameters import HEADS, Kind, Parameter
from rembert.common.saves import saved_together
from rembert.pt.base import RemBertModelBase
from rembert.pt.inference import check_kept
from rembert.pt.initialization import initialize, skip_initialization

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "float64": torch.float64}
_AUTOMATIC = ("auto", "balanced", "balanced_low_0", "sequential")


class RemBertPreTrainedModel(RemBertModelBase):
    """Base of the seven model classes: loading, saving, embeddings, training and inference.

    Example:
        >>> from rembert.pt import RemBertConfig, RemBertForMaskedLM, RemBertPreTrainedModel
        >>> issubclass(RemBertForMaskedLM, RemBertPreTrainedModel)
        True
    """

    # The constructor's arguments beside `config` that `from_pretrained` passes on.
    _own_arguments: ClassVar[tuple[str, ...]] = ()

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
        ) as stored:
            with torch.device("meta"), skip_initialization():
                model = cls(stored.config, **arguments)
            added = model._added(model.state_dict())
            if added:  # their initial values come from their own constructors
                model = cls(stored.config, **arguments)
            fit = match({**model.parameter_table(), **added}, stored.shapes)
            report = check_match(
                fit,
                source=stored.source,
                model=cls.__name__,
                head=model.head,
                ignore_mismatched_sizes=ignore_mismatched_sizes,
                report_only=output_loading_info,
            )
            stored.require_floats(fit.found.values())
            state = {}
            for canonical, name in fit.found.items():
                tensor = _as_tensor(stored.tensors[name].read())
                state[model._own_name(canonical)] = tensor if wanted_dtype is None else tensor.to(wanted_dtype)
            kept = kept_tensors(fit, stored.config, stored.shapes)
            model.kept = {canonical: stored.tensors[name].read() for canonical, name in kept.items()}
        model.load_state_dict(state, strict=False, assign=True)
        common = wanted_dtype or next((tensor.dtype for tensor in state.values()), torch.get_default_dtype())
        model._initialize_missing({model._own_name(name) for name in fit.fresh if name not in added}, common)
        for name in set(fit.fresh) & set(added):
            tensor = model.state_dict(keep_vars=True)[model._own_name(name)]
            if tensor.is_floating_point():
                tensor.data = tensor.data.to(common)
        stored.config.dtype = str(common).removeprefix("torch.")
        model.name_or_path = stored.source
        model.eval()
        if device is not None:
            model.to(device)
        return (model, report) if output_loading_info else model

    def save_pretrained(
        self,
        directory: str | os.PathLike[str],
        *,
        max_shard_size: int | str = "5GB",
        state_dict: dict[str, Tensor] | None = None,
    ) -> None:
        """Write `model.safetensors` (or shards and their index) and `config.json` into `directory`.

        The weights of modules that a subclass adds are written too, and `from_pretrained` of the subclass reads them.
        So is a pooler that the checkpoint had and this head does not use. Other files
        in the directory are left unchanged. Each file is written completely or not at all.

        Args:
            directory: created if missing.
            max_shard_size: bytes, or text such as '5GB'; larger models are split into several files.
            state_dict: replaces the model's own, for example one that distributed training has gathered.

        Raises:
            InputError: `state_dict` lacks a parameter, a shape contradicts the configuration, or the parameters were
                dropped for inference.

        Example:
            >>> from rembert.pt import RemBertConfig, RemBertModel
            >>> config = RemBertConfig(vocab_size=1000, hidden_size=72, num_hidden_layers=2)
            >>> RemBertModel(config).save_pretrained("my-rembert")
            >>> sorted(os.listdir("my-rembert"))
            ['config.json', 'model.safetensors']
        """
        if state_dict is None:
            check_kept(self, "saved")
        state = self.state_dict() if state_dict is None else state_dict
        table = self.parameter_table()
        absent = [name for name in map(self._own_name, table) if name not in state]
        if absent:
            raise InputError(f"`state_dict` must hold every parameter. Missing: {', '.join(absent[:12])}.")
        check_shapes(table, {name: tuple(state[self._own_name(name)].shape) for name in table})
        names = map(self._own_name, [*table, *self._added(state)])
        tensors = {name: _as_source(state[name]) for name in names}
        config = RemBertConfig.from_dict(self.config.to_dict())
        config.architectures = [HEADS[self.head].architecture]
        config.dtype = str(next(iter(state.values())).dtype).removeprefix("torch.")
        for canonical, array in self.kept.items():
            source = TensorSource(array.shape, DTYPES[config.dtype], partial(np.asarray, array))
            tensors.setdefault(self._own_name(canonical), source)
        os.makedirs(directory, exist_ok=True)
        with saved_together(directory):
            save_safetensors(directory, tensors, max_shard_size=max_shard_size)
            config.save_pretrained(directory)

    def _added(self, state: Mapping[str, Tensor]) -> dict[str, Parameter]:
        """The parameters and buffers in `state` that a subclass or a caller added, by canonical name."""
        known = set(map(self._own_name, self.parameter_table()))
        names = {canonical_name(name) or name: tuple(state[name].shape) for name in state if name not in known}
        return {name: Parameter(name, shape, Kind.BIAS) for name, shape in names.items()}

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
        return torch.device(devices[0])
    except (RuntimeError, TypeError):
        raise InputError(
            f"`device_map` must be a device, 'auto' or None. Received: `device_map={device_map!r:.200}`."
        ) from None


def _as_tensor(array: np.ndarray) -> Tensor:
    """A tensor that shares the array's memory. PyTorch cannot read NumPy's bfloat16: its bits are passed as int16."""
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _as_source(tensor: Tensor, copy: bool = False) -> TensorSource:
    name = str(tensor.dtype).removeprefix("torch.")

    def read() -> np.ndarray:
        held = tensor.detach().cpu().contiguous()
        held = held.clone() if copy else held
        if held.dtype == torch.bfloat16:
            return held.view(torch.int16).numpy().view(DTYPES["bfloat16"])
        return held.numpy()

    return TensorSource(shape=tuple(tensor.shape), dtype=DTYPES[name], read=read)
