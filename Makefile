# Nothing has to be installed by hand but Python >= 3.10 with its venv module.
# Each target sets up .venv if the lock file is newer than it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.requirements.lock
TYPED := $(wildcard lightning_mav callbacks eval)

.DELETE_ON_ERROR:
.PHONY: help setup demo demo-full test lint lock clean

help:
	@echo "make demo     set up .venv if needed; train the whole cascade on moving shapes, make videos, write a report"
	@echo "make demo-full  the same with longer training"
	@echo "make test     set up .venv if needed; lint, type check and run the tests"
	@echo "make lint     ruff and mypy only"
	@echo "make setup    .venv only"
	@echo "make lock     write requirements.lock anew from pyproject.toml"
	@echo "make clean    remove .venv and caches; runs/ stays"

setup: $(STAMP)

# uv from the PATH if it is there, else its own copy inside the new environment.
$(STAMP): requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "error: Python 3.10 or newer is needed; call make PYTHON=/path/to/it" >&2; exit 5; }
	$(PYTHON) -m venv --clear $(VENV)
	command -v uv >/dev/null || $(BIN)/python -m pip install --quiet uv
	PATH="$(PATH):$(CURDIR)/$(BIN)" uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	cp requirements.lock $@

# The demo: one rule per stage, each a public command; run again after an interruption, it continues.
DEMO := runs/demo
EVAL := moving_shapes
MAV := $(BIN)/python -m lightning_mav
STAGES := clip prior decoder_image decoder interpolation sr_spacetime_image sr_spacetime sr_spatial

demo: $(DEMO)/videos/done
	$(BIN)/python -m eval benchmark=$(EVAL) system=make_a_video system.model=$(DEMO)

demo-full:
	$(MAKE) DEMO=runs/demo-full OVERLAY=full EVAL=moving_shapes_full demo

$(DEMO)/videos/done: $(STAGES:%=$(DEMO)/%/done)
	$(MAV) generate --model $(DEMO) --prompts configs/demo/prompts.txt --out $(@D)
	touch $@

$(DEMO)/%/done: configs/demo/%.yaml | $(STAMP)
	$(MAV) fit --config $< $(if $(OVERLAY),--config configs/demo/$(OVERLAY)/$*.yaml) --run $(@D)
	touch $@

$(DEMO)/prior/done $(DEMO)/decoder_image/done: $(DEMO)/clip/done
$(DEMO)/decoder/done: $(DEMO)/decoder_image/done
$(DEMO)/interpolation/done: $(DEMO)/decoder/done
$(DEMO)/sr_spacetime/done: $(DEMO)/sr_spacetime_image/done

test: lint
	$(BIN)/python -m pytest

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(TYPED)

lock: $(STAMP)
	command -v uv >/dev/null || $(BIN)/python -m pip install --quiet uv
	PATH="$(PATH):$(CURDIR)/$(BIN)" uv pip compile --quiet --universal --python-version 3.10 --generate-hashes \
		--no-header --no-annotate --no-emit-index-url --group dev -o requirements.lock pyproject.toml

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -not -path "./runs/*" -prune -exec rm -rf {} +
