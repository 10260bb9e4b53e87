# `make demo`, `make app` and `make test` are the whole set-up. The other targets are for work on the studio itself.

PYTHON ?= python3
PROMPT ?= a teddy bear
# A torch that $(PYTHON) already has (a CUDA build, say) is kept; otherwise this one is installed.
TORCH ?= torch==2.13.0

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

# Where npm puts what reads our .glb files and is not ours.
NODE := build/node

.PHONY: demo app test test-web screenshots test-cuda lint kernels sanitize bench validate-glb browse-glb browse-clips clean

demo: $(VENV)/installed
	$(BIN)/studio generate "$(PROMPT)"

app: $(VENV)/installed-web
	$(BIN)/python app.py

# One worker a core: a torch of many threads gains nothing on tests so small.
test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n logical --maxprocesses 8 --dist worksteal

test-web: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m browser tests/web

screenshots: $(VENV)/installed-dev
	$(BIN)/python -m tests.web.screenshots docs/images

test-cuda: $(VENV)/installed-dev
	$(BIN)/python -m pytest tests/cuda

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/mypy

kernels: $(VENV)/installed
	$(PIP) install --no-deps -c constraints.txt -e .

# The C++ tests under the address and undefined-behaviour sanitizers; ISAS="base;v3;v4" for every instruction set. The
# build lies deeper than those that the studio looks for kernels in.
ISAS ?= base
sanitize: $(VENV)/installed-dev
	$(BIN)/cmake -G Ninja -D CMAKE_MAKE_PROGRAM="$(CURDIR)/$(BIN)/ninja" -D STUDIO_CUDA=OFF -D STUDIO_TESTS=ON \
	  -D STUDIO_SANITIZE=address,undefined -D "STUDIO_ISAS=$(ISAS)" -S . -B build/tests/sanitize
	$(BIN)/cmake --build build/tests/sanitize
	$(BIN)/ctest --test-dir build/tests/sanitize --output-on-failure

bench: $(VENV)/installed-dev
	for name in kernels guidance; do $(BIN)/python benchmarks/$$name.py || exit 1; done

$(NODE)/installed: Makefile
	npm install --silent --no-save --prefix $(NODE) gltf-validator@2.0.0-dev.3.10 three@0.187.0 \
	  lottie-web@5.13.0
	touch $@

validate-glb: $(VENV)/installed-dev $(NODE)/installed
	$(BIN)/python -m tests.export.glb_kinds build/glb
	cd $(NODE) && node ../../tests/export/validate_glb.mjs ../glb/*.glb

# Also needs Chromium.
browse-glb: $(VENV)/installed-dev $(NODE)/installed
	$(BIN)/python -m tests.export.glb_in_browser $(NODE)/node_modules docs/images/glb-in-browser.png

browse-clips: $(VENV)/installed-dev $(NODE)/installed
	$(BIN)/python -m tests.export.clips_in_browser $(NODE)/node_modules docs/images/clips-in-browser.png

clean:
	rm -rf build dist $(VENV) .mypy_cache .pytest_cache .ruff_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' \
	  || { echo "Studio needs Python 3.10 to 3.13; name one: make PYTHON=python3.12 demo" >&2; exit 2; }
	@echo "Making $(VENV) and installing the libraries into it (a few minutes, once)"
	if $(PYTHON) -c 'import torch' 2>/dev/null; \
	  then $(PYTHON) -m venv --system-site-packages $(VENV); \
	  else $(PYTHON) -m venv $(VENV); fi
	$(BIN)/python -c 'import torch' 2>/dev/null || $(PIP) install -c constraints.txt '$(TORCH)'

$(VENV)/installed: $(BIN)/python pyproject.toml constraints.txt CMakeLists.txt
	$(PIP) install -c constraints.txt -e .
	touch $@

$(VENV)/installed-web: $(BIN)/python pyproject.toml constraints.txt CMakeLists.txt
	$(PIP) install -c constraints.txt -e '.[web]'
	touch $(VENV)/installed $@

$(VENV)/installed-dev: $(BIN)/python pyproject.toml constraints.txt CMakeLists.txt
	$(PIP) install -c constraints.txt -e '.[dev]'
	touch $(VENV)/installed $@
