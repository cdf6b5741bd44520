"""Pages of other sites: refused unless their origin is allowed."""

from __future__ import annotations

import hashlib

import pytest

from pipeline.errors import PipelineError
from pipeline.service.auth import ApiKeys
from pipeline.service.cors import Origins
from pipeline.service.lifecycle import Settings
from tests.unit.pipeline.service.fakes import Served

HERE, ELSEWHERE = "https://page.example:8443", "https://other.example"
PREFLIGHT = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type,x-stainless-lang",
}
KEYS = ApiKeys([hashlib.sha256(b"secret").hexdigest()])


def preflight(served: Served, origin: str, path: str = "/generate") -> tuple[int, dict[str, str]]:
    response = served.client.options(path, headers={"Origin": origin, **PREFLIGHT})
    return response.status_code, {name: value for name, value in response.headers if "Access-Control" in name}


def test_by_default_no_other_site_may_read_anything() -> None:
    served = Served()
    assert preflight(served, HERE) == (405, {})
    assert "Access-Control-Allow-Origin" not in served.client.get("/health", headers={"Origin": HERE}).headers


@pytest.mark.parametrize("keys", [ApiKeys(), KEYS])
def test_an_allowed_origins_preflight_needs_no_key(keys: ApiKeys) -> None:
    served = Served(Settings(keys=keys, origins=Origins([HERE, "http://localhost:3000"])))
    status, headers = preflight(served, HERE)
    assert status == 204
    assert headers["Access-Control-Allow-Origin"] == HERE
    assert headers["Access-Control-Allow-Methods"] == "POST"
    assert headers["Access-Control-Allow-Headers"] == PREFLIGHT["Access-Control-Request-Headers"]
    assert preflight(served, "http://localhost:3000", "/v1/chat/completions")[0] == 204


def test_an_allowed_page_reads_answers_and_refusals() -> None:
    served = Served(Settings(keys=KEYS, origins=Origins([HERE])))
    for key, status in (("secret", 200), ("wrong", 401)):
        headers = {"Origin": HERE, "Authorization": f"Bearer {key}"}
        response = served.client.post("/generate", json={"prompt": "Why?"}, headers=headers)
        assert response.status_code == status
        assert response.headers["Access-Control-Allow-Origin"] == HERE
        assert "X-Request-ID" in response.headers["Access-Control-Expose-Headers"]


def test_another_origin_is_not_allowed() -> None:
    served = Served(Settings(origins=Origins([HERE])))
    assert preflight(served, ELSEWHERE) == (405, {})
    response = served.client.get("/health", headers={"Origin": ELSEWHERE})
    assert "Access-Control-Allow-Origin" not in response.headers
    assert "Origin" in response.headers["Vary"]


def test_a_star_allows_any_origin() -> None:
    assert preflight(Served(Settings(origins=Origins(["*"]))), ELSEWHERE)[0] == 204


def test_an_unknown_path_stays_unknown() -> None:
    assert preflight(Served(Settings(origins=Origins([HERE]))), HERE, "/nowhere")[0] == 404


@pytest.mark.parametrize("origin", ["page.example", "https://page.example/", "https://page.example/chat", "", "null"])
def test_what_is_no_origin_is_refused(origin: str) -> None:
    with pytest.raises(PipelineError, match="--allow-origin"):
        Origins([origin])
