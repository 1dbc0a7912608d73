"""PEFT's tables of the modules that each method adapts by default, with RemBERT in them."""

from __future__ import annotations

import sys

import torch

_LIKE = "bert"  # the model type with the same names of modules
_OWN = "rembert"
# Tables without `_LIKE`, and what belongs in them.
_OTHERS = {"TRANSFORMERS_MODELS_TO_LNTUNING_TARGET_MODULES_MAPPING": ["LayerNorm"]}


def register_targets() -> None:
    """Enter RemBERT in PEFT's tables where PEFT is loaded and lacks it, with the modules that it adapts in BERT.

    Example:
        >>> import peft
        >>> from rembert.pt import RemBertConfig, RemBertForMaskedLM
        >>> model = RemBertForMaskedLM(RemBertConfig(vocab_size=1000, hidden_size=72, num_hidden_layers=2))
        >>> adapted = peft.get_peft_model(model, peft.LoraConfig())  # without `target_modules`
        >>> sorted(adapted.peft_config["default"].target_modules)
        ['query', 'value']
    """
    if torch.compiler.is_compiling():
        return
    tables = getattr(sys.modules.get("peft.utils.constants"), "__dict__", {})
    if _OWN in tables.get("TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING", {_OWN: None}):
        return
    for name, table in tables.items():
        if (
            name.startswith("TRANSFORMERS_MODELS_TO_")
            and name.endswith("_MODULES_MAPPING")
            and isinstance(table, dict)
        ):
            wanted = table.get(_LIKE, _OTHERS.get(name))
            if wanted is not None:
                table.setdefault(_OWN, wanted)
