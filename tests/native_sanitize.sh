#!/bin/sh
# The native engine under sanitizers, in a folder of its own; any report fails. Needs GCC >= 12.
#   tests/native_test.cpp under AddressSanitizer with UndefinedBehaviorSanitizer, and under ThreadSanitizer, with the
#   shortest vectors and with the longest that this processor has;
#   the Python modules under the first two, by tests/native_sanitize.py;
#   the kernel of the cuda engine, which runs on a CPU there, under the same two, by some of tests/test_cuda.py.
set -eu
cd "$(dirname "$0")/.."
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
export UBSAN_OPTIONS=print_stacktrace=1

for sanitizers in address,undefined thread; do
    for vectors in -mtune=generic -march=native; do
        g++ -std=c++17 -O1 -g1 -Wall -Wextra -Wconversion -Wsign-conversion -Werror -pthread $vectors \
            -fsanitize=$sanitizers -fno-sanitize-recover=all -Isrc/native tests/native_test.cpp -o "$out/native_test"
        printf '%s: ' "$sanitizers"
        "$out/native_test"
    done
done

FRACTAL_IFS_WERROR=1 FRACTAL_IFS_SANITIZE=address,undefined \
    python setup.py -q build_ext --build-lib "$out" --build-temp "$out/objects"
library=$(g++ -print-file-name=libasan.so)
LD_PRELOAD="$library" ASAN_OPTIONS=detect_leaks=0 python tests/native_sanitize.py "$out"
LD_PRELOAD="$library:$(g++ -print-file-name=libubsan.so)" ASAN_OPTIONS=detect_leaks=0 \
    CXXFLAGS="-fsanitize=address,undefined -fno-sanitize-recover=all -g1" \
    python -m pytest -q -m "not gpu" -k "any_shape or partners or averages" tests/test_cuda.py
