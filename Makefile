# `make` lists the targets. Debian's own Python runs everything, so that the archive's library versions are used.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

PYTHON := /usr/bin/python3
# A Python or a tool of somebody's home or /usr/local (pyenv, cargo) must not come first, not for pybuild either.
export PATH := /usr/sbin:/usr/bin:/sbin:/bin
VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"$$/\1/p' src/leftovers/__init__.py)
DEBS := $(foreach package,leftovers dh-leftovers,dist/$(package)_$(VERSION)_all.deb)

# Caches stay in one ignored directory, also those that root writes.
CACHE := $(CURDIR)/.cache
export PYTHONPYCACHEPREFIX := $(CACHE)/python
export RUFF_CACHE_DIR := $(CACHE)/ruff
export MYPY_CACHE_DIR := $(CACHE)/mypy

# What building needs is in debian/control; the rest is what the tests, the demo and the benchmark need.
BUILD_DEPENDS := $(shell sed -n '/^Build-Depends:/,/^[^ B]/s/^ //p' debian/control)
TEST_DEPENDS := \
  debian-archive-keyring, iproute2, ipset, iptables, mmdebstrap, mount, nftables, piuparts, procps, python3-debian, \
  python3-nftables, python3-psutil, python3-pyroute2, python3-pytest, python3-pytest-xdist, python3-yaml, systemd-container, \
  util-linux, util-linux-extra | util-linux (<< 2.42~)
# A guest with a kernel of its own (tests/lab/guest.py), only for the full tests.
FULL_DEPENDS := qemu-system-x86, qemu-utils, e2fsprogs
LINT_DEPENDS := python3-venv, shellcheck

# $(call install,RELATIONS): nothing when they are met already, as dpkg sees it; else install them, as root.
define install
if ! dpkg-checkbuilddeps -I -d '$(1)' >/dev/null 2>&1; then \
  [ $$EUID = 0 ] || { echo 'Packages are missing: run "sudo make deps" first.' >&2; exit 1; }; \
  apt-get -q update; \
  DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends satisfy 'dpkg-dev, $(1)'; \
fi
endef

PYTEST := $(PYTHON) -m pytest -o cache_dir=$(CACHE)/pytest
# So many tests at once: a lab's host waits much, and takes about a gigabyte.
JOBS := 3
TESTS := tests/unit tests/conformance tests/kernel tests/lab
SHELL_FILES = $(shell find .ci bench debian hooks snap tests -type f -exec \
  awk 'FNR == 1 && /^\#!.*sh$$|^\# shellcheck shell=/ { print FILENAME } { nextfile }' {} + 2>/dev/null)

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1	/p' $(MAKEFILE_LIST) | expand -t 14

.PHONY: deps
deps: packages .venv/done ## install what building, testing and linting need (as root)

.PHONY: packages
packages:
	@$(call install,$(BUILD_DEPENDS) $(TEST_DEPENDS))

.venv/done: .ci/requirements.txt
	@$(call install,$(LINT_DEPENDS))
	$(PYTHON) -m venv --clear .venv
	.venv/bin/pip install -q -r .ci/requirements.txt
	touch $@

.PHONY: lint
lint: .venv/done ## ruff, mypy, shellcheck
	@$(call install,$(LINT_DEPENDS))
	.venv/bin/ruff check -q . debian/sbin/leftovers
	.venv/bin/ruff format -q --check . debian/sbin/leftovers
	.venv/bin/mypy --strict --no-error-summary
	shellcheck -x $(SHELL_FILES)
	shellcheck --shell=sh debian/debhelper/*-leftovers

.PHONY: check
check: packages ## all tests but the long ones (as root)
	@$(PYTEST) -n $(JOBS) -m 'not full' $(TESTS)

.PHONY: check-full
check-full: packages ## all tests (as root; takes long)
	@$(call install,$(FULL_DEPENDS))
	@$(PYTEST) -n $(JOBS) $(TESTS)

.PHONY: check-guest
check-guest: packages ## those of them that need a kernel of their own, in QEMU (as root)
	@$(call install,$(FULL_DEPENDS))
	@$(PYTEST) tests/lab/test_guest.py tests/lab/test_guest_networks.py

.PHONY: deb
deb: $(DEBS) ## build the Debian packages in dist/

# Built in a copy: dh writes into the tree that it builds.
$(DEBS) &: $(shell find debian docs hooks src -type f -not -name '*.pyc') LICENSE README.md pyproject.toml setup.cfg
	@$(call install,$(BUILD_DEPENDS))
	@copy=$$(mktemp -d) && trap 'rm -rf "$$copy"' EXIT && mkdir "$$copy/leftovers" && \
	  tar -c --exclude=__pycache__ --exclude='*.egg-info' $^ | tar -x -C "$$copy/leftovers" && \
	  (cd "$$copy/leftovers" && dpkg-buildpackage -b -d -us -uc) && \
	  mkdir -p dist && rm -f dist/leftovers_*.deb dist/dh-leftovers_*.deb && \
	  cp $(DEBS:dist/%="$$copy/%") dist/

.PHONY: demo
demo: packages deb ## install, use and purge Incus on a throwaway host, and clean up after it (as root)
	@$(PYTHON) tests/lab/demo.py

.PHONY: bench
bench: packages ## our batches against the published scripts' ways and the kernel's floor (as root)
	@$(PYTHON) bench/run.py

.PHONY: clean
clean: ## remove what make made
	rm -rf .cache .venv dist
