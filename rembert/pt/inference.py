"""A model prepared for inference on a CPU: which of its linear layers are replaced, and by which kernel.

Matrix products are most of an encoder's work. Which kernel is fastest depends on the processor: with AVX-512 that of
oneDNN, with weights in its own layout and GELU fused into the product; on older processors often the one that
`torch.nn.Linear` calls. Therefore the kernels are timed on the machine that uses them, and a layer without a gain is
left unchanged. Many processors have no instructions for products in bfloat16 or float16 and compute them several times
slower than in float32; there the weights stay in half precision, and each product widens them. One product for query,
key and value was measured to be no faster than three. A product of few rows, as in generation, takes the time of
reading the weights: half of it in float16, a third in eight bits.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from rembert.common.arguments import check_argument, one_of
from rembert.common.errors import InputError
from rembert.common.parameters import BASE_PREFIX, Kind
from rembert.common.warning import warn
from rembert.pt.inference_layers import (
    DROPPED,
    HALF,
    HalfLinear,
    InferenceLinear,
    PackedLinear,
    QuantizedLinear,
    TableLinear,
    WidenedLinear,
    can_pack_weight,
    fits_half,
    is_plain_weight,
)
from rembert.pt.linear_cross_entropy import is_plain_linear
from rembert.pt.torch_internals import can_compute, has_fbgemm

# Activations that oneDNN fuses into the product: its name and algorithm for each.
_FUSED = {
    "gelu": ("gelu", "none"),
    "gelu_new": ("gelu", "tanh"),
    "gelu_pytorch_tanh": ("gelu", "tanh"),
    "relu": ("relu", ""),
}
_TABLE = "decoder"  # the output table's name in the head
_MAP = "embedding_hidden_mapping_in"
_TIMED_TOKENS = 256
_LARGE, _TIMED_ROWS = 10000, 2  # of an output table: generation computes one for each text


def optimize(model: nn.Module, activation: str, keep_parameters: bool) -> None:
    """Replace the linear layers of a model's encoder and of a language model if that is faster on this machine.

    Args:
        model: an instance of a model class, on the CPU, in float32, bfloat16 or float16 (others are left unchanged).
        activation: the configuration's `hidden_act`.
        keep_parameters: whether the replaced layers keep the original parameters.
    """
    fastest: dict[tuple[Any, ...], str] = {}
    _restore(model)
    with torch.no_grad():
        for parent, name, linear in _linears(model):
            function = _activation(parent, name)
            is_table = name == _TABLE
            kernels = _kernels(linear, function, _FUSED.get(activation) if function is not None else None, is_table)
            key = (*linear.weight.shape, linear.weight.dtype, function is not None)
            if key not in fastest:
                fastest[key] = _fastest(linear, function, kernels) if kernels else "plain"
            if fastest[key] != "plain":
                _replace(parent, name, kernels[fastest[key]](keep=keep_parameters))
    _freeze(model)


def quantize(model: nn.Module, dtype: str, keep_parameters: bool) -> None:
    """Replace the linear layers of a model's encoder, and a language model's, by quantized ones.

    In eight bits the map from the embeddings is left out: it is a fiftieth of a layer's work. The output table is in
    eight bits in both cases, and its highest outputs are exact.

    Args:
        model, keep_parameters: as in `optimize`.
        dtype: "int8" or "float16".

    Raises:
        InputError: this PyTorch has no products in float16 for CPUs, or a weight is beyond float16's range.
    """
    check_argument("dtype", dtype, one_of(("int8", "float16")))
    if dtype == "float16":
        _check_half(model)
    _restore(model)
    with torch.no_grad():
        for parent, name, linear in _linears(model):
            function = _activation(parent, name)
            if name == _TABLE:
                if has_fbgemm():
                    _replace(parent, name, TableLinear(linear, None, keep_parameters))
            elif dtype == "float16":
                _replace(parent, name, HalfLinear(linear, function, keep_parameters))
            elif name != _MAP and not hasattr(parent, _TABLE):  # a head's own layer is small
                _replace(parent, name, QuantizedLinear(linear, function, keep_parameters))
    _freeze(model)


def _check_half(model: nn.Module) -> None:
    if not has_fbgemm():
        raise InputError("Products in float16 need a PyTorch with FBGEMM (x86 processors). Use `dtype='int8'`.")
    for name, parameter in model.named_parameters():
        if not fits_half(parameter.detach()):
            raise InputError(f"Weights must be in float16's range, up to 65,504, and on the CPU. Received: `{name}`.")


def warn_if_slow(dtype: torch.dtype) -> None:
    """Warn of a model in half precision that will be slow here: no GPU, and a processor without the instructions."""
    if dtype in HALF and not torch.cuda.is_available() and not can_compute(dtype):
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
        raise InputError(DROPPED.format(what))


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
                raise InputError(DROPPED.format("moved or cast"))


def _linears(model: Any) -> list[tuple[nn.Module, str, nn.Linear]]:
    """The plain linear layers of the encoder and of a language model's head, each with its parent and its name there.

    They are found by the names of the model's own parameters, so that adapters and the layers inside are left out.
    """
    found = []
    for canonical, parameter in model.parameter_table().items():
        if parameter.kind is Kind.KERNEL and canonical.startswith((f"{BASE_PREFIX}encoder.", "cls.predictions.")):
            path, name, _ = model._own_name(canonical).rsplit(".", 2)
            parent = model.get_submodule(path)
            child = getattr(parent, name)
            if is_plain_linear(child):
                found.append((parent, name, child))
    return found


def _activation(parent: nn.Module, name: str) -> Any:
    """The function that follows a linear layer, or None."""
    return None if name == _TABLE else getattr(parent, "activation", None)


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
    linear: nn.Linear, activation: Callable[[Tensor], Tensor] | None, fused: tuple[str, str] | None, is_table: bool
) -> dict[str, Callable[..., InferenceLinear]]:
    """The layers that can replace a linear layer and its activation; each is made with the argument `keep`.

    An output table is replaced in half precision only: in float32 reading it takes the same time in every layout.
    """
    kernels: dict[str, Callable[..., InferenceLinear]] = {}
    if can_pack_weight(linear.weight) and not is_table:
        kernels["packed"] = partial(PackedLinear, linear, activation)
        if fused is not None:
            kernels["fused"] = partial(PackedLinear, linear, activation, fused)
    if linear.weight.dtype in HALF and is_plain_weight(linear.weight):
        if not is_table:  # widening all of it takes longer than any product
            kernels["widened"] = partial(WidenedLinear, linear, activation)
        if has_fbgemm() and fits_half(linear.weight):
            kernels["half"] = partial(HalfLinear, linear, activation)
    return kernels


def _fastest(
    linear: nn.Linear,
    activation: Callable[[Tensor], Tensor] | None,
    kernels: dict[str, Callable[..., InferenceLinear]],
) -> str:
    """The fastest way to compute a linear layer and its activation: "plain" or a key of `kernels`."""
    tokens = _TIMED_ROWS if linear.out_features > _LARGE else _TIMED_TOKENS
    example = torch.randn(tokens, linear.in_features).to(linear.weight.dtype)

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


def _identity(states: Tensor) -> Tensor:
    return states
