# Everything is done by tools/bootstrap.py, which needs nothing but Python >= 3.11.
PYTHON ?= $(or $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	command -v $$p && break; done),python3)

.DEFAULT_GOAL := help
.PHONY: help setup demo test check clean

help setup demo test check clean:
	@"$(PYTHON)" tools/bootstrap.py $@
