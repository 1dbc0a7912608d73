"""What every model class has: construction, loading, saving."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from rembert.bridge import TensorSource, open_checkpoint, save_safetensors
from rembert.bridge.tensors import DTYPES
from rembert.common.arguments import check_argument, instance_of, one_of
from rembert.common.checks import resized_vocabulary
from rembert.common.config import RemBertConfig
from rembert.common.errors import ConfigError, InputError
from rembert.common.label_smoothing import LabelSmoothing
from rembert.common.loading import check_match, loading_config
from rembert.common.name_matching import check_shapes, match
from rembert.common.outputs import ModelOutput
from rembert.common.parameters import BASE_PREFIX, HEADS, Parameter, file_name, head_config, parameters
from rembert.pt.inference import check_kept, check_stays, optimize, quantize
from rembert.pt.initialization import initialization_left_out, initialize
from rembert.pt.torch_internals import ConversionWatcher, can_pack

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "float64": torch.float64}


class RemBertPreTrainedModel(LabelSmoothing, ConversionWatcher):
    """Base of the model classes. A subclass sets `head`, a key of the parameter table's `HEADS`."""

    head: ClassVar[str]
    config_class = RemBertConfig
    base_model_prefix = "rembert"
    main_input_name = "input_ids"

    def __init__(self, config: RemBertConfig) -> None:
        """Raises: ConfigError where no model can be built from `config`."""
        super().__init__()
        check_argument("config", config, instance_of(RemBertConfig), ConfigError)
        config.validate()
        self.config = head_config(config, self.head)

    def post_init(self) -> None:
        """Initialise the modules that this class added; a base model inside has initialised its own."""
        for child in self.children():
            if not isinstance(child, RemBertPreTrainedModel):
                for module in child.modules():
                    initialize(module, self.config.initializer_range)

    # ------------------------------------------------------------------ parts

    @property
    def base_model(self) -> nn.Module:
        """The `RemBertModel`: this model itself, or the one inside a head."""
        return getattr(self, self.base_model_prefix, self)

    def get_input_embeddings(self) -> nn.Embedding:
        """The table of word embeddings, [vocab_size, input_embedding_size]."""
        return self.base_model.embeddings.word_embeddings  # type: ignore[union-attr, return-value]

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Put another table in place of the word embeddings."""
        self.base_model.embeddings.word_embeddings = value  # type: ignore[union-attr]

    def get_output_embeddings(self) -> nn.Linear | None:
        """The output table of a language model, a linear layer to [.., vocab_size]; None for other heads."""
        return None

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None
    ) -> nn.Embedding:
        """Change how many pieces the vocabulary has: the input table, and a language model's output table and bias.

        Rows that stay keep their numbers; rows that come are initialised as those of a new model are, and the new
        biases are 0. An optimiser must be made anew.

        Args:
            new_num_tokens: pieces wanted; None for as many as there are.
            pad_to_multiple_of: rounds the number up to a multiple of this.

        Returns:
            The input embeddings.

        Raises:
            InputError: a number that is none, one that would cut off a special piece, or a table that is no plain one
                (quantised, or inside an adapter).
        """
        size = resized_vocabulary(self.config, new_num_tokens, pad_to_multiple_of)
        table, output = self.get_input_embeddings(), self.get_output_embeddings()
        for layer, plain in ((table, nn.Embedding), (output, nn.Linear)):
            if layer is not None and (type(layer) is not plain or type(layer.weight) is not nn.Parameter):
                raise InputError(
                    f"Only plain tables can be resized. Received: a {type(layer).__name__} with a weight of the type "
                    f"{type(layer.weight).__name__}. Resize before quantisation, adapters and sharding."
                )
        if size == self.config.vocab_size:
            return table
        self._resize(table, "weight", size)
        table.num_embeddings = size
        if output is not None:
            self._resize(output, "weight", size)
            self._resize(output, "bias", size)
            output.out_features = size
        self.config.vocab_size = size
        return table

    def _resize(self, layer: nn.Module, name: str, size: int) -> None:
        """Give a parameter `size` rows."""
        old = getattr(layer, name)
        new = old.new_empty(size, *old.shape[1:])
        kept = min(size, len(old))
        with torch.no_grad():
            new[:kept] = old[:kept]
            if name == "bias":
                nn.init.zeros_(new[kept:])
            else:
                nn.init.normal_(new[kept:], std=self.config.initializer_range)
        setattr(layer, name, nn.Parameter(new, requires_grad=old.requires_grad))

    @property
    def dtype(self) -> torch.dtype:
        """dtype of the parameters."""
        return next(self.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return next(self.parameters()).device

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """How many numbers the parameters hold, with or without those of the input tables."""
        tables = {id(module.weight) for module in self.modules() if isinstance(module, nn.Embedding)}
        return sum(
            parameter.numel()
            for parameter in self.parameters()
            if (parameter.requires_grad or not only_trainable) and not (exclude_embeddings and id(parameter) in tables)
        )

    @property
    def head_modules(self) -> list[str]:
        """The parts beyond embeddings and encoder, by name: what an adapter's file must hold whole beside the adapter.

        For PEFT, `LoraConfig(modules_to_save=model.head_modules)`: its task types name the classifier only, and a
        newly initialised pooler would be lost.
        """
        parts = (name.removeprefix(BASE_PREFIX).split(".")[0] for name in self.parameter_table())
        return [part for part in dict.fromkeys(parts) if part not in ("embeddings", "encoder")]

    def parameter_table(self) -> dict[str, Parameter]:
        """This model's entries of the parameter table, by canonical name."""
        return parameters(self.config, self.head, pooler=getattr(self.base_model, "pooler", None) is not None)

    def finish(self, outputs: ModelOutput, return_dict: bool | None) -> Any:
        """`outputs` itself, or its tuple where `return_dict` (by default the configuration's) is False."""
        wants_dict = self.config.return_dict if return_dict is None else return_dict
        return outputs if wants_dict else outputs.to_tuple()

    # ------------------------------------------------------------------ training

    supports_gradient_checkpointing = True

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether gradient checkpointing is on."""
        return self.base_model.encoder.checkpointing is not None  # type: ignore[union-attr]

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: dict[str, Any] | None = None) -> None:
        """Hold each layer's input only while training, and compute the layer again in the backward pass.

        A training step takes about a third longer, and the layers' memory shrinks to one layer's and every input's:
        Chen et al., "Training Deep Nets with Sublinear Memory Cost" (2016).

        Args:
            gradient_checkpointing_kwargs: keywords of `torch.utils.checkpoint.checkpoint`; by default
                `{"use_reentrant": False}`.
        """
        keywords = {"use_reentrant": False, **(gradient_checkpointing_kwargs or {})}
        self.base_model.encoder.checkpointing = keywords  # type: ignore[union-attr]

    def activation_checkpointing_enable(
        self,
        activation_checkpointing_kwargs: dict[str, Any] | None = None,
        every_n_layers: int = 1,
        offload: bool = False,
    ) -> None:
        """`gradient_checkpointing_enable` as transformers' Trainer calls it.

        Raises:
            InputError: every layer is checkpointed, and what it keeps stays where it is: other wishes are refused.
        """
        if every_n_layers != 1 or offload:
            raise InputError(
                "`every_n_layers` must be 1 and `offload` False. Received: "
                f"`every_n_layers={every_n_layers}` and `offload={offload}`."
            )
        self.gradient_checkpointing_enable(activation_checkpointing_kwargs)

    def gradient_checkpointing_disable(self) -> None:
        """Hold everything that the backward pass needs, as by default."""
        self.base_model.encoder.checkpointing = None  # type: ignore[union-attr]

    def enable_input_require_grads(self) -> None:
        """Let the embeddings' output take a gradient though no parameter before it does.

        Re-entrant gradient checkpointing of a frozen model with adapters needs that.
        """
        self.get_input_embeddings().register_forward_hook(lambda _module, _inputs, output: output.requires_grad_(True))

    def train(self, mode: bool = True) -> Self:
        """Training mode, or evaluation mode where `mode` is False.

        Raises:
            InputError: the parameters were dropped for inference.
        """
        if mode:
            check_kept(self, "trained")
        return super().train(mode)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """`nn.Module`'s own.

        Raises:
            InputError: the parameters were dropped for inference, so that some would keep their old numbers.
        """
        check_kept(self, "given other weights")
        return super().load_state_dict(state_dict, strict=strict, assign=assign)

    def before_conversion(self, change: Callable[[Tensor], Tensor]) -> None:
        check_stays(self, change)

    def freeze_embeddings(self) -> None:
        """Leave the input embeddings out of training: their tables hold a third of the released encoder's memory."""
        for parameter in self.base_model.embeddings.parameters():  # type: ignore[union-attr]
            parameter.requires_grad_(False)

    # ------------------------------------------------------------------ inference

    def optimize_for_inference(self, *, keep_parameters: bool = False) -> Self:
        """Prepare the encoder's linear layers for inference on this machine's CPU; results stay within rounding.

        The kernels that the processor offers are timed on each kind of layer (about a second at full width), the
        fastest is taken: the plain one, oneDNN's on weights in its own layout, or that with GELU in the product. In
        float32, and in bfloat16 where the processor has it; any other model, or one in a PyTorch without oneDNN, stays
        as it is, as does a layer that an adapter wraps.

        Args:
            keep_parameters: whether layers keep their original parameters beside, for saving and training at twice
                the memory. Without, the model can only be called; `save_pretrained`, `train` and a call that needs
                gradients are refused.

        Returns:
            The model itself, in evaluation mode.
        """
        self.eval()
        if can_pack():
            optimize(self, self.config.hidden_act, keep_parameters)
        return self

    def quantize_dynamic(self, *, keep_parameters: bool = False) -> Self:
        """Bring the encoder's linear layers to eight bits: weights now, their inputs in every call.

        For inference on a CPU. Weights have a scale for each output, inputs one for each call. Embeddings, attention,
        norms, heads and what an adapter wraps stay as they are. The error depends on the model: measure it on the task
        at hand.

        Args:
            keep_parameters: as in `optimize_for_inference`.

        Returns:
            The model itself, in evaluation mode.

        Raises:
            InputError: the model is not on the CPU, or its parameters were dropped already.
        """
        check_kept(self, "quantized")
        if self.device.type != "cpu":
            raise InputError(f"Dynamic quantization is for models on the CPU. Received: one on {self.device}.")
        self.eval()
        quantize(self, keep_parameters)
        return self

    # ------------------------------------------------------------------ files

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

        The file is mapped into memory and becomes the parameters as it is: nothing is read before it is used, nothing
        is copied but what training changes. The file on disk is never written to.

        Args:
            name_or_path: a checkpoint directory, a file of weights, or a name on the Hugging Face Hub.
            config: in place of the checkpoint's own.
            dtype: of the parameters, by name or as a `torch.dtype`; by default ('auto') as the checkpoint has them.
            torch_dtype: `dtype` under its older name.
            output_loading_info: also return what was missing, unexpected and of another shape, instead of refusing
                or warning of missing and unexpected parameters.
            ignore_mismatched_sizes: initialise parameters of another shape instead of raising an error.
            revision: a branch, tag or commit of a repository on the hub.
            **overrides: keys of the configuration to replace (`num_labels=3`), and the class's own arguments
                (`add_pooling_layer=False`).

        Returns:
            The model, or (model, report) with `output_loading_info`.

        Raises:
            CheckpointError: no checkpoint there, a damaged one, or one that does not fit.
            ConfigError: no configuration, or an unusable one.
            TypeError: an unknown keyword.
        """
        arguments = {key: overrides.pop(key) for key in cls._own_arguments if key in overrides}
        wanted_dtype = _as_dtype(dtype if dtype is not None else torch_dtype)
        source = os.fspath(name_or_path)
        with open_checkpoint(name_or_path, revision=revision) as checkpoint:
            model_config = loading_config(checkpoint.config, config, overrides, source)
            with torch.device("meta"), initialization_left_out():
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
            state = {}
            for canonical, stored in fit.found.items():
                tensor = _as_tensor(checkpoint.read(stored))
                state[model._own_name(canonical)] = tensor if wanted_dtype is None else tensor.to(wanted_dtype)
        model.load_state_dict(state, strict=False, assign=True)
        common = wanted_dtype or next((tensor.dtype for tensor in state.values()), torch.get_default_dtype())
        model._initialize_fresh({model._own_name(name) for name in fit.fresh}, common)
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

        Other files in the directory stay as they are. Every file appears complete, or not at all.

        Args:
            directory: made where it is missing.
            max_shard_size: bytes, or text such as '5GB'; larger models are split into several files.
            state_dict: in place of the model's own, as distributed training gathers it.

        Raises:
            InputError: `state_dict` lacks a parameter, one has another shape than the configuration says, or the
                parameters were dropped for inference.
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

    # The constructor's arguments beside `config` that `from_pretrained` passes on.
    _own_arguments: ClassVar[tuple[str, ...]] = ()

    def _own_name(self, canonical: str) -> str:
        """The name of a parameter in this model's `state_dict`, which is its name in a file."""
        return file_name(canonical, self.head)

    def _initialize_fresh(self, names: set[str], dtype: torch.dtype) -> None:
        """Give the parameters of these names memory and fresh values; the rest came from the checkpoint."""
        for path, module in self.named_modules():
            own = {f"{path}.{name}".lstrip("."): name for name, _ in module.named_parameters(recurse=False)}
            fresh = {full: name for full, name in own.items() if full in names}
            if not fresh:
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
    """A tensor on the array's own memory. NumPy has no bfloat16 of its own: those bits pass as 16-bit integers."""
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
