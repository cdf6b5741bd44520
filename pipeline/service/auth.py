"""API keys: stored as SHA-256 digests, compared in constant time, never logged."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from pathlib import Path

from pipeline.errors import PipelineError

KEYS_VARIABLE = "VERBOSITY_API_KEY_DIGESTS"
_DIGEST = re.compile(r"[0-9a-f]{64}")


class ApiKeys:
    """Digests of the accepted keys; without any, every request is accepted."""

    def __init__(self, digests: Iterable[str] = ()) -> None:
        """Take SHA-256 digests in hexadecimal."""
        self._digests = tuple(dict.fromkeys(digests))

    @classmethod
    def load(cls, file: Path | None, variable: str | None) -> ApiKeys:
        """Read digests from a file and from the value of an environment variable.

        Args:
            file: One digest per line, optionally followed by a name; ``#`` starts a comment.
            variable: Digests separated by commas or spaces.

        Raises:
            PipelineError: The file is unreadable or empty, or a digest is malformed.
        """
        digests = [_digest(word, KEYS_VARIABLE) for word in re.split(r"[,\s]+", variable or "") if word]
        if file is not None:
            found = _digests_of(file)
            if not found:
                raise PipelineError(f"{file}: has no digest; write one SHA-256 digest per line.")
            digests += found
        return cls(digests)

    def __bool__(self) -> bool:
        """Whether a key is required."""
        return bool(self._digests)

    def name(self, key: str) -> str | None:
        """The first eight digits of an accepted key's digest, for the log; None for any other key."""
        digest = hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()
        # Every digest is compared, so that the time does not reveal which one matched.
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        return digest[:8] if any(matches) else None


def _digests_of(file: Path) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PipelineError(f"{file}: cannot be read ({error}); name a file of SHA-256 digests.") from error
    words = [(number, line.partition("#")[0].split()) for number, line in enumerate(lines, 1)]
    return [_digest(found[0], f"{file}:{number}") for number, found in words if found]


def _digest(word: str, place: str) -> str:
    if not _DIGEST.fullmatch(word.lower()):
        raise PipelineError(f"{place}: not a SHA-256 digest of 64 hexadecimal digits; write the key's digest.")
    return word.lower()
