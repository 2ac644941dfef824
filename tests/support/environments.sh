# What tests/run.sh and tests/vm/run need before they can start: a copy of the checkout and two
# environments with pyoki in them, below $home. They set $checkout, source .ci/machine.sh, then this.
# shellcheck disable=SC2154

# open_home: the folder in which all this lives, locked for as long as descriptor 9 is open
open_home() {
    home=${PYOKI_TEST_HOME:-/var/tmp/pyoki-tests-$(id -u)}
    own_folder "$home"
    exec 9> "$home/lock"
    flock -n 9 || { echo "error: tests already run in $home: say PYOKI_TEST_HOME=another" >&2; exit 1; }
}

copy_checkout() {
    mkdir -p "$home/src"
    if git -C "$checkout" rev-parse --show-toplevel > "$home/top" 2> /dev/null; then
        git -C "$checkout" ls-files -z --cached --others --exclude-standard
    else
        cd "$checkout" && find . \( -name .git -o -name .venv -o -name '.*_cache' -o -name .hypothesis \) -prune \
            -o -type f -print0
    fi > "$home/files"
    # what is gone from the checkout goes from the copy too; what was built there stays
    (cd "$home/src" && find . -type f ! -name '*.so' ! -name gate -delete)
    tar -C "$checkout" --null --ignore-failed-read -cf - -T "$home/files" | tar -C "$home/src" -xf -
}

# one environment for the sources and the tools, one with nothing but the wheel
prepare_environments() {
    local python=$home/venv/bin/python
    if ! cmp -s "$home/src/pyproject.toml" "$home/installed.toml"; then
        rm -rf "$home/venv" "$home/hot"
        /usr/bin/python3 -m venv "$home/venv"
        "$python" -m pip install -q -e "$home/src[test]"
        /usr/bin/python3 -m venv --without-pip "$home/hot"
        cp "$home/src/pyproject.toml" "$home/installed.toml"
    fi
    "$python" "$home/src/rootless_pyoki/native/build.py"
    rm -rf "$home/wheel"
    "$python" -m build --wheel --no-isolation --outdir "$home/wheel" "$home/src" > "$home/build.log" 2>&1 ||
        { cat "$home/build.log" >&2; exit 1; }
    "$python" -m pip --python "$home/hot/bin/python" install -q --force-reinstall --no-deps "$home"/wheel/*.whl
    "$python" -m pip --python "$home/hot/bin/python" install -q "$home"/wheel/*.whl
    PYOKI_WHEEL=$(echo "$home"/wheel/*.whl)
    export PYOKI_WHEEL PYOKI_HOT=$home/hot/bin/pyoki PYOKI_SLOW=$home/venv/bin/pyoki
}
