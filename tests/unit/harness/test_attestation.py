"""An attestation stands only for the verdict that it was made of, and anyone with the public key can check it."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from securesystemslib.dsse import Envelope

from acceptance.criteria import DOCUMENTED
from harness.attestation import (
    KEY_VARIABLE,
    PAYLOAD_TYPE,
    attest,
    attestation_file,
    complaints,
    signer_from_environment,
)
from harness.criteria_set import CriteriaSet
from harness.seal import recheck, seal
from tests.verdict_files import accepted_subject, document, sign_by_a_new_key, write_keys

if TYPE_CHECKING:
    from tests.unit.harness.conftest import Project

DIGESTS = {"adapter_sha256": "a" * 64, "base_model_sha256": "b" * 64, "tokenizer_sha256": "c" * 64}
IDENTITY = {**DIGESTS, "data_sha256": "d" * 64, "generation_sha256": "e" * 64, "style_token_ids": [1, 2]}


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    return sign_by_a_new_key(tmp_path, monkeypatch)


@pytest.fixture
def verdict(keys: tuple[Path, Path], tmp_path: Path) -> Path:
    file = tmp_path / "verdict.json"
    file.write_text(json.dumps(seal(accepted_subject(IDENTITY), document(), None), indent=2), encoding="utf-8")
    attest(file, signer_from_environment())
    return file


def read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def payload(file: Path) -> Any:
    return json.loads(base64.b64decode(read(attestation_file(file))["payload"]))


def test_a_run_leaves_an_attestation_beside_its_verdict(project: Project, keys: tuple[Path, Path]) -> None:
    project.arguments["training.loads_in_4bit"] = ", identify"
    body = project.bodies["training.loads_in_4bit"].rpartition("\n")[2]
    project.bodies["training.loads_in_4bit"] = f"identify(target, {{'adapter_sha256': 'abc'}})\n{body}"
    assert project.run().ret == 0
    assert complaints(project.results / "verdict.json", keys[1]) == []


def test_a_key_that_cannot_sign_stops_the_run_before_it_begins(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, str(tmp_path / "none.pem"))
    result = project.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*{KEY_VARIABLE}: *none.pem does not sign (*openssl genpkey -algorithm ed25519*"])
    assert not project.results.exists()


def test_without_a_key_there_is_no_attestation(verdict: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attestation_file(verdict).unlink()
    monkeypatch.delenv(KEY_VARIABLE)
    attest(verdict, signer_from_environment())
    assert not attestation_file(verdict).exists()


def test_the_statement_is_in_totos_test_result(verdict: Path, keys: tuple[Path, Path]) -> None:
    assert complaints(verdict, keys[1]) == []
    assert read(attestation_file(verdict))["payloadType"] == "application/vnd.in-toto+json"
    said = payload(verdict)
    assert said["_type"] == "https://in-toto.io/Statement/v1"
    assert said["predicateType"] == "https://in-toto.io/attestation/test-result/v0.1"
    subjects = {subject["name"]: subject["digest"] for subject in said["subject"]}
    assert subjects == {
        name: {"sha256": letter * 64}
        for name, letter in {"adapter": "a", "base_model": "b", "tokenizer": "c", "data": "d"}.items()
    }
    predicate = said["predicate"]
    assert (predicate["result"], predicate["warnedTests"], predicate["failedTests"]) == ("PASSED", [], [])
    assert predicate["passedTests"] == [entry["id"] for entry in read(verdict)["criteria"]]
    used = {resource["name"]: resource["digest"]["sha256"] for resource in predicate["configuration"]}
    assert used == {
        "criteria": read(verdict)["criteria_version"],
        "generation": "e" * 64,
        "verdict.json": hashlib.sha256(verdict.read_bytes()).hexdigest(),
    }


@pytest.mark.parametrize(
    ("outcome", "decision", "result"), [("FAIL", "REJECTED", "FAILED"), ("NOT_RUN", "INCOMPLETE", "WARNED")]
)
def test_what_did_not_pass_is_no_passed_test(
    outcome: str, decision: str, result: str, verdict: Path, keys: tuple[Path, Path]
) -> None:
    subject = accepted_subject(IDENTITY)
    subject["criteria"][0]["outcome"], subject["decision"] = outcome, decision
    verdict.write_text(json.dumps(seal(subject, document(), None)), encoding="utf-8")
    attest(verdict, signer_from_environment())
    predicate, id_ = payload(verdict)["predicate"], subject["criteria"][0]["id"]
    assert predicate["result"] == result
    assert predicate["failedTests" if outcome == "FAIL" else "warnedTests"] == [id_]
    assert id_ not in predicate["passedTests"]


STOCK_VERIFIER = """
import json, sys
sys.modules |= dict.fromkeys(("harness", "pipeline", "acceptance"))  # as if they were not installed
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey

envelope = Envelope.from_dict(json.load(open(sys.argv[1])))
key = SSlibKey.from_crypto(load_pem_public_key(open(sys.argv[2], "rb").read()))
envelope.verify([key], 1)
print(json.loads(envelope.payload)["predicate"]["result"])
"""


def test_a_stock_verifier_needs_none_of_our_code(verdict: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    def verified_with(public: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-I", "-c", STOCK_VERIFIER, str(attestation_file(verdict)), str(public)]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env={**os.environ})

    assert verified_with(keys[1]).stdout == "PASSED\n"
    _, other = write_keys(tmp_path, "other")
    assert "VerificationError" in verified_with(other).stderr


def test_only_the_trusted_key_counts(verdict: Path, tmp_path: Path) -> None:
    _, other = write_keys(tmp_path, "other")
    (complaint,) = complaints(verdict, other)
    assert "VerificationError" in complaint
    _, curve = write_keys(tmp_path, "curve", generate_private_key(SECP256R1()))
    for unusable in (curve, tmp_path / "none.pub", verdict):
        (complaint,) = complaints(verdict, unusable)
        assert complaint.startswith(f"{unusable}: no ed25519 public key")


def test_a_missing_attestation_is_named_with_the_remedy(verdict: Path, keys: tuple[Path, Path]) -> None:
    attestation_file(verdict).unlink()
    (complaint,) = complaints(verdict, keys[1])
    assert "verdict.intoto.json is missing; run the acceptance with VERBOSITY_SIGNING_KEY set" in complaint


def test_the_attestation_of_another_verdict_does_not_stand(verdict: Path, keys: tuple[Path, Path]) -> None:
    other = verdict.with_name("other.json")
    other.write_text(
        json.dumps(seal(accepted_subject({"adapter_sha256": "f" * 64}), document(), None)), encoding="utf-8"
    )
    attestation_file(verdict).rename(attestation_file(other))
    assert {complaint.split()[1] for complaint in complaints(other, keys[1])} == {"predicate", "subject"}


def edits(value: Any) -> Iterator[Any]:
    """Copies of a JSON value that differ in one leaf, one lacking field or one more."""

    def places(part: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
        inner = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
        for name, child in inner:
            yield (*path, name)
            yield from places(child, (*path, name))

    for path in places(value, ()):
        for change in (_change, _remove):
            edited = copy.deepcopy(value)
            holder = edited
            for name in path[:-1]:
                holder = holder[name]
            if change(holder, path[-1]):
                yield edited
    yield {**value, "more": 1}


def _change(holder: Any, name: Any) -> bool:
    value = holder[name]
    if isinstance(value, dict | list):
        return False
    holder[name] = (
        not value if isinstance(value, bool) else value + 1 if isinstance(value, int | float) else f"{value}x"
    )
    return True


def _remove(holder: Any, name: Any) -> bool:
    del holder[name]
    return True


@pytest.mark.slow
def test_every_single_edit_of_the_verdict_is_refused(verdict: Path, keys: tuple[Path, Path]) -> None:
    count = 0
    for edited in edits(read(verdict)):
        verdict.write_text(json.dumps(edited, indent=2), encoding="utf-8")
        assert recheck(edited, DOCUMENTED), edited
        assert complaints(verdict, keys[1]), edited
        count += 1
    assert count > 500


def test_every_single_edit_of_the_attestation_is_refused(verdict: Path, keys: tuple[Path, Path]) -> None:
    file, envelope, said = attestation_file(verdict), read(attestation_file(verdict)), payload(verdict)
    forged = [
        {**envelope, "payload": base64.b64encode(json.dumps(edited, sort_keys=True).encode()).decode()}
        for edited in edits(said)
    ]
    forged += edits(envelope)
    signature = envelope["signatures"][0]["sig"]
    for place in range(0, len(signature) - 2, 3):  # the last ones pad
        other = "B" if signature[place] == "A" else "A"
        broken = {**envelope["signatures"][0], "sig": signature[:place] + other + signature[place + 1 :]}
        forged.append({**envelope, "signatures": [broken]})
    for one in forged:
        file.write_text(json.dumps(one), encoding="utf-8")
        assert complaints(verdict, keys[1]), one
    assert len(forged) > 120


CRITERION_EDITS: dict[str, Callable[[Any], Any]] = {
    "sentence": lambda criterion: replace(criterion, sentence=f"{criterion.sentence}."),
    "source": lambda criterion: replace(criterion, source=f"{criterion.source}."),
    "bound": lambda criterion: replace(
        criterion, bounds=(replace(criterion.bounds[0], unit="other"), *criterion.bounds[1:])
    ),
    "fewer bounds": lambda criterion: replace(criterion, bounds=criterion.bounds[:-1] or criterion.bounds * 0),
}


def test_every_single_edit_of_the_criteria_is_noticed(verdict: Path) -> None:
    judged, count = read(verdict), 0
    assert recheck(judged, DOCUMENTED) == []
    for id_, criterion in DOCUMENTED.items():
        for edit in CRITERION_EDITS.values():
            try:
                edited = edit(criterion)
            except ValueError:  # a criterion with one bound cannot have fewer
                continue
            others = CriteriaSet(DOCUMENTED.name, tuple({**DOCUMENTED, id_: edited}.values()))
            assert any(line.startswith("criteria_version:") for line in recheck(judged, others)), (id_, edited)
            count += 1
    assert count > 50


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b"\xff", b"[" * 100_000, b'{"payload": "%%"}', b" " * (2 << 20)]
)
def test_a_damaged_attestation_is_refused(content: bytes, verdict: Path, keys: tuple[Path, Path]) -> None:
    attestation_file(verdict).write_bytes(content)
    (complaint,) = complaints(verdict, keys[1])
    assert complaint.startswith("attestation: ")


def test_a_key_of_another_kind_does_not_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private, _ = write_keys(tmp_path, "curve", generate_private_key(SECP256R1()))
    monkeypatch.setenv(KEY_VARIABLE, str(private))
    with pytest.raises(ValueError, match=r"curve\.pem does not sign \(not an ed25519 key\); make a key with: openssl"):
        signer_from_environment()


@pytest.mark.parametrize(
    ("content", "kind", "complaint"),
    [(b"{}", "text/plain", "a payload of type 'text/plain'"), (b"[]", PAYLOAD_TYPE, "the payload is not an object")],
)
def test_the_trusted_keys_signature_under_something_else_is_refused(
    content: bytes, kind: str, complaint: str, verdict: Path, keys: tuple[Path, Path]
) -> None:
    envelope, signer = Envelope(content, kind, {}), signer_from_environment()
    assert signer is not None
    envelope.sign(signer)
    attestation_file(verdict).write_text(json.dumps(envelope.to_dict()), encoding="utf-8")
    assert complaint in complaints(verdict, keys[1])[0]
