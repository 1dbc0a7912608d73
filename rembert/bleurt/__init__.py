"""Learned metrics: candidates scored against references by a RemBERT regressor, as the BLEURT-20 family is."""

from rembert.bleurt.scorer import RemBertScorer, Score

__all__ = ["RemBertScorer", "Score"]
