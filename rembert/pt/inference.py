"""Linear layers for inference on a CPU: weights in oneDNN's layout, widened from half precision, or in eight bits.

Matrix products are most of an encoder's work. Which kernel is fastest depends on the processor: with AVX-512 that of
oneDNN, with weights in its own layout and GELU fused into the product; on older processors often the one that
`torch.nn.Linear` calls. Therefore the kernels are timed on the machine that uses them, and a layer without a gain is
left unchanged. Many processors have no instructions for products in bfloat16 or float16 and compute them several times
slower than in float32; there the weights stay in half precision, and each product widens them. One product for query,
key and value was measured to be no faster than three.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rembert.common.errors import InputError
from rembert.common.parameters import BASE_PREFIX, Kind
from rembert.common.warning import warn
from rembert.pt.linear_cross_entropy import is_plain_linear
from rembert.pt.torch_internals import (
    ConversionWatcher,
    EightBitProduct,
    can_compute,
    can_pack,
    change_count,
    pack,
    packed_product,
    warn_unwatched,
)

# Activations that oneDNN fuses into the product: its name and algorithm for each.
_FUSED = {
    "gelu": ("gelu", "none"),
    "gelu_new": ("gelu", "tanh"),
    "gelu_pytorch_tanh": ("gelu", "tanh"),
    "relu": ("relu", ""),
}
_HALF = (torch.bfloat16, torch.float16)
_TIMED_TOKENS = 256
_DROPPED = (
    "The original parameters of this model were dropped when it was prepared for inference, so it cannot be {}. Load "
    "it again, or prepare it with `keep_parameters=True`."
)


class InferenceLinear(ConversionWatcher):
    """A linear layer with converted weights, with or without the original parameters.

    With them, a call that needs gradients uses the originals, and weights that have changed are converted again; a
    change through `.data`, which PyTorch does not count, is not noticed. Without them the layer can be called in
    evaluation mode only, and a call that needs gradients raises an error.
    """

    dtype: torch.dtype  # of the converted weights, or of the inputs that they take

    def __init__(self, linear: nn.Linear, activation: Callable[[Tensor], Tensor] | None, keep: bool) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.kept = keep
        self.activation = activation
        self.converted: Any = None  # the `_weights_version` that was converted
        warn_unwatched()
        if keep:
            self.weight, self.bias = linear.weight, linear.bias
        self._update(linear.weight.detach(), linear.bias.detach())
        self.training = False

    def forward(self, states: Tensor) -> Tensor:
        """[..., in_features] to [..., out_features], including the activation if there is one."""
        if self.kept:
            if self._needs_original(states):
                product = F.linear(states, self.weight, self.bias)
                return product if self.activation is None else self.activation(product)
            if self._weights_version() != self.converted:
                self._update(self.weight.detach(), self.bias.detach())
        elif torch.is_grad_enabled() and states.requires_grad:  # these kernels do not compute gradients
            raise InputError(_DROPPED.format("differentiated"))
        return self._product(states)

    def _needs_original(self, states: Tensor) -> bool:
        needs_gradient = torch.is_grad_enabled() and (states.requires_grad or self.weight.requires_grad)
        return needs_gradient or not self._can_convert(self.weight) or torch.compiler.is_compiling()

    def _can_convert(self, weight: Tensor) -> bool:
        """Whether such weights can be converted; otherwise the originals are used."""
        return _is_plain(weight)

    def _weights_version(self) -> tuple[Any, ...]:
        """A value that changes when the weights do."""
        both = (self.weight, self.bias)
        return tuple((each.data_ptr(), each.dtype, each.device, change_count(each)) for each in both)

    def before_conversion(self, change: Callable[[Tensor], Tensor]) -> None:
        self.converted = None  # new values may be stored at the address of the old ones

    def _update(self, weight: Tensor, bias: Tensor) -> None:
        self._convert(weight, bias)
        if self.kept:
            self.converted = self._weights_version()

    def _convert(self, weight: Tensor, bias: Tensor) -> None:
        """Set the weights in this layer's own form."""
        raise NotImplementedError

    def _product(self, states: Tensor) -> Tensor:
        raise NotImplementedError

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        raise InputError("A model prepared for inference cannot be copied. Copy it before it is prepared.")

    def __reduce__(self) -> Any:
        raise InputError("A model prepared for inference cannot be pickled. Call `save_pretrained` before.")


class PackedLinear(InferenceLinear):
    """Weights in oneDNN's layout; GELU and ReLU are fused into the product."""

    def __init__(
        self,
        linear: nn.Linear,
        activation: Callable[[Tensor], Tensor] | None = None,
        fused: tuple[str, str] | None = None,
        keep: bool = False,
    ) -> None:
        self.fused = fused or ("none", "")
        self.dtype = linear.weight.dtype
        super().__init__(linear, activation, keep)

    def _can_convert(self, weight: Tensor) -> bool:
        return _can_pack(weight)

    def _convert(self, weight: Tensor, bias: Tensor) -> None:
        self.dtype = weight.dtype
        self.packed = pack(weight)
        self.packed_bias = bias.clone()

    def _product(self, states: Tensor) -> Tensor:
        name, algorithm = self.fused
        states = states.to(self.dtype)
        product = packed_product(states, self.packed, self.packed_bias, name, algorithm)
        return product if self.activation is None or name != "none" else self.activation(product)


class WidenedLinear(InferenceLinear):
    """Weights in half precision and products in float32, for processors that compute in half precision slowly."""

    def _can_convert(self, weight: Tensor) -> bool:
        return weight.dtype in _HALF and _is_plain(weight)

    def _convert(self, weight: Tensor, bias: Tensor) -> None:
        self.dtype = weight.dtype
        self.narrow, self.narrow_bias = weight, bias

    def _product(self, states: Tensor) -> Tensor:
        product = F.linear(states.float(), self.narrow.float(), self.narrow_bias.float())
        return (product if self.activation is None else self.activation(product)).to(states.dtype)


class QuantizedLinear(InferenceLinear):
    """Weights in eight bits with a scale for each output; inputs are quantized in every call."""

    dtype = torch.float32

    def _convert(self, weight: Tensor, bias: Tensor) -> None:
        self.packed = EightBitProduct(weight.float(), bias.float())

    def _product(self, states: Tensor) -> Tensor:
        if not states.numel():  # for no rows oneDNN's product has another shape
            return states.new_empty(*states.shape[:-1], self.out_features)
        product = self.packed(states.float()).to(states.dtype)
        return product if self.activation is None else self.activation(product)


def optimize(model: nn.Module, activation: str, keep_parameters: bool) -> None:
    """Replace the linear layers of a model's encoder if that is faster on this machine.

    Args:
        model: an instance of a model class, on the CPU, in float32, bfloat16 or float16 (others are left unchanged).
        activation: the configuration's `hidden_act`.
        keep_parameters: whether the replaced layers keep the original parameters.
    """
    fastest: dict[tuple[Any, ...], str] = {}
    _restore(model)
    with torch.no_grad():
        for parent, name, linear in _linears(model):
            function: Any = getattr(parent, "activation", None)
            kernels = _kernels(linear, function, _FUSED.get(activation) if function is not None else None)
            key = (*linear.weight.shape, linear.weight.dtype, function is not None)
            if key not in fastest:
                fastest[key] = _fastest(linear, function, kernels) if kernels else "plain"
            if fastest[key] != "plain":
                _replace(parent, name, kernels[fastest[key]](keep=keep_parameters))
    _freeze(model)


def quantize(model: nn.Module, keep_parameters: bool) -> None:
    """Replace the linear layers of a model's encoder by quantized ones. Arguments are those of `optimize`."""
    _restore(model)
    with torch.no_grad():
        for parent, name, linear in _linears(model):
            function: Any = getattr(parent, "activation", None)
            _replace(parent, name, QuantizedLinear(linear, function, keep_parameters))
    _freeze(model)


def warn_if_slow(dtype: torch.dtype) -> None:
    """Warn of a model in half precision that will be slow here: no GPU, and a processor without the instructions."""
    if dtype in _HALF and not torch.cuda.is_available() and not can_compute(dtype):
        warn(
            f"The weights are in {str(dtype).removeprefix('torch.')}, which this processor computes several times "
            "slower than float32. Load them with `dtype='float32'`, or call `optimize_for_inference()`, which keeps "
            "the weights as they are and computes in float32."
        )


def has_dropped(model: nn.Module) -> bool:
    """Whether original parameters of a model were dropped."""
    return any(isinstance(module, InferenceLinear) and not module.kept for module in model.modules())


def check_kept(model: nn.Module, what: str) -> None:
    """Refuse what needs the original parameters.

    Args:
        model: an instance of a model class.
        what: completes "it cannot be …" in the message.

    Raises:
        InputError: they were dropped.
    """
    if has_dropped(model):
        raise InputError(_DROPPED.format(what))


def check_can_convert(model: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
    """Refuse a change of device or dtype for converted weights without their originals.

    Args:
        model: an instance of a model class.
        change: what `nn.Module` is about to apply to every tensor.

    Raises:
        InputError: the original parameters were dropped.
    """
    for module in model.modules():
        if isinstance(module, InferenceLinear) and not module.kept:
            changed = change(torch.empty(0, dtype=module.dtype))
            if changed.dtype != module.dtype or changed.device.type != "cpu":
                raise InputError(_DROPPED.format("moved or cast"))


def _linears(model: Any) -> list[tuple[nn.Module, str, nn.Linear]]:
    """The plain linear layers of the encoder, each with its parent and its name there.

    They are found by the names of the model's own parameters, so that adapters and the layers inside are left out.
    """
    found = []
    for canonical, parameter in model.parameter_table().items():
        if parameter.kind is Kind.KERNEL and canonical.startswith(f"{BASE_PREFIX}encoder."):
            path, name, _ = model._own_name(canonical).rsplit(".", 2)
            parent = model.get_submodule(path)
            child = getattr(parent, name)
            if is_plain_linear(child):
                found.append((parent, name, child))
    return found


def _restore(model: nn.Module) -> None:
    """Restore plain layers from kept parameters, so that a model can be prepared in another way."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, InferenceLinear) and child.kept:
                linear = nn.Linear(child.in_features, child.out_features, device="meta").train(child.training)
                linear.weight, linear.bias = child.weight, child.bias
                setattr(parent, name, linear)
                if child.activation is not None:
                    setattr(parent, "activation", child.activation)  # noqa: B010  # mypy takes it for a tensor


def _freeze(model: nn.Module) -> None:
    """Turn gradients off if parameters were dropped: none passes through such a layer."""
    if has_dropped(model):
        for parameter in model.parameters():
            parameter.requires_grad_(False)


def _replace(parent: nn.Module, name: str, packed: InferenceLinear) -> None:
    setattr(parent, name, packed)
    if packed.activation is not None:
        setattr(parent, "activation", _identity)  # noqa: B010  # mypy takes it for a tensor


def _kernels(
    linear: nn.Linear, activation: Callable[[Tensor], Tensor] | None, fused: tuple[str, str] | None
) -> dict[str, Callable[..., InferenceLinear]]:
    """The layers that can replace a linear layer and its activation; each is made with the argument `keep`."""
    kernels: dict[str, Callable[..., InferenceLinear]] = {}
    if _can_pack(linear.weight):
        kernels["packed"] = partial(PackedLinear, linear, activation)
        if fused is not None:
            kernels["fused"] = partial(PackedLinear, linear, activation, fused)
    if linear.weight.dtype in _HALF and _is_plain(linear.weight):
        kernels["widened"] = partial(WidenedLinear, linear, activation)
    return kernels


def _fastest(
    linear: nn.Linear,
    activation: Callable[[Tensor], Tensor] | None,
    kernels: dict[str, Callable[..., InferenceLinear]],
) -> str:
    """The fastest way to compute a linear layer and its activation: "plain" or a key of `kernels`."""
    example = torch.randn(_TIMED_TOKENS, linear.in_features).to(linear.weight.dtype)

    def plain(states: Tensor) -> Tensor:
        product = linear(states)
        return product if activation is None else activation(product)

    candidates: dict[str, Callable[[Tensor], Tensor]] = {"plain": plain}
    candidates |= {name: make(keep=False) for name, make in kernels.items()}
    best = dict.fromkeys(candidates, float("inf"))
    for _ in range(5):  # in turns, so that a busy moment of the machine affects all of them
        for name, kernel in candidates.items():
            start = time.perf_counter()
            kernel(example)
            best[name] = min(best[name], time.perf_counter() - start)
    return min(best, key=lambda name: best[name])


def _can_pack(weight: Tensor) -> bool:
    if weight.dtype not in (torch.float32, torch.bfloat16) or not _is_plain(weight) or not can_pack():
        return False
    return weight.dtype == torch.float32 or can_compute(weight.dtype)


def _is_plain(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and not tensor.is_mkldnn and type(tensor) in (Tensor, nn.Parameter)


def _identity(states: Tensor) -> Tensor:
    return states
