"""Answers of a loaded model, and how likely it finds them."""
