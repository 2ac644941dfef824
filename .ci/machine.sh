# What a bare Debian or Ubuntu machine (python3, git, perhaps sudo) lacks: the one list of packages,
# for tests/run.sh, tests/vm/run and examples/hello.sh, which source this file. Other systems may have
# the same things under other names: each is looked for by what it brings, not by its package.

BUILD_PACKAGES="gcc libc6-dev python3-dev python3-venv ca-certificates" # to install pyoki
RUN_PACKAGES="busybox-static"                                            # a root filesystem to run
ROOTLESS_PACKAGES="uidmap"                                               # more than one uid in it
TEST_PACKAGES="crun runc podman buildah conmon slirp4netns netavark jq pipx strace procps dbus
    libseccomp-dev python3-cffi-backend gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static"
VM_PACKAGES="mmdebstrap qemu-system-x86 busybox-static e2fsprogs kmod xz-utils" # for tests/vm/run

# has PACKAGE: is what it brings here?
has() {
    case $1 in
    gcc) command -v cc || command -v gcc ;;
    libc6-dev) test -e /usr/include/stdio.h ;;
    python3-dev) /usr/bin/python3 -c 'import os, sysconfig; os.stat(sysconfig.get_path("include") + "/Python.h")' ;;
    python3-venv) /usr/bin/python3 -c 'import ensurepip, venv' ;;
    ca-certificates) test -e /etc/ssl/certs/ca-certificates.crt ;;
    busybox-static) command -v busybox && ! grep -aq /ld-linux "$(command -v busybox)" ;;
    uidmap) command -v newuidmap && command -v newgidmap ;;
    procps) command -v ps ;;
    dbus) command -v dbus-daemon ;;
    netavark) command -v netavark || test -x /usr/lib/podman/netavark ;;
    libseccomp-dev) test -e /usr/include/seccomp.h ;;
    python3-cffi-backend) /usr/bin/python3 -c 'import _cffi_backend' ;;
    gcc-aarch64-linux-gnu) command -v aarch64-linux-gnu-gcc ;;
    libc6-dev-arm64-cross) test -e /usr/aarch64-linux-gnu/include/stdio.h ;;
    qemu-user-static) command -v qemu-aarch64-static ;;
    qemu-system-x86) command -v qemu-system-x86_64 ;;
    e2fsprogs) command -v mke2fs ;;
    kmod) command -v modprobe && command -v depmod ;;
    xz-utils) command -v unxz ;;
    *) command -v "$1" ;;
    esac > /dev/null 2>&1
}

# missing PACKAGE...: those of them that are not here, on one line
missing() {
    local package lacking=()
    for package; do has "$package" || lacking+=("$package"); done
    echo "${lacking[*]}"
}

# as_root COMMAND...: fails where we neither are root nor may become it without a question nobody sees
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo > /dev/null && { sudo -n true 2> /dev/null || [ -t 0 ]; }; then
        sudo "$@"
    else
        return 1
    fi
}

# install PACKAGE...: what is missing of them, with apt; quiet unless it fails
install() {
    local lacking output
    lacking=$(missing "$@")
    [ -n "$lacking" ] || return 0
    command -v apt-get > /dev/null && as_root true || return 1
    echo "installing $lacking" >&2
    # shellcheck disable=SC2086
    output=$(as_root apt-get -q update 2>&1 && as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get -qy install --no-install-recommends $lacking 2>&1) || { echo "$output" >&2; return 1; }
}

# test_user NAME: as root, make it unless it is there, and give it subordinate ids
test_user() {
    id "$1" > /dev/null 2>&1 || useradd --create-home --shell /bin/sh "$1"
    grep -q "^$1:" /etc/subuid 2> /dev/null || usermod --add-subuids 300000-365535 "$1"
    grep -q "^$1:" /etc/subgid 2> /dev/null || usermod --add-subgids 300000-365535 "$1"
}

# own_folder PATH: a folder of ours that others may read but not have made for us
own_folder() {
    mkdir -p -m 755 "$1" && [ -O "$1" ] && [ ! -L "$1" ] || {
        echo "error: $1 is not ours" >&2
        return 1
    }
}
