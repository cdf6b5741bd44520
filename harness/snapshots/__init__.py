"""Snapshots: outputs of one target on one kind of machine, kept in ``golden/`` by syrupy and compared with a run."""
