"""Snapshots: outputs recorded in git for one target on one kind of machine, kept by syrupy, and compared with a run."""
