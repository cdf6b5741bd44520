"""Generated blocks of the pages, by name: each is Markdown made from the code or from result files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from docs.blocks import criteria, endpoints, release, results, specification

BLOCKS: Mapping[str, Callable[[], str]] = MappingProxyType(
    {**specification.BLOCKS, **criteria.BLOCKS, **results.BLOCKS, **endpoints.BLOCKS, **release.BLOCKS}
)
"""What stands between ``<!-- name: begin -->`` and ``<!-- name: end -->``."""
