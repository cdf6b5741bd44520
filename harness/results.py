"""Writing what a run or a judgement leaves: document, kept answers, sealed verdicts and report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.answers import answers_file
from harness.attestation import attest
from harness.files import write_text_atomically
from harness.report.schema import DOCUMENT_NAME
from harness.seal import key_from_environment, seal

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner


def document_text(document: Mapping[str, Any]) -> str:
    """Return a document as it is written."""
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def write_results(
    document: Mapping[str, Any],
    answers: Mapping[str, str],
    folder: Path,
    *,
    sealed: bool = True,
    signer: CryptoSigner | None = None,
) -> None:
    """Write ``acceptance.json``, kept answers, the report, and a sealed verdict for each subject with an identity.

    Args:
        document: The document.
        answers: Content of the file of kept answers, by subject; empty where none were kept.
        folder: Where to; verdicts and answers of an earlier run are removed.
        sealed: Whether verdicts are written.
        signer: Signs an attestation of each verdict; None for no attestation.
    """
    from harness.report.html import write_report

    for stale in folder.glob("answers-*.jsonl"):
        stale.unlink()
    for name, text in answers.items():
        if text:
            write_text_atomically(folder / answers_file(name), text)
    write_text_atomically(folder / DOCUMENT_NAME, document_text(document))
    # Before the report: if that fails, no verdict of an earlier run is left behind.
    for stale in folder.glob("verdict*.json"):
        stale.unlink()
    key = key_from_environment()
    for name, subject in verdict_files(document).items() if sealed else ():
        verdict = write_text_atomically(folder / name, document_text(seal(subject, document, key)))
        attest(verdict, signer)
    write_report(document, folder)


def verdict_files(document: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the subjects with an identity by the name of their sealed verdict."""
    subjects = [subject for subject in document["subjects"] if subject["identity"]]
    names = ["verdict.json"] if len(subjects) == 1 else [f"verdict-{subject['name']}.json" for subject in subjects]
    return dict(zip(names, subjects, strict=True))
