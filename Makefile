# Each target sets up what it needs, from nothing: a virtual environment in .venv, then the work.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
EXAMPLE := examples/flights/flights.yaml
PIP := $(RUN) -m pip install --quiet --disable-pip-version-check

.PHONY: run test serve stop bench lint docs cluster-check sbom audit clean

run: $(VENV)/.run  ## the flights example, the whole loop: ten months of traffic in minutes
	$(RUN) -m jobs.run $(EXAMPLE) --arrivals $(dir $(EXAMPLE))data/arrivals.parquet --known known --pace 3 --lead 3d

serve: $(VENV)/.run  ## the service alone, which stays up
	$(RUN) -m jobs.serve $(EXAMPLE)

stop: $(VENV)/.run  ## end what `make serve` started
	$(RUN) -m jobs.serve $(EXAMPLE) --stop

test: $(VENV)/.dev lint  ## every check
	$(RUN) -m pytest --cov --cov-report=term:skip-covered $(PYTEST)

lint: $(VENV)/.dev  ## style, format, types
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

bench: $(VENV)/.dev  ## side by side with peers, and with the limit; tables and plots in benchmarks/results
	$(RUN) -m benchmarks

docs: $(VENV)/.dev  ## write what is generated: the reference and the JSON Schema of the declaration, the metrics, the dashboard
	$(RUN) -m app.declaration --schema > docs/evertrue.schema.json
	$(RUN) -m app.declaration --reference > docs/declaration.md
	$(RUN) -m app.telemetry > docs/metrics.md
	$(RUN) cluster/grafana/dashboard.py > cluster/grafana/evertrue.json

cluster-check: $(VENV)/.dev  ## would Ray and the clouds take the files in cluster/? what is left to fill in?
	$(RUN) -m cluster.check

sbom: $(VENV)/.dev  ## a bill of materials of what is installed to run, as CycloneDX, in dist/evertrue.cdx.json
	$(RUN) -m supply.bill dist/evertrue.cdx.json

audit: $(VENV)/.dev  ## is all locked, openly licensed, without a known vulnerability? says when nobody could be asked
	$(RUN) -m supply.audit $(AUDIT)

clean:  ## remove the virtual environments and all results
	rm -rf $(VENV) .venvs workspace examples/*/data

$(VENV)/.run: pyproject.toml requirements.lock
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(PIP) --constraint requirements.lock --editable .[examples]
	touch $@

$(VENV)/.dev: $(VENV)/.run
	$(PIP) --constraint requirements.lock --editable .[examples,benchmarks,dev]
	touch $@
