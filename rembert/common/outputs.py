"""The outputs of the models: ordered mappings with attribute access, the same classes in both frameworks.

A field that was not requested is absent: `dict(outputs)` holds tensors only, and the attribute is None. Indices
count the fields that are present: `outputs[0]`, `outputs[:2]`.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, NamedTuple, Self

from rembert.common.config import RemBertConfig

# `torch.Tensor` or a TensorFlow tensor; neither framework is imported here.
Tensor = Any
LayerCache = tuple[Tensor, ...]


class ModelOutput(dict[str, Any]):
    """An ordered mapping from field names to tensors (or tuples of tensors), with attribute access.

    Subclasses declare their fields as annotations, in the order of `to_tuple()`. Other keys may be added; they come
    after the fields. A value of None removes a key. The class is a mutable `dict` because TensorFlow rebuilds
    structures by filling an empty instance.

    Example:
        >>> outputs = SequenceClassifierOutput(logits=[0.3, 0.7])
        >>> outputs.logits, outputs["logits"], outputs[0]
        ([0.3, 0.7], [0.3, 0.7], [0.3, 0.7])
        >>> outputs.loss is None, "loss" in outputs
        (True, False)
        >>> outputs["probabilities"] = [0.4, 0.6]
        >>> outputs.probabilities, outputs[1]
        ([0.4, 0.6], [0.4, 0.6])
    """

    fields: ClassVar[tuple[str, ...]] = ()
    # Fields that a model's plain tuple (`return_dict=False`) holds as None where they are absent.
    kept_in_tuple: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        own = inspect.get_annotations(cls)
        cls.fields = (*cls.fields, *own)

    def __init__(self, content: Mapping[str, Any] | Iterable[tuple[str, Any]] = (), /, **named: Any) -> None:
        """Take any keys from a mapping or pairs, and fields by keyword. A value that is None is absent.

        Raises:
            KeyError: a keyword is not a field.
        """
        super().__init__()
        for name in named:
            if name not in self.fields:
                raise KeyError(
                    f"{type(self).__name__} has no field {name!r}; its fields are {', '.join(self.fields)}."
                )
        given = {**dict(content), **named}
        for name in dict.fromkeys((*self.fields, *given)):
            if given.get(name) is not None:
                super().__setitem__(name, given[name])

    def __getattr__(self, name: str) -> Any:
        # Python calls this for names that are not ordinary attributes.
        if name in self or name in type(self).fields:
            return self[name] if name in self else None  # noqa: SIM401 - PyTorch 2.6 cannot compile `get`
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}.")

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __setitem__(self, name: str, value: Any) -> None:
        if value is None:
            self.pop(name, None)
        elif name in self or name not in self.fields:
            super().__setitem__(name, value)
        else:  # keeps the declared order: what comes later is removed and added again
            earlier = self.fields[: self.fields.index(name)]
            later = [(other, self.pop(other)) for other in list(self) if other not in earlier]
            for field, content in [(name, value), *later]:
                super().__setitem__(field, content)

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(key) if isinstance(key, str) else self.to_tuple()[key]

    # `dict` has these in C, where they would bypass `__setitem__`.

    def update(self, *content: Any, **named: Any) -> None:
        for name, value in dict(*content, **named).items():
            self[name] = value

    def setdefault(self, name: str, default: Any = None, /) -> Any:
        if name not in self:
            self[name] = default
        return self.get(name)

    def __ior__(self, content: Any) -> Self:  # type: ignore[override, misc]
        self.update(content)
        return self

    def copy(self) -> Self:
        return type(self)(self)

    def to_tuple(self) -> tuple[Any, ...]:
        """The values that are present: fields in the order of declaration, then other keys."""
        return tuple(self.values())

    def to_plain_tuple(self) -> tuple[Any, ...]:
        """What a model returns with `return_dict=False`: as `to_tuple`, with None for an absent `kept_in_tuple`."""
        names = [name for name in self.fields if name in self or name in self.kept_in_tuple]
        return tuple(self.get(name) for name in dict.fromkeys((*names, *self)))

    def flatten(self) -> dict[str, Any]:
        """The tensors by name; elements of tuples are numbered, such as `hidden_states.0`."""
        flat: dict[str, Any] = {}

        def add(name: str, value: Any) -> None:
            if isinstance(value, tuple):
                for index, item in enumerate(value):
                    add(f"{name}.{index}", item)
            else:
                flat[name] = value

        for name, value in self.items():
            add(name, value)
        return flat

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (dict(self),))


class BaseModelOutputWithPoolingAndCrossAttentions(ModelOutput):
    """The output of the base model.

    Attributes:
        last_hidden_state: [b, s, e].
        pooler_output: [b, e], tanh of a linear layer of the first token's state.
        past_key_values: for each layer (key, value) or (key, value, cross key, cross value), each [b, h, t, d].
        hidden_states: num_hidden_layers + 1 tensors [b, s, e]; the first is the encoder's input, and each layer takes
            the one before it, so that gradients reach all of them.
        attentions: for each layer the probabilities [b, h, s, t], before dropout.
        cross_attentions: for each layer [b, h, s, encoder's t].

    In a plain tuple `pooler_output` keeps its position: it is None in a model without a pooler.
    """

    kept_in_tuple = ("pooler_output",)

    last_hidden_state: Tensor
    pooler_output: Tensor | None
    past_key_values: tuple[LayerCache, ...] | None
    hidden_states: tuple[Tensor, ...] | None
    attentions: tuple[Tensor, ...] | None
    cross_attentions: tuple[Tensor, ...] | None


class CausalLMOutputWithCrossAttentions(ModelOutput):
    """`loss` scalar, `logits` [b, s, v]; the rest as in the base model's output."""

    loss: Tensor | None
    logits: Tensor | None
    past_key_values: tuple[LayerCache, ...] | None
    hidden_states: tuple[Tensor, ...] | None
    attentions: tuple[Tensor, ...] | None
    cross_attentions: tuple[Tensor, ...] | None


class MaskedLMOutput(ModelOutput):
    """`loss` scalar, `logits` [b, s, v]."""

    loss: Tensor | None
    logits: Tensor | None
    hidden_states: tuple[Tensor, ...] | None
    attentions: tuple[Tensor, ...] | None


class SequenceClassifierOutput(ModelOutput):
    """`loss` scalar, `logits` [b, labels]."""

    loss: Tensor | None
    logits: Tensor
    hidden_states: tuple[Tensor, ...] | None
    attentions: tuple[Tensor, ...] | None


class MultipleChoiceModelOutput(ModelOutput):
    """`loss` scalar, `logits` [b, choices]; hidden states and attentions have b × choices rows."""

    loss: Tensor | None
    logits: Tensor
    hidden_states: tuple[Tensor, ...] | None
    attentions: tuple[Tensor, ...] | None


class TokenClassifierOutput(ModelOutput):
    """`loss` scalar, `logits` [b, s, labels]."""

    loss: Tensor | None
    logits: Tensor
    hidden_states: tuple[Tensor, ...] | None
    attentions: tuple[Tensor, ...] | None


class QuestionAnsweringModelOutput(ModelOutput):
    """`loss` scalar, `start_logits` and `end_logits` [b, s]."""

    loss: Tensor | None
    start_logits: Tensor
    end_logits: Tensor
    hidden_states: tuple[Tensor, ...] | None
    attentions: tuple[Tensor, ...] | None


class Requested(NamedTuple):
    """Which optional outputs a call of the base model returns."""

    attentions: bool
    hidden_states: bool
    cache: bool


def requested_outputs(
    config: RemBertConfig,
    output_attentions: bool | None,
    output_hidden_states: bool | None,
    use_cache: bool | None,
    training: bool,
) -> Requested:
    """The outputs that a call requests: its own arguments, or the configuration's where they are None.

    Only a decoder has a cache, by default not in training.

    Example:
        >>> requested_outputs(RemBertConfig(is_decoder=True), None, True, None, training=False)
        Requested(attentions=False, hidden_states=True, cache=True)
    """
    if use_cache is None:
        use_cache = config.use_cache and not training
    return Requested(
        attentions=bool(config.output_attentions if output_attentions is None else output_attentions),
        hidden_states=bool(config.output_hidden_states if output_hidden_states is None else output_hidden_states),
        cache=bool(use_cache and config.is_decoder),
    )


OUTPUT_TYPES: tuple[type[ModelOutput], ...] = (
    BaseModelOutputWithPoolingAndCrossAttentions,
    CausalLMOutputWithCrossAttentions,
    MaskedLMOutput,
    SequenceClassifierOutput,
    MultipleChoiceModelOutput,
    TokenClassifierOutput,
    QuestionAnsweringModelOutput,
)
