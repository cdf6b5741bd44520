"""Benchmarks of speed, memory and quality; ``make`` targets run them and write ``results/``."""
