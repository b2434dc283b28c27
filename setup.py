"""The native engine: one C++ source, compiled once per instruction set; which one runs is decided at run time.

It needs GCC >= 12 or Clang >= 13 (src/native/kernel.hpp says why, and refuses others).

Every module is optional: without such a compiler the package still installs, and trains with ``engine=torch``
(``python -m fractal_ifs.doctor`` tells). With FRACTAL_IFS_WERROR=1 all must build, without a warning.
"""

import copy
import os
import platform
import sys
import sysconfig
from glob import glob

import pybind11
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

VARIANTS = {"base": []}
if platform.machine().lower() in ("x86_64", "amd64"):
    VARIANTS["avx2"] = ["-mavx2", "-mfma"]
    VARIANTS["avx512"] = ["-mavx512f", "-mavx512vl", "-mavx512dq", "-mavx512bw", "-mfma", "-mprefer-vector-width=512"]

FLAGS = ["-std=c++17", "-O3", "-g0", "-ffp-contract=fast", "-fno-math-errno", "-fvisibility=hidden", "-pthread"]
STRICT = os.environ.get("FRACTAL_IFS_WERROR") == "1"
# -Wfatal-errors: of a compiler that is too old one clear error, not the hundreds that follow from it.
FLAGS += ["-Wall", "-Wextra", "-Wconversion", "-Wsign-conversion", "-Werror" if STRICT else "-Wfatal-errors"]
# Headers of others, whose warnings are theirs. A folder that is named so loses its -I.
for folder in dict.fromkeys([pybind11.get_include(), *(sysconfig.get_path(p) for p in ("include", "platinclude"))]):
    FLAGS += ["-isystem", folder]
LINK = ["-pthread"]
if sanitize := os.environ.get("FRACTAL_IFS_SANITIZE"):  # e.g. address,undefined: see tests/native_sanitize.sh
    VARIANTS.pop("avx2", None)  # to stay within a minute: it differs from the two others in the vectors' length alone
    FLAGS += [f"-fsanitize={sanitize}", "-fno-sanitize-recover=all", "-O1", "-g1"]
    LINK += [f"-fsanitize={sanitize}"]


class BuildVariants(build_ext):
    """Compiles the variants at the same time, each with a folder of objects of its own: they share one source."""

    def finalize_options(self):
        super().finalize_options()
        self.parallel = self.parallel or True

    def build_extension(self, ext):
        one = copy.copy(self)
        one.build_temp = os.path.join(self.build_temp, ext.name)
        ext.define_macros.append(("NATIVE_FLAGS", f'"{" ".join(self.code_flags(ext))}"'))
        build_ext.build_extension(one, ext)

    def code_flags(self, ext):
        """The flags that may change the code, Python's and $CFLAGS's included: no folders, macros or warnings."""
        compiler = getattr(self.compiler, "compiler_so_cxx", self.compiler.compiler_so)
        flags = [*compiler[1:], *ext.extra_compile_args]
        code = [f for f in flags if f.startswith(("-f", "-m", "-O", "-std", "-pthread", "--param"))]
        return [f for f in code if "prefix-map" not in f]


setup(
    ext_modules=[
        Extension(
            f"fractal_ifs._native_{isa}",
            ["src/native/module.cpp"],
            depends=sorted(glob("src/native/*.hpp")),
            define_macros=[("NATIVE_MODULE", f"_native_{isa}"), ("NDEBUG", None)],
            undef_macros=["NDEBUG"] if sanitize else [],  # its assertions too
            extra_compile_args=FLAGS + flags,
            extra_link_args=LINK,
            language="c++",
            optional=not STRICT,
        )
        for isa, flags in VARIANTS.items()
    ]
    if sys.platform != "win32"  # needs GCC's or Clang's vector types
    else [],
    cmdclass={"build_ext": BuildVariants},
)
