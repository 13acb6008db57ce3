#!/bin/sh
# Stops with one sentence when a tool that is asked for is missing.
#
#   need.sh [compiler] [java] [maven] [redis] [rabbitmq] [clang] [spin]
set -eu

CC=${CC:-gcc}
status=0

missing() {
    echo "Not found: $1. Install it (Debian: apt-get install $2)." >&2
    status=1
}

for tool in "$@"; do
    case "$tool" in
        compiler)
            if ! command -v "$CC" >/dev/null; then
                missing "a C compiler ($CC)" "gcc libc6-dev"
            elif ! printf '#include <stdlib.h>\nint main(void) { return EXIT_SUCCESS; }\n' |
                "$CC" -x c -o /dev/null - 2>/dev/null; then
                missing "the headers of the C library, which $CC needs" "libc6-dev"
            fi
            ;;
        java)
            # One line of several reads: openjdk version "17.0.15" 2025-04-15
            major=$(java -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p' || true)
            if [ -z "$major" ]; then
                missing "Java, in which the Kafka broker of the tests runs" "default-jre-headless"
            elif [ "$major" -lt 17 ]; then
                missing "Java 17 or newer, in which the Kafka broker of the tests runs (this is $major)" "openjdk-17-jre-headless"
            fi
            ;;
        maven)
            command -v mvn >/dev/null || missing "Maven, which fetches the Kafka broker of the tests" "maven"
            ;;
        spin)
            command -v spin >/dev/null || missing "SPIN, which checks the model of the ring" "spin"
            ;;
        redis)
            # Debian has it in /usr/bin. Nothing of the service that the package starts is used.
            if ! command -v redis-server >/dev/null; then
                missing "redis-server, which the tests of Redis Streams run" "redis-server"
            fi
            ;;
        rabbitmq)
            # The programs below /usr/sbin only call these, as another user.
            [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || missing "RabbitMQ, which its tests run against" "rabbitmq-server"
            ;;
        clang)
            # The fuzzer's library is a package of its own, which Debian's clang only recommends.
            if ! printf 'int LLVMFuzzerTestOneInput(const char *data, unsigned long size) { return 0; }\n' |
                clang -fsanitize=fuzzer,address -x c -o /dev/null - 2>/dev/null; then
                missing "clang with libFuzzer, which drives the fuzz targets" "clang, with what it recommends"
            fi
            ;;
    esac
done
exit $status
