#!/bin/sh
# Makes a virtual environment with pip in it: make_venv.sh PYTHON FOLDER
#
# Where ensurepip is missing (Debian without python3-venv) the pip of that Python puts one there.
set -eu

python=$1
folder=$2
if "$python" -c 'import ensurepip' 2>/dev/null; then
    "$python" -m venv --clear "$folder"
else
    "$python" -m venv --clear --without-pip "$folder"
    "$python" -m pip --disable-pip-version-check --quiet --python "$folder/bin/python" install pip
fi
