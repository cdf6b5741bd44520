"""Acceptance gate: criteria, verdicts, snapshots, reports, and the pytest plugin that joins them."""
