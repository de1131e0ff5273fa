# What `make` does, in ordinary tools. Works with the make of macOS (3.81) too.

bin         := .venv/bin
settings    := .venv/share/jupyter/lab/settings
notebooks   := $(sort $(wildcard notebooks/*.ipynb)) $(sort $(wildcard notebooks/deeper/*.ipynb))
torch_index := https://download.pytorch.org/whl/cpu

# PYTHON=python3.12 chooses the interpreter; without it, the first of these that is new enough.
given  := $(PYTHON)
PYTHON := $(or $(PYTHON),$(shell for p in python3 python3.13 python3.12 python3.11 python3.14; do \
            $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && exit; \
          done; echo python3))

$(if $(filter-out cpu pypi,$(TORCH)),$(error TORCH is cpu (PyTorch's CPU wheels) or pypi (the default), not $(TORCH)))

.PHONY: help lab test test-all notebooks bench speed weights real-weights constraints export
.PHONY: binder-lock binder-link colab
.PHONY: environment lab-packages test-packages
.NOTPARALLEL:

help:
	@sed -n 's/^## //p' Makefile

## make lab          start JupyterLab on the notebooks   ARGS="--no-browser --port 9000" are passed on
lab: lab-packages
	$(if $(notebooks),$(bin)/jupyter trust $(notebooks))
	mkdir -p $(settings) && cp jupyter/overrides.json $(settings)
	mkdir -p .venv/etc/jupyter && cp jupyter/jupyter_server_config.py .venv/etc/jupyter
	$(bin)/jupyter lab --LabApp.default_url=/lab/tree/$(firstword $(notebooks) notebooks) \
	  $(if $(filter 0,$(shell id -u)),--allow-root) $(ARGS)

# One thread and the stand-in weights, so that every machine computes the same.
fixed := OMP_NUM_THREADS=1 HELPERS_WEIGHTS=stand-in
spread := -n auto --maxprocesses 4 --dist
nbval := $(bin)/pytest --nbval --nbval-current-env --nbval-sanitize-with tests/nbval_sanitize.cfg \
           --nbval-cell-timeout=120 $(spread) loadscope notebooks

scripts := $(wildcard site/*.js helpers/course/explorers/*.js helpers/course/explorers/*.css)

## make test         ruff, the tests, and every notebook run again and compared
test: test-packages
	$(bin)/ruff check
	$(bin)/ruff format --check benchmarks data helpers tests tools notebooks/make.py
	$(bin)/oxfmt --check $(scripts)
	$(bin)/oxlint --deny-warnings $(scripts)
	$(fixed) $(bin)/pytest $(spread) loadfile tests
	$(fixed) $(nbval)

## make test-all     also all of the model zoo, every mutation, and the notebooks on other processor paths
test-all: test
	$(fixed) $(bin)/pytest tests -m "sweep or mutation"
	$(fixed) ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 $(nbval)
	$(fixed) ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 $(nbval)
	$(fixed) OMP_NUM_THREADS=2 $(nbval)

## make notebooks    execute and normalize the notebooks: the only maker of reference outputs
notebooks: test-packages
	$(bin)/python notebooks/make.py

## make bench        the benchmarks
bench: test-packages
	$(bin)/python -m benchmarks

## make speed        what normalization and NMS cost here, into data/results/speed   DEVICE=cuda
speed: lab-packages
	for name in nms heads norms; do \
	  $(bin)/python -m benchmarks.$$name --device $(or $(DEVICE),cpu) || exit; done

## make weights      fetch the ImageNet weights (the one thing that needs a download)
weights: lab-packages
	$(bin)/python -m helpers.networks.backbones

## make real-weights measure eps against rounding on weights really trained (downloads 280 MB)
real-weights: lab-packages
	$(bin)/python -m data.results.real_weights.make

## make constraints  write the versions that the tests have just passed with into constraints.txt
constraints:
	{ grep '^#' constraints.txt; $(bin)/python -m pip freeze --all --exclude-editable | \
	  sed -E -e '/^(pip|wheel)=/d' -e '/^(nvidia|cuda|triton)/d' -e 's/\+.*//'; } > constraints.part
	mv constraints.part constraints.txt
	$(bin)/python tools/binder_lock.py

## make binder-lock  write what Binder installs, as constraints.txt has it
binder-lock:
	@$(PYTHON) tools/binder_lock.py

## make export       a notebook as one HTML page that needs no network   NOTEBOOK=01_two_backbones
export: lab-packages
	$(bin)/python tools/export.py $(or $(NOTEBOOK),$(notdir $(basename $(notebooks))))

## make binder-link  print the link that opens a notebook on Binder   NOTEBOOK=01_two_backbones REF=v1.0.0 (a tag)
binder-link:
	@$(PYTHON) tools/binder_link.py "$(NOTEBOOK)" "$(REF)"

## make colab        write the notebooks for Colab into build/colab   REF=v1.0.0 (a tag)
colab:
	@$(PYTHON) tools/colab.py "$(REF)"

## PYTHON=python3.12 make lab chooses the interpreter; make lab TORCH=cpu takes PyTorch's CPU wheels.

# The environment, every time: whole, in this folder, on the chosen Python, with the chosen torch; or else made
# anew (tools/sound.py says why). .venv/torch remembers the choice for later calls without TORCH=.
new_enough = { $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo >&2 \
  'Python 3.11 or newer is needed, and "$(PYTHON)" is older or missing: PYTHON=python3.12 make lab names another.'; \
  exit 1; }; }
kept_torch := $(shell cat .venv/torch 2>/dev/null)

environment:
	@$(if $(given),$(new_enough))
	@{ test -x $(bin)/python && $(bin)/python tools/sound.py "$(TORCH)" "$(given)"; } || { $(new_enough) && \
	  echo 'Making .venv with $(PYTHON)' && $(PYTHON) -m venv --clear .venv && \
	  echo $(or $(TORCH),$(kept_torch),pypi) > .venv/torch; }

# What is in it: installed again when pyproject.toml or constraints.txt changed. The .ok files are written last.
# torch and torchvision come from one index in one call (from two, they fail at import); the rest from PyPI.
pip        := $(bin)/python -m pip install -c constraints.txt
pins       := cksum pyproject.toml constraints.txt
extra_lab  := [course]
extra_test := [course,test]

lab-packages test-packages: %-packages: environment
	@$(pins) | cmp -s - .venv/$*.ok || { rm -f .venv/*.ok && \
	  if test "$$(cat .venv/torch 2>/dev/null)" = cpu; \
	  then $(pip) --no-deps --index-url $(torch_index) torch torchvision; fi && \
	  $(pip) -e ".$(extra_$*)" && $(bin)/python -c "import matplotlib.font_manager" && \
	  $(pins) | tee .venv/lab.ok .venv/$*.ok > /dev/null; }
