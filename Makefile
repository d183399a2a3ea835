# Everything runs in a virtual environment of its own; nothing but Python (3.10 or later) and make is needed.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
INFINITY = .venv-infinity
CLIENTS = .venv-clients
BENCH = .venv-bench
# No model hub is needed or asked: tests build their models, the demo's model comes with its package. Torch's threads
# should sleep while they wait, not spin: with busy cores that is several times faster.
OFFLINE = HF_HUB_OFFLINE=1 OMP_WAIT_POLICY=PASSIVE

.PHONY: help setup demo test coverage test-slow bench infinity clients providers strategies lint format clean

help:
	@echo "make demo       rerank the documentation of Python's standard library, offline"
	@echo "make test       run the tests"
	@echo "make coverage   run the tests and measure their branch coverage"
	@echo "make test-slow  run the long tests too"
	@echo "make bench      measure uprank and its peers in one run (half an hour) and write docs/performance.md"
	@echo "make infinity   set up a real Infinity server, which the tests then use"
	@echo "make clients    set up other packages' rerank clients, which the tests then point at the server"
	@echo "make providers  bring the table of services in docs/providers.md up to date"
	@echo "make strategies bring the table of strategies in docs/llm.md up to date"
	@echo "make lint       ruff and mypy --strict"
	@echo "make format     let ruff rewrite the code"

setup: $(VENV)/ready

$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[demo,local,onnx,openvino,pandas,http,cohere,llm,calibration,telemetry,server]" --group dev
	@touch $@

demo: setup
	$(OFFLINE) $(BIN)/uprank demo

test: setup
	$(OFFLINE) $(BIN)/python -m pytest

# By branch; measuring takes half as long again as the tests.
coverage: setup
	$(OFFLINE) $(BIN)/python -m pytest --cov --cov-report=term

test-slow: setup
	$(OFFLINE) $(BIN)/python -m pytest -m "slow or not slow"

# Peers need other versions of transformers, so an environment of their own. Every library uses the threads it likes.
bench: setup $(BENCH)/ready
	HF_HUB_OFFLINE=1 $(BIN)/python benchmarks/speed.py --update $(BENCH_ARGS)

$(BENCH)/ready: benchmarks/peers-requirements.txt
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install --quiet --constraint benchmarks/peers-constraints.txt --requirement $<
	@touch $@

# The server's own versions of everything, so an environment of its own; its tests are skipped without it.
infinity: $(INFINITY)/ready

$(INFINITY)/ready: tests/infinity-requirements.txt
	$(PYTHON) -m venv $(INFINITY)
	$(INFINITY)/bin/python -m pip install --quiet --requirement $<
	@touch $@

# Their pins collide with ours, so an environment of their own; their tests are skipped without it.
clients: $(CLIENTS)/ready

$(CLIENTS)/ready: tests/clients-requirements.txt
	$(PYTHON) -m venv $(CLIENTS)
	$(CLIENTS)/bin/python -m pip install --quiet --requirement $<
	@touch $@

providers: setup
	$(BIN)/python -m uprank.scorers.http.reference docs/providers.md

strategies: setup
	$(BIN)/python -m uprank.scorers.llm.reference docs/llm.md

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy src

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(INFINITY) $(CLIENTS) $(BENCH) .coverage .mypy_cache .pytest_cache .ruff_cache dist
