"""The OpenAPI document is valid, complete, and true."""

from __future__ import annotations

from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator, validate

from pipeline.service.auth import ApiKeys
from pipeline.service.lifecycle import Settings
from tests.unit.pipeline.service.fakes import Served


def document(settings: Settings | None = None) -> tuple[Served, dict[str, Any]]:
    served = Served(settings or Settings())
    found: dict[str, Any] = served.client.get("/openapi.json").get_json()
    return served, found


@pytest.mark.parametrize("keys", [(), ("a" * 64,)])
def test_the_document_is_valid(keys: tuple[str, ...]) -> None:
    _, found = document(Settings(keys=ApiKeys(keys)))
    validate(found, cls=OpenAPIV31SpecValidator)
    assert found["openapi"].startswith("3.1")
    for operation in operations(found).values():
        assert ("401" in operation["responses"]) is ("security" in operation)
    assert ("security" in operations(found)["POST", "/generate"]) is bool(keys)
    assert "security" not in operations(found)["GET", "/health"]


def operations(found: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (method.upper(), path): operation
        for path, methods in found["paths"].items()
        for method, operation in methods.items()
    }


def test_every_route_is_described_and_nothing_else() -> None:
    served, found = document()
    routes = {
        (method, rule.rule.replace("<", "{").replace(">", "}"))
        for rule in served.app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD"}
    }
    assert operations(found).keys() == routes
    assert len({operation["operationId"] for operation in operations(found).values()}) == len(routes)


def test_the_documented_contract_is_in_it() -> None:
    _, found = document()
    schemas = found["components"]["schemas"]
    assert schemas["GenerateReply"]["required"] == ["response", "style", "tokens", "latency"]
    assert schemas["GenerateRequest"]["required"] == ["prompt"]
    assert {"status", "model", "adapter", "gpu_memory"} <= set(schemas["Health"]["required"])
    assert all(body["additionalProperties"] is False for name, body in schemas.items() if name.endswith("Request"))
