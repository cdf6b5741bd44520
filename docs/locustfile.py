"""A load of your own: `pip install locust`, then `locust -f docs/locustfile.py --host http://127.0.0.1:8000`.

Each user asks in both styles in turn and, when refused, comes back when it is told to. A refusal is no failure; it is
counted by the name `refused`. VERBOSITY_API_KEY is sent as a bearer token.
"""

import os
from itertools import cycle

import gevent
from locust import HttpUser, task

QUESTIONS = ("What is a sonnet?", "What causes the ocean tides?", "What is a mortgage?", "How does a rainbow form?")


class Asker(HttpUser):
    """Somebody who asks one question after the other."""

    def on_start(self) -> None:
        """Begin with the first question."""
        key = os.environ.get("VERBOSITY_API_KEY")
        self.client.headers.update({"Authorization": f"Bearer {key}"} if key else {})
        self.turns = cycle([(question, style) for question in QUESTIONS for style in ("terse", "verbose")])

    @task
    def ask(self) -> None:
        """Ask until there is an answer."""
        question, style = next(self.turns)
        while True:
            with self.client.post(
                "/generate", json={"prompt": question, "style": style}, name=style, catch_response=True
            ) as response:
                if response.status_code != 503:
                    return
                response.request_meta["name"] = "refused"
                response.success()
            gevent.sleep(float(response.headers.get("Retry-After", 1)))
