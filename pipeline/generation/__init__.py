"""Generating answers with a loaded model, and scoring them."""
