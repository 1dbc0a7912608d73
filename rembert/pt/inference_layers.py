"""The linear layers that `rembert.pt.inference` puts in place of plain ones, for inference on a CPU.

Weights are in oneDNN's layout, in half precision, or in eight bits. Each layer says what its results differ by.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rembert.common.errors import InputError
from rembert.pt.torch_internals import (
    ConversionWatcher,
    EightBitProduct,
    EightBitTable,
    HalfProduct,
    can_compute,
    can_pack,
    change_count,
    pack,
    packed_product,
    warn_unwatched,
)

HALF = (torch.bfloat16, torch.float16)
DROPPED = (
    "The original parameters of this model were dropped when it was prepared for inference, so it cannot be {}. Load "
    "it again, or prepare it with `keep_parameters=True`."
)
_EXACT = 64  # of each row's highest outputs; sampling takes the highest 50 by default
_MOST = 8  # if more than one of these parts of a table's rows could be among them, all are computed in full


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
            raise InputError(DROPPED.format("differentiated"))
        return self._product(states)

    def _needs_original(self, states: Tensor) -> bool:
        needs_gradient = torch.is_grad_enabled() and (states.requires_grad or self.weight.requires_grad)
        return needs_gradient or not self._can_convert(self.weight) or torch.compiler.is_compiling()

    def _can_convert(self, weight: Tensor) -> bool:
        """Whether such weights can be converted; otherwise the originals are used."""
        return is_plain_weight(weight)

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
        return can_pack_weight(weight)

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
        return weight.dtype in HALF and is_plain_weight(weight)

    def _convert(self, weight: Tensor, bias: Tensor) -> None:
        self.dtype = weight.dtype
        self.narrow, self.narrow_bias = weight, bias

    def _product(self, states: Tensor) -> Tensor:
        product = F.linear(states.float(), self.narrow.float(), self.narrow_bias.float())
        return (product if self.activation is None else self.activation(product)).to(states.dtype)


class HalfLinear(InferenceLinear):
    """Weights in float16 in FBGEMM's layout, products and sums in float32; an error of 2e-4 for float32 weights."""

    def _can_convert(self, weight: Tensor) -> bool:
        return fits_half(weight)

    def _convert(self, weight: Tensor, bias: Tensor) -> None:
        self.dtype = weight.dtype
        self.packed = HalfProduct(weight.float(), bias.float())

    def _product(self, states: Tensor) -> Tensor:
        product = self.packed(states.float())
        return (product if self.activation is None else self.activation(product)).to(states.dtype)


class QuantizedLinear(InferenceLinear):
    """Weights in eight bits with a scale for each output; inputs are quantized in every call."""

    dtype = torch.float32

    def _convert(self, weight: Tensor, bias: Tensor) -> None:
        self.packed = EightBitProduct(weight.float(), bias.float())

    def _product(self, states: Tensor) -> Tensor:
        if not states.numel():  # for no rows oneDNN's product has another shape
            return states.new_empty(*states.shape[:-1], self.out_features)
        product = _finite_rows(self.packed, states.float()).to(states.dtype)
        return product if self.activation is None else self.activation(product)


class TableLinear(InferenceLinear):
    """An output table in eight bits whose highest outputs are computed again from the table itself, in float32.

    An output differs from the exact one by at most ‖e‖ ‖x‖ + ‖w‖ ‖d‖: e is what eight bits change in the table's row
    w, d what they change in the state x. Every output that could be among the 64 highest of its row by this bound is
    computed again, so those are float32's, in their order; others are within the bound. The table stays in memory.
    """

    def _convert(self, weight: Tensor, bias: Tensor) -> None:
        self.dtype = weight.dtype
        self.table, self.table_bias = weight, bias
        self.rounded = EightBitTable(weight, bias)

    def _product(self, states: Tensor) -> Tensor:
        rows = states.reshape(-1, self.in_features).float()
        return _finite_rows(self._outputs, rows).unflatten(0, states.shape[:-1]).to(states.dtype)

    def _outputs(self, rows: Tensor) -> Tensor:
        """[n, in_features] to [n, out_features], both float32."""
        outputs, changes = self.rounded(rows)
        for row, state, change in zip(outputs, rows, changes, strict=True):
            margin = self.rounded.errors * state.norm() + self.rounded.norms * change
            self._compute_highest(row, state, margin)
        return outputs

    def _compute_highest(self, row: Tensor, state: Tensor, margin: Tensor) -> None:
        """Replace the highest of a row's outputs [v] by exact ones."""
        least = self._exact(state, row.topk(min(_EXACT, len(row))).indices).min()
        found = (row + margin >= least).nonzero().squeeze(1)
        if len(found) > len(row) // _MOST:
            row.copy_(self._exact(state, slice(None)))
        else:
            row[found] = self._exact(state, found)

    def _exact(self, state: Tensor, chosen: Tensor | slice) -> Tensor:
        return F.linear(state, self.table[chosen].float(), self.table_bias[chosen].float())


def _finite_rows(product: Callable[[Tensor], Tensor], states: Tensor) -> Tensor:
    """A product in eight bits, whose integers have no NaN: NaN for each row [..., in] that is not finite.

    PyTorch's kernels refuse such a row, or give finite numbers for it and NaN for the other rows.
    """
    if math.isfinite(states.sum().item()):
        return product(states)
    finite = states.isfinite().all(-1, keepdim=True)
    return product(states.where(finite, 0)).masked_fill_(~finite, torch.nan)


# Their results differ from the plain layers' by more than rounding.
APPROXIMATE = (HalfLinear, QuantizedLinear, TableLinear)


def can_pack_weight(weight: Tensor) -> bool:
    """Whether a weight can be in oneDNN's layout, and the processor has instructions for its dtype."""
    if weight.dtype not in (torch.float32, torch.bfloat16) or not is_plain_weight(weight) or not can_pack():
        return False
    return weight.dtype == torch.float32 or can_compute(weight.dtype)


def fits_half(weight: Tensor) -> bool:
    """Whether a weight's values are in float16's range."""
    # The largest, and not `abs()`, which would copy a table.
    is_float = weight.dtype in (torch.float32, *HALF) and is_plain_weight(weight)
    return is_float and bool(torch.linalg.vector_norm(weight, torch.inf) <= torch.finfo(torch.float16).max)


def is_plain_weight(tensor: Tensor) -> bool:
    """Whether a tensor is a plain one on the CPU."""
    return tensor.device.type == "cpu" and not tensor.is_mkldnn and type(tensor) in (Tensor, nn.Parameter)
