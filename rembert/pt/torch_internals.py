"""Every name of PyTorch that is not public: its purpose, and what happens in a version without it.

No other file of `rembert` uses such a name. Each is looked up when it is used. If it is missing, a slower or
plainer way is used, with one warning from `warn_missing`.

| name | purpose | without it |
| --- | --- | --- |
| `Tensor._version` | changes of a weight in place | weights are converted again in every call |
| `Module._forward_hooks` and three like it | whether a layer has hooks | every layer counts as hooked |
| `nn.modules.module._global_forward_hooks` and three like it | hooks of all modules | they are not noticed |
| `_hf_hook`, of Accelerate | whether it moves weights | a call of an offloaded model is refused |
| `_subclasses.fake_tensor.FakeTensor` | whether a tensor has no values | its values are read, which fails |
| `fx.experimental.proxy_tensor.get_proxy_mode` | whether `make_fx` traces | values are read, which fails there |
| `_C._functorch.is_batchedtensor` | whether `vmap` runs | values are read, which fails there |
| `Module._apply` | a change of device or dtype, before it happens | such a change is not refused |
| `mkldnn._reorder_linear_weight`, `_linear_pointwise` | products in oneDNN's layout | layers stay as they are |
| `mkldnn._is_mkldnn_bf16_supported`, `_is_mkldnn_fp16_supported` | instructions for these | float32 is taken |
| `torch.cpu._is_vnni_supported` | VNNI, before `torch.cpu.get_capabilities` | inputs have 7 bits |
| `quantized.linear_prepack`, `linear_dynamic` | products in eight bits | eight-bit weights, products in float32 |
| `quantized.linear_prepack_fp16`, `linear_dynamic_fp16` | weights in float16 | they are widened for each product |
| `quantized.linear_with_input_q_dq_qweight_dq_output_fp32` | output tables in eight bits | tables stay as they are |
| `torch._make_per_channel_quantized_tensor` | the same | the same |
| `torch.utils._pytree` | outputs that compilers can unpack | `return_dict=False` gives tuples |
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rembert.common.internals import warn_missing

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def _warn(name: str, effect: str) -> None:
    warn_missing(f"PyTorch {torch.__version__}", name, effect)


# ---------------------------------------------------------------------- tensors and modules


def change_count(tensor: Tensor) -> object:
    """A value that differs after a change in place; None for inference tensors: their changes are not counted."""
    if tensor.is_inference():
        return None
    try:
        return _version(tensor)
    except AttributeError:
        _warn("Tensor._version", "a layer prepared for inference converts its weights again in every call")
        return object()  # equal to no other


def _version(tensor: Tensor) -> int:
    return tensor._version


def has_hooks(module: nn.Module) -> bool:
    """Whether a module has hooks of its own; True if that is unknown."""
    hooks = [getattr(module, name, None) for name in _HOOKS]
    if any(each is None for each in hooks):
        _warn("Module._forward_hooks", "linear layers keep their plain kernels, and large losses compute all logits")
        return True
    return any(hooks)


# Their hooks take states of any shape: they gather, cast or prune weights, or only set a flag.
_ANY_SHAPE = ("torch", "deepspeed", "rembert")


def sees_states(*parts: nn.Module) -> bool:
    """Whether a hook sees what these modules, or those inside, take or give; True where that cannot be known.

    This runs in every call that removes padding, so it reads the dictionaries of modules: `modules()` takes ten times
    as long.
    """
    shared = vars(torch.nn.modules.module)
    found = [hook for name in _HOOKS for hook in shared.get(f"_global{name}", {}).values()]
    modules: list[Any] = list(parts)
    try:
        while modules:
            own = vars(modules.pop())
            if (
                own["_forward_hooks"]
                or own["_forward_pre_hooks"]
                or own["_backward_hooks"]
                or own["_backward_pre_hooks"]
            ):
                found += [hook for name in _HOOKS for hook in own[name].values()]
            modules += [child for child in own["_modules"].values() if child is not None]
    except KeyError as problem:
        _warn(f"Module.{problem.args[0]}", "padding is computed, as a hook may see it")
        return True
    return not all(map(_takes_any_shape, found))


def _takes_any_shape(hook: Any) -> bool:
    while isinstance(hook, functools.partial):
        hook = hook.func
    return str(getattr(hook, "__module__", None)).partition(".")[0] in _ANY_SHAPE


def is_dispatched(module: nn.Module) -> bool:
    """Whether Accelerate moves a module's weights and inputs to the device that computes it."""
    return hasattr(module, "_hf_hook")


def has_values(tensor: Tensor) -> bool:
    """Whether a tensor's values can be read: not those of `FakeTensorMode`, `make_fx` and `torch.func.vmap`."""
    try:
        from torch._subclasses.fake_tensor import FakeTensor
        from torch.fx.experimental.proxy_tensor import get_proxy_mode

        is_batched = torch._C._functorch.is_batchedtensor
    except (ImportError, AttributeError):
        _warn("FakeTensor, get_proxy_mode or is_batchedtensor", "values are checked inside `make_fx` and `vmap` too")
        return True
    return not isinstance(tensor, FakeTensor) and get_proxy_mode() is None and not is_batched(tensor)


class ConversionWatcher(nn.Module):
    """A module with a hook that runs before its device or dtype changes (`to`, `float`, also of a parent)."""

    def before_conversion(self, change: Callable[[Tensor], Tensor]) -> None:
        """Called with the function that is about to be applied to every tensor; may raise."""

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self.before_conversion(fn)
        return super()._apply(fn, recurse)


def warn_unwatched() -> None:
    """Warn if `ConversionWatcher` has no effect."""
    if not hasattr(nn.Module, "_apply"):
        _warn("Module._apply", "moving or casting a model whose parameters were dropped is not refused")


# ---------------------------------------------------------------------- products in oneDNN's layout


def can_pack() -> bool:
    """Whether `pack` and `packed_product` work in this build of PyTorch."""
    if not torch.backends.mkldnn.is_available():
        return False  # a build without oneDNN, as for some platforms
    if not _packs():
        _warn("ops.mkldnn._linear_pointwise", "`optimize_for_inference` leaves the layers as they are")
        return False
    return True


@functools.cache
def _packs() -> bool:
    states = torch.ones(2, 16)
    try:
        packed_product(states, pack(torch.ones(16, 16)), torch.zeros(16), "gelu", "none")
    except Exception:  # another signature may raise anything
        return False
    return True


def pack(weight: Tensor) -> Tensor:
    """[out, in] in oneDNN's layout."""
    return torch.ops.mkldnn._reorder_linear_weight(weight, None)


def packed_product(states: Tensor, packed: Tensor, bias: Tensor, name: str, algorithm: str) -> Tensor:
    """[..., in] to [..., out], with an activation by oneDNN's name and algorithm, or "none" and ""."""
    return torch.ops.mkldnn._linear_pointwise(states, packed, bias, name, [], algorithm)


def can_compute(dtype: torch.dtype) -> bool:
    """Whether the processor has the instructions for products in bfloat16 or float16; True for other dtypes."""
    name = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}.get(dtype)
    if name is None:
        return True
    try:
        return getattr(torch.ops.mkldnn, name)()
    except AttributeError:
        _warn(f"ops.mkldnn.{name}", "products in half precision are computed in float32")
        return False


# ---------------------------------------------------------------------- products in eight bits


class EightBitProduct:
    """A linear layer's product with weights in eight bits and inputs that are quantized in every call.

    The product is exact in 32-bit integers. A processor without VNNI adds pairs of products in 16 bits; there inputs
    have 7 bits, so that the sums do not overflow. With VNNI oneDNN's kernel is used, with which a model is a tenth
    faster than with PyTorch's default.

    Args:
        weight: [out, in], float32.
        bias: [out], float32.
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        scales = (weight.abs().amax(1) / 127).clamp(min=torch.finfo(torch.float32).tiny)
        self.reduce_range = not has_vnni()
        self.packed: Any = None
        try:
            zeros = torch.zeros_like(scales, dtype=torch.long)
            with warnings.catch_warnings(), _engine(None if self.reduce_range else "onednn"):
                # PyTorch will drop quantized dtypes, but its fused product accepts nothing else.
                warnings.simplefilter("ignore")
                quantized = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
                self.packed = torch.ops.quantized.linear_prepack(quantized, bias)
        except (AttributeError, RuntimeError):
            _warn("ops.quantized.linear_prepack", "`quantize_dynamic` holds eight-bit weights but computes in float32")
            self.weight = (weight / scales[:, None]).round().to(torch.int8)
            self.scales, self.bias = scales, bias

    def __call__(self, states: Tensor) -> Tensor:
        """[..., in] to [..., out], both float32."""
        if self.packed is None:
            return F.linear(states, self.weight.float()) * self.scales + self.bias
        return torch.ops.quantized.linear_dynamic(states, self.packed, self.reduce_range)


@functools.cache
def has_fbgemm() -> bool:
    """Whether `HalfProduct` and `EightBitTable` work in this PyTorch: builds for x86 processors have FBGEMM."""
    if "fbgemm" not in torch.backends.quantized.supported_engines:
        return False
    try:
        for product in (HalfProduct, EightBitTable):
            product(torch.ones(2, 16), torch.zeros(2))(torch.ones(1, 16))
    except Exception:  # another signature may raise anything
        _warn("ops.quantized.linear_dynamic_fp16", "output tables and weights in half precision stay as they are")
        return False
    return True


class HalfProduct:
    """A linear layer's product with weights in float16, which FBGEMM widens in the processor's registers.

    Args:
        weight: [out, in], float32, in float16's range.
        bias: [out], float32.
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        with warnings.catch_warnings(), _engine("fbgemm"):
            warnings.simplefilter("ignore")
            self.packed = torch.ops.quantized.linear_prepack_fp16(weight, bias)

    def __call__(self, states: Tensor) -> Tensor:
        """[..., in] to [..., out], both float32."""
        return torch.ops.quantized.linear_dynamic_fp16(states, self.packed)


class EightBitTable:
    """The product with an output table in eight bits, a scale for each row, and a bound of its error.

    A state x is a sum of two numbers of 7 bits, with a scale of its own: x = s (a + b / 126). The table is read once
    for both, and the state loses a 126th of what it would with one of them.

    Args:
        weight: [out, in]; it is converted in blocks.
        bias: [out].

    Attributes:
        errors: [out], the norm of what eight bits change in each row.
        norms: [out], the norm of each row.
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        blocks = range(0, len(weight), 2**14)
        self.bias = bias.float()
        parts: list[tuple[Tensor, ...]] = []
        with warnings.catch_warnings(), _engine("fbgemm"):
            warnings.simplefilter("ignore")
            for start in blocks:
                block = weight[start : start + 2**14].float()
                scales = (block.abs().amax(1) / 127).clamp(min=torch.finfo(torch.float32).tiny)
                whole = (block / scales[:, None]).round_()
                errors = (block - whole * scales[:, None]).norm(dim=1)
                parts.append((whole.to(torch.int8), scales, errors, block.norm(dim=1)))
            whole, scales, self.errors, self.norms = (torch.cat(each) for each in zip(*parts, strict=True))
            zeros = torch.zeros_like(scales, dtype=torch.long)
            quantized = torch._make_per_channel_quantized_tensor(whole, scales, zeros, 0)
            self.packed = torch.ops.quantized.linear_prepack(quantized, None)

    def __call__(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """[n, in] float32 to [n, out], and [n], the norm of what the eight bits change in each state."""
        scales = (states.abs().amax(1, keepdim=True) / 63).clamp(min=torch.finfo(torch.float32).tiny)
        high = (states / scales).round()
        low = ((states / scales - high) * 126).round()
        # Numbers of 7 bits around 64 are passed with a scale of 1: two of 8 bits would not fit FBGEMM's 16-bit sums.
        product = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32
        both = product(torch.cat([high, low]), 1.0, 64, self.packed)
        outputs = both[: len(states)].add_(both[len(states) :], alpha=1 / 126).mul_(scales).add_(self.bias)
        change = (states - (high + low / 126) * scales).norm(dim=1)
        return outputs, change + 1e-6 * states.norm(dim=1)  # and what float32 rounds


def has_vnni() -> bool:
    """Whether the processor multiplies eight-bit numbers in one instruction (AVX-512 VNNI)."""
    if hasattr(torch.cpu, "get_capabilities"):  # public since PyTorch 2.12
        return bool(torch.cpu.get_capabilities().get("avx512_vnni", False))
    for name in ("_is_vnni_supported", "_is_cpu_support_avx512_vnni"):
        if hasattr(torch.cpu, name):
            return getattr(torch.cpu, name)()
    _warn("torch.cpu._is_vnni_supported", "inputs of eight-bit layers have 7 bits, which every processor supports")
    return False


@contextmanager
def _engine(name: str | None) -> Iterator[None]:
    """Select PyTorch's eight-bit engine inside the block, if this build has it; packed weights keep it."""
    before = torch.backends.quantized.engine
    if name in torch.backends.quantized.supported_engines:
        torch.backends.quantized.engine = name
    try:
        yield
    finally:
        torch.backends.quantized.engine = before


# ---------------------------------------------------------------------- structures


def register_mapping(
    kind: type, flatten: Callable[[Any], tuple[list[Any], Any]], unflatten: Callable[..., Any]
) -> None:
    """Tell `torch.compile`, `torch.export` and data parallelism how to unpack and rebuild a mapping class.

    Args:
        kind: the class.
        flatten: an instance to its values and its keys.
        unflatten: values and keys to an instance.
    """

    def with_keys(instance: Any) -> tuple[list[tuple[Any, Any]], Any]:
        values, keys = flatten(instance)
        return [(pytree.MappingKey(key), value) for key, value in zip(keys, values, strict=True)], keys

    try:
        from torch.utils import _pytree as pytree

        pytree.register_pytree_node(
            kind,
            flatten,
            unflatten,
            serialized_type_name=f"{kind.__module__}.{kind.__name__}",
            flatten_with_keys_fn=with_keys,
        )
    except (ImportError, AttributeError, TypeError):
        _warn("torch.utils._pytree", "compilers see no tensors in the outputs. Call models with `return_dict=False`")
