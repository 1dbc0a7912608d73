"""Rows to batches, in arrays: padding, masking, answer spans."""
