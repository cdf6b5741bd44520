"""Recorded values ("goldens") in git, kept by syrupy, and comparing a run with them."""
