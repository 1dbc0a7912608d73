"""One file per checkpoint format: a reader of canonical names, and a writer where the library writes the format."""
