"""Recorded values ("goldens") in git, and comparing a run with them."""
