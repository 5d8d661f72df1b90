# Every target does its own set-up from a bare clone; it needs python3 (3.10 or newer) and nothing else.
# pip reads its usual environment (PIP_INDEX_URL, PIP_CERT, pip.conf, ...), so a mirror needs no edit here.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
IMAGE ?= grounded-sam2
# what to run in the container: make run SCRIPT=grounded_sam2_tracking_demo.py ARGS='--text-prompt "dog."'
SCRIPT ?= grounded_sam2_tracking_demo.py
ARGS ?=
GPU_FLAGS := $(shell command -v nvidia-smi >/dev/null 2>&1 && echo --gpus all)

REFERENCES := .references
# test processes beside each other, one thread each; a worker that is done takes over tests of another
JOBS ?= logical
PYTEST := $(PY) -m pytest --numprocesses $(JOBS) --maxprocesses 4 --dist worksteal

# settings of the page: make app ARGS='--port 8000'
.PHONY: help install app demo test test-all slow lint format references peers bench build-image run clean
.DEFAULT_GOAL := help

help:
	@echo "make install      create $(VENV) with everything the scripts and tests need"
	@echo "make app          open the page in which all this is done by hand"
	@echo "make demo         run the bundled demos; look in outputs/"
	@echo "make test         lint, type check and the fast tests"
	@echo "make test-all     the same and the slow tests"
	@echo "make bench        speed and memory beside everything that can be run here; an hour or two"
	@echo "make lint         ruff and mypy only"
	@echo "make format       let ruff rewrite what it can"
	@echo "make build-image  build the Docker image"
	@echo "make run          run SCRIPT in the image (a GPU is used when there is one)"

CHECK_PYTHON = $(PYTHON) -c 'import sys; \
	sys.exit("Python 3.10 or newer is needed, this is " + sys.version if sys.version_info < (3, 10) else 0)'

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml setup.py
	@$(CHECK_PYTHON)
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --editable ".[dev]"
	$(PY) -m pip install --no-deps dds-cloudapi-sdk==0.5.3
	@touch $@ $(VENV)/.installed-app

# less than `install`: nothing that only tests need
$(VENV)/.installed-app: pyproject.toml setup.py
	@$(CHECK_PYTHON)
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --editable ".[app]"
	@touch $@

app: $(VENV)/.installed-app
	$(PY) grounded_sam2_app.py $(ARGS)

demo: install
	$(PY) grounded_sam2_hf_model_demo.py
	$(PY) grounded_sam2_tracking_demo_with_continuous_id.py
	@echo "Done. Look at outputs/grounded_sam2_hf_model_demo and outputs/grounded_sam2_tracking_demo_with_continuous_id."

lint: install
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: install
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

# The published implementations, as oracles for the parity tests: each in a folder of its own, with its extension not
# built. Grounding DINO's brings the older transformers it needs; what else it imports is in the environment already.
references: $(foreach name,sam2 samurai edgetam groundingdino trackers trackeval,$(REFERENCES)/$(name)/.installed)

$(REFERENCES)/sam2/.installed: | install
	SAM2_BUILD_CUDA=0 $(PY) -m pip install --no-deps --no-build-isolation --target $(@D) --upgrade \
		sam2==1.1.0 "hydra-core>=1.3.2,<2" "omegaconf>=2.2,<3" "antlr4-python3-runtime==4.9.*" "iopath>=0.1.10" portalocker
	@touch $@

# EdgeTAM's package, also called sam2, and timm, with which transformers builds its EdgeTAM
$(REFERENCES)/edgetam/.installed: | install
	$(PY) -m pip install --no-deps --target $(@D) --upgrade \
		edgetam-dimos==1.0.1 "timm>=1.0,<2" "hydra-core>=1.3.2,<2" "omegaconf>=2.2,<3" \
		"antlr4-python3-runtime==4.9.*" "iopath>=0.1.10" portalocker
	@touch $@

# SAMURAI's code, which is SAM 2's with changes, under the same package name.
$(REFERENCES)/samurai/.installed: | install
	SAM2_BUILD_CUDA=0 $(PY) -m pip install --no-deps --no-build-isolation --target $(@D) --upgrade \
		absolutely-not-samurai==1.0.0 "hydra-core>=1.3.2,<2" "omegaconf>=2.2,<3" "antlr4-python3-runtime==4.9.*" \
		"iopath>=0.1.10" portalocker "loguru>=0.7,<1"
	@touch $@

$(REFERENCES)/trackers/.installed: | install
	$(PY) -m pip install --no-deps --target $(@D) --upgrade "trackers>=2.6,<3" pydeprecate
	@touch $@

# to be compared with in benchmarks, by `make peers`: nothing of it is used or shipped
peers: references $(REFERENCES)/ultralytics/.installed

$(REFERENCES)/ultralytics/.installed: | install
	$(PY) -m pip install --no-deps --target $(@D) --upgrade "ultralytics>=8.4,<9" ultralytics-thop polars
	@touch $@

# of scikit-image it only takes the shape of a disk
$(REFERENCES)/trackeval/.installed: | install
	$(PY) -m pip install --no-deps --target $(@D) --upgrade trackeval==1.3.0 "scikit-image>=0.25,<1" "lazy-loader>=0.4"
	@touch $@

$(REFERENCES)/groundingdino/.installed: | install
	$(PY) -m pip install --no-deps --only-binary :all: --target $(@D) --upgrade \
		rf_groundingdino==0.3.0 transformers==4.48.3 "tokenizers>=0.21,<0.22" "huggingface_hub>=0.26,<1" \
		"timm>=1.0,<2" "addict>=2.4,<3" "yapf>=0.43,<1" "platformdirs>=4" "tomli>=2"
	@touch $@

test: lint references
	$(PYTEST) -m "not slow and not network"

test-all: lint references
	$(PYTEST) -m "not network"

slow: references
	$(PYTEST) -m "slow and not network"

# Ratios of processes that take turns; benchmarks/README.md keeps the figures. A GPU has a script of its own: benchmarks/gpu.sh
bench: peers
	$(PY) benchmarks/stages.py --num-objects 1
	$(PY) benchmarks/stages.py --checkpoint checkpoints/sam2.1_nano.pt --num-objects 6
	$(PY) benchmarks/sam2_speed.py --image-size 1024 --num-objects 1 8 --num-frames 10
	$(PY) benchmarks/sam2_speed.py --config edgetam --image-size 1024 --num-objects 1 8 --num-frames 10
	$(PY) benchmarks/sam2_options.py
	$(PY) benchmarks/gdino_speed.py
	$(PY) benchmarks/nano_script.py 52198bdf

build-image:
	docker build --tag $(IMAGE) .

run: build-image
	mkdir -p outputs
	docker run --rm $(GPU_FLAGS) $(if $(filter grounded_sam2_app.py,$(SCRIPT)),--publish 127.0.0.1:7860:7860) --user "$$(id -u):$$(id -g)" \
		--volume "$(CURDIR)/outputs:/app/outputs" \
		--volume "$(CURDIR)/checkpoints:/app/checkpoints:ro" \
		--volume "$(CURDIR)/gdino_checkpoints:/app/gdino_checkpoints:ro" \
		--volume "$(CURDIR)/assets:/app/assets:ro" \
		$(IMAGE) $(SCRIPT) $(ARGS)

clean:
	rm -rf $(VENV) .references build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
