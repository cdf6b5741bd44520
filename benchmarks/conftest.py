from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--bench-examples", type=int, default=64, help="examples that each preset trains on (default: %(default)s)"
    )
