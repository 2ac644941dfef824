#!/bin/bash
# Runs the tests on a bare Debian or Ubuntu machine, as root or as a user (with sudo where packages
# are missing). Nothing is written into the checkout: a copy, two environments and the results of
# the build live in $PYOKI_TEST_HOME (default /var/tmp/pyoki-tests-UID) and are used again.
#
#   ./tests/run.sh [--long] [--user NAME] [arguments for pytest...]
#
# --long     with the tests that take long
# --user     as root: whom the tests run as (default pyoki-test; made when it is not there)
#
# As root, the tests run as that user in a private, delegated cgroup v2 tree; those marked `root` run
# as root. Those marked `conformance` run three times there: as the user with all the others, as uid
# 0 of a user namespace of the user's (what `podman unshare` gives), and as root. Tests find in the
# environment: PYOKI_HOT (the installed launcher, with the hot bundle), PYOKI_SLOW (the checkout's,
# without), PYOKI_WHEEL.
set -euo pipefail
checkout=$(realpath "$(dirname "$0")/..")
. "$checkout/.ci/machine.sh"
. "$checkout/tests/support/environments.sh"
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8
umask 022

marks="not long" user=pyoki-test arguments=() home=
while [ $# -gt 0 ]; do
    case $1 in
    --long) marks= ;;
    --user) user=$2; shift ;;
    *) arguments+=("$1") ;;
    esac
    shift
done

prepare_machine() {
    # shellcheck disable=SC2086
    install $BUILD_PACKAGES $RUN_PACKAGES $ROOTLESS_PACKAGES || {
        lacking=$(missing $BUILD_PACKAGES $RUN_PACKAGES)
        [ -z "$lacking" ] || { echo "error: the tests need $lacking" >&2; exit 1; }
    }
    # shellcheck disable=SC2086
    install $TEST_PACKAGES || echo "some tests will be skipped without $(missing $TEST_PACKAGES)" >&2
    [ "$(id -u)" != 0 ] || test_user "$user"
}

# where the test user may not be able to read the original
copy_specification() {
    [ -n "${PYOKI_OCI_SCHEMA-}" ] || return 0
    chmod -R u+w "$home/spec" 2> /dev/null || :
    rm -rf "$home/spec"
    mkdir "$home/spec"
    cp -r "$PYOKI_OCI_SCHEMA" "$home/spec/schema"
    cp "$PYOKI_OCI_SCHEMA"/../*.md "$home/spec" 2> /dev/null || : # the specification's text
    export PYOKI_OCI_SCHEMA=$home/spec/schema
}

# run_pytest MARKS [COMMAND...]: pytest, started by COMMAND; 5 (nothing selected) is no failure
run_pytest() {
    local marked=$1 code=0
    shift
    echo "tests ($marked)${*:+: $*}" >&2
    [ -z "$marks" ] || marked="$marked and $marks"
    "$@" env HYPOTHESIS_STORAGE_DIRECTORY="$scratch/hypothesis" PYTHONDONTWRITEBYTECODE=1 TMPDIR="$scratch" \
        "$home/venv/bin/python" -m pytest -p no:cacheprovider --timeout=120 --basetemp="$scratch/pytest" \
        -m "$marked" ${arguments[@]+"${arguments[@]}"} 9>&- || code=$?
    [ $code = 0 ] || [ $code = 5 ] || failed=1
    [ $code = 5 ] || ran=1
}

# conformance COMMAND...: the tests marked so, started by COMMAND, if it can start anything here
conformance() {
    "$@" true 2> /dev/null || { echo "left out: conformance tests by $*" >&2; return 0; }
    [ ${#arguments[@]} -gt 0 ] || set -- "$@" env PYTEST_ADDOPTS="${PYTEST_ADDOPTS-} tests/conformance"
    run_pytest "conformance and not root" "$@"
}

prepare_machine
open_home
copy_checkout
prepare_environments
copy_specification

cd "$home/src"
failed=0 ran=0
view=$home/src/tests/support/v2view
userns=$home/src/tests/support/userns
scratches=()
trap 'as_root rm -rf "${scratches[@]}" 2> /dev/null || rm -rf "${scratches[@]}"' EXIT
new_scratch() { scratch=$(mktemp -d /tmp/pyoki-XXXXXX); scratches+=("$scratch"); as_root chown "$1:" "$scratch"; }

if [ "$(id -u)" = 0 ]; then
    become=() # root already
elif as_root true 2> /dev/null; then
    become=(as_root --preserve-env)
    user=$(id -un)
else
    become=(false)
fi
if [ "${become[*]-}" != false ]; then
    new_scratch root
    run_pytest root ${become[@]+"${become[@]}"}
    new_scratch "$user"
    run_pytest "not root" ${become[@]+"${become[@]}"} "$view" "$user"
    conformance ${become[@]+"${become[@]}"} "$view" "$user" "$userns"
    new_scratch root
    conformance ${become[@]+"${become[@]}"} "$view" root
else
    scratch=$(mktemp -d /tmp/pyoki-XXXXXX)
    scratches+=("$scratch")
    echo "without root: no cgroup v2 tree of our own, and the tests marked root are left out" >&2
    run_pytest "not root"
    conformance "$userns"
fi
[ $ran = 1 ] || exit 5
exit $failed
