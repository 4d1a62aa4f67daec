# Two commands do everything on a machine with Python and make: 'make run' and 'make test'.

PYTHON ?= python3
VENV ?= .venv
INSTALL ?= -e .
BIN = $(VENV)/bin
ADDRESS ?= 127.0.0.1:8000
JOBS ?= 2
RUNTIME ?= $(CURDIR)/run

.PHONY: help run test demo drop chaos takeover soak systemd check cover bench-peers bench-crowd bench-throughput \
	bench-counting wheel clean

help:
	@echo "make run          serve the example app on $(ADDRESS) and say what to try"
	@echo "make test         run every test"
	@echo "make demo         put load on the example app, reload it five times, count what failed"
	@echo "make drop         reload under load, for each parser, loop, transport and think time, until the first loss"
	@echo "make chaos        hit the supervisor, an old or a new worker in every phase of a reload, by SIGKILL and by SIGSTOP"
	@echo "make takeover     kill the supervisor at a random instant of a reload, 20 times, under load"
	@echo "make soak         reload for 20 minutes under load while workers are killed at random"
	@echo "make systemd      boot a real systemd in namespaces; reload, restart and kill in it, under load (needs root)"
	@echo "make bench-peers  measure uvicorn, gunicorn, granian, hypercorn and stillup side by side"
	@echo "make bench-crowd  reload stillup with 10,000 idle connections, and without"
	@echo "make bench-throughput  measure stillup beside uvicorn while nothing is reloaded (needs wrk)"
	@echo "make bench-counting    measure stillup with its metrics and without (needs wrk)"
	@echo "make check        ruff, mypy, import directions, branch coverage of core and wire"
	@echo "make wheel        build the wheel into dist/"

# pip's own --group needs 25.1.
$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet $(INSTALL)
	@touch $@

$(VENV)/tools: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --group test --group lint
	@touch $@

$(VENV)/peers: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --group peers
	@touch $@

run: $(VENV)/installed
	@echo
	@echo "  curl http://$(ADDRESS)/"
	@echo "  $(BIN)/stillup reload --runtime-dir run      # or, with curl alone:"
	@echo "  curl --unix-socket run/control.sock -X POST 'http://localhost/v1/reload?wait=true'"
	@echo "  $(BIN)/stillup status --runtime-dir run      # Ctrl-C here stops it"
	@echo
	@$(BIN)/stillup run app_example.main:app --bind $(ADDRESS) --workers 2 --name example \
		--runtime-dir $(RUNTIME) --health-path /healthz

test: $(VENV)/tools
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup $(TESTS)

demo: $(VENV)/installed
	$(BIN)/python -m benchmarks.demo

drop: $(VENV)/installed
	$(BIN)/python -m benchmarks.drop $(OPTIONS)

chaos: $(VENV)/tools
	$(BIN)/python -m tests.system.chaos $(OPTIONS)

takeover: $(VENV)/installed
	$(BIN)/python -m benchmarks.takeover $(OPTIONS)

soak: $(VENV)/installed
	$(BIN)/python -m benchmarks.soak $(OPTIONS)

systemd: $(VENV)/tools
	$(BIN)/python -m tests.system.manager $(OPTIONS)

bench-peers: $(VENV)/peers
	$(BIN)/python -m benchmarks.peers $(OPTIONS)

bench-crowd: $(VENV)/installed
	$(BIN)/python -m benchmarks.crowd $(OPTIONS)

bench-throughput: $(VENV)/installed
	$(BIN)/python -m benchmarks.throughput $(OPTIONS)

bench-counting: $(VENV)/installed
	$(BIN)/python -m benchmarks.counting $(OPTIONS)

check: $(VENV)/tools
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MAKE) cover

cover: $(VENV)/tools
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -q tests/core tests/wire
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --fail-under=100 --include='*/supervisor/core/*,*/supervisor/wire/*'

wheel: $(VENV)/tools
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean:
	rm -rf $(VENV) dist build run .coverage .coverage.*
