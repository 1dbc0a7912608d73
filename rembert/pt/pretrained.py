"""The public base class of the models: loading and saving of checkpoints."""

from __future__ import annotations

import os
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from rembert.bridge import TensorSource, open_checkpoint, save_safetensors
from rembert.bridge.tensors import DTYPES
from rembert.common.arguments import check_argument, one_of
from rembert.common.config import RemBertConfig
from rembert.common.errors import InputError
from rembert.common.loading import check_match, loading_config
from rembert.common.name_matching import check_shapes, match
from rembert.common.parameters import HEADS
from rembert.pt.base import RemBertModelBase
from rembert.pt.inference import check_kept
from rembert.pt.initialization import initialize, skip_initialization

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "float64": torch.float64}


class RemBertPreTrainedModel(RemBertModelBase):
    """Base of the seven model classes: loading, saving, embeddings, training and inference.

    Example:
        >>> from rembert.pt import RemBertConfig, RemBertForMaskedLM, RemBertPreTrainedModel
        >>> issubclass(RemBertForMaskedLM, RemBertPreTrainedModel)
        True
    """

    # The constructor's arguments beside `config` that `from_pretrained` passes on.
    _own_arguments: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        config: RemBertConfig | None = None,
        dtype: str | torch.dtype | None = None,
        torch_dtype: str | torch.dtype | None = None,
        output_loading_info: bool = False,
        ignore_mismatched_sizes: bool = False,
        revision: str | None = None,
        **overrides: Any,
    ) -> Any:
        """Load a checkpoint, in evaluation mode.

        The file is mapped into memory and its tensors become the parameters: they are read when they are used, and
        only what training changes is copied. The file itself is never changed.

        Args:
            name_or_path: a checkpoint directory, a file of weights, or a name on the Hugging Face Hub.
            config: replaces that of the checkpoint.
            dtype: of the parameters, by name or as a `torch.dtype`; by default ('auto') that of the checkpoint.
            torch_dtype: `dtype` under its older name.
            output_loading_info: also return a report of missing, unexpected and mismatched parameters; those missing
                or unexpected then raise neither an error nor a warning.
            ignore_mismatched_sizes: initialise parameters that have another shape instead of raising an error.
            revision: a branch, tag or commit of a repository on the hub.
            **overrides: keys of the configuration to replace (`num_labels=3`), and the class's own arguments
                (`add_pooling_layer=False`).

        Returns:
            The model, or (model, report) with `output_loading_info`.

        Raises:
            CheckpointError: there is no checkpoint, it is damaged, or it does not fit the model.
            ConfigError: the configuration is missing or invalid.
            TypeError: a keyword is unknown.

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
        arguments = {key: overrides.pop(key) for key in cls._own_arguments if key in overrides}
        wanted_dtype = _as_dtype(dtype if dtype is not None else torch_dtype)
        source = os.fspath(name_or_path)
        with open_checkpoint(name_or_path, revision=revision) as checkpoint:
            model_config = loading_config(checkpoint.config, config, overrides, source)
            with torch.device("meta"), skip_initialization():
                model = cls(model_config, **arguments)
            table = model.parameter_table()
            fit = match(table, {name: info.shape for name, info in checkpoint.tensors.items()})
            report = check_match(
                fit,
                source=source,
                model=cls.__name__,
                ignore_mismatched_sizes=ignore_mismatched_sizes,
                report_only=output_loading_info,
            )
            checkpoint.require_floats(fit.found.values())
            state = {}
            for canonical, stored in fit.found.items():
                tensor = _as_tensor(checkpoint.read(stored))
                state[model._own_name(canonical)] = tensor if wanted_dtype is None else tensor.to(wanted_dtype)
        model.load_state_dict(state, strict=False, assign=True)
        common = wanted_dtype or next((tensor.dtype for tensor in state.values()), torch.get_default_dtype())
        model._initialize_missing({model._own_name(name) for name in fit.fresh}, common)
        model_config.dtype = str(common).removeprefix("torch.")
        model.eval()
        return (model, report) if output_loading_info else model

    def save_pretrained(
        self,
        directory: str | os.PathLike[str],
        *,
        max_shard_size: int | str = "5GB",
        state_dict: dict[str, Tensor] | None = None,
    ) -> None:
        """Write `model.safetensors` (or shards and their index) and `config.json` into `directory`.

        Other files in the directory are left unchanged. Each file is written completely or not at all.

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
        tensors = {name: _as_source(state[name]) for name in map(self._own_name, table)}
        config = RemBertConfig.from_dict(self.config.to_dict())
        config.architectures = [HEADS[self.head].architecture]
        config.dtype = str(next(iter(state.values())).dtype).removeprefix("torch.")
        os.makedirs(directory, exist_ok=True)
        save_safetensors(directory, tensors, max_shard_size=max_shard_size)
        config.save_pretrained(directory)

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


def _as_tensor(array: np.ndarray) -> Tensor:
    """A tensor that shares the array's memory. PyTorch cannot read NumPy's bfloat16: its bits are passed as int16."""
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _as_source(tensor: Tensor) -> TensorSource:
    name = str(tensor.dtype).removeprefix("torch.")

    def read() -> np.ndarray:
        held = tensor.detach().cpu().contiguous()
        if held.dtype == torch.bfloat16:
            return held.view(torch.int16).numpy().view(DTYPES["bfloat16"])
        return held.numpy()

    return TensorSource(shape=tuple(tensor.shape), dtype=DTYPES[name], read=read)
