"""The classification heads: their layers on top of the base model, losses and outputs."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from rembert.common.checks import check_label_shape, infer_problem_type
from rembert.common.config import RemBertConfig
from rembert.common.labels import PROBLEM_TYPES, LabelKind
from rembert.common.outputs import (
    MultipleChoiceModelOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from rembert.common.packed_checks import check_packed_choices
from rembert.tf.encoder import TFRemBertModel
from rembert.tf.inputs import (
    accepts_structures,
    check_choices,
    check_class_labels,
    check_positions,
    check_tensor,
    check_token_labels,
    count_sequences,
    is_integer,
)
from rembert.tf.layers import dense, dropout
from rembert.tf.losses import cross_entropy, sequence_loss, span_loss, token_loss
from rembert.tf.packing import pad_packed
from rembert.tf.pretrained import TFRemBertPreTrainedModel

Tensor = Any


@keras.saving.register_keras_serializable("rembert")
class TFRemBertForSequenceClassification(TFRemBertPreTrainedModel):
    """Classifies, or rates, a text or a pair of texts from the pooled output.

    Example:
        >>> import tensorflow as tf
        >>> from rembert.tf import RemBertConfig, TFRemBertForSequenceClassification
        >>> config = RemBertConfig(vocab_size=1000, hidden_size=72, num_hidden_layers=2, num_labels=3)
        >>> model = TFRemBertForSequenceClassification(config)
        >>> outputs = model(tf.constant([[312, 5, 6, 313]]), labels=tf.constant([2]))
        >>> outputs.loss.shape, outputs.logits.shape
        (TensorShape([]), TensorShape([1, 3]))
    """

    head = "sequence-classification"

    def __init__(self, config: RemBertConfig, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        self.num_labels = config.num_labels
        self.rembert = TFRemBertModel(self.config, name="rembert", dtype=self.dtype_policy)
        self.dropout = dropout(config.classifier_dropout_prob, self.dtype_policy)
        self.classifier = dense(config, config.num_labels, "classifier", self.dtype_policy)
        self.post_init()

    def build(self, input_shape: Any = None) -> None:
        pooled = (None, self.config.hidden_size)
        self.build_parts(rembert=None, dropout=pooled, classifier=pooled)

    @accepts_structures
    def call(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        cu_seqlens: Tensor | None = None,
        max_seqlen: int | None = None,
        training: bool | None = None,
    ) -> SequenceClassifierOutput | tuple[Any, ...]:
        """Logits [b, num_labels] (of packed inputs [n, num_labels]), and the loss of `labels`.

        The loss follows `config.problem_type`; left out, one label means regression, integer labels one class each,
        other labels several classes each. Labels are [b] class ids (-100 is ignored), [b, num_labels] of 0 and 1, or
        [b] or [b, num_labels] numbers. The other arguments are those of `TFRemBertModel`.

        Raises:
            InputError: arguments contradict each other, or labels are out of range.
        """
        problem_type = ""
        if labels is not None:
            check_tensor("labels", labels)
            problem_type = infer_problem_type(self.config, is_integer(labels))
            self._check_labels(labels, problem_type, count_sequences(input_ids, inputs_embeds, cu_seqlens))
        outputs = self.rembert(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            head_mask,
            inputs_embeds,
            use_cache=False,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            cu_seqlens=cu_seqlens,
            max_seqlen=max_seqlen,
            training=training,
        )
        logits = self.classifier(self.dropout(outputs.pooler_output, training=training))
        settings = self.target_settings(training)
        result = SequenceClassifierOutput(
            loss=None if labels is None else sequence_loss(logits, labels, problem_type, *settings),
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
        return self.finish(result, return_dict)

    def _check_labels(self, labels: Tensor, problem_type: str, batch: int | None) -> None:
        count, kind = self.num_labels, PROBLEM_TYPES[problem_type]
        if kind is LabelKind.CLASS:
            flat = labels[:, 0] if len(labels.shape) == 2 and labels.shape[1] == 1 else labels
            check_class_labels("labels", flat, count, "classes", (batch,), "[batch]")
        elif kind is LabelKind.NUMBER and count == 1 and len(labels.shape) == 1:
            check_label_shape("labels", tuple(labels.shape), (batch,), "[batch]")
        else:
            check_label_shape("labels", tuple(labels.shape), (batch, count), "[batch, num_labels]")


@keras.saving.register_keras_serializable("rembert")
class TFRemBertForMultipleChoice(TFRemBertPreTrainedModel):
    """Chooses among several continuations, each encoded separately with the text.

    Example:
        >>> import tensorflow as tf
        >>> from rembert.tf import RemBertConfig, TFRemBertForMultipleChoice
        >>> config = RemBertConfig(vocab_size=1000, hidden_size=72, num_hidden_layers=2)
        >>> model = TFRemBertForMultipleChoice(config)
        >>> outputs = model(tf.constant([[[312, 5, 6, 313], [312, 5, 7, 313]]]), labels=tf.constant([1]))
        >>> outputs.loss.shape, outputs.logits.shape
        (TensorShape([]), TensorShape([1, 2]))
    """

    head = "multiple-choice"

    def __init__(self, config: RemBertConfig, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        self.rembert = TFRemBertModel(self.config, name="rembert", dtype=self.dtype_policy)
        self.dropout = dropout(config.classifier_dropout_prob, self.dtype_policy)
        self.classifier = dense(config, 1, "classifier", self.dtype_policy)
        self.post_init()

    def build(self, input_shape: Any = None) -> None:
        pooled = (None, self.config.hidden_size)
        self.build_parts(rembert=None, dropout=pooled, classifier=pooled)

    @accepts_structures
    def call(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        cu_seqlens: Tensor | None = None,
        max_seqlen: int | None = None,
        num_choices: int | None = None,
        training: bool | None = None,
    ) -> MultipleChoiceModelOutput | tuple[Any, ...]:
        """Logits [b, choices], and the mean loss of `labels` [b] (the right choice; -100 is ignored).

        The other arguments are those of `TFRemBertModel` with a dimension of choices after the batch: [b, choices, s].
        Packed inputs hold the choices of a question one after another; their number follows from `labels`, or is given
        by `num_choices`.

        Raises:
            InputError: arguments contradict each other, or labels are out of range.
        """
        inputs: tuple[Tensor | None, ...] = (input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
        if cu_seqlens is None:
            check_choices(
                input_ids=input_ids,
                attention_mask=attention_mask,
                token_type_ids=token_type_ids,
                position_ids=position_ids,
                inputs_embeds=inputs_embeds,
            )
            leading = input_ids if input_ids is not None else inputs_embeds
            assert leading is not None  # checked above
            (batch, choices), columns = leading.shape[:2], ops.shape(leading)[1]
            inputs = tuple(
                None if tensor is None else ops.reshape(tensor, (-1, *ops.shape(tensor)[2:])) for tensor in inputs
            )
        else:
            sequences = count_sequences(input_ids, inputs_embeds, cu_seqlens) or 0
            choices = check_packed_choices(sequences, None if labels is None else labels.shape[0], num_choices)
            batch, columns = sequences // choices, choices
        if labels is not None:
            check_class_labels("labels", labels, choices, "choices", (batch,), "[batch]")
        outputs = self.rembert(
            *inputs[:4],
            head_mask,
            inputs[4],
            use_cache=False,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            cu_seqlens=cu_seqlens,
            max_seqlen=max_seqlen,
            training=training,
        )
        logits = self.classifier(self.dropout(outputs.pooler_output, training=training))
        logits = ops.reshape(logits, (-1, columns))
        smoothing = self.smoothing(training)
        result = MultipleChoiceModelOutput(
            loss=None if labels is None else cross_entropy(logits, labels, label_smoothing=smoothing),
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
        return self.finish(result, return_dict)


@keras.saving.register_keras_serializable("rembert")
class TFRemBertForTokenClassification(TFRemBertPreTrainedModel):
    """Classifies every token, as for named entities or parts of speech.

    Example:
        >>> import tensorflow as tf
        >>> from rembert.tf import RemBertConfig, TFRemBertForTokenClassification
        >>> config = RemBertConfig(vocab_size=1000, hidden_size=72, num_hidden_layers=2, num_labels=3)
        >>> model = TFRemBertForTokenClassification(config)
        >>> outputs = model(tf.constant([[312, 5, 6, 313]]), labels=tf.constant([[-100, 0, 2, -100]]))
        >>> outputs.loss.shape, outputs.logits.shape
        (TensorShape([]), TensorShape([1, 4, 3]))
    """

    head = "token-classification"

    def __init__(self, config: RemBertConfig, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        self.num_labels = config.num_labels
        self.rembert = TFRemBertModel(self.config, add_pooling_layer=False, name="rembert", dtype=self.dtype_policy)
        self.dropout = dropout(config.classifier_dropout_prob, self.dtype_policy)
        self.classifier = dense(config, config.num_labels, "classifier", self.dtype_policy)
        self.post_init()

    def build(self, input_shape: Any = None) -> None:
        width = self.config.hidden_size
        self.build_parts(rembert=None, dropout=width, classifier=width)

    @accepts_structures
    def call(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        cu_seqlens: Tensor | None = None,
        max_seqlen: int | None = None,
        training: bool | None = None,
    ) -> TokenClassifierOutput | tuple[Any, ...]:
        """Logits [b, s, num_labels], and the mean loss of `labels` [b, s] (-100 and padding are ignored).

        Of packed inputs, [t, num_labels] and [t]. The other arguments are those of `TFRemBertModel`.

        Raises:
            InputError: arguments contradict each other, or labels are out of range.
        """
        if labels is not None:
            check_token_labels(labels, self.num_labels, "classes", input_ids, inputs_embeds)
        outputs = self.rembert(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            head_mask,
            inputs_embeds,
            use_cache=False,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            cu_seqlens=cu_seqlens,
            max_seqlen=max_seqlen,
            training=training,
        )
        logits = self.classifier(self.dropout(outputs.last_hidden_state, training=training))
        settings = self.target_settings(training)
        result = TokenClassifierOutput(
            loss=None if labels is None else token_loss(logits, labels, attention_mask, *settings),
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
        return self.finish(result, return_dict)


@keras.saving.register_keras_serializable("rembert")
class TFRemBertForQuestionAnswering(TFRemBertPreTrainedModel):
    """Finds where an answer starts and ends.

    Example:
        >>> import tensorflow as tf
        >>> from rembert.tf import RemBertConfig, TFRemBertForQuestionAnswering
        >>> config = RemBertConfig(vocab_size=1000, hidden_size=72, num_hidden_layers=2)
        >>> model = TFRemBertForQuestionAnswering(config)
        >>> outputs = model(tf.constant([[312, 5, 313, 6, 7, 313]]))
        >>> outputs.start_logits.shape, outputs.end_logits.shape
        (TensorShape([1, 6]), TensorShape([1, 6]))
    """

    head = "question-answering"

    def __init__(self, config: RemBertConfig, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        self.rembert = TFRemBertModel(self.config, add_pooling_layer=False, name="rembert", dtype=self.dtype_policy)
        self.qa_outputs = dense(config, 2, "qa_outputs", self.dtype_policy)
        self.post_init()

    def build(self, input_shape: Any = None) -> None:
        self.build_parts(rembert=None, qa_outputs=self.config.hidden_size)

    @accepts_structures
    def call(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: None = None,
        inputs_embeds: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        cu_seqlens: Tensor | None = None,
        max_seqlen: int | None = None,
        training: bool | None = None,
    ) -> QuestionAnsweringModelOutput | tuple[Any, ...]:
        """Start and end logits [b, s], and the mean loss of `start_positions` and `end_positions` [b].

        There is a loss if both are given. Padding is excluded from its softmax; positions of s and more and those on
        padding are ignored, negative ones are taken as 0. Of packed inputs the logits are [t], and the positions [n]
        are relative to the start of each sequence. The other arguments are those of `TFRemBertModel`.

        Raises:
            InputError: arguments contradict each other, or positions have another shape.
        """
        for name, positions in (("start_positions", start_positions), ("end_positions", end_positions)):
            check_positions(name, positions, count_sequences(input_ids, inputs_embeds, cu_seqlens))
        outputs = self.rembert(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            head_mask,
            inputs_embeds,
            use_cache=False,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            cu_seqlens=cu_seqlens,
            max_seqlen=max_seqlen,
            training=training,
        )
        start_logits, end_logits = ops.unstack(self.qa_outputs(outputs.last_hidden_state), 2, axis=-1)
        loss = None
        if start_positions is not None and end_positions is not None:
            starts, ends, mask = start_logits, end_logits, attention_mask
            if cu_seqlens is not None:
                (starts, ends), mask = pad_packed((starts, ends), cu_seqlens)
            smoothing = self.smoothing(training)
            loss = span_loss(starts, ends, start_positions, end_positions, mask, smoothing)
        result = QuestionAnsweringModelOutput(
            loss=loss,
            start_logits=start_logits,
            end_logits=end_logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
        return self.finish(result, return_dict)
