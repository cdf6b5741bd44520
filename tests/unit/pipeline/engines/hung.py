"""``python -m tests.unit.pipeline.engines.hung RUN ENGINE`` closes an engine whose step never ends, and then ends."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

from pipeline.config import Style
from pipeline.engines.interface import AnswerRequest
from pipeline.engines.selection import EngineName, open_local
from pipeline.run_folder import RunFolder
from tests.unit.pipeline.engines.exact import exact_model


def main() -> None:
    """Let a step begin, close, and say so."""
    loaded, began = exact_model(RunFolder(Path(sys.argv[1]))), threading.Event()
    name: EngineName = "serial" if sys.argv[2] == "serial" else "continuous"
    engine = open_local(name, loaded.model, loaded.tokenizer, max_in_flight=2)
    vars(sys.modules[type(engine).__module__])["STOP_LIMIT_S"] = 0.1

    def hang(*ignored: Any) -> None:
        began.set()
        threading.Event().wait()

    loaded.model.get_input_embeddings().register_forward_hook(hang)
    engine.submit(AnswerRequest("Why?", Style.TERSE, 300))
    began.wait()
    engine.close()
    print("closed", flush=True)


if __name__ == "__main__":
    main()
