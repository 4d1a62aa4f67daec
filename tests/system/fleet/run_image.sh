#!/bin/bash
# Becomes the program of an image, as PID 1 of the namespaces that it was started in:
#   run_image.sh FOLDER SEEN DIRECTORY COMMAND...
# FOLDER/image is laid over this machine's programs, read-only. SEEN: directories, with colons, that are the same inside.
# It begins when FOLDER/go is there.
set -euo pipefail
folder=$1 seen=$2 directory=$3
shift 3
root=$folder/root

mount --make-rprivate /
mkdir "$root"
mount -t tmpfs -o mode=755 image "$root"
show() {
    mkdir -p "$root$1"
    mount --bind "$1" "$root$1"
    mount -o remount,bind,ro "$root$1"
}
for name in bin sbin lib lib64; do [[ ! -L /$name ]] || cp -P "/$name" "$root/"; done
for name in /usr /etc; do show "$name"; done
IFS=: read -ra places <<< "$seen"
for name in "${places[@]}"; do
    [[ $name == /usr* ]] || show "$name"
done
find "$root" -maxdepth 1 -name root -exec chmod 755 {} + # a Python that is below it can be run by others, too
cp -a "$folder/image/." "$root/"
mkdir -p "$root"/{proc,dev,tmp}
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
mount -t tmpfs -o mode=755,nosuid tmpfs "$root/dev"
for name in null:3 zero:5 full:7 random:8 urandom:9; do mknod -m 666 "$root/dev/${name%:*}" c 1 "${name#*:}"; done
ln -s /proc/self/fd "$root/dev/fd"
mkdir "$root/dev/shm"
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs "$root/dev/shm"
mount -o remount,ro "$root"
ip link set lo up
for ((tries = 0; tries < 1000; tries++)); do
    [[ ! -e $folder/go ]] || break
    sleep 0.02
done
cd "$root"
pivot_root . .
umount -l .
cd "$directory"
exec "$@"
