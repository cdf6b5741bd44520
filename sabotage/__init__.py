"""Deliberately broken pipelines, and the matrix of which criterion catches which (``make sabotage``)."""
