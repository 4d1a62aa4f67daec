#!/bin/bash
# Unpacks Debian packages into a directory, to be laid over the root of a systemd that is booted for tests; nothing is
# installed here.
#   layer.sh nginx DIR  this Debian's nginx
#   layer.sh 254 DIR    bookworm-backports, with this Debian's libc
#   layer.sh 257 DIR    trixie, with its own libc6 and libraries
#   layer.sh 262 DIR    the newest suite, in the same way
set -euo pipefail
case ${1:-} in
    nginx) suite=bookworm packages=(nginx nginx-common) ;;
    254) suite=bookworm-backports packages=(systemd systemd-dev libsystemd-shared libsystemd0) ;;
    257 | 262)
        [[ $1 == 257 ]] && suite=trixie || suite=sid
        packages=(systemd libsystemd-shared libsystemd0 libc6 libc-bin libssl3t64 libmount1 libblkid1 libuuid1 libselinux1
            libapparmor1 libacl1 libseccomp2 libpam0g libaudit1 libcap-ng0 libcap2 liblzma5 libzstd1 liblz4-1 libcrypt1
            libgcrypt20 libgpg-error0 libpcre2-8-0 zlib1g)
        ;;
    *)
        echo "usage: $0 nginx|254|257|262 DIR" >&2
        exit 2
        ;;
esac
layer=$(mkdir -p "$2" && realpath "$2")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{lists/partial,cache/archives/partial,debs}
# From wherever this machine has its packages.
mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' | awk '$2 == "bookworm" && !seen { seen = $1 } END { print seen }')
[[ -n $mirror ]] || { echo "this is no Debian 12" >&2; exit 1; }
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" > "$work/sources.list"
apt=(apt-get -qq -o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State::Lists=$work/lists"
    -o "Dir::Cache=$work/cache" -o APT::Sandbox::User=root)
"${apt[@]}" update
(cd "$work/debs" && "${apt[@]}" download "${packages[@]/%//$suite}")
for deb in "$work"/debs/*.deb; do
    mkdir "$work/unpacked"
    dpkg-deb -x "$deb" "$work/unpacked"
    # /usr is merged: a real /lib in the layer would hide the root's symlink.
    for name in bin sbin lib lib64; do
        [[ -d $work/unpacked/$name && ! -L $work/unpacked/$name ]] || continue
        mkdir -p "$work/unpacked/usr/$name"
        cp -a "$work/unpacked/$name/." "$work/unpacked/usr/$name/"
        rm -rf "$work/unpacked/${name:?}"
    done
    rm -rf "$work"/unpacked/usr/share/{doc,man,locale,lintian} "$work"/unpacked/etc/ld.so.conf.d
    cp -a "$work/unpacked/." "$layer/"
    rm -rf "$work/unpacked"
done
