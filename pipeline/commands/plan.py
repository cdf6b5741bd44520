"""``verbosity plan``."""

from __future__ import annotations

import argparse
import sys

from pipeline.commands import Command, base_arguments, chosen_target, recipe_arguments
from pipeline.config import Preset, resolve_preset
from pipeline.environment import torch_is_installed
from pipeline.errors import PipelineError
from pipeline.planning.devices import GPUS, named_gpu, this_device


def _configure(parser: argparse.ArgumentParser) -> None:
    recipe_arguments(parser)
    parser.add_argument(
        "--gpu",
        choices=tuple(GPUS),
        help="plan for this GPU, which need not be installed (default: this machine's device)",
    )
    base_arguments(parser)


def _run(arguments: argparse.Namespace) -> int:
    if arguments.gpu and arguments.device == "cpu":
        raise PipelineError("--gpu plans for CUDA; leave out --device cpu or --gpu.")
    target = chosen_target(arguments)
    preset = resolve_preset(arguments.preset, target, max_examples=arguments.max_examples)
    from pipeline.data.store import tokenised
    from pipeline.model.base_models import open_for_planning
    from pipeline.planning.plan import make_plan, remedy, with_vocabulary

    device = named_gpu(arguments.gpu) if arguments.gpu else this_device(arguments.device or target.device)
    with open_for_planning(target, arguments.base_model) as base:
        preset = base.fit(preset)
        if not arguments.gpu:
            preset = _preset_here(preset, device.kind)
        shape = with_vocabulary(base.shape, len(base.tokenizer))
        data, _ = tokenised(arguments.data, base.tokenizer, base.folder, preset.training)
    plan = make_plan(preset, shape, data, device)
    print(f"plan: {target.name}, {plan.describe_run()}\n\n{plan.table()}\n")
    print(plan.describe_fit() + ("" if plan.fits else f"; {remedy(plan, target, data)}"))
    print(plan.describe_time())
    return 0 if plan.fits else 1


def _preset_here(preset: Preset, kind: str) -> Preset:
    if not torch_is_installed():
        print("plan: torch is not installed; assuming bfloat16 arithmetic and one thread per core", file=sys.stderr)
        return preset
    # Importing what training imports makes this process's memory comparable with that of training before loading.
    import pipeline.training.train  # noqa: F401
    from pipeline.model.loading import hardware_preset

    return hardware_preset(preset, kind)


COMMAND = Command("predict a run's memory and time before it starts", _configure, _run)
