"""Releasing a trained model: its fingerprint, checking its verdict, exporting it."""
