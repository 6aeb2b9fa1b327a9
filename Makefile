# Every target prepares what it needs: .venv, uv inside it, the locked packages, the project itself.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

BEAM = $(shell $(BIN)/python -c 'from importlib.metadata import version as v; print(v("apache-beam"))')
JOB_SERVER = org.apache.beam:beam-runners-flink-1.20-job-server

.PHONY: demo test check format reference lock clean flink flink-up flink-down flink-jar flink-test cluster-test prism

demo: $(INSTALLED)
	$(BIN)/stillstream demo --out demo

test: $(INSTALLED)
	$(BIN)/pytest

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

reference: $(INSTALLED)
	$(BIN)/python -m docs.make_reference

$(INSTALLED): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $@

# A real cluster: Flink's distribution, started as three processes and stopped. Java comes from the machine.
flink: build/flink/pyflink/version.py

build/flink/pyflink/version.py: tests/flink-requirements.txt $(INSTALLED)
	$(BIN)/uv pip install --quiet --no-deps --require-hashes --target build/flink -r tests/flink-requirements.txt
	touch $@

flink-up: flink
	$(BIN)/python tests/flink_cluster.py up

flink-down:
	$(BIN)/python tests/flink_cluster.py down

# Beam's job server for Flink, by Maven; the pipelines run on Flink itself only where this can be had.
flink-jar: $(INSTALLED)
	mkdir -p build/flink
	mvn --quiet $(MVN_FLAGS) dependency:copy -Dartifact=$(JOB_SERVER):$(BEAM) -DoutputDirectory=$(CURDIR)/build/flink

# Beam's own job service, a Go command of the same release.
prism: $(BIN)/prism

$(BIN)/prism: $(INSTALLED)
	GOBIN=$(CURDIR)/$(BIN) go install github.com/apache/beam/sdks/v2/go/cmd/prism@v$(BEAM)

# What is missing here is left out and said at the end, with the reason.
flink-test: $(INSTALLED)
	-test -x "$$(command -v java)" && $(MAKE) flink
	$(BIN)/pytest -m flink -rs tests/test_flink.py

cluster-test: $(INSTALLED)
	-test -x "$$(command -v go)" && $(MAKE) prism
	$(BIN)/pytest -m flink -rs tests/test_cluster.py tests/test_worker_pool.py

lock:
	$(BIN)/uv pip compile --quiet --universal --all-extras --generate-hashes --no-header \
		pyproject.toml -o requirements.lock

clean:
	rm -rf $(VENV) demo build *.egg-info .pytest_cache .mypy_cache .ruff_cache
