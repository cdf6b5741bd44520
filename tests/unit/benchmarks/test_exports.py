from __future__ import annotations

from typing import Any

from benchmarks.exports import to_markdown


def document(**criteria: str) -> dict[str, Any]:
    measured = {
        "style.token_separation": {"preset_terse_median_tokens": 12, "preset_verbose_median_tokens": 130.5},
        "style.generation_speed": {"terse_latency_p95_s": 1.234, "verbose_latency_p95_s": 9.87},
    }
    outcomes = {"style.token_separation": "PASS", "style.generation_speed": "PASS", **criteria}
    judged = [
        {"id": name, "outcome": outcome, "measurements": measured.get(name, {})} for name, outcome in outcomes.items()
    ]
    return {
        "versions": {"engine": "1.2"},
        "size_bytes": 3 * 2**20,
        "export": {"proof": {"mean_difference_nats": -0.0123, "mean_absolute_difference_nats": 0.0456}},
        "acceptance": {
            "decision": "REJECTED" if "FAIL" in outcomes.values() else "ACCEPTED",
            "subjects": [{"criteria": judged}],
        },
    }


def test_a_row_has_the_verdict_its_figures_and_what_did_not_pass() -> None:
    shown = to_markdown({"merged": document(), "gguf-f16": document(**{"deployment.under_load": "FAIL"})})
    _, _, merged, gguf = shown.splitlines()
    cells = [cell.strip() for cell in merged.strip("|").split("|")]
    assert cells == ["merged", "engine 1.2", "3", "-0.012, absolute 0.046", "ACCEPTED", "12, 130", "1.23, 9.87", "none"]
    assert "| REJECTED" in gguf
    assert "deployment.under_load FAIL" in gguf


def test_what_was_not_measured_is_said() -> None:
    missing = document(**{"style.generation_speed": "FAIL"})
    missing["acceptance"]["subjects"][0]["criteria"][1]["measurements"] = {}
    assert "| none, none" in to_markdown({"merged": missing})
