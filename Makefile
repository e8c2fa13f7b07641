# Every target sets up what it needs. `make run` and `make test` are all a newcomer has to know.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

# How long `make fuzz` looks for findings.
SECONDS ?= 3600

.PHONY: help venv run test check messages bench bench-post bench-command bench-bounce fuzz power-loss peers clean
help:
	@echo "make run     start postroom with an embedded database, nothing to configure"
	@echo "make test    run all tests"
	@echo "make check   style, types, import contracts"
	@echo "make bench   measure postroom beside other servers"
	@echo "make bench-post  measure posts on their way to members, beside GNU Mailman"
	@echo "make bench-command  measure commands that come by mail, beside GNU Mailman"
	@echo "make bench-bounce  measure mail that comes back, beside GNU Mailman"
	@echo "make messages  collect the sentences that people are told, for translation"
	@echo "make fuzz    look for input that breaks something, for an hour (SECONDS=3600)"
	@echo "make power-loss  cut the power at every flush of a busy server, and look what is left"
	@echo "make peers   install the Debian packages that some tests and the bench talk to, get samples"

venv: $(VENV)/.run

# Debian packs the venv module apart from python3.
$(VENV)/.venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "postroom needs Python 3.11 or newer: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { $(SUDO) apt-get update -q && $(SUDO) apt-get install -q -y python3-venv; } \
	  || { echo "postroom needs Python's venv module: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	@touch $@

$(VENV)/.run: $(VENV)/.venv pyproject.toml
	$(BIN)/pip install --quiet --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	$(BIN)/pip install --quiet --editable '.[postgres,dkim]' --group dev
	@touch $@

$(VENV)/.fuzz: $(VENV)/.dev
	$(BIN)/pip install --quiet --group fuzz
	@touch $@

$(VENV)/.bench: $(VENV)/.dev
	$(BIN)/pip install --quiet --group bench
	@touch $@

run: $(VENV)/.run
	$(BIN)/postroom serve

# A file's tests stay together; more than four at a time would wait for the disk.
test: $(VENV)/.dev
	$(BIN)/pytest -n auto --maxprocesses 4 --dist loadfile

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Sentences of the sources go into each language's postroom.po, and what is translated there into
# postroom.mo, which is what the server reads. To translate, run it, edit, and run it again.
LOCALE := src/postroom/notices/locale
messages: $(VENV)/.dev
	@mkdir -p build
	$(BIN)/pybabel -q extract --no-default-keywords --keyword=sentence --add-location=file \
	  --sort-by-file --output-file=build/postroom.pot src/postroom
	$(BIN)/pybabel -q update --domain=postroom --input-file=build/postroom.pot \
	  --output-dir=$(LOCALE) --no-fuzzy-matching --ignore-obsolete --ignore-pot-creation-date
	$(BIN)/pybabel -q compile --domain=postroom --directory=$(LOCALE)

bench: $(VENV)/.bench
	$(BIN)/python -m bench

bench-post: $(VENV)/.dev
	$(BIN)/python -m bench.post

bench-command: $(VENV)/.dev
	$(BIN)/python -m bench.command

bench-bounce: $(VENV)/.dev
	$(BIN)/python -m bench.bounce

fuzz: $(VENV)/.fuzz
	$(BIN)/python -m fuzz all --seconds $(SECONDS)
	$(BIN)/pytest tests/fuzz --hypothesis-profile=fuzz

power-loss: $(VENV)/.dev
	$(BIN)/python -m tests.crash.power_loss --messages 5000 --small-log
	$(BIN)/python -m tests.crash.power_loss --messages 5000

peers: .peers/flufl.bounce/.done
	sh tests/interop/peers.sh

# The bounces that flufl.bounce is tested with are in its source distribution alone.
.peers/flufl.bounce/.done: | $(VENV)/.dev
	rm -rf $(@D) && mkdir -p $(@D)
	$(BIN)/pip download --quiet --no-deps --no-binary flufl.bounce --dest $(@D) 'flufl.bounce>=6'
	tar -xz --strip-components=1 -C $(@D) -f $(@D)/flufl_bounce-*.tar.gz
	touch $@

clean:
	rm -rf $(VENV) .peers build dist bench/out
