#!/bin/sh
# Builds the extension with AddressSanitizer and UndefinedBehaviorSanitizer and runs its tests.
#
#   sanitize.sh [PYTEST ARGUMENT]...
#
# The build has its own tree, build/sanitize, laid out like the project: the ordinary modules stay as they are.
set -eu

cd "$(dirname "$0")/.."
scripts/need.sh compiler
python="$PWD/.venv/bin/python"
tree="$PWD/build/sanitize"
mkdir -p "$tree"

# Tests and sources that are gone from the project must be gone here; objects stay, and with kept times of
# change only what changed is built again.
rm -rf "$tree/tests" "$tree/benchmarks" "$tree/ext"
find "$tree" -name '*.py' -not -path '*/build/*' -delete
tar -cf - --exclude='*.so' --exclude=__pycache__ pyproject.toml setup.py README.md docs/model \
    ext fuzz pythia_fast tests benchmarks |
    tar -xf - -C "$tree"
# The C code that Cython made for the ordinary build serves here too, where it is newer than its sources.
if [ -d build/cython ]; then
    mkdir -p "$tree/build"
    cp -a -u build/cython "$tree/build/"
fi
cd "$tree"
echo 'building the extension with sanitizers'
PYTHIA_FAST_SANITIZE=1 "$python" setup.py --quiet build_ext --inplace >build-log.txt 2>&1 || {
    cat build-log.txt
    exit 1
}

# Python itself is not instrumented, so the sanitizer's library must be the first one loaded; libstdc++ beside
# it lets it see C++ exceptions of libraries loaded later. PYTHONMALLOC=malloc gives every bytes object its own
# red zones, so a read past a payload's end is seen. Python frees little at exit: leaks are not looked for.
# The exploration of the ring's model is Python alone.
asan=$("${CC:-gcc}" -print-file-name=libasan.so)
stdcpp=$("${CC:-gcc}" -print-file-name=libstdc++.so.6)
LD_PRELOAD="$asan $stdcpp" \
    ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:halt_on_error=1 \
    UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 \
    PYTHONMALLOC=malloc PYTHONPATH="$tree" \
    "$python" -m pytest tests/ext --ignore=tests/ext/test_ring_model.py tests/unit/test_batch_decode.py \
    tests/brokers/test_memory.py tests/brokers/test_file.py tests/brokers/test_tail.py tests/brokers/test_file_producer.py \
    tests/brokers/test_amqp_reader.py -p no:cacheprovider -o timeout=600 "$@"
