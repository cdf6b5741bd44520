"""Measurements of speed and memory: `make` targets run them and write `results/`."""
