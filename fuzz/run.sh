#!/bin/sh
# Fuzz the decoders, the encoder, the file reader and writer, the readers of Redis replies, of AMQP frames and of streams, the AMQP
# publisher and the intake under
# AddressSanitizer and UndefinedBehaviorSanitizer: FUZZ_SECONDS (60) in all, shared evenly, a second each at least.
# A finding is left in fuzz/out/ and ends the run with an error; what was learned stays there for the next run.
#
# At the end msgspec decodes every JSON and MessagePack payload that was kept: the same answer, or both refuse.
#
#   fuzz/run.sh [TARGET...]      json, msgpack, avro, fixed, files, intake, outputs, resp, amqp, amqp_outbox, streams; all without one
set -eu

cd "$(dirname "$0")"
out=out
mkdir -p "$out"
python3 make_powers.py >"$out/powers.inc"
targets=${*:-json msgpack avro fixed files intake outputs resp amqp amqp_outbox streams}
each=$(( ${FUZZ_SECONDS:-60} / $(echo "$targets" | wc -w) ))
[ "$each" -gt 0 ] || each=1 # 0 is no limit to libFuzzer
flags="-std=c11 -D_GNU_SOURCE -O1 -g -I../ext -fno-omit-frame-pointer -fno-sanitize-recover=undefined"
flags="$flags -Wall -Wextra -Wno-unused-parameter -Wno-unused-function -Werror"

for target in $targets; do
    sources=fuzz_$target.c
    if [ "$target" = json ]; then
        for part in plan scalar avx2 number; do sources="$sources ../ext/json_$part.c"; done
    fi
    if [ "$target" = resp ]; then sources="$sources ../ext/resp.c ../ext/redis_fields.c"; fi
    if [ "$target" = streams ]; then sources="$sources ../ext/stream_source.c ../ext/stream_chunks.c"; fi
    # shellcheck disable=SC2086
    clang -fsanitize=fuzzer,address,undefined $flags $sources -lm -o "$out/fuzz_$target"
    mkdir -p "$out/$target"
    dict=
    [ ! -f "$target.dict" ] || dict="-dict=$target.dict"
    # Beyond the limits that a target sets for what it reads: frames and chunks of 64 KiB where it has them.
    case $target in
    streams)
        longest=81920
        # From 60,000 and 70,000 bytes on, because no run of seconds grows an input to that: chunks below and above the limit.
        for body in 60000 70000; do
            { printf '\001\001\001' && head -c "$body" /dev/zero; } >"$out/$target/chunk-of-$body"
        done
        ;;
    amqp_outbox) longest=65536 ;;
    *) longest=4096 ;;
    esac
    # shellcheck disable=SC2086
    echo "fuzzing $target for $each s"
    if ! "$out/fuzz_$target" -max_total_time="$each" -timeout=5 -max_len="$longest" -print_final_stats=1 -verbosity=0 \
        $dict -artifact_prefix="$out/$target-" "$out/$target" "corpus/$target" >"$out/$target.log" 2>&1; then
        grep -v NEW_FUNC "$out/$target.log" | tail -60
        exit 1
    fi
    echo "$(sed -n 's/stat::number_of_executed_units: *//p' "$out/$target.log") runs, nothing found"
done

case " $targets " in
*" json "* | *" msgpack "*)
    cd .. && python3 -m pytest -q -p no:cacheprovider tests/ext/test_fuzz_corpus.py
    ;;
esac
