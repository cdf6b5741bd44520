"""What --run-dir, --preset and --target choose to judge, and which recorded outputs that is compared with."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from acceptance.judging import pytest_snapshot_environment
from acceptance.selection import chosen_endpoint, given_run, judged_preset, judged_targets
from pipeline.config import TARGETS
from pipeline.release.fingerprint import run_identity
from pipeline.run_folder import RunFolder

SMALL, LARGE = TARGETS["smollm2-135m"], TARGETS["mistral-7b-v0.3"]


def chosen(**options: object) -> pytest.Config:
    """A command line with these options alone."""
    given = SimpleNamespace(getoption=lambda name: options.get(name[2:].replace("-", "_")), stash=pytest.Stash())
    return cast("pytest.Config", given)


@pytest.fixture
def golden_run(tmp_path: Path) -> Path:
    RunFolder(tmp_path).update(target=SMALL.name, preset={"name": "golden"}, status="completed")
    return tmp_path


def test_the_preset_is_the_given_runs_or_the_chosen_one_or_the_targets_own(golden_run: Path) -> None:
    assert judged_preset(chosen(run_dir=golden_run), SMALL) == "golden"
    assert judged_preset(chosen(preset="golden"), SMALL) == "golden"
    assert (judged_preset(chosen(), SMALL), judged_preset(chosen(), LARGE)) == ("lean", "golden")


def test_a_run_that_is_not_what_was_asked_for_is_refused(golden_run: Path, tmp_path: Path) -> None:
    with pytest.raises(pytest.UsageError, match=r"--run-dir: trained with preset golden, not with lean"):
        given_run(chosen(run_dir=golden_run, preset="lean"), SMALL)
    with pytest.raises(pytest.UsageError, match=r"--run-dir: a run of smollm2-135m, not of mistral-7b-v0\.3"):
        given_run(chosen(run_dir=golden_run), LARGE)
    with pytest.raises(pytest.UsageError, match="--run-dir: "):
        given_run(chosen(run_dir=tmp_path / "none"), SMALL)


def test_presets_are_compared_with_their_own_recorded_outputs(golden_run: Path) -> None:
    default = pytest_snapshot_environment(chosen(), SMALL.name)
    assert default.endswith("-lean")
    assert (
        pytest_snapshot_environment(chosen(run_dir=golden_run), SMALL.name) == f"{default.removesuffix('lean')}golden"
    )


def test_an_endpoint_is_described_by_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VERBOSITY_API_KEY", "secret")
    config = chosen(endpoint="https://host.example/openai/v1/", protocol="openai", model="tuned")
    endpoint = chosen_endpoint(config)
    assert endpoint is chosen_endpoint(config)
    assert endpoint is not None
    assert (endpoint.url, endpoint.name, endpoint.api_key) == ("https://host.example/openai", "host.example", "secret")
    assert not endpoint.is_recounted
    assert "secret" not in repr(endpoint)
    for tokenizer in ({"target": ["tiny-mistral"]}, {"base_model": "folder"}):
        recounted = chosen_endpoint(chosen(endpoint="http://h", protocol="openai", model="tuned", **tokenizer))
        assert recounted is not None
        assert list(recounted.out_of_scope) == ["deployment.health_endpoint"]
    own = chosen_endpoint(chosen(endpoint="http://h", protocol="verbosity"))
    assert own is not None
    assert (own.is_recounted, own.scope, dict(own.out_of_scope)) == (True, "", {})
    assert chosen_endpoint(chosen()) is None


def test_an_endpoint_of_a_run_is_recounted_by_its_tokenizer_and_names_its_adapter(tiny_run: RunFolder) -> None:
    asked = {"endpoint": "http://h", "protocol": "openai", "model": "tuned"}
    endpoint = chosen_endpoint(chosen(**asked, run_dir=tiny_run.path))
    assert endpoint is not None
    assert (endpoint.tokenizer, endpoint.is_recounted) == ("tiny-mistral", True)
    adapter = run_identity(tiny_run)["adapter_sha256"]
    assert endpoint.scope.endswith(f"; answers read by the model of adapter {adapter[:12]}")
    with pytest.raises(pytest.UsageError, match="--run-dir: "):
        chosen_endpoint(chosen(**asked, run_dir=tiny_run.path / "none"))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"model": "tuned"}, "--model: is for a server"),
        ({"endpoint": "http://h", "protocol": "verbosity", "model": "tuned"}, "are for --protocol openai"),
        ({"endpoint": "http://h", "protocol": "openai"}, "name the model with --model"),
        ({"endpoint": "http://h/v1", "protocol": "verbosity"}, "not a URL such as http://127"),
        ({"endpoint": "ftp://h", "protocol": "openai", "model": "tuned"}, "not a URL such as https://"),
        ({"endpoint": "http://me:pass@h", "protocol": "openai", "model": "tuned"}, "a key goes into VERBOSITY_API_KEY"),
        ({"endpoint": "http://h?key=pass", "protocol": "openai", "model": "tuned"}, "not a URL"),
        ({"endpoint": "http://h", "protocol": "openai", "model": "m", "target": ["a", "b"]}, "name one tokenizer"),
        ({"endpoint": "http://h", "protocol": "openai", "model": "m", "styles": Path("none")}, "--styles: none: no"),
    ],
)
def test_options_that_do_not_fit_an_endpoint_are_refused(options: dict[str, object], complaint: str) -> None:
    with pytest.raises(pytest.UsageError, match=re.escape(complaint)) as refused:
        chosen_endpoint(chosen(**options))
    assert "pass" not in str(refused.value)


def test_a_base_of_ones_own_is_judged_by_its_folder_its_file_or_its_run(tmp_path: Path) -> None:
    folder = tmp_path / "own-base"
    folder.mkdir()
    (folder / "target.toml").write_text('name = "own"\npeak_memory_limit_gib = 3.0\n')
    (own,) = judged_targets(chosen(base_model=str(folder)))
    assert (own.name, own.folder, own.peak_memory_limit_gib) == ("own", str(folder), 3.0)
    assert judged_targets(chosen(target=[str(folder / "target.toml")])) == [own]
    run = RunFolder(tmp_path / "run")
    run.update(target="own", target_settings=own.describe(), base_model=str(folder))
    assert judged_targets(chosen(run_dir=run.path)) == [own]
    assert judged_targets(chosen(target=[SMALL.name, LARGE.name])) == [SMALL, LARGE]
    (folder / "target.toml").write_text("memory = 1\n")
    with pytest.raises(pytest.UsageError, match=r"memory: no field of a target"):
        judged_targets(chosen(base_model=str(folder)))
