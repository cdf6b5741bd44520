"""A thousand single edits of what a release rests on, drawn at random: each is refused."""

from __future__ import annotations

import base64
import copy
import dataclasses
import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from acceptance.criteria import DOCUMENTED
from harness.attestation import attest, attestation_file, complaints, signer_from_environment
from harness.criteria import Criterion, Need
from harness.criteria_set import CriteriaSet
from harness.seal import recheck, seal
from pipeline.errors import PipelineError
from pipeline.release.fingerprint import run_identity
from pipeline.run_folder import RunFolder
from tests.verdict_files import accepted_subject, document, sign_by_a_new_key

OTHERS: tuple[Any, ...] = (None, True, False, 0, 1, -1.5, "", "PASS", "ACCEPTED", "0" * 64, [], {}, [1], {"a": 1})


@pytest.fixture
def draws() -> random.Random:
    return random.Random(22)


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    return sign_by_a_new_key(tmp_path, monkeypatch)


@pytest.fixture
def verdict(keys: tuple[Path, Path], tmp_path: Path) -> Path:
    file = tmp_path / "verdict.json"
    identity = {"adapter_sha256": "a" * 64, "base_model_sha256": "b" * 64, "style_token_ids": [1, 2]}
    file.write_text(json.dumps(seal(accepted_subject(identity), document(), None)), encoding="utf-8")
    attest(file, signer_from_environment())
    assert recheck(read(file), DOCUMENTED) == complaints(file, keys[1]) == []
    return file


def read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def edited(value: Any, draws: random.Random) -> Any:
    """A copy that differs in one value, lacks one field or entry, or has one more."""
    while True:
        changed = copy.deepcopy(value)
        holder, place = draws.choice(list(_places(changed)))
        kind = draws.randrange(4)
        if kind == 0:
            del holder[place]
        elif kind == 1 and isinstance(holder, dict):
            holder[f"{place}_more"] = draws.choice(OTHERS)
        elif kind == 2:
            holder[place] = draws.choice(OTHERS)
        else:
            holder[place] = _near(holder[place], draws)
        if json.dumps(changed, sort_keys=True) != json.dumps(value, sort_keys=True):
            return changed


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    for place in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, place
        yield from _places(value[place])


def _near(value: Any, draws: random.Random) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + draws.choice((1, -1, 1e-9))
    if isinstance(value, str) and value:
        place = draws.randrange(len(value))
        return value[:place] + draws.choice("0aZ .") + value[place + 1 :]
    return value


def test_of_the_verdict(verdict: Path, keys: tuple[Path, Path], draws: random.Random) -> None:
    untouched = read(verdict)
    for _ in range(400):
        forged = edited(untouched, draws)
        verdict.write_text(json.dumps(forged), encoding="utf-8")
        assert recheck(forged, DOCUMENTED), forged
        assert complaints(verdict, keys[1]), forged


def test_of_the_attestation(verdict: Path, keys: tuple[Path, Path], draws: random.Random) -> None:
    file = attestation_file(verdict)
    untouched = read(file)
    said = json.loads(base64.b64decode(untouched["payload"]))
    for _ in range(125):
        payload = base64.b64encode(json.dumps(edited(said, draws), sort_keys=True).encode()).decode()
        for forged in ({**untouched, "payload": payload}, edited(untouched, draws)):
            file.write_text(json.dumps(forged), encoding="utf-8")
            assert complaints(verdict, keys[1]), forged


def test_of_the_criteria(verdict: Path, draws: random.Random) -> None:
    judged, count = read(verdict), 0
    while count < 100:
        id_ = draws.choice(list(DOCUMENTED))
        try:
            other = CRITERION_EDITS[draws.randrange(len(CRITERION_EDITS))](DOCUMENTED[id_], draws)
            others = CriteriaSet(DOCUMENTED.name, tuple({**DOCUMENTED, id_: other}.values()))
        except ValueError:  # no criterion
            continue
        if other != DOCUMENTED[id_]:
            assert any(line.startswith("criteria_version:") for line in recheck(judged, others)), other
            count += 1


def _with_other_bound(criterion: Criterion, draws: random.Random) -> Criterion:
    place = draws.randrange(len(criterion.bounds))
    bound = criterion.bounds[place]
    changes: list[dict[str, Any]] = [
        {"measure": f"{bound.measure}x"},
        {"comparison": draws.choice(("<", "<=", ">", ">=", "=="))},
        {"threshold": _near(bound.threshold, draws)},
        {"unit": f"{bound.unit}x"},
        {"confidence": draws.choice((None, 0.9, 0.949999999))},
        {"needs": (Need.MODEL,)},
    ]
    other = dataclasses.replace(bound, **draws.choice(changes))
    return dataclasses.replace(criterion, bounds=(*criterion.bounds[:place], other, *criterion.bounds[place + 1 :]))


CRITERION_EDITS: tuple[Callable[[Criterion, random.Random], Criterion], ...] = (
    _with_other_bound,
    lambda criterion, draws: dataclasses.replace(criterion, sentence=_near(criterion.sentence, draws)),
    lambda criterion, draws: dataclasses.replace(criterion, source=_near(criterion.source, draws)),
    lambda criterion, draws: dataclasses.replace(criterion, needs=draws.choice(((), (Need.MODEL,), tuple(Need)))),
    lambda criterion, draws: dataclasses.replace(criterion, bounds=criterion.bounds[1:]),
)


def test_of_the_weights(tiny_run: RunFolder, tmp_path: Path, draws: random.Random) -> None:
    """Verification computes this identity again and refuses what differs."""
    shutil.copytree(tiny_run.path, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    judged = run_identity(run)
    for _ in range(250):
        name = draws.choice(("adapter_model.safetensors", "adapter_config.json"))
        file = run.adapter / name
        content = file.read_bytes()
        place = draws.randrange(len(content))
        kind = draws.randrange(3)
        inside = bytes([content[place] ^ (1 << draws.randrange(8))]) if kind == 0 else b"" if kind == 1 else b"01"
        file.write_bytes(content[:place] + inside + content[place + 1 :])
        assert _identity(run) != judged, (name, place, kind)
        file.write_bytes(content)
    assert _identity(run) == judged


def _identity(run: RunFolder) -> dict[str, Any]:
    """The run's identity; nothing where the run is refused before there is one."""
    try:
        return run_identity(run)
    except PipelineError:
        return {}
