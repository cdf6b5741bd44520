"""``python -m benchmarks.endpoints``: start a server of OpenAI's protocol, judge it from outside, and stop it.

Leaves the documents of the acceptance, and ``server.json`` with the server's command and packages, in a folder.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers import COMPILING_LIMIT_S, package_versions, running
from harness.files import write_text_atomically
from harness.provenance import collect
from harness.report.document import portable_arguments
from harness.verdict import EXIT_CODES, Decision

ROOT = Path(__file__).resolve().parents[1]


def judge(url: str, options: Sequence[str], output: Path) -> Decision:
    """Judge a running server, and keep the documents.

    Args:
        url: Its address.
        options: Options for pytest.
        output: Where the documents are kept.

    Returns:
        The decision.

    Raises:
        RuntimeError: pytest ended without a decision.
    """
    with tempfile.TemporaryDirectory() as results:
        command = [sys.executable, "-m", "pytest", "acceptance", "-n", "0", "-m", "deployment", *options]
        command += ["--endpoint", url, f"--acceptance-dir={results}"]
        status = subprocess.run(command, cwd=ROOT, check=False).returncode
        decisions = {code: decision for decision, code in EXIT_CODES.items()}
        if status not in decisions:
            raise RuntimeError(f"the acceptance ended with status {status} and without a decision")
        left_out = shutil.ignore_patterns("*.html", "accepted.json")
        shutil.copytree(results, output, ignore=left_out, dirs_exist_ok=True)
    return decisions[status]


def main() -> None:
    """Start, judge, stop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="the server's name for the model")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="where the documents are kept")
    parser.add_argument("--packages", nargs="+", default=[], help="packages whose versions are recorded")
    parser.add_argument("--option", action="append", default=[], help="an option for pytest, such as --target=NAME")
    parser.add_argument("command", nargs="+", help="after --: the server's command, Python first, without its address")
    given = parser.parse_args()
    provenance = collect(ROOT)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "server.log"
        with running(given.command, log, ready="/v1/models", limit_s=COMPILING_LIMIT_S) as url:
            decision = judge(url, ["--protocol", "openai", "--model", given.model, *given.option], given.output)
    server = {
        "command": portable_arguments(given.command, ROOT),
        "packages": package_versions(Path(given.command[0]), *given.packages),
        "decision": str(decision),
        "provenance": provenance,
    }
    write_text_atomically(given.output / "server.json", json.dumps(server, indent=1) + "\n")
    print(f"{given.output}: {decision}")


if __name__ == "__main__":
    main()
