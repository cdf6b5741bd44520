"""Training data, from files to encoded rows: source, formats, encoding, store; ``check`` judges a data set."""
