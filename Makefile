# Two commands: `make demo` and `make test`. Needs Python 3.11 or newer and make; everything else goes into .venv.
# PYTHON=… names the interpreter, BIND=host:port the address of the demo.

export PYTHON
# pytest keeps the tests with their rewritten assertions as bytecode: else each of its processes rewrites them all.
unexport PYTHONDONTWRITEBYTECODE
python := .venv/bin/python

.DEFAULT_GOAL := help
.PHONY: help demo demo-cpu test test-long bench clean

help:
	$(info make demo        a chat on two worker processes; BIND=0.0.0.0:8000 in a container)
	$(info make demo-cpu    CPU-heavy messages on one worker and on one for each CPU: a table, in a minute)
	$(info make test        ruff, mypy, import-linter and all tests but the long ones)
	$(info make test-long   the tests that take minutes)
	$(info make bench       the figures in benchmarks/results, on this machine)
	$(info make clean       removes .venv and every cache)
	$(info )
	$(info PYTHON=python3.12 chooses the interpreter; without it, the newest from 3.14 to 3.11 is taken.)
	@:

# exec: the gateway takes the shell's place, so that Ctrl-C finds it, and it alone, and make waits for its exit.
demo:
	@sh scripts/bootstrap runtime && exec $(python) examples/demo.py $(if $(BIND),'$(BIND)')

demo-cpu:
	@sh scripts/bootstrap runtime && exec $(python) examples/cpu_bound/compare.py

# loadfile: the tests of a file share what is dear to make.
test:
	@sh scripts/bootstrap test
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy --strict
	.venv/bin/lint-imports
	PYTHONPATH=tests $(python) -m pytest -n 4 --dist loadfile -m 'not long' -p support.browser_count

test-long:
	@sh scripts/bootstrap test
	PYTHONPATH=tests $(python) -m pytest -n 4 --dist loadfile -m 'long and not alone'
	$(python) -m pytest -m alone

bench:
	@sh scripts/bootstrap runtime
	$(python) -m benchmarks

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
