"""One file per checkpoint format: a reader of canonical names, and a writer if the library writes the format."""
