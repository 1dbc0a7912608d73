"""Learned metrics: a RemBERT regressor of the BLEURT-20 family scores candidates against references."""

from rembert.bleurt.scorer import RemBertScorer, Score

__all__ = ["RemBertScorer", "Score"]
