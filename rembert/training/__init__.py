"""Fine-tuning, from files of examples to a directory with the best model. Loads no framework."""

from rembert.training.finetuning import finetune
from rembert.training.recipe import Recipe

__all__ = ["Recipe", "finetune"]
