#!/bin/sh
# The native engine under AddressSanitizer and UndefinedBehaviorSanitizer: builds it into a folder of its own and trains
# networks of odd shapes with the longest and the shortest vectors. Any report fails. Needs GCC.
set -eu
cd "$(dirname "$0")/.."
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
FRACTAL_IFS_WERROR=1 FRACTAL_IFS_SANITIZE=address,undefined \
    python setup.py -q build_ext --build-lib "$out" --build-temp "$out/objects"
library=$(g++ -print-file-name=libasan.so)
LD_PRELOAD="$library" ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
    python tests/native_sanitize.py "$out"
