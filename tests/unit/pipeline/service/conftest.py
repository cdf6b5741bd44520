"""How many examples the generated requests have: a few, always the same; ``make abuse`` makes thousands of new ones."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    "few",
    max_examples=20,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
settings.register_profile("abuse", settings.get_profile("few"), max_examples=700, derandomize=False)
settings.load_profile("few")
