# Two commands do everything on a machine with Python and make: 'make run' and 'make test'.

PYTHON ?= python3
VENV ?= .venv
INSTALL ?= -e .
BIN = $(VENV)/bin
ADDRESS ?= 127.0.0.1:8000
JOBS ?= 8
LAWS = tests/core tests/wire tests/daemon/workers tests/worker/test_strange_supervisors.py
# Whatever PROVE=full makes a difference to; what installs is proved by prove-install.
REPEATS = $(filter-out tests/system/test_supervisord.py tests/system/manager/test_deploy_page.py tests/system/fleet/%,$(shell grep -rlE --include='test_*.py' 'harness import.*\b(FULL|sample)\b' tests))
RUNTIME ?= $(CURDIR)/run

.PHONY: help run demo wheel clean test check cover \
	prove prove-drop prove-takeover prove-chaos prove-systemd prove-soak prove-hostile prove-laws prove-repeats prove-install prove-peers prove-websockets prove-fleet \
	pictures bench-peers bench-boot bench-tail bench-sockets bench-idle bench-throughput bench-websockets bench-counting bench-before

.NOTPARALLEL:  # one load at a time

help: ## show this
	@awk -F ':.*## ' '/^##@ / { printf "\n%s\n", substr($$0, 5) } /^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' \
		$(firstword $(MAKEFILE_LIST))

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

$(VENV)/uvicorn-tests: $(VENV)/tools
	$(BIN)/python -m pip install --quiet --group uvicorn-tests
	@touch $@

##@ Use
run: $(VENV)/installed ## serve the example app on ADDRESS (127.0.0.1:8000) until Ctrl-C, and say what to try
	@echo
	@echo "  curl http://$(ADDRESS)/"
	@echo "  $(BIN)/stillup reload --runtime-dir run      # or, with curl alone:"
	@echo "  curl --unix-socket run/control.sock -X POST 'http://localhost/v1/reload?wait=true'"
	@echo "  $(BIN)/stillup status --runtime-dir run      # Ctrl-C here stops it"
	@echo
	@$(BIN)/stillup run app_example.main:app --bind $(ADDRESS) --workers 2 --name example \
		--runtime-dir $(RUNTIME) --health-path /healthz

demo: $(VENV)/installed ## put load on the example app, reload it five times, count what failed (15 s)
	$(BIN)/python -m benchmarks.demo $(OPTIONS)

wheel: $(VENV)/tools ## build the wheel into dist/ (10 s)
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean: ## remove the virtual environment and everything that was built
	rm -rf $(VENV) dist build run .coverage .coverage.*

##@ Test
test: $(VENV)/tools ## run every test, or those in TESTS (6 min)
	@# Compiled once, and not by a thousand processes, nor, with their assertions, by each of those that run tests.
	@test ! -d supervisor || $(BIN)/python -m compileall -q supervisor benchmarks & \
		PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --collect-only -q $(TESTS) >/dev/null 2>&1; wait
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n $(JOBS) --dist loadgroup $(TESTS)

check: $(VENV)/tools ## ruff, mypy, the directions of imports, and make cover (2 min)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MAKE) cover

cover: $(VENV)/tools ## branch coverage of core and wire: 100 %, or it fails (1 min)
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -q tests/core tests/wire
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --fail-under=100 --include='*/supervisor/stillup/core/*,*/supervisor/stillup/wire/*'

##@ Prove (under a load of every kind, until the first loss; OPTIONS=--help says what can be chosen)
prove: prove-drop prove-takeover prove-chaos prove-systemd prove-laws prove-repeats prove-install prove-peers prove-websockets prove-fleet prove-hostile prove-soak ## all of the following (80 min; root, for systemd)

prove-drop: $(VENV)/installed ## reload 20 times with each parser, loop, transport and think time (10 min)
	$(BIN)/python -m benchmarks.drop $(OPTIONS)

prove-takeover: $(VENV)/installed ## kill the supervisor at a random instant of a reload, 20 times (3 min)
	$(BIN)/python -m benchmarks.takeover $(OPTIONS)

prove-chaos: $(VENV)/tools ## kill and stop the supervisor, an old and a new worker in every phase of a reload (15 min)
	$(BIN)/python -m tests.system.chaos $(OPTIONS)

prove-systemd: $(VENV)/tools ## reload, restart, kill and upgrade in a systemd booted in namespaces, this one, 257 and 262 (10 min; root, apt)
	$(BIN)/python -m tests.system.manager $(OPTIONS)
	for version in 257 262; do SYSTEMD=$$version $(BIN)/python -m pytest -q -p no:cacheprovider tests/system/manager || exit; done

prove-fleet: $(VENV)/tools ## three hosts and containers behind HAProxy and nginx, in Kubernetes' order, by Ansible (6 min; root, and those programs)
	PROVE=full $(BIN)/python -m pytest -s tests/system/fleet $(OPTIONS)

prove-hostile: $(VENV)/installed ## reload beside a worker that misbehaves by turns (10 min, or OPTIONS="--minutes 2 --reloads 22")
	$(BIN)/python -m benchmarks.hostile $(OPTIONS)

prove-soak: $(VENV)/installed ## reload while workers are killed at random (20 min, or OPTIONS="--minutes 5")
	$(BIN)/python -m benchmarks.soak $(OPTIONS)

prove-laws: $(VENV)/tools ## the laws of the core and all that Hypothesis makes up, with 1,000 examples each (10 min)
	$(BIN)/python -m pytest -n $(JOBS) --timeout 1800 --hypothesis-profile prove $(LAWS) $(OPTIONS)

prove-repeats: $(VENV)/tools ## the tests that try a random instant or many reloads in a row, as often as it takes (8 min)
	PROVE=full $(BIN)/python -m pytest -n $(JOBS) --dist loadgroup --timeout 900 $(REPEATS) $(OPTIONS)

prove-install: $(VENV)/tools ## install it, or WHEEL, beside supervisord in both orders, and as the pages say (2 min; pip)
	PROVE=full WHEEL=$(WHEEL) $(BIN)/python -m pytest tests/system/test_supervisord.py tests/docs/test_pages.py \
		tests/system/manager/test_deploy_page.py $(OPTIONS)

prove-peers: $(VENV)/uvicorn-tests ## run uvicorn's own tests with our classes in place of its own; each ends as with its own (4 min; pip)
	$(BIN)/python -m tests.peers $(OPTIONS)

prove-websockets: $(VENV)/tools ## run Autobahn's WebSocket fuzzer against uvicorn, and stillup while it reloads; no case ends worse (6 min; pip)
	$(BIN)/python -m tests.autobahn $(OPTIONS)

##@ Pages
pictures: $(VENV)/tools ## draw the pictures of the pages, from what is shown and what was measured (2 min; chromium, tmux)
	$(BIN)/python -m pip install --quiet --group pictures
	$(BIN)/python -m docs.make_plots
	$(BIN)/python -m docs.make_pictures

##@ Bench (docs/benchmarks.md says what each measures)
bench-peers: $(VENV)/peers ## what clients see of a reload: uvicorn, gunicorn, granian, hypercorn and stillup (4 min)
	$(BIN)/python -m benchmarks.peers --json docs/measured/peers.json $(OPTIONS)

bench-boot: $(VENV)/peers ## a reload, a kill and memory beside a bare start of uvicorn (12 min)
	$(BIN)/python -m benchmarks.boot --json docs/measured/boot.json $(OPTIONS)

bench-tail: $(VENV)/peers ## how long requests take in a reload: stillup, uvicorn, gunicorn, granian (16 min)
	$(BIN)/python -m benchmarks.reload_tail --json docs/measured/tail.json $(OPTIONS)

bench-sockets: $(VENV)/installed ## a Unix socket beside TCP: the example app, and redis (2 min; nghttp2-client, redis-server)
	$(BIN)/python -m benchmarks.socket_kinds --json docs/measured/sockets.json $(OPTIONS)

bench-idle: $(VENV)/installed ## a reload with 10,000 idle connections, and one without (1 min)
	$(BIN)/python -m benchmarks.idle_connections $(OPTIONS)

bench-throughput: $(VENV)/installed ## requests a second beside uvicorn while nothing is reloaded (2 min; wrk)
	$(BIN)/python -m benchmarks.throughput $(OPTIONS)

bench-websockets: $(VENV)/installed ## WebSocket messages a second beside uvicorn (2 min)
	$(BIN)/python -m benchmarks.websocket_rate $(OPTIONS)

bench-counting: $(VENV)/installed ## requests a second with the figures for /metrics and without (4 min; wrk)
	$(BIN)/python -m benchmarks.counting $(OPTIONS)

bench-before: $(VENV)/installed ## requests a second, reload time and memory beside COMMIT, with this tree once more (13 min; wrk)
	$(BIN)/python -m benchmarks.before $(COMMIT) $(OPTIONS)
