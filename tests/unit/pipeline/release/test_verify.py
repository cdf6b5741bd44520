"""A verdict covers an adapter only as both were when it was judged."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pipeline.release.fingerprint
from harness.attestation import KEY_VARIABLE as SIGNING_KEY_VARIABLE
from harness.attestation import attest, signer_from_environment
from harness.seal import KEY_VARIABLE, seal
from pipeline.cli import main
from pipeline.errors import PipelineError
from pipeline.files import write_json
from pipeline.release.export import export
from pipeline.release.fingerprint import identity
from pipeline.release.verify import GATE_GROUP, check_verdict, find_run, read_verdict
from pipeline.run_folder import RunFolder
from tests.verdict_files import accepted_subject, criterion, document, resealed, write_keys

Edit = Callable[[dict[str, Any]], object]


def entry_point(value: str, name: str = "recheck") -> importlib.metadata.EntryPoint:
    return importlib.metadata.EntryPoint(name, value, GATE_GROUP)


def install(monkeypatch: pytest.MonkeyPatch, *entries: importlib.metadata.EntryPoint) -> None:
    def chosen(**selected: Any) -> importlib.metadata.EntryPoints:
        return importlib.metadata.EntryPoints(entries).select(**selected)

    monkeypatch.setattr(importlib.metadata, "entry_points", chosen)


@pytest.fixture(autouse=True)
def _gate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    criteria = importlib.metadata.EntryPoint("verbosity", "acceptance.criteria:DOCUMENTED", "verbosity.criteria")
    recheck = entry_point("harness.installed:recheck_by_installed")
    install(monkeypatch, recheck, entry_point("harness.attestation:complaints", "attestation"), criteria)


@pytest.fixture(scope="session")
def tiny_identity(tiny_run: RunFolder) -> dict[str, Any]:
    return identity(tiny_run)


@pytest.fixture
def verdict(tiny_identity: dict[str, Any]) -> dict[str, Any]:
    return seal(accepted_subject(tiny_identity), document(), None)


@pytest.fixture
def file(verdict: dict[str, Any], tmp_path: Path) -> Path:
    write_json(tmp_path / "verdict.json", verdict)
    return tmp_path / "verdict.json"


@pytest.fixture
def run(tiny_run: RunFolder, tmp_path: Path) -> RunFolder:
    shutil.copytree(tiny_run.path, tmp_path / "run")
    return RunFolder(tmp_path / "run")


def test_a_fresh_verdict_covers_its_run(file: Path, run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert check_verdict(file, run) == check_verdict(file, run.path) == check_verdict(file, run.adapter) == []
    assert main(["verify", str(file), "--adapter", str(run.adapter)]) == 0
    assert capsys.readouterr().out == f"OK: {file} accepts {run.adapter}\n"


def test_an_adapter_trained_further_is_refused(file: Path, run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    weights = run.adapter / "adapter_model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    (complaint,) = check_verdict(file, run)
    assert complaint.startswith("identity.adapter_sha256: stale: judged ")
    assert main(["verify", str(file), "--adapter", str(run.path)]) == 1
    assert capsys.readouterr().out == complaint + "\n"


PARTS = [
    "target",
    "adapter_sha256",
    "adapter_config_sha256",
    "base_model_sha256",
    "base_config_sha256",
    "tokenizer_sha256",
    "chat_template_sha256",
    "style_token_ids",
    "quantization_sha256",
    "generation_sha256",
    "data_sha256",
]


@pytest.mark.parametrize("name", PARTS)
def test_a_verdict_about_something_else_is_refused(
    name: str, tiny_run: RunFolder, tiny_identity: dict[str, Any], tmp_path: Path
) -> None:
    assert {*PARTS, "environment"} == tiny_identity.keys()
    for other in ({**tiny_identity, name: "other"}, {k: v for k, v in tiny_identity.items() if k != name}):
        write_json(tmp_path / "other.json", seal(accepted_subject(other), document(), None))
        (complaint,) = check_verdict(tmp_path / "other.json", tiny_run)
        assert complaint.startswith(f"identity.{name}: ")


def test_a_verdict_that_names_nothing_is_refused(tiny_run: RunFolder, tmp_path: Path) -> None:
    write_json(tmp_path / "empty.json", seal(accepted_subject({}), document(), None))
    complaints = check_verdict(tmp_path / "empty.json", tiny_run, note_environment=lambda difference: None)
    assert [complaint.partition(":")[0] for complaint in complaints] == [
        f"identity.{name}" for name in pipeline.release.fingerprint.run_identity(tiny_run)
    ] + [f"identity.{name}" for name in pipeline.release.fingerprint.base_identity(tiny_run)]


def test_a_part_that_is_unknown_here_is_refused(
    tiny_run: RunFolder, tiny_identity: dict[str, Any], tmp_path: Path
) -> None:
    write_json(tmp_path / "more.json", seal(accepted_subject({**tiny_identity, "merged": True}), document(), None))
    assert check_verdict(tmp_path / "more.json", tiny_run) == ["identity.merged: unknown here"]


EDITS: dict[str, tuple[str, Edit]] = {
    "decision": ("decision", lambda verdict: verdict.update(decision="REJECTED")),
    "identity": ("identity.adapter_sha256", lambda verdict: verdict["identity"].update(adapter_sha256="0" * 64)),
    "version": ("criteria_version", lambda verdict: verdict.update(criteria_version="0" * 64)),
    "commit": ("provenance.git_commit", lambda verdict: verdict["provenance"].update(git_commit="other")),
    "subject": ("subject.name", lambda verdict: verdict["subject"].update(name="other")),
    "measure": (
        "criteria.deployment.server_starts",
        lambda verdict: criterion(verdict, "deployment.server_starts")["measurements"].update(startup_s=1.0),
    ),
    "seal": ("seal.digest", lambda verdict: verdict["seal"].update(digest="0" * 64)),
}


@pytest.mark.parametrize(("field", "edit"), EDITS.values(), ids=EDITS.keys())
def test_an_edited_verdict_is_refused_and_the_field_named(
    field: str, edit: Edit, verdict: dict[str, Any], file: Path, tiny_run: RunFolder
) -> None:
    edit(verdict)
    write_json(file, verdict)
    complaints = check_verdict(file, tiny_run)
    assert any(complaint.startswith(f"{field}: ") for complaint in complaints), complaints


def test_an_outcome_that_its_figures_deny_is_refused_however_it_is_sealed(
    verdict: dict[str, Any], file: Path, tiny_run: RunFolder
) -> None:
    criterion(verdict, "deployment.server_starts")["measurements"]["startup_s"] = 500.0
    write_json(file, resealed(verdict))
    (complaint,) = check_verdict(file, tiny_run)
    assert complaint.startswith("criteria.deployment.server_starts.outcome: PASS does not follow")


@pytest.mark.parametrize(("outcome", "decision"), [("FAIL", "REJECTED"), ("NOT_RUN", "INCOMPLETE")])
def test_only_an_acceptance_covers_an_adapter(
    outcome: str, decision: str, verdict: dict[str, Any], file: Path, tiny_run: RunFolder
) -> None:
    criterion(verdict, "style.consistency")["outcome"] = outcome
    write_json(file, resealed({**verdict, "decision": decision}))
    assert check_verdict(file, tiny_run) == [f"decision: {decision}, not ACCEPTED"]


def test_a_judged_server_is_no_adapter(verdict: dict[str, Any], file: Path, tiny_run: RunFolder) -> None:
    verdict["subject"]["access"] = "endpoint"
    write_json(file, resealed(verdict))
    assert "subject.access: a running server was judged, not an adapter" in check_verdict(file, tiny_run)


def test_a_keyed_verdict_needs_the_key(
    file: Path, tiny_run: RunFolder, tiny_identity: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_json(file, seal(accepted_subject(tiny_identity), document(), b"secret"))
    (complaint,) = check_verdict(file, tiny_run)
    assert "VERBOSITY_VERDICT_KEY is not set" in complaint
    monkeypatch.setenv(KEY_VARIABLE, "secret")
    assert check_verdict(file, tiny_run) == []


def test_a_trusted_key_must_have_signed(
    file: Path, run: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    private, public = write_keys(file.parent, "release")
    check = ["verify", str(file), "--adapter", str(run.path), "--trust-key", str(public)]
    serve = ["serve", "--port", "0", "--run", str(run.path)]
    assert main(check) == 1
    assert "verdict.intoto.json is missing" in capsys.readouterr().out
    assert main([*serve, "--trust-key", str(public)]) == 1
    assert "name the verdict with --require-verdict" in capsys.readouterr().err

    monkeypatch.setenv(SIGNING_KEY_VARIABLE, str(private))
    attest(file, signer_from_environment())
    assert main(check) == 0

    def load(run: RunFolder, **where: object) -> None:
        raise PipelineError("the model would be loaded now")

    monkeypatch.setattr("pipeline.service.loading.load_trained", load)
    assert main([*serve, "--require-verdict", str(file), "--trust-key", str(public)]) == 1
    assert "the model would be loaded now" in capsys.readouterr().err
    _, other = write_keys(file.parent, "other")
    assert main([*check[:-1], str(other)]) == 1
    assert "attestation: " in capsys.readouterr().out
    assert main([*serve, "--require-verdict", str(file), "--trust-key", str(other)]) == 1
    assert "not started: " in capsys.readouterr().err


def test_another_environment_is_refused_or_noted(
    tiny_run: RunFolder, tiny_identity: dict[str, Any], file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packages = {**tiny_identity["environment"]["packages"], "torch": "2.7.1+cu126"}
    judged_on = {"device": "cuda", "gpu": "a GPU", "compute_dtype": "bfloat16", "packages": packages}
    write_json(file, seal(accepted_subject({**tiny_identity, "environment": judged_on}), document(), None))
    differing = {line.partition(":")[0] for line in check_verdict(file, tiny_run)}
    expected = {"identity.environment." + name for name in ("device", "gpu", "packages.torch")}
    if tiny_identity["environment"]["compute_dtype"] != "bfloat16":
        expected.add("identity.environment.compute_dtype")
    assert differing == expected

    assert main(["verify", str(file), "--adapter", str(tiny_run.path)]) == 1
    assert 'identity.environment.device: judged with "cuda", here "cpu"' in capsys.readouterr().out
    assert main(["verify", str(file), "--adapter", str(tiny_run.path), "--ignore-environment"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert 'note: identity.environment.device: judged with "cuda", here "cpu"' in lines
    assert lines[-1].startswith("OK: ")


def test_ignoring_the_environment_ignores_nothing_else(
    verdict: dict[str, Any], file: Path, tiny_run: RunFolder
) -> None:
    verdict["identity"]["environment"]["device"] = "cuda"
    write_json(file, verdict)
    notes: list[str] = []
    complaints = check_verdict(file, tiny_run, note_environment=notes.append)
    assert notes == ['identity.environment.device: judged with "cuda", here "cpu"']
    assert complaints[0] == "identity.environment: edited after the verdict was sealed"


def test_absent_base_weights_are_a_complaint(
    file: Path, run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.update(target="mistral-7b-v0.3")
    complaints = check_verdict(file, run, base_model=str(tmp_path / "nowhere"))
    assert any("base weights not available" in complaint for complaint in complaints)
    assert any(complaint.startswith("identity.target: stale") for complaint in complaints)


def test_a_verdict_without_a_gate_is_not_believed(
    file: Path, tiny_run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch)
    with pytest.raises(PipelineError, match="no gate is installed"):
        check_verdict(file, tiny_run)
    install(monkeypatch, entry_point("harness.nowhere:recheck"))
    with pytest.raises(PipelineError, match=r"the gate harness\.nowhere:recheck cannot be loaded"):
        check_verdict(file, tiny_run)


def test_a_missing_or_damaged_verdict_is_named(
    file: Path, verdict: dict[str, Any], tiny_run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(PipelineError, match="no verdict here"):
        read_verdict(file.with_name("none.json"))
    text = file.read_text(encoding="utf-8")
    for length in (0, 1, len(text) // 2, len(text) - 3):
        file.write_text(text[:length], encoding="utf-8")
        assert main(["verify", str(file), "--adapter", str(tiny_run.path)]) == 1
        assert f"{file}: damaged" in capsys.readouterr().err
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(PipelineError, match="damaged"):
        read_verdict(file)
    others: tuple[object, ...] = ([], {}, {**verdict, "schema_version": 2})
    for other in others:
        write_json(file, other)
        with pytest.raises(PipelineError, match="schema_version is not 1"):
            read_verdict(file)
    for name in verdict.keys() - {"schema_version"}:
        write_json(file, {key: value for key, value in verdict.items() if key != name})
        with pytest.raises(PipelineError, match=f"{name} is missing or damaged"):
            read_verdict(file)


def test_a_folder_without_a_record_is_named(run: RunFolder) -> None:
    assert find_run(run.adapter).path == run.path
    (run.path / "other").mkdir()
    with pytest.raises(PipelineError, match=r"run\.json is needed beside adapter/"):
        find_run(run.path / "other")
    run.record_file.unlink()
    for folder in (run.path, run.adapter):
        with pytest.raises(PipelineError, match=r"run\.json is needed beside adapter/"):
            find_run(folder)


def test_the_server_starts_only_under_a_verdict_that_covers_it(
    file: Path, verdict: dict[str, Any], run: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def load(run: RunFolder, **where: object) -> None:
        raise PipelineError("the model would be loaded now")

    monkeypatch.setattr("pipeline.service.loading.load_trained", load)
    arguments = ["serve", "--port", "0", "--run", str(run.path), "--require-verdict", str(file)]
    assert main(arguments) == 1
    assert "the model would be loaded now" in capsys.readouterr().err

    verdict["identity"]["environment"]["packages"]["torch"] = "another"
    write_json(file, resealed(verdict))
    assert main(arguments) == 1
    message = capsys.readouterr().err
    assert message.startswith("verbosity serve: not started: ")
    assert "identity.environment.packages.torch: judged with" in message
    assert "loaded now" not in message


def test_the_verdict_is_read_as_it_was_written(file: Path, verdict: dict[str, Any]) -> None:
    assert read_verdict(file) == json.loads(json.dumps(verdict)) == verdict


def test_a_verdict_alone_is_checked_by_seal_criteria_and_decision(
    file: Path, verdict: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(file), "--verdict-only"]) == 0
    assert capsys.readouterr().out == f"OK: {file} accepts tiny-mistral, whose identity was not compared\n"
    verdict["decision"] = "REJECTED"
    write_json(file, verdict)
    assert main(["verify", str(file), "--verdict-only"]) == 1
    assert "OK" not in capsys.readouterr().out


def test_a_folder_is_no_verdict(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"cannot be read \(Is a directory\); name a readable verdict\.json"):
        read_verdict(tmp_path)


def test_a_run_is_not_exported_with_the_verdict_about_another(
    tiny_run: RunFolder, tiny_identity: dict[str, Any], tmp_path: Path
) -> None:
    other = tmp_path / "other.json"
    write_json(other, seal(accepted_subject({**tiny_identity, "adapter_sha256": "other"}), document(), None))
    with pytest.raises(
        PipelineError, match=rf"other\.json: does not accept {tiny_run.path}: identity\.adapter_sha256: "
    ):
        export(tiny_run, tmp_path / "model", verdict=other)
    assert not (tmp_path / "model").exists()
