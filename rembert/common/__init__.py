"""What needs no framework: config, parameter table, tokenizers, output types, checks, errors."""
