#!/bin/bash
# The first container on a bare Debian or Ubuntu machine: installs what is missing (as root or with
# sudo), builds pyoki into an environment of its own, and runs a busybox container as an
# unprivileged user. The second time it takes a moment. Other systems: install the same things
# (.ci/machine.sh names them) and run this as a user.
set -euo pipefail
checkout=$(realpath "$(dirname "$0")/..")
. "$checkout/.ci/machine.sh"
umask 022

# shellcheck disable=SC2086
install $BUILD_PACKAGES $RUN_PACKAGES $ROOTLESS_PACKAGES || {
    lacking=$(missing $BUILD_PACKAGES $RUN_PACKAGES)
    [ -z "$lacking" ] || { echo "error: this needs $lacking" >&2; exit 1; }
    echo "without uidmap the container has one user only" >&2
}

# Never run a container as root when any user can: root hands over to a user made for it.
if [ "$(id -u)" = 0 ]; then
    home=/var/cache/pyoki-hello user=pyoki-test
    test_user "$user"
    as_user() { runuser -u "$user" -- env -u XDG_RUNTIME_DIR HOME="$(getent passwd "$user" | cut -d: -f6)" "$@"; }
else
    home=${XDG_CACHE_HOME:-$HOME/.cache}/pyoki-hello
    as_user() { "$@"; }
fi
own_folder "$home"

if [ ! -e "$home/built" ] || [ -n "$(find "$checkout/rootless_pyoki" "$checkout/pyproject.toml" -type f \
        ! -name '*.pyc' -newer "$home/built" -print -quit)" ]; then
    echo "building pyoki" >&2
    [ -x "$home/venv/bin/python" ] || /usr/bin/python3 -m venv "$home/venv"
    "$home/venv/bin/python" -m pip install -q --disable-pip-version-check --force-reinstall --no-deps "$checkout"
    "$home/venv/bin/python" -m pip install -q --disable-pip-version-check "$checkout"
    touch "$home/built"
fi

cd /
as_user bash -euo pipefail -s "$home/venv/bin" << 'BUNDLE'
pyoki=$1/pyoki
bundle=$(mktemp -d)
trap 'rm -rf "$bundle"' EXIT
cd "$bundle"

mkdir -p rootfs/bin rootfs/proc rootfs/sys rootfs/dev rootfs/etc rootfs/tmp
cp "$(command -v busybox)" rootfs/bin/busybox
for applet in sh id echo uname ps; do ln -s busybox "rootfs/bin/$applet"; done

"$pyoki" spec --rootless
"$1/python" - << 'EDIT'
import json
with open("config.json") as file:
    config = json.load(file)
config["process"]["args"] = ["sh", "-c", "echo hello from inside; id"]
with open("config.json", "w") as file:
    json.dump(config, file, indent=2)
EDIT
echo "as $(id -un) on the host: $pyoki run" >&2
"$pyoki" run "hello-$$"
BUNDLE
