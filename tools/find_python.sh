#!/bin/sh
# Prints a Python that can build nearly, or says all that is missing on this machine and how to install it.
set -u
wanted=${PYTHON:-}
missing="" packages=""
lack() {
  missing="$missing
  - $1"
  packages="$packages $2"
}

new_enough='import sys; sys.exit(sys.version_info < (3, 11))'
python="" seen=""
for name in ${wanted:-python3 python3.13 python3.12 python3.11 python3.14 python}; do
  path=$(command -v "$name" 2>/dev/null) || continue
  version=$("$path" -c 'import platform; print(platform.python_version())' 2>/dev/null) || continue
  seen="$seen $path ($version)"
  if "$path" -c "$new_enough"; then python=$path && break; fi
done
if [ -z "$python" ]; then
  lack "Python 3.11 or newer; ${wanted:+PYTHON=$wanted was asked for, and }found here:${seen:- none}" "python3 python3-venv python3-dev"
else
  short=$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
  "$python" -c 'import venv, ensurepip' 2>/dev/null || lack "the venv module of $python" "$short-venv"
  "$python" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' ||
    lack "the C headers of $python (Python.h)" "$short-dev"
fi

compiler=${CXX:-g++}
if [ -z "${CXX:-}" ] && ! command -v g++ >/dev/null 2>&1 && command -v clang++ >/dev/null 2>&1; then compiler=clang++; fi
if ! command -v "$compiler" >/dev/null 2>&1; then
  lack "a C++ compiler ($compiler)" "g++"
elif ! printf '#include <span>\nint main(int n, char**) { int a[3] = {}; return static_cast<int>(std::span(a).size()) > n ? 0 : 1; }\n' |
  "$compiler" -std=c++20 -x c++ -fsyntax-only - >/dev/null 2>&1; then
  lack "a C++ compiler that knows C++20 and has its headers: GCC 12 or newer, or Clang ($compiler is too old or incomplete)" "g++"
fi

if [ -n "$missing" ]; then
  {
    echo "nearly cannot be built here yet. Missing:$missing"
    echo "On Debian or Ubuntu:"
    echo "    sudo apt-get install$packages"
    echo "Another Python or compiler is chosen by PYTHON=/path/to/python3 and CXX=/path/to/g++."
  } >&2
  exit 1
fi
echo "$python"
