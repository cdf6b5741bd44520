"""A verdict as an in-toto statement in a signed DSSE envelope, so that others can check it without this package.

The statement has the type ``https://in-toto.io/Statement/v1``; its predicate is in-toto's *test result*, version 0.1.
Signing and checking signatures is securesystemslib's: ed25519, keys as PEM files.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.files import write_text_atomically
from harness.verdict import Decision, Outcome

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner, SSlibKey

KEY_VARIABLE = "VERBOSITY_SIGNING_KEY"
"""Names the file with the private key."""
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://in-toto.io/attestation/test-result/v0.1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
MAX_BYTES = 1 << 20
"""An envelope has some ten kilobytes; a file of another size is no envelope of ours."""

_DIGEST = "_sha256"
_RESULTS = {Decision.ACCEPTED: "PASSED", Decision.INCOMPLETE: "WARNED", Decision.REJECTED: "FAILED"}
_CONFIGURATION = ("quantization", "generation")
"""Digests of settings, which are no artefacts."""


def signer_from_environment() -> CryptoSigner | None:
    """The signer with the key file that ``VERBOSITY_SIGNING_KEY`` names; None where it is unset or empty.

    Raises:
        ValueError: The file cannot be read or is no ed25519 private key, or the package for it is not installed.
    """
    name = os.environ.get(KEY_VARIABLE)
    if not name:
        return None
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
        from securesystemslib.signer import CryptoSigner

        key = load_pem_private_key(Path(name).read_bytes(), password=None)
        if not isinstance(key, Ed25519PrivateKey):
            raise ValueError("not an ed25519 key")
        return CryptoSigner(key)
    except (ImportError, OSError, TypeError, ValueError) as error:
        raise ValueError(
            f"{KEY_VARIABLE}: {name} does not sign ({error}); make a key with: openssl genpkey -algorithm ed25519"
        ) from error


def attestation_file(verdict: Path) -> Path:
    """Where the attestation of a verdict lies: beside it."""
    return verdict.with_suffix(".intoto.json")


def attest(verdict: Path, signer: CryptoSigner | None) -> None:
    """Write the attestation of a verdict's file; nothing without a signer."""
    if signer is None:
        return
    from securesystemslib.dsse import Envelope

    envelope = Envelope(json.dumps(statement(verdict), sort_keys=True).encode(), PAYLOAD_TYPE, {})
    envelope.sign(signer)
    write_text_atomically(attestation_file(verdict), json.dumps(envelope.to_dict(), indent=2) + "\n")


def statement(verdict: Path) -> dict[str, Any]:
    """The in-toto statement about a verdict's file.

    Subjects are the artefacts that were judged, each with the digest in the verdict; the predicate's configuration
    names the criteria, the settings and the verdict itself, whose digest is the plain SHA-256 of its file.
    """
    content = verdict.read_bytes()
    judged: Mapping[str, Any] = json.loads(content)
    digests = {
        name.removesuffix(_DIGEST): value
        for name, value in judged["identity"].items()
        if name.endswith(_DIGEST) and value is not None
    }
    used = {"criteria": judged["criteria_version"], verdict.name: hashlib.sha256(content).hexdigest()}
    used |= {name: digests.pop(name) for name in _CONFIGURATION if name in digests}
    outcomes = {entry["id"]: Outcome(entry["outcome"]) for entry in judged["criteria"]}
    failed = [id_ for id_, outcome in outcomes.items() if outcome is Outcome.FAIL]
    passed = [id_ for id_, outcome in outcomes.items() if outcome is Outcome.PASS]
    return {
        "_type": STATEMENT_TYPE,
        "subject": [_resource(name, digest) for name, digest in digests.items()],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "result": _RESULTS[Decision(judged["decision"])],
            "configuration": [_resource(name, digest) for name, digest in used.items()],
            "passedTests": passed,
            "warnedTests": [id_ for id_ in outcomes if id_ not in (*passed, *failed)],
            "failedTests": failed,
        },
    }


def _resource(name: str, digest: str) -> dict[str, Any]:
    return {"name": name, "digest": {"sha256": digest}}


def complaints(verdict: Path, trusted_key: Path) -> list[str]:
    """Why the attestation beside a verdict does not stand for it.

    Args:
        verdict: The ``verdict.json``.
        trusted_key: PEM file of the ed25519 public key that must have signed.

    Returns:
        Complaints; empty where the key signed exactly the statement that follows from the verdict's file.
    """
    file = attestation_file(verdict)
    try:
        key = _public_key(trusted_key)
    except (ImportError, OSError, TypeError, ValueError) as error:
        return [f"{trusted_key}: no ed25519 public key ({error}); name the PEM file of the key to trust"]
    try:
        payload = _signed_payload(file, key)
        expected = json.loads(json.dumps(statement(verdict)))
    except FileNotFoundError as error:
        return [f"attestation: {error.filename} is missing; run the acceptance with {KEY_VARIABLE} set"]
    except Exception as error:  # an untrusted file: any error in a check refuses it
        return [f"attestation: {file} does not stand ({type(error).__name__}: {error})"]
    differing = sorted(name for name in payload.keys() | expected.keys() if payload.get(name) != expected.get(name))
    return [f"attestation: {name} is not what {verdict} says; one of the two was edited" for name in differing]


def _public_key(file: Path) -> SSlibKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from securesystemslib.signer import SSlibKey

    key = load_pem_public_key(file.read_bytes())
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("not an ed25519 key")
    return SSlibKey.from_crypto(key)


def _signed_payload(file: Path, key: SSlibKey) -> dict[str, Any]:
    """The statement of an envelope that the key signed.

    Raises:
        ValueError: The file is too large, holds more than an envelope, or its payload is no statement.
        VerificationError: The key did not sign it.
    """
    from securesystemslib.dsse import Envelope

    with file.open("rb") as stream:
        content = stream.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES} bytes")
    envelope = Envelope.from_dict(json.loads(content))  # changes what it is given
    envelope.verify([key], 1)
    if envelope.payload_type != PAYLOAD_TYPE:
        raise ValueError(f"a payload of type {envelope.payload_type!r}")
    has_more = any(signature.unrecognized_fields for signature in envelope.signatures.values())
    if has_more or envelope.to_dict() != json.loads(content):
        raise ValueError("it holds more than an envelope, or is encoded in another way")
    payload = json.loads(envelope.payload)
    if not isinstance(payload, dict):
        raise ValueError("the payload is not an object")
    return payload
