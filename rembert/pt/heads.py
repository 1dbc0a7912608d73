"""The classification heads: their layers on top of the base model, losses and outputs."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

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
from rembert.pt.inputs import (
    check_choices,
    check_class_labels,
    check_label_devices,
    check_positions,
    check_tensor,
    check_token_labels,
    count_sequences,
    is_integer,
)
from rembert.pt.losses import cross_entropy, ignore_padding, sequence_loss, share_of_items, span_loss, token_loss
from rembert.pt.packing import pack_lengths
from rembert.pt.pretrained import RemBertPreTrainedModel


class RemBertForSequenceClassification(RemBertPreTrainedModel):
    """Classifies, or rates, a text or a pair of texts from the pooled output.

    Example:
        >>> import torch
        >>> from rembert.pt import RemBertConfig, RemBertForSequenceClassification
        >>> config = RemBertConfig(vocab_size=1000, hidden_size=72, num_hidden_layers=2, num_labels=3)
        >>> model = RemBertForSequenceClassification(config)
        >>> outputs = model(torch.tensor([[312, 5, 6, 313]]), labels=torch.tensor([2]))
        >>> outputs.loss.shape, outputs.logits.shape
        (torch.Size([]), torch.Size([1, 3]))
    """

    head = "sequence-classification"

    def __init__(self, config: RemBertConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.rembert = self.base_class(self.config)
        self.dropout = nn.Dropout(config.classifier_dropout_prob)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        cu_seqlens: Tensor | None = None,
        max_seqlen: int | None = None,
        num_items_in_batch: Tensor | int | None = None,
        head_mask: None = None,
    ) -> SequenceClassifierOutput | tuple[Any, ...]:
        """Logits [b, num_labels] (of packed inputs [n, num_labels]), and the loss of `labels`.

        The loss follows `config.problem_type`; left out, one label means regression, integer labels one class each,
        other labels several classes each. Labels are [b] class ids (-100 is ignored), [b, num_labels] of 0 and 1, or
        [b] or [b, num_labels] numbers. The other arguments are those of `RemBertModel`.

        Raises:
            InputError: arguments contradict each other, or labels are out of range.
        """
        problem_type = ""
        if labels is not None:
            check_tensor("labels", labels)
            check_label_devices(input_ids, inputs_embeds, labels=labels)
            problem_type = infer_problem_type(self.config, is_integer(labels))
            self._check_labels(labels, problem_type, count_sequences(input_ids, inputs_embeds, cu_seqlens))
        outputs = self.rembert(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            inputs_embeds,
            use_cache=False,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            cu_seqlens=cu_seqlens,
            max_seqlen=max_seqlen,
            head_mask=head_mask,
        )
        logits = self.classifier(self.dropout(outputs.pooler_output))
        loss = None
        if labels is not None:
            loss = sequence_loss(logits, labels, problem_type, *self.target_settings(self.training))
            loss = share_of_items(loss, labels, num_items_in_batch)
        result = SequenceClassifierOutput(
            loss=loss,
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
        return self.finish(result, return_dict)

    def _check_labels(self, labels: Tensor, problem_type: str, batch: int | None) -> None:
        if batch is None:
            return  # refused by the base model
        count, kind = self.num_labels, PROBLEM_TYPES[problem_type]
        if kind is LabelKind.CLASS:
            flat = labels.reshape(-1) if labels.ndim == 2 and labels.shape[1] == 1 else labels
            check_class_labels("labels", flat, count, "classes", (batch,), "[batch]")
        elif kind is LabelKind.NUMBER and count == 1 and labels.ndim == 1:
            check_label_shape("labels", tuple(labels.shape), (batch,), "[batch]")
        else:
            check_label_shape("labels", tuple(labels.shape), (batch, count), "[batch, num_labels]")


class RemBertForMultipleChoice(RemBertPreTrainedModel):
    """Chooses among several continuations, each encoded separately with the text.

    Example:
        >>> import torch
        >>> from rembert.pt import RemBertConfig, RemBertForMultipleChoice
        >>> config = RemBertConfig(vocab_size=1000, hidden_size=72, num_hidden_layers=2)
        >>> model = RemBertForMultipleChoice(config)
        >>> outputs = model(torch.tensor([[[312, 5, 6, 313], [312, 5, 7, 313]]]), labels=torch.tensor([1]))
        >>> outputs.loss.shape, outputs.logits.shape
        (torch.Size([]), torch.Size([1, 2]))
    """

    head = "multiple-choice"

    def __init__(self, config: RemBertConfig) -> None:
        super().__init__(config)
        self.rembert = self.base_class(self.config)
        self.dropout = nn.Dropout(config.classifier_dropout_prob)
        self.classifier = nn.Linear(config.hidden_size, 1)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        cu_seqlens: Tensor | None = None,
        max_seqlen: int | None = None,
        num_choices: int | None = None,
        num_items_in_batch: Tensor | int | None = None,
        head_mask: None = None,
    ) -> MultipleChoiceModelOutput | tuple[Any, ...]:
        """Logits [b, choices], and the mean loss of `labels` [b] (the right choice; -100 is ignored).

        The other arguments are those of `RemBertModel` with a dimension of choices after the batch: [b, choices, s].
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
            batch, choices = leading.shape[:2]
            inputs = tuple(None if tensor is None else tensor.flatten(0, 1) for tensor in inputs)
        else:
            sequences = count_sequences(input_ids, inputs_embeds, cu_seqlens) or 0
            choices = check_packed_choices(sequences, None if labels is None else labels.numel(), num_choices)
            batch = sequences // choices
        if labels is not None:
            check_label_devices(input_ids, inputs_embeds, labels=labels)
            check_class_labels("labels", labels, choices, "choices", (batch,), "[batch]")
        outputs = self.rembert(
            *inputs,
            use_cache=False,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            cu_seqlens=cu_seqlens,
            max_seqlen=max_seqlen,
            head_mask=head_mask,
        )
        logits = self.classifier(self.dropout(outputs.pooler_output)).view(-1, choices)
        loss = None
        if labels is not None:
            loss = cross_entropy(logits, labels, label_smoothing=self.smoothing(self.training))
            loss = share_of_items(loss, labels, num_items_in_batch)
        result = MultipleChoiceModelOutput(
            loss=loss,
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
        return self.finish(result, return_dict)


class RemBertForTokenClassification(RemBertPreTrainedModel):
    """Classifies every token, as for named entities or parts of speech.

    Example:
        >>> import torch
        >>> from rembert.pt import RemBertConfig, RemBertForTokenClassification
        >>> config = RemBertConfig(vocab_size=1000, hidden_size=72, num_hidden_layers=2, num_labels=3)
        >>> model = RemBertForTokenClassification(config)
        >>> outputs = model(torch.tensor([[312, 5, 6, 313]]), labels=torch.tensor([[-100, 0, 2, -100]]))
        >>> outputs.loss.shape, outputs.logits.shape
        (torch.Size([]), torch.Size([1, 4, 3]))
    """

    head = "token-classification"

    def __init__(self, config: RemBertConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.rembert = self.base_class(self.config, add_pooling_layer=False)
        self.dropout = nn.Dropout(config.classifier_dropout_prob)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        cu_seqlens: Tensor | None = None,
        max_seqlen: int | None = None,
        num_items_in_batch: Tensor | int | None = None,
        head_mask: None = None,
    ) -> TokenClassifierOutput | tuple[Any, ...]:
        """Logits [b, s, num_labels], and the mean loss of `labels` [b, s] (-100 and padding are ignored).

        Of packed inputs, [t, num_labels] and [t]. The other arguments are those of `RemBertModel`.

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
            inputs_embeds,
            use_cache=False,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            cu_seqlens=cu_seqlens,
            max_seqlen=max_seqlen,
            head_mask=head_mask,
        )
        logits = self.classifier(self.dropout(outputs.last_hidden_state))
        loss = None
        if labels is not None:
            loss = token_loss(logits, labels, attention_mask, *self.target_settings(self.training))
            loss = share_of_items(loss, ignore_padding(labels, attention_mask), num_items_in_batch)
        result = TokenClassifierOutput(
            loss=loss,
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
        return self.finish(result, return_dict)


class RemBertForQuestionAnswering(RemBertPreTrainedModel):
    """Finds where an answer starts and ends.

    Example:
        >>> import torch
        >>> from rembert.pt import RemBertConfig, RemBertForQuestionAnswering
        >>> config = RemBertConfig(vocab_size=1000, hidden_size=72, num_hidden_layers=2)
        >>> model = RemBertForQuestionAnswering(config)
        >>> outputs = model(torch.tensor([[312, 5, 313, 6, 7, 313]]))
        >>> outputs.start_logits.shape, outputs.end_logits.shape
        (torch.Size([1, 6]), torch.Size([1, 6]))
    """

    head = "question-answering"

    def __init__(self, config: RemBertConfig) -> None:
        super().__init__(config)
        self.rembert = self.base_class(self.config, add_pooling_layer=False)
        self.qa_outputs = nn.Linear(config.hidden_size, 2)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        cu_seqlens: Tensor | None = None,
        max_seqlen: int | None = None,
        head_mask: None = None,
    ) -> QuestionAnsweringModelOutput | tuple[Any, ...]:
        """Start and end logits [b, s], and the mean loss of `start_positions` and `end_positions` [b].

        There is a loss if both are given. Padding is excluded from its softmax; positions of s and more and those on
        padding are ignored, negative ones are taken as 0. Of packed inputs the logits are [t], and the positions [n]
        are relative to the start of each sequence. The other arguments are those of `RemBertModel`.

        Raises:
            InputError: arguments contradict each other, or positions have another shape.
        """
        for name, positions in (("start_positions", start_positions), ("end_positions", end_positions)):
            check_label_devices(input_ids, inputs_embeds, **{name: positions})
            check_positions(name, positions, count_sequences(input_ids, inputs_embeds, cu_seqlens))
        outputs = self.rembert(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            inputs_embeds,
            use_cache=False,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            cu_seqlens=cu_seqlens,
            max_seqlen=max_seqlen,
            head_mask=head_mask,
        )
        start_logits, end_logits = self.qa_outputs(outputs.last_hidden_state).unbind(-1)
        loss = None
        if start_positions is not None and end_positions is not None:
            starts, ends, mask = start_logits, end_logits, attention_mask
            if cu_seqlens is not None:
                packing = pack_lengths(cu_seqlens)
                starts, ends, mask = packing.unpack(starts), packing.unpack(ends), packing.mask()
            smoothing = self.smoothing(self.training)
            loss = span_loss(starts, ends, start_positions, end_positions, mask, smoothing)
        result = QuestionAnsweringModelOutput(
            loss=loss,
            start_logits=start_logits,
            end_logits=end_logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
        return self.finish(result, return_dict)
