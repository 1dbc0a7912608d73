"""Rows to batches, in arrays: padding, masking, blocks, answer spans."""
