"""Everything is declared in pyproject.toml; only the optional CPU kernel, which needs a C++ compiler, is added here.

GROUNDED_SAM2_BUILD_EXT=1 pip install -e .
"""

import os
import sys

from setuptools import Extension, setup

SOURCES = "grounding_dino/groundingdino/csrc"
FLAGS = ["-O3", "-std=c++17", "-fno-math-errno", "-fno-trapping-math"]
OPENMP = ["-fopenmp"] if sys.platform.startswith("linux") else []

# A plain library that is opened by path: it needs neither Python's headers nor PyTorch's.
cpu_kernel = Extension(
    "grounding_dino.groundingdino._deformable_attention_cpu",
    [f"{SOURCES}/deformable_attention_cpu.cpp"],
    depends=[f"{SOURCES}/deformable_attention.h"],
    language="c++",
    extra_compile_args=["/O2", "/std:c++17", "/openmp"] if sys.platform == "win32" else [*FLAGS, *OPENMP],
    extra_link_args=OPENMP,
)
is_asked_for = os.environ.get("GROUNDED_SAM2_BUILD_EXT", "0") not in ("", "0")

setup(ext_modules=[cpu_kernel] if is_asked_for else [])
