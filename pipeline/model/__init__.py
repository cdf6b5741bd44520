"""A base model and its adapter: opening, loading, the style tokens, 4-bit weights."""
