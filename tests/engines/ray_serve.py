"""``serve run FILE`` of Ray Serve with the address that ``--host`` and ``--port`` name; run in vLLM's environment."""

from __future__ import annotations

import argparse
import runpy
import sys
from pathlib import Path

import yaml


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    given = parser.parse_args()
    document = yaml.safe_load(given.file.read_text(encoding="utf-8"))
    document["http_options"] = {"host": given.host, "port": given.port}
    given.file.write_text(yaml.safe_dump(document), encoding="utf-8")
    sys.argv = ["serve", "run", str(given.file)]
    runpy.run_module("ray.serve.scripts", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
