#!/bin/sh
# Finds the Pythons of this machine that can build pythia_fast.
#
#   find_python.sh          path of the one to make .venv with ($PYTHON first, then python3, then the newest)
#   find_python.sh --all    "VERSION PATH" for one of every version from 3.11 to 3.13, good or not;
#                           a third word says what a bad one lacks: headers, venv
#
# Good means: Python.h is there, and a virtual environment can be made (ensurepip, or pip itself: Debian
# keeps the first in python3-venv and the second in python3-pip).
set -eu

PROBE='
import importlib.util as util, os, sys, sysconfig
lacks = []
if not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
    lacks.append("headers")
if util.find_spec("venv") is None or not (util.find_spec("ensurepip") or util.find_spec("pip")):
    lacks.append("venv")
print("%d.%d %s %s" % (*sys.version_info[:2], sys.executable, ",".join(lacks)))
'

candidates() {
    [ -z "${PYTHON:-}" ] || command -v "$PYTHON" || true
    for name in python3 python3.13 python3.12 python3.11; do
        command -v "$name" || true
    done
    for minor in 13 12 11; do
        for path in /usr/bin/python3.$minor /usr/local/bin/python3.$minor /opt/python*/bin/python3.$minor \
            "$HOME"/.pyenv/versions/*/bin/python3.$minor "$HOME"/.local/share/uv/python/*/bin/python3.$minor; do
            [ ! -x "$path" ] || echo "$path"
        done
    done
    for name in python3.14 python3.15; do
        command -v "$name" || true
    done
}

# A pyenv shim exists for versions that are not switched on, and then only complains: not a Python.
probe_all() {
    candidates | while read -r path; do
        "$path" -c "$PROBE" 2>/dev/null || true
    done | grep -E '^3\.(1[1-9]|[2-9][0-9]) ' || true
}

lacking() {
    case "$1" in
        *headers*venv*) echo "python3-dev python3-venv" ;;
        *headers*) echo "python3-dev" ;;
        *) echo "python3-venv" ;;
    esac
}

found=$(probe_all)
if [ "${1:-}" = --all ]; then
    # Of each version the first good one, or else the first.
    echo "$found" | grep -E '^3\.1[123] ' | awk '
        !($1 in line) || (bad[$1] && NF == 2) { line[$1] = $0; bad[$1] = NF > 2 }
        END { for (v in line) print line[v] }' | sort
    exit 0
fi

if [ -z "$found" ]; then
    echo "No Python 3.11 or newer was found: install one (Debian 12 or newer: apt-get install python3 python3-dev python3-venv)." >&2
    exit 1
fi
good=$(echo "$found" | awk 'NF == 2 { print $2; exit }')
if [ -z "$good" ]; then
    echo "$found" | head -n 1 | {
        read -r version path lacks
        echo "Python $version ($path) lacks what a build needs: install it (Debian: apt-get install $(lacking "$lacks"))." >&2
    }
    exit 1
fi
echo "$good"
