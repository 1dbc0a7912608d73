"""The base of the model classes: their parts, training and inference; loading and saving are in `pretrained`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from rembert.common.checks import check_table, resized_vocabulary
from rembert.common.config import RemBertConfig, as_config
from rembert.common.errors import InputError
from rembert.common.initialization import added_rows
from rembert.common.loss_settings import LossSettings
from rembert.common.model_methods import ModelMethods
from rembert.common.outputs import ModelOutput
from rembert.common.parameters import BASE_PREFIX, CUSTOM, Parameter, counts_labels, file_name, head_config, parameters
from rembert.pt.inference import check_can_convert, check_kept, optimize, quantize
from rembert.pt.initialization import initialize
from rembert.pt.peft_targets import register_targets
from rembert.pt.torch_internals import ConversionWatcher

if TYPE_CHECKING:
    from rembert.pt.encoder import RemBertModel


class RemBertModelBase(ModelMethods, LossSettings, ConversionWatcher):
    """Everything in a model class but its forward pass. A subclass sets `head`, a key of `HEADS`."""

    head: ClassVar[str]
    config_class: ClassVar[type[RemBertConfig]] = RemBertConfig  # of what `from_pretrained` reads
    base_model_prefix = "rembert"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True

    def __init__(self, config: RemBertConfig) -> None:
        """Raises: ConfigError if no model can be built from `config`."""
        super().__init__()
        config = as_config(config)
        config.validate()
        self._config = head_config(config, self.head)
        self.__dict__["name_or_path"] = self._config.name_or_path  # PEFT looks for it here
        self.kept: dict[str, np.ndarray] = {}  # what this head does not use, by canonical name; saved with the rest

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if counts_labels(self.head, name) and isinstance(value, nn.Linear):
            self.num_labels = self.config.num_labels = value.out_features  # another classifier has other labels

    def post_init(self) -> None:
        """Initialise the modules that this class added; a base model inside has initialised its own."""
        for child in self.children():
            if not isinstance(child, RemBertModelBase):
                for module in child.modules():
                    initialize(module, self.config.initializer_range)

    def init_weights(self) -> None:
        """`post_init` under its older name."""
        self.post_init()

    # ------------------------------------------------------------------ parts

    @property
    def config(self) -> RemBertConfig:
        """The configuration."""
        register_targets()  # PEFT reads the configuration before it looks up which modules to adapt
        return self._config

    @config.setter
    def config(self, value: RemBertConfig) -> None:
        self._config = value

    @property
    def base_model(self) -> RemBertModel:
        """`get_base_model()` as an attribute, the form that transformers and PEFT use."""
        return self.get_base_model()

    def get_base_model(self) -> RemBertModel:
        """The `RemBertModel`: this model itself, or the encoder inside a head."""
        return getattr(self, self.base_model_prefix, self)  # type: ignore[arg-type]

    def get_input_embeddings(self) -> nn.Embedding:
        """The table of word embeddings, [vocab_size, input_embedding_size]."""
        return self.get_base_model().embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the table of word embeddings; `config.vocab_size` follows.

        Raises:
            InputError: the table has another width, or a language model's output table another number of rows.

        Example:
            >>> from torch import nn
            >>> from rembert.pt import RemBertConfig, RemBertModel
            >>> config = RemBertConfig(vocab_size=1000, hidden_size=72, num_hidden_layers=2)
            >>> model = RemBertModel(config)
            >>> model.set_input_embeddings(nn.Embedding(1010, 256))
            >>> model.config.vocab_size
            1010
        """
        has_output = self.get_output_embeddings() is not None
        check_table(self.config, (value.num_embeddings, value.embedding_dim), has_output)
        self.get_base_model().embeddings.word_embeddings = value
        self.config.vocab_size = value.num_embeddings

    def get_output_embeddings(self) -> nn.Linear | None:
        """The output table of a language model, a linear layer to [..., vocab_size]; None for other heads."""
        return None

    def resize_token_embeddings(
        self,
        new_num_tokens: int | None = None,
        pad_to_multiple_of: int | None = None,
        mean_resizing: bool = True,
    ) -> nn.Embedding:
        """Change the size of the vocabulary: of the input table, and of a language model's output table and bias.

        Existing rows keep their values. An optimizer must be created again.

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
                (quantized, or inside an adapter).

        Example:
            >>> from rembert.pt import RemBertConfig, RemBertForMaskedLM
            >>> config = RemBertConfig(vocab_size=1000, hidden_size=72, num_hidden_layers=2)
            >>> model = RemBertForMaskedLM(config)
            >>> model.resize_token_embeddings(1010, pad_to_multiple_of=64)
            Embedding(1024, 256, padding_idx=0)
            >>> model.get_output_embeddings().weight.shape
            torch.Size([1024, 1664])
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
        self._resize(table, "weight", size, mean_resizing)
        table.num_embeddings = size
        if output is not None:
            self._resize(output, "weight", size, mean_resizing)
            self._resize(output, "bias", size, mean_resizing)
            output.out_features = size
        self.config.vocab_size = size
        return table

    def _resize(self, layer: nn.Module, name: str, size: int, mean_resizing: bool) -> None:
        """Give a parameter `size` rows."""
        old = getattr(layer, name)
        new = old.new_empty(size, *old.shape[1:])
        kept = min(size, len(old))
        with torch.no_grad():
            new[:kept] = old[:kept]
            if name == "bias":
                new[kept:] = old.mean() if mean_resizing else 0
            elif mean_resizing and len(new) > kept:
                rows = added_rows(old.float().cpu().numpy(), len(new) - kept, int(torch.randint(2**31 - 1, ())))
                new[kept:] = torch.from_numpy(rows).to(new)
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

    def get_memory_footprint(self, return_buffers: bool = True) -> int:
        """The bytes that the parameters take, with or without those of the buffers."""
        return sum(each.nbytes for each in [*self.parameters(), *(self.buffers() if return_buffers else ())])

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """The number of values in the parameters, with or without those of the input tables.

        Example:
            >>> from rembert.pt import RemBertConfig, RemBertModel
            >>> with torch.device("meta"):  # without memory for the parameters
            ...     model = RemBertModel(RemBertConfig())
            >>> model.num_parameters()
            575920384
        """
        tables = {id(module.weight) for module in self.modules() if isinstance(module, nn.Embedding)}
        return sum(
            parameter.numel()
            for parameter in self.parameters()
            if (parameter.requires_grad or not only_trainable) and not (exclude_embeddings and id(parameter) in tables)
        )

    @property
    def head_modules(self) -> list[str]:
        """The names of the modules beyond embeddings and encoder, which an adapter's file must hold in full.

        For PEFT, `LoraConfig(modules_to_save=model.head_modules)`: its task types name the classifier only, so that a
        newly initialised pooler would be lost.

        Example:
            >>> from rembert.pt import RemBertConfig, RemBertForSequenceClassification
            >>> config = RemBertConfig(vocab_size=1000, hidden_size=72, num_hidden_layers=2)
            >>> RemBertForSequenceClassification(config).head_modules
            ['pooler', 'classifier']
        """
        modules = (name.removeprefix(BASE_PREFIX).split(".")[0] for name in self.parameter_table())
        return [module for module in dict.fromkeys(modules) if module not in ("embeddings", "encoder")]

    def parameter_table(self) -> dict[str, Parameter]:
        """This model's entries of the parameter table, by canonical name."""
        base = self.get_base_model()
        if base is self and self.head == CUSTOM:
            return {}  # a class of the user's own, without a base model as `rembert`
        return parameters(self.config, self.head, pooler=getattr(base, "pooler", None) is not None)

    def _own_name(self, canonical: str) -> str:
        """The name of a parameter in this model's `state_dict`, which is its name in a file."""
        return file_name(canonical, self.head)

    def finish(self, outputs: ModelOutput, return_dict: bool | None) -> Any:
        """`outputs`, or its plain tuple if `return_dict` (by default the configuration's) is False."""
        wants_dict = self.config.return_dict if return_dict is None else return_dict
        return outputs if wants_dict else outputs.to_plain_tuple()

    # ------------------------------------------------------------------ training

    def freeze_embeddings(self) -> None:
        """Exclude the input embeddings from training: a ninth of the released model's parameters.

        Example:
            >>> from rembert.pt import RemBertConfig, RemBertModel
            >>> config = RemBertConfig(vocab_size=1000, hidden_size=72, num_hidden_layers=2)
            >>> model = RemBertModel(config)
            >>> model.freeze_embeddings()
            >>> model.get_input_embeddings().weight.requires_grad
            False
        """
        for parameter in self.get_base_model().embeddings.parameters():
            parameter.requires_grad_(False)

    @property
    def accepts_loss_kwargs(self) -> bool:
        """Whether the loss takes `num_items_in_batch`: transformers' Trainer asks before it accumulates gradients."""
        return "num_items_in_batch" in inspect.signature(type(self).forward).parameters

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether gradient checkpointing is on."""
        return self.get_base_model().encoder.checkpointing is not None

    def gradient_checkpointing_enable(
        self,
        gradient_checkpointing_kwargs: dict[str, Any] | None = None,
        every_n_layers: int = 1,
        offload: bool = False,
    ) -> None:
        """Keep only the input of each layer in training and recompute the layer in the backward pass.

        A training step takes about a third longer; memory for activations shrinks to that of one layer and the inputs
        of all: Chen et al., "Training Deep Nets with Sublinear Memory Cost" (2016).

        Args:
            gradient_checkpointing_kwargs: keywords of `torch.utils.checkpoint.checkpoint`; by default
                `{"use_reentrant": False}`.
            every_n_layers, offload: 1 and False; transformers' Trainer passes them.

        Raises:
            InputError: `every_n_layers` is not 1 or `offload` is True, which are not supported.

        Example:
            >>> from rembert.pt import RemBertConfig, RemBertModel
            >>> config = RemBertConfig(vocab_size=1000, hidden_size=72, num_hidden_layers=2)
            >>> model = RemBertModel(config)
            >>> model.gradient_checkpointing_enable()
            >>> model.is_gradient_checkpointing
            True
        """
        if every_n_layers != 1 or offload:
            given = f"`every_n_layers={every_n_layers}` and `offload={offload}`"
            raise InputError(f"`every_n_layers` must be 1 and `offload` False. Received: {given}.")
        keywords = {"use_reentrant": False, **(gradient_checkpointing_kwargs or {})}
        self.get_base_model().encoder.checkpointing = keywords

    def gradient_checkpointing_disable(self) -> None:
        """Keep the activations of all layers for the backward pass, as by default."""
        self.get_base_model().encoder.checkpointing = None

    def activation_checkpointing_enable(self, activation_checkpointing_kwargs: Any = None, **options: Any) -> None:
        """`gradient_checkpointing_enable` under the name that transformers' Trainer calls."""
        self.gradient_checkpointing_enable(activation_checkpointing_kwargs, **options)

    def enable_input_require_grads(self) -> None:
        """Let the output of the embeddings require a gradient even if no parameter before it does.

        Re-entrant gradient checkpointing of a frozen model with adapters needs this.
        """
        self.get_input_embeddings().register_forward_hook(lambda _module, _inputs, output: output.requires_grad_(True))

    def train(self, mode: bool = True) -> Self:
        """Set training mode, or evaluation mode if `mode` is False.

        Raises:
            InputError: the parameters were dropped for inference.
        """
        if mode:
            check_kept(self, "trained")
        return super().train(mode)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As of `nn.Module`.

        Raises:
            InputError: the parameters were dropped for inference, so that some would keep their old values.
        """
        check_kept(self, "given other weights")
        return super().load_state_dict(state_dict, strict=strict, assign=assign)

    def before_conversion(self, change: Callable[[Tensor], Tensor]) -> None:
        check_can_convert(self, change)

    # ------------------------------------------------------------------ inference

    def optimize_for_inference(self, *, keep_parameters: bool = False) -> Self:
        """Prepare the linear layers for inference on this machine's CPU; results agree within rounding.

        The kernels that the processor offers are timed for each kind of layer (about a second at full width), and the
        fastest is used: the plain one, that of oneDNN with weights in its own layout, or the latter with fused GELU.
        Half precision without the processor's support is computed in float32, at its memory and several times faster.
        A model on another device or in another dtype, and layers inside adapters, are left unchanged.

        Args:
            keep_parameters: keep the original parameters beside the prepared ones, for saving and training at twice
                the memory. Otherwise the model can only be called: `save_pretrained`, `train` and a call that needs
                gradients raise an InputError.

        Returns:
            The model itself, in evaluation mode.

        Example:
            >>> from rembert.pt import RemBertConfig, RemBertModel
            >>> config = RemBertConfig(vocab_size=1000, hidden_size=72, num_hidden_layers=2)
            >>> model = RemBertModel(config).optimize_for_inference()
            >>> model(torch.tensor([[312, 5, 6, 313]])).last_hidden_state.shape
            torch.Size([1, 4, 72])
        """
        self.eval()
        optimize(self, self.config.hidden_act, keep_parameters)
        return self

    def quantize_dynamic(self, dtype: str = "int8", *, keep_parameters: bool = False) -> Self:
        """Hold the linear layers of the encoder, and a language model's output table, in fewer bits, for CPUs.

        Embeddings, attention, norms, other heads and layers inside adapters are left unchanged. The output table is in
        eight bits beside the original, from which the 64 highest logits of each position are computed.

        Args:
            dtype: "int8" for weights with a scale for each output, inputs with one for each call: the fastest, with
                an error that depends on the model. "float16" for weights alone, with an error below a thousandth.
            keep_parameters: as in `optimize_for_inference`.

        Returns:
            The model itself, in evaluation mode.

        Raises:
            InputError: the model is not on the CPU, its parameters were dropped, or float16 is not possible here.

        Example:
            >>> from rembert.pt import RemBertConfig, RemBertModel
            >>> config = RemBertConfig(vocab_size=1000, hidden_size=72, num_hidden_layers=2)
            >>> model = RemBertModel(config).quantize_dynamic()
            >>> model(torch.tensor([[312, 5, 6, 313]])).last_hidden_state.shape
            torch.Size([1, 4, 72])
        """
        check_kept(self, "quantized")
        if self.device.type != "cpu":
            raise InputError(f"Dynamic quantization is for models on the CPU. Received: one on {self.device}.")
        self.eval()
        quantize(self, dtype, keep_parameters)
        return self
