"""The image of deploy/, built and started; `make test-image` runs it, where a Docker daemon and a network are."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.engine


def test_the_image_serves() -> None:
    build = ["docker", "build", "--quiet", "--file", str(ROOT / "deploy" / "Dockerfile"), str(ROOT)]
    image = subprocess.run(build, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    command = ["docker", "run", "--rm", "--network=none", image, "serve", "--help"]
    assert "--remote-url" in subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
