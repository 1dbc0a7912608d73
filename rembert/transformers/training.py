"""transformers' Trainer with the models and tokenizers of `rembert.pt`."""

from __future__ import annotations

from typing import Any

import transformers

from rembert.common.tokenization import RemBertTokenizer
from rembert.pt import RemBertPreTrainedModel


class Trainer(transformers.Trainer):
    """transformers' `Trainer`, which also pads and saves for the classes of `rembert.pt`.

    transformers' own does both for its own classes only. Here a tokenizer of `rembert.pt` as `processing_class` pads
    the batches if no `data_collator` is given, and `config.json` is written beside the weights of a model of
    `rembert.pt`, so that `from_pretrained` reads every checkpoint. For other models nothing changes.

    Example:
        >>> from rembert.pt import RemBertConfig, RemBertForSequenceClassification, RemBertTokenizer
        >>> tokenizer = RemBertTokenizer.from_pretrained("google/rembert")
        >>> config = RemBertConfig(
        ...     vocab_size=len(tokenizer), hidden_size=72, num_hidden_layers=1, input_embedding_size=8
        ... )
        >>> trainer = Trainer(RemBertForSequenceClassification(config), processing_class=tokenizer)
        >>> rows = [tokenizer(text) for text in ("Moja habari", "habari")]
        >>> trainer.data_collator(rows)["input_ids"].shape[0]
        2
    """

    def __init__(
        self, model: Any = None, args: Any = None, data_collator: Any = None, *arguments: Any, **keywords: Any
    ) -> None:
        super().__init__(model, args, data_collator, *arguments, **keywords)
        if data_collator is None and isinstance(self.processing_class, RemBertTokenizer):
            self.data_collator = transformers.DataCollatorWithPadding(self.processing_class)

    def save_model(self, output_dir: str | None = None, *arguments: Any, **keywords: Any) -> None:
        """Save the model, its configuration and the tokenizer.

        Args:
            output_dir: by default that of the arguments.
            *arguments: as of transformers' `Trainer.save_model`.
            **keywords: as of it, too.
        """
        super().save_model(output_dir, *arguments, **keywords)
        model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        if not isinstance(model, RemBertPreTrainedModel) or not self.args.should_save:
            return
        directory = self.args.output_dir if output_dir is None else output_dir
        if model.kept and not (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            model.save_pretrained(directory)  # with the pooler of its checkpoint, which is not in `state_dict`
            return
        model._config_to_save().save_pretrained(directory)
