"""The command line of the broken pipeline: ``python -m sabotage.cli FAULT COMMAND ...``."""

from __future__ import annotations

import sys

from pipeline.cli import main
from pipeline.environment import apply_environment

if __name__ == "__main__":
    apply_environment()  # before a fault imports torch
    from sabotage.faults import FAULTS

    inject = FAULTS[sys.argv[1]].inject
    if inject:
        inject()
    sys.exit(main(sys.argv[2:]))
