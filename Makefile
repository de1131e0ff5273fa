# `make COMMAND` is `python3 tools/course.py COMMAND`. Works with the make of macOS (3.81) too.

# PYTHON=python3.12 chooses the interpreter; without it, the first of these that is new enough.
PYTHON := $(or $(PYTHON),$(shell for p in python3 python3.13 python3.12 python3.11 python3.14; do \
            $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && exit; \
          done; echo python3))

commands := lab test test-all check packages export site workshop notebooks weights real-weights bench speed \
            constraints

.PHONY: help $(commands) binder-lock binder-link colab
.NOTPARALLEL:

help:
	@$(PYTHON) tools/course.py
	@sed -n 's/^## //p' Makefile

# PYTHON=, TORCH=, NOTEBOOK=, DEVICE= and ARGS= reach it by make's environment.
$(commands):
	@$(PYTHON) tools/course.py $@

## make binder-link  print the link that opens a notebook on Binder   NOTEBOOK=01_two_backbones REF=v1.0.0 (a tag)
binder-link:
	@$(PYTHON) tools/binder_link.py "$(NOTEBOOK)" "$(REF)"

## make binder-lock  write what Binder installs, as constraints.txt has it
binder-lock:
	@$(PYTHON) tools/binder_lock.py

## make colab        write the notebooks for Colab into build/colab   REF=v1.0.0 (a tag)
colab:
	@$(PYTHON) tools/colab.py "$(REF)"
