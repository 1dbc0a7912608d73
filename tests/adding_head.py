"""A head as a contributor would add it: the declaration, its output, and a class for each framework.

`test_adding.py` tests it. The frameworks are imported in functions, so that the tests of one run without the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from rembert.common.config import RemBertConfig
from rembert.common.labels import LabelKind
from rembert.common.outputs import ModelOutput
from rembert.common.parameters import Head, Parameter, dense


def _acceptability(config: RemBertConfig) -> Iterable[Parameter]:
    return dense("acceptability", 3, config.hidden_size)


HEAD = Head(
    "acceptability",
    "RemBertForAcceptability",
    has_pooler=True,
    own_parameters=_acceptability,
    labels=("judgements",),
    label_kind=LabelKind.CLASS,
    logits=("acceptability_logits",),
)


class AcceptabilityOutput(ModelOutput):
    """`loss` scalar, `acceptability_logits` [b, 3]."""

    loss: Any
    acceptability_logits: Any


@cache
def pt_class() -> type:
    """The class in PyTorch."""
    from torch import nn

    from rembert.pt import RemBertModel, RemBertPreTrainedModel
    from rembert.pt.losses import cross_entropy

    class RemBertForAcceptability(RemBertPreTrainedModel):
        head = HEAD.name

        def __init__(self, config: RemBertConfig) -> None:
            super().__init__(config)
            self.rembert = RemBertModel(config)
            self.acceptability = nn.Linear(config.hidden_size, 3)
            self.post_init()

        def forward(
            self,
            input_ids: Any = None,
            attention_mask: Any = None,
            token_type_ids: Any = None,
            judgements: Any = None,
            return_dict: bool | None = None,
        ) -> Any:
            outputs = self.rembert(input_ids, attention_mask, token_type_ids, use_cache=False, return_dict=True)
            logits = self.acceptability(outputs.pooler_output)
            loss = None if judgements is None else cross_entropy(logits, judgements)
            return self.finish(AcceptabilityOutput(loss=loss, acceptability_logits=logits), return_dict)

    return RemBertForAcceptability


@cache
def tf_class() -> type:
    """The class in TensorFlow."""
    import keras

    from rembert.tf import TFRemBertModel, TFRemBertPreTrainedModel
    from rembert.tf.inputs import accepts_structures
    from rembert.tf.layers import dense
    from rembert.tf.losses import cross_entropy

    @keras.saving.register_keras_serializable("tests")
    class TFRemBertForAcceptability(TFRemBertPreTrainedModel):
        head = HEAD.name

        def __init__(self, config: RemBertConfig, **kwargs: Any) -> None:
            super().__init__(config, **kwargs)
            self.rembert = TFRemBertModel(config, name="rembert", dtype=self.dtype_policy)
            self.acceptability = dense(config, 3, "acceptability", self.dtype_policy)
            self.post_init()

        def build(self, input_shape: Any = None) -> None:
            self.build_parts(rembert=None, acceptability=self.config.hidden_size)

        @accepts_structures
        def call(
            self,
            input_ids: Any = None,
            attention_mask: Any = None,
            token_type_ids: Any = None,
            judgements: Any = None,
            return_dict: bool | None = None,
            training: bool | None = None,
        ) -> Any:
            outputs = self.rembert(
                input_ids, attention_mask, token_type_ids, use_cache=False, return_dict=True, training=training
            )
            logits = self.acceptability(outputs.pooler_output)
            loss = None if judgements is None else cross_entropy(logits, judgements)
            return self.finish(AcceptabilityOutput(loss=loss, acceptability_logits=logits), return_dict)

    return TFRemBertForAcceptability
