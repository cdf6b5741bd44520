"""What the doctor says of machines that are not this one, and that it can say of this one."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.cli import main
from pipeline.doctor import arithmetic, gpu, machine, models
from pipeline.doctor import examine as examine_module
from pipeline.doctor.findings import Finding, Report
from pipeline.doctor.gpu import GpuState, check_gpu, parse_gpu
from pipeline.doctor.packages import GOLDEN_PINS, check_packages, compare
from pipeline.environment import GOLDEN_VARIABLES
from pipeline.model.base_models import write_mistral_tokenizer
from pipeline.model.shapes import SHAPES
from pipeline.model.tokenizer import chat_template
from pipeline.run_folder import VERSIONED_PACKAGES

A10G = GpuState("NVIDIA A10G", "550.54.15", (8, 6), 21.8, 22.5)


def test_the_report_of_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["doctor", "--json"])
    report = json.loads(capsys.readouterr().out)
    findings = {finding["check"]: finding for finding in report["findings"]}
    assert len(findings) == len(report["findings"])
    assert {
        *("python", "gpu", "memory", "disk.cache", "disk.results", "port", "bitsandbytes.cpu"),
        *(f"package.{name}" for name in GOLDEN_PINS),
        *(f"environment.{name}" for name in GOLDEN_VARIABLES),
        *(f"{kind}.{name}" for kind in ("model", "tokenizer") for name in ("mistral-7b-v0.3", "smollm2-135m")),
    } <= findings.keys()
    for check in ("python", "package.torch", "bitsandbytes.cpu", "tokenizer.mistral-7b-v0.3", "tokenizer.smollm2-135m"):
        assert findings[check]["level"] in ("OK", "WARN"), findings[check]
    assert report["schema_version"] == 1
    assert report["level"] in ("OK", "WARN", "FAIL")
    assert status == int(report["level"] == "FAIL")
    blocked = [check for check, found in findings.items() if found["level"] == "FAIL" or found["blocks_golden"]]
    assert [obstacle.partition(": ")[0] for obstacle in report["golden_acceptance"]["obstacles"]] == blocked
    assert report["golden_acceptance"]["can_run"] == (not blocked)


def test_the_text_has_a_line_for_each_check_and_ends_with_the_golden_path(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    findings = (
        Finding("python", "OK", "3.11.7"),
        Finding("gpu", "WARN", "none", "get one", blocks_golden=True),
        Finding("port", "WARN", "8000 is taken", "take another"),
    )
    monkeypatch.setattr("pipeline.doctor.examine.examine", lambda: Report(findings))
    assert main(["doctor"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "OK    python: 3.11.7",
        "WARN  gpu: none -> get one",
        "WARN  port: 8000 is taken -> take another",
        "",
        "this machine cannot run the golden acceptance because gpu: none",
    ]
    monkeypatch.setattr(
        "pipeline.doctor.examine.examine", lambda: Report((*findings, Finding("memory", "FAIL", "gone")))
    )
    assert main(["doctor"]) == 1
    assert "because gpu: none; memory: gone" in capsys.readouterr().out


def test_nothing_in_the_way_means_that_golden_can_run() -> None:
    report = Report((Finding("python", "OK", "3.11.7"), Finding("port", "WARN", "8000 is taken")))
    assert report.level == "WARN"
    assert report.describe()["golden_acceptance"] == {"can_run": True, "obstacles": []}
    assert report.summary.startswith("this machine can run the golden acceptance because ")


@pytest.mark.parametrize(
    ("version", "pin", "level", "text"),
    [
        ("4.54.0", "4.54.0", "OK", "same as"),
        ("2.7.1", "2.7.1+cu126", "OK", "same as"),
        ("2.7.1+cu126", "2.7.1+cu126", "OK", "same as"),
        ("2.7.1+cpu", "2.7.1+cu126", "WARN", "in another build"),
        ("2.13.0+cpu", "2.7.1+cu126", "OK", "newer than"),
        ("5.23.0", "4.54.0", "OK", "newer than"),
        ("4.9.1", "4.54.0", "FAIL", "older than"),
        ("0.46.1.dev0", "0.46.1", "FAIL", "older than"),
        (None, "3.6.0", "FAIL", "missing"),
    ],
)
def test_a_package_against_its_pin(version: str | None, pin: str, level: str, text: str) -> None:
    finding = compare("name", version, pin)
    assert finding.level == level
    assert text in finding.detail
    assert (finding.remedy != "") == (level != "OK")


def test_every_recorded_package_has_a_pin() -> None:
    assert set(VERSIONED_PACKAGES) == GOLDEN_PINS.keys()
    assert [finding.check for finding in check_packages()] == [f"package.{name}" for name in VERSIONED_PACKAGES]


def test_the_drivers_line_is_read() -> None:
    assert parse_gpu("NVIDIA A10G, 550.54.15, 8.6, 22323, 23028\n") == GpuState(
        "NVIDIA A10G", "550.54.15", (8, 6), 22323 / 1024, 23028 / 1024
    )
    for lost in ("", "No devices were found\n", "NVIDIA A100, 550.54.15, 8.0, [N/A], [N/A]\n"):
        assert parse_gpu(lost) is None


def on_gpu(monkeypatch: pytest.MonkeyPatch, state: GpuState | None, *, usable: bool = True) -> dict[str, Finding]:
    monkeypatch.setattr(gpu, "query_gpu", lambda: state)
    monkeypatch.setattr(gpu, "query_torch", lambda: None)
    monkeypatch.setattr(torch.version, "cuda", "12.6")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: usable)
    return {finding.check: finding for finding in check_gpu()}


def test_the_documented_gpu_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    findings = on_gpu(monkeypatch, A10G)
    assert {finding.level for finding in findings.values()} == {"OK"}
    assert findings["gpu"].detail == "NVIDIA A10G, driver 550.54.15"
    assert "12.6" in findings["gpu.cuda"].detail
    assert "21.8 of 22.5 GiB" in findings["gpu.memory"].detail


@pytest.mark.parametrize(
    ("state", "usable", "check", "text"),
    [
        (None, True, "gpu", "none"),
        (GpuState("Tesla T4", "550", (7, 5), 14.5, 15.0), True, "gpu.capability", "no bfloat16 arithmetic"),
        (GpuState("NVIDIA A10G", "550", (8, 6), 11.9, 22.5), True, "gpu.memory", "11.9 of 22.5 GiB free"),
        (A10G, False, "gpu.cuda", "cannot use the GPU with driver 550.54.15"),
    ],
)
def test_a_gpu_that_golden_cannot_use(
    state: GpuState | None, usable: bool, check: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    findings = on_gpu(monkeypatch, state, usable=usable)
    blocking = [finding for finding in findings.values() if finding.blocks_golden]
    assert [finding.check for finding in blocking] == [check]
    assert text in blocking[0].detail
    assert blocking[0].level == "WARN"
    assert blocking[0].remedy


def test_a_cpu_build_of_torch_cannot_use_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "query_gpu", lambda: A10G)
    monkeypatch.setattr(torch.version, "cuda", None)
    (finding,) = [finding for finding in check_gpu() if finding.blocks_golden]
    assert "is a CPU build" in finding.detail


def test_a_port_in_use_is_reported() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        assert machine.check_port(port).level == "WARN"
    assert machine.check_port(port).level == "OK"


def test_an_environment_variable_of_the_users_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in GOLDEN_VARIABLES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "1")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    findings = {finding.check: finding for finding in machine.check_environment()}
    assert findings["environment.ACCELERATE_USE_DEEPSPEED"].level == "OK"
    changed = findings["environment.ACCELERATE_USE_FSDP"]
    assert (changed.level, changed.detail) == ("WARN", "'1', wanted '0' (golden path)")
    assert changed.remedy == "unset ACCELERATE_USE_FSDP"
    assert findings["environment.CUDA_VISIBLE_DEVICES"].detail.startswith("not set")


def test_little_memory_and_a_full_disk_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "GIB", 2**60)
    assert machine.check_memory().level == "WARN"
    cache, results = machine.check_disks()
    assert (cache.level, cache.check) == ("FAIL", "disk.cache")
    assert (results.level, results.blocks_golden) == ("WARN", True)


def test_a_cache_that_nobody_can_write_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("VERBOSITY_CACHE", str(tmp_path / "file" / "cache"))
    cache, results = machine.check_disks()
    assert (cache.level, cache.check) == ("FAIL", "disk.cache")
    assert cache.detail == f"{tmp_path}/file/cache: the cache cannot be written (Not a directory)"
    assert cache.remedy == "set VERBOSITY_CACHE to a folder that can"
    assert "free in the current folder" in results.detail


def test_a_check_that_the_system_refuses_is_a_finding_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> Finding:
        raise PermissionError(errno.EACCES, "Permission denied", "/models/config.json")

    def fine() -> list[Finding]:
        return [Finding("fine", "OK", "")]

    monkeypatch.setattr(examine_module, "CHECKS", {"model": refused, "others": fine})
    refusal, other = examine_module.examine().findings
    assert (refusal.check, refusal.level) == ("model", "FAIL")
    assert refusal.detail == "/models/config.json: Permission denied"
    assert refusal.remedy == "change its permissions or name another place"
    assert other.level == "OK"


@pytest.mark.parametrize(
    ("variables", "detail"),
    [
        ({}, None),
        ({"no_proxy": "*", "http_proxy": "http://proxy:3128"}, None),
        ({"no_proxy": "localhost,127.0.0.1", "HTTP_PROXY": "http://proxy:3128"}, None),
        ({"http_proxy": "http://user:secret@proxy:3128"}, "http_proxy is set, and no_proxy lacks localhost, 127.0.0.1"),
        ({"ALL_PROXY": "socks5://proxy", "no_proxy": "localhost"}, "ALL_PROXY is set, and no_proxy lacks 127.0.0.1"),
    ],
)
def test_a_proxy_for_local_traffic_is_reported(
    variables: dict[str, str], detail: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    finding = machine.check_proxy()
    assert finding.check == "environment.proxy"
    if detail is None:
        assert finding.level == "OK"
    else:
        assert (finding.level, finding.detail) == ("WARN", detail)
        assert finding.remedy.startswith("export no_proxy=localhost,127.0.0.1")


@pytest.fixture
def mistral_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as Mistral's, its two shards small and its index true to them."""
    monkeypatch.setenv("VERBOSITY_BASE_MODEL", str(tmp_path))
    SHAPES[models.GOLDEN.name].config().save_pretrained(tmp_path)
    write_mistral_tokenizer(tmp_path, chat_template(models.GOLDEN))
    shards = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    for shard in shards:
        (tmp_path / shard).write_bytes(b"x" * 1024)
    index = {"metadata": {"total_size": 2000}, "weight_map": dict(zip("ab", shards, strict=True))}
    (tmp_path / models.INDEX).write_text(json.dumps(index))
    return tmp_path


def test_a_complete_base_model_is_named_by_the_digest_of_its_index(mistral_folder: Path) -> None:
    first = models.check_base_model()
    assert first.level == "OK"
    assert "2 files" in first.detail
    index = mistral_folder / models.INDEX
    index.write_text(index.read_text().replace("2000", "2001"))
    assert models.check_base_model().detail != first.detail
    assert models.check_tokenizer(models.GOLDEN).level == "OK"


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda folder: (folder / "model-00002-of-00002.safetensors").unlink(), "lacks model-00002-of-00002"),
        (lambda folder: (folder / "model-00002-of-00002.safetensors").write_bytes(b"x"), "shorter than its index says"),
        (lambda folder: (folder / models.INDEX).write_text("{}"), "cannot be read"),
        (lambda folder: SHAPES["tiny-mistral"].config().save_pretrained(folder), "describes a model other than"),
        (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
    ],
)
def test_an_incomplete_base_model_stands_in_the_way(damage: Any, text: str, mistral_folder: Path) -> None:
    damage(mistral_folder)
    finding = models.check_base_model()
    assert (finding.level, finding.blocks_golden) == ("WARN", True)
    assert text in finding.detail
    assert finding.remedy


def test_a_tokenizer_of_another_model_is_reported(mistral_folder: Path) -> None:
    settings = json.loads((mistral_folder / "tokenizer_config.json").read_text())
    doubled = "{{ bos_token }}" + settings["chat_template"]
    (mistral_folder / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": doubled}))
    finding = models.check_tokenizer(models.GOLDEN)
    assert (finding.level, finding.blocks_golden) == ("FAIL", True)
    assert finding.detail == "not as expected: one BOS"


@pytest.mark.parametrize("error", [0.151, float("nan"), 1.4])
def test_a_wrong_4bit_product_is_reported(error: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arithmetic, "relative_error", lambda device: error)
    assert arithmetic.check_bitsandbytes()[0].level == "FAIL"


def test_a_backend_that_breaks_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(device: object) -> float:
        raise RuntimeError("no kernel\nfor this")

    monkeypatch.setattr(arithmetic, "relative_error", broken)
    assert arithmetic.check_bitsandbytes()[0].detail == "RuntimeError: no kernel"


def test_the_4bit_product_differs_by_the_rounding_and_no_more() -> None:
    assert 0.05 < arithmetic.relative_error(torch.device("cpu")) < arithmetic.TOLERANCE


def test_a_machine_without_torch_is_examined_all_the_same(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'peft', 'accelerate', 'bitsandbytes')));"
        "from pipeline.cli import main; sys.exit(main(['doctor', '--json']))"
    )
    finished = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3]
    )
    findings = {finding["check"]: finding for finding in json.loads(finished.stdout)["findings"]}
    assert finished.returncode == 1
    assert findings["bitsandbytes.cpu"]["remedy"] == "pip install 'verbosity[train]'"
    assert findings["tokenizer.mistral-7b-v0.3"]["level"] == "OK"


def test_an_error_that_may_be_a_bug_of_a_check_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Finding:
        raise OSError("a library's own")

    monkeypatch.setattr(examine_module, "CHECKS", {"broken": broken})
    with pytest.raises(OSError, match="a library's own"):
        examine_module.examine()


def test_the_driver_is_asked_for_the_visible_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = tmp_path / "nvidia-smi"
    command.write_text('#!/bin/sh\necho "NVIDIA A10G $1, 550.54.15, 8.6, 22323, 23028"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    assert gpu.query_gpu() == GpuState("NVIDIA A10G --id=3", "550.54.15", (8, 6), 22323 / 1024, 23028 / 1024)
    command.write_text("#!/bin/sh\nexit 9\n")
    assert gpu.query_gpu() is None


def test_torch_is_asked_for_a_gpu_that_the_driver_does_not_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "query_gpu", lambda: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (3 * 2**30, 5 * 2**30))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200 MIG 1g.18gb")
    findings = {finding.check: finding for finding in check_gpu()}
    assert findings["gpu"].detail == "NVIDIA H200 MIG 1g.18gb, driver unknown"
    assert findings["gpu.capability"].detail.startswith("9.0, with bfloat16")
    assert findings["gpu.memory"].detail.startswith("3.0 of 5.0 GiB free")


def test_a_gpu_without_torch_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "torch_is_installed", lambda: False)
    findings = on_gpu(monkeypatch, A10G)
    assert findings["gpu.cuda"].detail == "torch is not installed"
    assert findings["gpu.cuda"].remedy == "pip install 'verbosity[train]'"


def test_a_4bit_product_on_a_gpu_is_checked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(arithmetic, "relative_error", lambda device: 0.09 if device.type == "cpu" else 1.4)
    cpu, cuda = arithmetic.check_bitsandbytes()
    assert (cpu.check, cpu.level) == ("bitsandbytes.cpu", "OK")
    assert (cuda.check, cuda.level, cuda.blocks_golden) == ("bitsandbytes.cuda", "FAIL", True)


def test_a_python_that_is_too_old_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 14))
    assert (machine.check_python().level, machine.check_python().remedy) == ("FAIL", "install Python 3.11 or newer")


def test_a_base_model_in_a_single_file_needs_no_index(mistral_folder: Path) -> None:
    for file in (models.INDEX, "model-00002-of-00002.safetensors"):
        (mistral_folder / file).unlink()
    (mistral_folder / "model-00001-of-00002.safetensors").rename(mistral_folder / "model.safetensors")
    assert models.check_base_model().level == "OK"
    assert "1 files" in models.check_base_model().detail


def test_a_tokenizer_that_cannot_be_read_stands_in_the_way(mistral_folder: Path) -> None:
    (mistral_folder / "tokenizer.model").unlink()
    finding = models.check_tokenizer(models.GOLDEN)
    assert (finding.level, finding.blocks_golden) == ("WARN", True)
    assert f"{mistral_folder}: no usable tokenizer (" in finding.detail
