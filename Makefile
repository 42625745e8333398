# Nothing has to be installed by hand but Python >= 3.10 with its venv module.
# Each target sets up .venv if the lock file is newer than it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.requirements.lock
TYPED := $(wildcard lightning_mav callbacks eval tests/benchmarks)

.DELETE_ON_ERROR:
.PHONY: help setup demo demo-full test faults lint lock clean

help:
	@echo "make demo     set up .venv if needed; train the whole cascade on moving shapes, make videos, write a report"
	@echo "make demo-full  the same with longer training"
	@echo "make test     set up .venv if needed; lint, type check and run the tests"
	@echo "make faults   the whole fault suite: kills, broken files, full disks; writes docs/faults.md"
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

# Runs a command and keeps its wall time, in seconds, as what the rule makes; an interrupted rule counts anew.
define timed
start=$$(date +%s); $(1) && echo $$(($$(date +%s) - start)) > $@
endef

demo: $(DEMO)/eval/done
	@echo "report: $(DEMO)/eval/report.html"
	@cd $(DEMO) && awk '{ total += $$1; name[NR] = FILENAME; seconds[NR] = $$1 } END { for (i = 1; i <= NR; i++) \
		printf "%-26s%6d s%4.0f %%\n", name[i], seconds[i], 100 * seconds[i] / total; printf "%-26s%6d s\n", "in all", total }' \
		$(STAGES:%=%/done) videos/done eval/done

demo-full:
	$(MAKE) DEMO=runs/demo-full OVERLAY=full EVAL=moving_shapes_full demo

$(DEMO)/videos/done: $(STAGES:%=$(DEMO)/%/done)
	$(call timed,$(MAV) generate --model $(DEMO) --prompts configs/demo/prompts.txt --out $(@D))

$(DEMO)/eval/done: $(DEMO)/videos/done
	$(call timed,$(BIN)/python -m eval benchmark=$(EVAL) system=make_a_video system.model=$(DEMO))

$(DEMO)/%/done: configs/demo/%.yaml | $(STAMP)
	$(call timed,$(MAV) fit --config $< $(if $(OVERLAY),--config configs/demo/$(OVERLAY)/$*.yaml) --run $(@D))

$(DEMO)/prior/done $(DEMO)/decoder_image/done: $(DEMO)/clip/done
$(DEMO)/decoder/done: $(DEMO)/decoder_image/done
$(DEMO)/interpolation/done: $(DEMO)/decoder/done
$(DEMO)/sr_spacetime/done: $(DEMO)/sr_spacetime_image/done

# Two processes of one thread each: networks as small as the tests' lose more by waiting for threads than they gain.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

faults: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "row or full" --table=docs/faults.md

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
