"""The native engine: one C++ source, compiled once per instruction set; which one runs is decided at run time.

Every module is optional: without a compiler the package still installs, and trains with ``engine=torch``
(``python -m fractal_ifs.doctor`` tells). With FRACTAL_IFS_WERROR=1 all must build, without a warning.
"""

import copy
import os
import platform
import sys

import pybind11
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

VARIANTS = {"base": []}
if platform.machine().lower() in ("x86_64", "amd64"):
    VARIANTS["avx2"] = ["-mavx2", "-mfma"]
    VARIANTS["avx512"] = ["-mavx512f", "-mavx512vl", "-mavx512dq", "-mavx512bw", "-mfma", "-mprefer-vector-width=512"]

FLAGS = ["-std=c++17", "-O3", "-g0", "-ffp-contract=fast", "-fno-math-errno", "-fvisibility=hidden", "-pthread"]
STRICT = os.environ.get("FRACTAL_IFS_WERROR") == "1"
FLAGS += ["-Wall", "-Wextra"] + ["-Werror"] * STRICT
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
        build_ext.build_extension(one, ext)


setup(
    ext_modules=[
        Extension(
            f"fractal_ifs._native_{isa}",
            ["src/native/module.cpp"],
            depends=["src/native/kernel.hpp", "src/native/network.hpp", "src/native/shuffle.hpp"],
            include_dirs=[pybind11.get_include()],
            define_macros=[("NATIVE_MODULE", f"_native_{isa}")],
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
