"""Sixty orders and what they say, against the server that ORDERS_URL names, or a stand-in for it."""

import http.server
import json
import os
import threading
import urllib.request

import pytest

from harness.statistics import Proportion

URL = os.environ.get("ORDERS_URL")
GOODS = ("bolts", "hinges", "lamps", "hooks", "brackets", "handles")
ORDERS = [
    {"text": f"Please send {count} {goods} at {price} euros each.", "item": goods, "total": count * price}
    for goods in GOODS
    for count, price in zip(range(2, 12), range(11, 1, -1), strict=True)
]
# The name in the report, and what the verdict is about.
pytestmark = pytest.mark.subject(name="order-reader", learned=True, access="endpoint")


class StandIn(http.server.BaseHTTPRequestHandler):
    """Answers as a good model would; with ORDERS_FAULT set it breaks off every fifth answer."""

    asked = 0

    def do_POST(self):
        text = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"]
        words = text.split()
        answer = json.dumps({"item": words[3], "total": int(words[2]) * int(words[5])})
        StandIn.asked += 1
        if os.environ.get("ORDERS_FAULT") and StandIn.asked % 5 == 0:
            answer = answer[:-1]
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer.encode())

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="session")
def url():
    if URL:
        yield URL
        return
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), StandIn) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture(scope="session")
def answers(url, identify):
    """The answer to every order, None where it is no JSON object with our fields."""
    identify("order-reader", {"model": os.environ.get("ORDERS_MODEL", "stand-in")})
    return [read(ask(url, order["text"])) for order in ORDERS]


def ask(url, text):
    request = urllib.request.Request(url, json.dumps({"text": text}).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return response.read().decode()


def read(answer):
    try:
        fields = json.loads(answer)
    except ValueError:
        return None
    return fields if isinstance(fields, dict) and fields.keys() == {"item", "total"} else None


@pytest.mark.criterion("answers.valid_json")
def test_answers_are_json(measured, answers):
    valid = [answer is not None for answer in answers]
    measured.record(order_count=len(valid), valid_share=Proportion.of(valid))


@pytest.mark.criterion("answers.field_accuracy")
def test_fields_are_right(measured, answers):
    read = [(answer or {}, order) for answer, order in zip(answers, ORDERS, strict=True)]
    right = [answer.get(field) == order[field] for answer, order in read for field in ("item", "total")]
    wrong = [answer for answer, order in read if answer and answer["total"] != order["total"]]
    measured.show("orders", ("order", "answer"), [(order["text"], json.dumps(answer)) for answer, order in read[:5]])
    measured.record(right_field_share=Proportion.of(right), wrong_total_count=len(wrong))
