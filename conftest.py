"""What holds for every test of the checkout."""

from __future__ import annotations

import pytest

from pipeline.environment import apply_environment

apply_environment()  # before any test module imports torch

# Under -OO this plugin would end pytest with a traceback before pytest_configure refuses.
pytest_plugins = ["pytester"] if __debug__ else []


def pytest_configure(config: pytest.Config) -> None:
    if not __debug__:
        raise pytest.UsageError("python -O removes the assertions, and they are the tests; run it without -O")
    config.addinivalue_line("markers", "engine: needs another engine or Docker; `make test-vllm`, `-llama`, `-image`")
    config.addinivalue_line("markers", "browser: needs a Chromium; left out where there is none")
    config.addinivalue_line("markers", "slow: runs in `make test-all`, not in `make test`")
    config.addinivalue_line("markers", "versions: slow, and depends on versions; `make test-golden` runs it, too")
