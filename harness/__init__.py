"""Acceptance gate: documented criteria, verdicts, goldens, reports, and the pytest plugin that joins them."""
