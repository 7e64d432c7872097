#!/bin/bash
# SPDX-License-Identifier: MIT
# demo.sh: one of the repository's own VHDs becomes a qcow2; shows both.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
: "${VDTOOL:=$here/../vdtool}"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
xz -dc "$here/images/good-vhd-os-disk.xz" >disk.vhd

show() {
        printf '\n$ %s\n' "$*"
        if [ "$1" = vdtool ]; then
                shift
                "$VDTOOL" "$@"
        else
                "$@"
        fi
}

show vdtool info disk.vhd
show vdtool map --picture disk.vhd
show vdtool convert -p disk.vhd disk.qcow2
show vdtool info disk.qcow2
show vdtool map --picture disk.qcow2
show vdtool compare disk.vhd disk.qcow2
if command -v qemu-img >/dev/null; then
        show qemu-img check disk.qcow2
fi
