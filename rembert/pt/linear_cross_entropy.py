"""Cross entropy of a linear layer's outputs without holding all outputs, for losses over large vocabularies.

n rows have n × v logits, 1 GB for 1,024 rows of RemBERT's vocabulary, and automatic differentiation stores several
copies. Here rows are processed in chunks. The logits of a chunk give its loss and, from the same probabilities, its
part of the gradients. Only the gradients are kept; each chunk is added to those of the layer in place. The backward
pass only scales them.

With p = softmax(z) of a row's logits z, y the one-hot label and a label smoothing of ε:

    loss = log Σ exp(z) - (1 - ε) z[label] - ε mean(z)
    dloss/dz = p - (1 - ε) y - ε / v

Products are in the dtype of the given states, the softmax and every sum in float32, or float64 for float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rembert.common.checks import IGNORE_INDEX
from rembert.pt.torch_internals import has_hooks, has_values

# Logits of a chunk: 128 MB in float32. Smaller products are slower; a GPU needs larger ones.
_AT_A_TIME = {"cpu": 2**25, "cuda": 2**28}
# Rows of the layer's weight that are cast at a time if the products are in another dtype than the weight.
_CAST_AT_A_TIME = 2**14


def linear_cross_entropy(
    states: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, label_smoothing: float = 0.0
) -> Tensor:
    """Mean of -log softmax(states weightᵀ + bias)[label] over the labels that are not -100; 0 if all are.

    The gradient can be taken once and has no gradient itself.

    Args:
        states: [n, w]; under autocast they are cast as a linear layer would cast them.
        weight: [v, w].
        bias: [v].
        labels: [n] integers.
        label_smoothing: in [0, 1); the fraction of each target's probability that is spread over the v classes.

    Returns:
        A scalar in float32, or float64 for float64.
    """
    device = states.device.type
    if device != "meta" and torch.is_autocast_enabled(device):
        states = states.to(torch.get_autocast_dtype(device))
    wanted = [torch.is_grad_enabled() and each.requires_grad for each in (states, weight, bias)]
    return _LinearCrossEntropy.apply(states, weight, bias, labels.long(), wanted, label_smoothing)


def is_plain_linear(layer: nn.Module) -> bool:
    """Whether a layer is a plain linear one, without adapter, quantised weight, shard or hook."""
    return (
        type(layer) is nn.Linear
        and type(layer.weight) is nn.Parameter
        and "forward" not in vars(layer)
        and not has_hooks(layer)
    )


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        weight: Tensor,
        bias: Tensor,
        labels: Tensor,
        wanted: list[bool],
        label_smoothing: float,
    ) -> Tensor:
        loss, *gradients = _loss_and_gradients(states, weight, bias, labels, wanted, label_smoothing)
        ctx.wanted, ctx.states_dtype = wanted, states.dtype
        ctx.save_for_backward(*gradients)
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        compiling = torch.compiler.is_compiling()
        is_one = not compiling and scale.device.type == "cpu" and has_values(scale) and scale == 1
        result: list[Tensor | None] = []
        for gradient, wanted in zip(ctx.saved_tensors, ctx.wanted, strict=True):
            if not wanted:
                result.append(None)
            elif is_one:
                result.append(gradient)
            else:
                # In place, as the weight's is large. Autograd itself then refuses a second backward pass.
                result.append(gradient * scale if compiling else gradient.mul_(scale))
        if result[0] is not None:
            result[0] = result[0].to(ctx.states_dtype)  # after the scale, which brings them into float16's range
        return (*result, None, None, None)


# A custom operator, which `torch.compile` does not trace: the number of labels that count is not known to a graph.
# The schema is written out, because PyTorch 2.6 cannot derive one from `list[bool]`.
@torch.library.custom_op(
    "rembert::linear_cross_entropy",
    mutates_args=(),
    schema="(Tensor states, Tensor weight, Tensor bias, Tensor labels, bool[] wanted, float label_smoothing)"
    " -> (Tensor, Tensor, Tensor, Tensor)",
)
def _loss_and_gradients(
    states: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, wanted: list[bool], label_smoothing: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The mean loss, and its gradients in the states, the weight and the bias; one that is not `wanted` is empty.

    The states' gradient is in the statistics' dtype: in float16 that of a mean over many labels would be lost.
    """
    statistics = _statistics(states)
    counted = (labels != IGNORE_INDEX).nonzero().squeeze(1)
    count = max(len(counted), 1)
    of_states, of_weight, of_bias = wanted
    loss = states.new_zeros((), dtype=statistics)
    d_states = torch.zeros_like(states, dtype=statistics) if of_states else states.new_empty(0)
    d_weight = torch.zeros_like(weight, dtype=statistics) if of_weight else weight.new_empty(0)
    d_bias = torch.zeros_like(bias, dtype=statistics) if of_bias else bias.new_empty(0)
    for chosen in _chunks(counted, len(weight)):
        rows, targets = states[chosen], labels[chosen, None]
        logits = _logits(rows, weight, bias)
        highest = logits.amax(1, keepdim=True)
        at_labels = logits.gather(1, targets) - highest
        logits.sub_(highest)
        if label_smoothing:
            loss += label_smoothing * (at_labels - logits.mean(1, keepdim=True)).sum()
        probabilities = logits.exp_()
        sums = probabilities.sum(1, keepdim=True)
        loss += (sums.log() - at_labels).sum()
        if not any(wanted):
            continue
        d_logits = probabilities.div_(sums)
        if label_smoothing:
            d_logits.sub_(label_smoothing / len(weight))
        d_logits.scatter_add_(1, targets, d_logits.new_full(targets.shape, label_smoothing - 1))
        if of_bias:
            d_bias.add_(d_logits.sum(0), alpha=1 / count)
        d_rows = torch.zeros_like(rows, dtype=statistics)
        for block in _blocks(weight, rows):
            d_block = d_logits[:, block].to(rows.dtype)
            if of_weight:
                _add_product(d_weight[block], d_block.T, rows, 1 / count)
            if of_states:
                _add_product(d_rows, d_block, weight[block].to(rows.dtype), 1 / count)
        if of_states:
            d_states[chosen] = d_rows
    return loss / count, d_states, d_weight.to(weight.dtype), d_bias.to(bias.dtype)


@_loss_and_gradients.register_fake
def _(
    states: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, wanted: list[bool], label_smoothing: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    given = zip((states.to(_statistics(states)), weight, bias), wanted, strict=True)
    one, two, three = (torch.empty_like(each) if asked else each.new_empty(0) for each, asked in given)
    return states.new_empty((), dtype=_statistics(states)), one, two, three


def _statistics(states: Tensor) -> torch.dtype:
    return torch.promote_types(states.dtype, torch.float32)


def _chunks(rows: Tensor, outputs: int) -> tuple[Tensor, ...]:
    """`rows` in chunks of about the same size, none with more logits than are held at a time."""
    most = max(_AT_A_TIME.get(rows.device.type, _AT_A_TIME["cuda"]) // outputs, 1)
    return rows.chunk(-(-len(rows) // most)) if len(rows) else ()


def _blocks(weight: Tensor, rows: Tensor) -> Iterator[slice]:
    """The weight's rows in one block, or in several if they must be cast."""
    size = len(weight) if weight.dtype == rows.dtype else _CAST_AT_A_TIME
    return (slice(start, start + size) for start in range(0, len(weight), size))


def _logits(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """[rows, v] in the statistics' dtype, in memory that the caller may overwrite."""
    parts = [
        F.linear(rows, weight[block].to(rows.dtype), bias[block].to(rows.dtype)).to(_statistics(rows))
        for block in _blocks(weight, rows)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def _add_product(total: Tensor, left: Tensor, right: Tensor, factor: float) -> None:
    # The factor comes last: before the product, float16 would lose the small probabilities.
    if total.dtype == left.dtype:
        total.addmm_(left, right, alpha=factor)
    else:
        total.add_(left @ right, alpha=factor)
