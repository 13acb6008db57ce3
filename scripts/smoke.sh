#!/bin/sh
# Builds the sdist, from what is in it a wheel for each Python 3.11 to 3.13 of this machine, installs that in a virtual
# environment of its own under .cache/smoke and runs tests/smoke/smoke.py there, outside the project.
set -eu

cd "$(dirname "$0")/.."
root=$PWD
cache="$root/.cache/smoke"
# That it builds and works is what is shown here. The other tests have run the code with all optimisations, which take
# most of the time of a build.
export PYTHIA_FAST_OPTIMIZE=0
mkdir -p "$cache"

sources() {
    find ext pythia_fast setup.py pyproject.toml MANIFEST.in README.md -type f \
        ! -name '*.so' ! -name '*.pyc' | LC_ALL=C sort
}
digest=$(sources | xargs cat | sha256sum | cut -d' ' -f1)

if [ "$(cat "$cache/sdist-digest" 2>/dev/null || true)" != "$digest" ] || [ ! -d "$cache/tree" ]; then
    echo 'building the sdist'
    rm -rf "$cache/sdist" "$cache/tree"
    .venv/bin/python -m build --sdist --outdir "$cache/sdist" . >"$cache/sdist.txt" 2>&1 || {
        cat "$cache/sdist.txt"
        exit 1
    }
    mkdir "$cache/tree"
    tar -xf "$cache"/sdist/*.tar.gz -C "$cache/tree" --strip-components=1
    # What Cython makes is the same for every Python: it need not be made again for each wheel.
    if [ -d build/cython ]; then
        mkdir -p "$cache/tree/build"
        cp -a build/cython "$cache/tree/build/"
    fi
    echo "$digest" >"$cache/sdist-digest"
fi

# To its end, in a copy of the tree, where others are built at the same time: of each wheel some steps have one thread.
check() { # VERSION PYTHON
    home="$cache/$1"
    log="$cache/$1.txt"
    if [ "$(cat "$home/digest" 2>/dev/null || true)" != "$2 $digest" ]; then
        echo "Python $1: building and installing the wheel"
        rm -rf "$home"
        {
            scripts/make_venv.sh "$2" "$home" &&
                cp -a "$cache/tree" "$home/tree" &&
                "$home/bin/python" -m pip --disable-pip-version-check wheel --no-deps -w "$home/wheel" "$home/tree" &&
                "$home/bin/python" -m pip --disable-pip-version-check install "$home"/wheel/*.whl &&
                rm -rf "$home/tree"
        } >"$log" 2>&1 || {
            cat "$log"
            return 1
        }
        echo "$2 $digest" >"$home/digest"
    fi
    cd "$home" && "$home/bin/python" -I -W error "$root/tests/smoke/smoke.py"
}

passed=0
failed=0
skipped=0
running=
scripts/find_python.sh --all >"$cache/pythons"
while read -r version python lacks; do
    if [ -n "$lacks" ]; then
        echo "Python $version ($python): not tested, it lacks $lacks (Debian: python3-dev python3-venv)"
        skipped=$((skipped + 1))
        continue
    fi
    check "$version" "$python" </dev/null &
    running="$running $version:$!"
done <"$cache/pythons"
for one in $running; do
    if wait "${one#*:}"; then
        passed=$((passed + 1))
    else
        echo "Python ${one%:*}: failed"
        failed=$((failed + 1))
    fi
done
echo "smoke test of the wheels: $passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
