#!/bin/bash
# Boots a real systemd as PID 1 of fresh namespaces (pid, mount, network, UTS, IPC, cgroup) over a throw-away overlay of
# this machine's root, so that nothing that happens in there is seen here. Needs root, cgroup2 and overlayfs.
#   boot.sh up DIR                 boot; DIR keeps its state
#   boot.sh exec DIR COMMAND...    run a command beside that systemd; its exit code is returned
#   boot.sh down DIR               power off, and leave nothing behind
# LAYERS: directories that are copied over the root first. SHARED: one directory that is the same inside, and writable;
# it must not be one that systemd-tmpfiles looks after. SEEN: directories that are the same inside, read-only.
set -euo pipefail
self=$(realpath "$0")

die() {
    echo "boot.sh: $*" >&2
    exit 125
}

# Runs as PID 1 of the new pid namespace and becomes systemd.
inner() {
    [[ $$ == 1 ]] || die "inner is for the new namespace alone"
    local work=$1/mnt root=$1/mnt/root name
    mkdir -p "$work"
    mount -t tmpfs -o mode=755 booted "$work"
    mkdir "$work"/{upper,scratch,root}
    # Copied, not stacked: overlapping lower layers give ELOOP.
    for name in ${LAYERS:-}; do cp -a "$name/." "$work/upper/"; done
    mount -t overlay -o "lowerdir=/,upperdir=$work/upper,workdir=$work/scratch" booted "$root"
    mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
    mount --bind "$root/proc/sys" "$root/proc/sys"
    mount -o remount,bind,ro "$root/proc/sys"
    mount -t sysfs -o ro,nosuid,nodev,noexec sysfs "$root/sys"
    mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 "$root/sys/fs/cgroup"
    mount -t tmpfs -o mode=755,nosuid tmpfs "$root/dev"
    mkdir "$root"/dev/{pts,shm}
    for name in null:3 zero:5 full:7 random:8 urandom:9; do mknod -m 666 "$root/dev/${name%:*}" c 1 "${name#*:}"; done
    mknod -m 666 "$root/dev/tty" c 5 0
    ln -s /proc/self/fd "$root/dev/fd"
    ln -s pts/ptmx "$root/dev/ptmx"
    mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 devpts "$root/dev/pts"
    for name in dev/shm run tmp var/tmp var/log/journal etc/systemd/system; do
        mkdir -p "$root/$name"
        mount -t tmpfs -o "mode=$([[ $name == *shm || $name == *tmp ]] && echo 1777 || echo 755)" tmpfs "$root/$name"
    done
    if [[ -n ${SHARED:-} ]]; then
        mkdir -p "$root/shared"
        mount --bind "$SHARED" "$root/shared"
    fi
    for name in ${SEEN:-}; do
        mkdir -p "$root/$name"
        mount --bind "$name" "$root/$name"
        mount -o remount,bind,ro "$root/$name"
    done
    chmod 711 "$root/root" # a Python that is below it can be run by others, too
    : > "$root/etc/fstab"
    rm -f "$root/etc/machine-id"
    tr -d - < /proc/sys/kernel/random/uuid > "$root/etc/machine-id"
    printf '[Unit]\nRequires=basic.target\nAfter=basic.target\nAllowIsolate=yes\n' > "$root/etc/systemd/system/default.target"
    # Of no use here; and what cleans directories up at boot has no business with what is shared.
    for name in journald-audit.socket update-utmp.service tmpfiles-setup.service tmpfiles-clean.timer; do
        ln -sf /dev/null "$root/etc/systemd/system/systemd-$name"
    done
    cd "$root"
    pivot_root . .
    umount -l .
    mount --make-rshared /
    exec setpriv --bounding-set -sys_module,-sys_rawio,-sys_time,-syslog,-audit_control,-audit_read \
        env -i container=booted PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        /lib/systemd/systemd --log-target=journal < /dev/null
}

enter() {
    nsenter -t "$1" -m -u -i -n -p -C --wdns=/ -- env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        HOME=/root LANG=C.UTF-8 TERM=dumb SYSTEMD_PAGER= "${@:2}"
}

up() {
    local state tries outer init=""
    mkdir -p "$1/cgroups"
    state=$(realpath "$1")
    mount -t cgroup2 cgroup2 "$state/cgroups" || die "no cgroup2 here"
    mkdir "$state/cgroups/booted.$$"
    echo "booted.$$" > "$state/cgroup"
    (
        echo "$BASHPID" > "$state/cgroups/booted.$$/cgroup.procs"
        umount "$state/cgroups"
        exec setsid unshare --fork --kill-child --pid --mount --propagation private --uts --ipc --cgroup --net \
            bash "$self" inner "$state"
    ) < /dev/null > "$state/console" 2>&1 &
    outer=$!
    echo $outer > "$state/outer"
    for ((tries = 0; tries < 600; tries++)); do
        kill -0 "$outer" 2> /dev/null || { cat "$state/console" >&2; down "$state"; die "did not boot"; }
        init=$(cat "/proc/$outer/task/$outer/children" 2> /dev/null || true)
        init=${init%% *}
        if [[ -n $init && $(cat "/proc/$init/comm" 2> /dev/null) == systemd && -S /proc/$init/root/run/systemd/private ]]; then
            echo "$init" > "$state/pid"
            break
        fi
        sleep 0.05
    done
    enter "$init" timeout 60 systemctl is-system-running --wait > "$state/state" || true
    [[ $(< "$state/state") == @(running|degraded) ]] || die "it is $(< "$state/state")"
    enter "$init" ip link set lo up
}

down() {
    local state outer init tries
    state=$(realpath "$1")
    [[ -e $state/outer ]] || return 0
    outer=$(< "$state/outer")
    init=$(cat "$state/pid" 2> /dev/null || true)
    [[ -z $init ]] || kill -s RTMIN+4 "$init" 2> /dev/null || true
    for ((tries = 0; tries < 400; tries++)); do
        kill -0 "$outer" 2> /dev/null || break
        sleep 0.05
    done
    [[ -z $init ]] || ! kill -0 "$outer" 2> /dev/null || kill -9 "$init" 2> /dev/null || true  # which may have ended just now
    mount -t cgroup2 cgroup2 "$state/cgroups"
    for ((tries = 0; tries < 40; tries++)); do
        find "$state/cgroups/$(< "$state/cgroup")" -depth -type d -exec rmdir {} + 2> /dev/null && break
        sleep 0.05
    done
    umount "$state/cgroups"
    rm -f "$state"/{pid,outer,cgroup,state}
}

case ${1:-} in
    inner | up | down) "$1" "$2" ;;
    exec) enter "$(< "$2/pid")" "${@:3}" ;;
    *) die "usage: $0 up DIR | exec DIR COMMAND... | down DIR" ;;
esac
