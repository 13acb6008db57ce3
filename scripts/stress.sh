#!/bin/sh
# The ring's C code under ThreadSanitizer, with random delays and deaths (fuzz/ring_stress.c), for STRESS_SECONDS (20) in all:
# two thirds of it as it is, the rest with faults put in, each of which must be found.
set -eu

cd "$(dirname "$0")/.."
out=build/stress
mkdir -p "$out"
seconds=${STRESS_SECONDS:-20}
seed=${STRESS_SEED:-$(date +%s)}
# Queues have 4 cells, so that they are full of what was not collected.
export TSAN_OPTIONS=halt_on_error=1

build() { # NAME FLAG...
    name=$1
    shift
    clang -fsanitize=thread -std=c11 -D_GNU_SOURCE -DPF_QUEUE_CAPACITY=4 -O1 -g -Iext -Wall -Wextra -Wno-unused-function -Wno-unused-parameter -Werror \
        "$@" fuzz/ring_stress.c -lpthread -o "$out/$name"
}

build ring
echo "the ring under ThreadSanitizer for $((seconds * 2 / 3)) s, seed $seed"
"$out/ring" $((seconds * 2 / 3)) "$seed"

number=0
for fault in 'stores that release nothing' 'nobody is woken' 'what a living process holds is returned' \
    'a batch is released before its records are durable' 'nothing of the dead is returned'; do
    number=$((number + 1))
    build "fault$number" -DSTRESS_FAULT=$number -DLOST_AFTER_NS=1000000000ll
    if "$out/fault$number" "$seconds" "$seed" >"$out/fault$number.log" 2>&1; then
        echo "not found: $fault" >&2
        exit 1
    fi
    echo "found: $fault ($(grep -m 1 -o 'data race\|[^ /]*\.c:[0-9]*: .*\|a wake-up was lost\|SEGV' "$out/fault$number.log"))"
done
