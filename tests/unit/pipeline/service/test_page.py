"""The page in a real Chromium: what a person types, sees, hears and reaches by keyboard.

Screenshots are left in the folder that ``VERBOSITY_SCREENSHOTS`` names, if it is set.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from pipeline.service.auth import ApiKeys
from pipeline.service.lifecycle import Settings
from tests.unit.pipeline.service.fakes import FakeEngine, Served, listening
from tests.unit.pipeline.service.test_sockets import eventually

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]
LIMIT_MS = 60_000
SECONDS = re.compile(r"^\d+\.\d s$")
ANSWERS = {
    "terse": "Rate limiting caps how many requests a client may send in a given time.",
    "verbose": (
        "Rate limiting is a way of protecting a service from more work than it can do. Each client is given an "
        "allowance, say a hundred requests a minute, and whatever comes beyond it is refused or made to wait.\n\n"
        "Two methods are common. A token bucket fills at a steady rate and lets short bursts through; a sliding "
        "window counts what came in the last minute and is stricter. Either way a client that keeps to its allowance "
        "notices nothing, and one that does not learns from the answer when to try again."
    ),
}


class TalkingEngine(FakeEngine):
    """Says the first half of its answer at once and the rest when told to."""

    def answer(self, ticket: Any) -> None:
        text = ANSWERS[ticket.request.style]
        ticket.progress(text[: text.index(" ", len(text) // 2)])

    def end(self) -> None:
        for ticket in self.admission.tickets():
            self.finish(ticket, ANSWERS[ticket.request.style], token_count=len(ANSWERS[ticket.request.style]) // 5)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


@pytest.fixture
def served() -> Served:
    return Served(Settings(timeout_s=300), TalkingEngine())


@pytest.fixture
def page(browser: Browser, served: Served) -> Iterator[Page]:
    complaints: list[str] = []
    with listening(served.app) as url:
        opened = browser.new_page()
        opened.set_default_timeout(LIMIT_MS)
        opened.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        opened.on("pageerror", lambda error: complaints.append(str(error)))
        opened.on("request", lambda sent: None if sent.url.startswith((url, "data:")) else complaints.append(sent.url))
        opened.goto(url)
        yield opened
        opened.close()
    # Refusals that a test provokes are logged by the browser; anything else is a fault, foreign addresses included.
    assert [text for text in complaints if "Failed to load resource" not in text] == []


def shoot(page: Page, name: str) -> None:
    if folder := os.environ.get("VERBOSITY_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def region(page: Page, title: str) -> Any:
    return page.get_by_role("region", name=title, exact=True)


def text_of(page: Page, title: str) -> Any:
    return region(page, title).get_by_role("group")


def end_answers(served: Served) -> None:
    assert isinstance(served.engine, TalkingEngine)
    served.engine.end()


@pytest.mark.parametrize(
    ("scheme", "width"), [("light", 1200), ("dark", 1200), ("light", 400), ("dark", 400), ("light", 320)]
)
def test_both_answers_stream_side_by_side_with_their_figures(
    page: Page, served: Served, scheme: Any, width: int
) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 900})
    expect(page.get_by_text("tiny is ready.")).to_be_visible(timeout=LIMIT_MS)
    shoot(page, f"{scheme}-{width}-empty")
    page.get_by_label("Your question").fill("What is rate limiting?")
    page.get_by_role("button", name="Ask").click()
    for title, answer in (("Terse", ANSWERS["terse"]), ("Verbose", ANSWERS["verbose"])):
        expect(text_of(page, title)).to_contain_text(answer[:20], timeout=LIMIT_MS)
        expect(text_of(page, title)).to_have_attribute("aria-busy", "true")
        assert answer[-20:] not in (text_of(page, title).text_content() or "")
    shoot(page, f"{scheme}-{width}-streaming")
    end_answers(served)
    for title, answer in (("Terse", ANSWERS["terse"]), ("Verbose", ANSWERS["verbose"])):
        expect(text_of(page, title)).to_have_text(answer, timeout=LIMIT_MS)
        expect(text_of(page, title)).to_have_attribute("aria-busy", "false", timeout=LIMIT_MS)
        expect(region(page, title).locator("[data-figure=tokens]")).to_have_text(str(len(answer) // 5))
        for figure in ("first", "complete"):
            expect(region(page, title).locator(f"[data-figure={figure}]")).to_have_text(SECONDS)
    told = f"verbose: {len(ANSWERS['verbose']) // 5} tokens in"
    expect(page.locator("#summary")).to_contain_text(told, timeout=LIMIT_MS)
    shoot(page, f"{scheme}-{width}-done")
    left, right = (region(page, title).bounding_box() for title in ("Terse", "Verbose"))
    assert (left["y"] == right["y"]) is (width > 704)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert {(request.style, request.prompt) for request in served.engine.requests} == {
        ("terse", "What is rate limiting?"),
        ("verbose", "What is rate limiting?"),
    }


def test_the_keyboard_is_enough(page: Page, served: Served) -> None:
    prompt = page.get_by_label("Your question")
    expect(prompt).to_be_focused(timeout=LIMIT_MS)
    page.keyboard.type("Why?")
    page.keyboard.press("Control+Enter")
    expect(text_of(page, "Terse")).to_contain_text("Rate", timeout=LIMIT_MS)
    expect(prompt).to_be_focused()
    page.keyboard.press("Tab")
    stop = page.get_by_role("button", name="Stop")
    expect(stop).to_be_focused()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    for title in ("Terse", "Verbose"):
        expect(region(page, title).get_by_role("alert")).to_have_text("Stopped.", timeout=LIMIT_MS)
    expect(stop).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Ask")).to_be_focused()
    assert eventually(lambda: served.engine.stats().in_flight == 0)


def test_what_goes_wrong_is_said(page: Page, served: Served) -> None:
    page.get_by_label("Your question").fill("<STYLE_TERSE> Why?")
    page.get_by_role("button", name="Ask").click()
    for title in ("Terse", "Verbose"):
        expect(region(page, title).get_by_role("alert")).to_contain_text("style token", timeout=LIMIT_MS)
    shoot(page, "refused")
    served.engine.alive = False
    page.reload()
    expect(page.get_by_text("Not ready: the engine has died")).to_be_visible(timeout=LIMIT_MS)


def test_markup_in_an_answer_stays_text(page: Page, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ANSWERS, "terse", "<img src=x onerror=alert(1)> <b>bold</b> words")
    page.get_by_label("Your question").fill("Why?")
    page.get_by_role("button", name="Ask").click()
    expect(text_of(page, "Terse")).to_contain_text("<img", timeout=LIMIT_MS)
    end_answers(served)
    expect(text_of(page, "Terse")).to_have_text("<img src=x onerror=alert(1)> <b>bold</b> words", timeout=LIMIT_MS)
    assert text_of(page, "Terse").locator("*").count() == 0


def test_a_key_is_asked_for_and_used(browser: Browser) -> None:
    served = Served(Settings(keys=ApiKeys([hashlib.sha256(b"sesame").hexdigest()])), TalkingEngine())
    with listening(served.app) as url:
        page = browser.new_page()
        page.set_default_timeout(LIMIT_MS)
        page.goto(url)
        page.get_by_label("Your question").fill("Why?")
        page.get_by_role("button", name="Ask").click()
        expect(region(page, "Terse").get_by_role("alert")).to_contain_text("keys", timeout=LIMIT_MS)
        page.get_by_label("Only if this server requires one").fill("sesame")
        page.get_by_role("button", name="Ask").click()
        expect(text_of(page, "Terse")).to_contain_text("Rate", timeout=LIMIT_MS)
        end_answers(served)
        expect(text_of(page, "Terse")).to_have_text(ANSWERS["terse"], timeout=LIMIT_MS)
        page.close()


def test_the_page_takes_nothing_from_elsewhere(served: Served) -> None:
    response = served.client.get("/")
    policy = response.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert "http" not in response.get_data(as_text=True)
