#!/bin/bash
# SPDX-License-Identifier: MIT
# make.sh DIRECTORY: makes the fixtures again, with qemu-img, qemu-io, mke2fs, vhd.bash and vhdx.bash.  Identifiers and times
# differ from run to run, so what is stored here changes only when somebody wants it to.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/images/vhd.bash
. "$here/vhd.bash"
# shellcheck source=tests/images/vhdx.bash
. "$here/vhdx.bash"
mkdir -p "$1"
out=$(cd "$1" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export SOURCE_DATE_EPOCH=1700000000

keep() { xz -9e -T1 -c "$1" >"$out/$2.xz"; }
poke() {
        local file=$1 offset=$2
        shift 2
        bytes "$(printf '%s' "$@" | tr -d ' ')" | dd of="$file" bs=1 seek=$((offset)) conv=notrunc status=none
}
number_at() { echo $((16#$(od -An -v -tx1 -j "$(($2))" -N "$3" "$1" | tr -d ' \n'))); }

# --- what is on the disks -----------------------------------------------------------------------------------------------

# small.raw: 3 MiB and 3 sectors: text, a hole, some noise, a repeated line, a marker in the last sector
truncate -s $((3 * 1048576 + 1536)) small.raw
seq 1 4000 | dd of=small.raw conv=notrunc status=none
openssl enc -aes-128-ctr -K 0f -iv 00 -in /dev/zero 2>/dev/null | head -c 2500 |
        dd of=small.raw bs=1 seek=600000 conv=notrunc status=none
yes 'the same line again' | head -c 150000 | dd of=small.raw bs=1000 seek=2100 conv=notrunc status=none
printf 'last sector' | dd of=small.raw bs=512 seek=6146 conv=notrunc status=none

# os.raw: 64 MiB, partition table, ext2 with some files
mkdir -p tree/boot tree/etc tree/home/user tree/var/log
seq -f 'line %g of a log file' 1 2000 >tree/var/log/messages
printf 'root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n' >tree/etc/passwd
printf 'disk\n' >tree/etc/hostname
cp "$here/../../LICENSE" tree/home/user/
head -c 3000000 /dev/zero | tr '\0' 'k' >tree/boot/kernel
find tree -exec touch -d @$SOURCE_DATE_EPOCH {} +
truncate -s 64M os.raw
# one bootable Linux partition of 129024 sectors from sector 2048 on
poke os.raw 440 78563412 0000 80 202100 83 28 2008 00080000 00f80100
poke os.raw 510 55aa
mke2fs -q -t ext2 -b 4096 -L disk -U 01234567-89ab-cdef-0123-456789abcdef -E offset=1048576,root_owner=0:0 \
        -d tree os.raw 64512k 2>/dev/null

# --- good VHD -----------------------------------------------------------------------------------------------------------

vhd() { qemu-img convert -f raw -O vpc -o "$1" "$2" "$3"; }

vhd subformat=dynamic,force_size=on os.raw os.vhd && keep os.vhd good-vhd-os-disk
vhd subformat=dynamic,force_size=on small.raw dynamic.vhd && keep dynamic.vhd good-vhd-dynamic
vhd subformat=dynamic small.raw chs.vhd && keep chs.vhd good-vhd-dynamic-chs
vhd subformat=fixed,force_size=on small.raw fixed.vhd && keep fixed.vhd good-vhd-fixed

# A fixed disk as Hyper-V makes it: the geometry is smaller than the size.
cp small.raw hyperv.vhd
bytes "$(vhd_footer 2 3147264 -1 00112233445566778899aabbccddeeff "win " 90 4 17)" >>hyperv.vhd
keep hyperv.vhd good-vhd-fixed-hyperv

# Virtual PC before 2004 wrote a footer of 511 bytes.
head -c -1 hyperv.vhd >short.vhd && keep short.vhd good-vhd-fixed-511

# One good footer is enough.
cp dynamic.vhd x.vhd && poke x.vhd $(($(stat -c %s x.vhd) - 512)) "$(padded 512 "")" && keep x.vhd good-vhd-end-footer-gone
cp dynamic.vhd x.vhd && poke x.vhd 16 ff && keep x.vhd good-vhd-front-footer-damaged

# 512 KiB blocks, table behind the blocks, unused bytes everywhere: only offsets say where things are.
{
        bytes "$(vhd_footer 3 2097152 4096 0102030405060708090a0b0c0d0e0f10)"
        head -c 3584 /dev/zero
        bytes "$(vhd_header 1060864 4 524288)"
        head -c $((8192 - 5120 - 512)) /dev/zero
        bytes "$(padded 128 "$(printf 'ff%.0s' {1..128})")"
        head -c 384 /dev/zero
        dd if=small.raw bs=524288 skip=4 count=1 status=none
        head -c 1536 /dev/zero
        bytes "$(padded 128 "$(printf 'ff%.0s' {1..128})")"
        head -c 384 /dev/zero
        dd if=small.raw bs=524288 count=1 status=none
} >odd.vhd
truncate -s 1060864 odd.vhd
bytes "$(b32 $((534016 / 512)))$(b32 -1)$(b32 -1)$(b32 $((7680 / 512)))$(padded 496 "$(printf 'ff%.0s' {1..496})")" >>odd.vhd
head -c 512 odd.vhd >footer && cat footer >>odd.vhd
keep odd.vhd good-vhd-odd-layout

# A differencing disk with partial sector bitmaps, by hand, and its dynamic parent.
child() {       # child PARENT-UUID PARENT-NAME LOCATOR-NAME
        local locators relative absolute
        relative=$(utf16le "$3")
        absolute=$(utf16le 'C:\disks\'"$2")
        locators=$(vhd_locator W2ku 512 $((${#absolute} / 2)) 2048)$(vhd_locator W2ru 512 $((${#relative} / 2)) 2560)
        bytes "$(vhd_footer 4 3147264 512 a1a2a3a4a5a6a7a8a9aaabacadaeafb0)"
        bytes "$(vhd_header 1536 2 2097152 "$1" "$2" "$locators")"
        bytes "$(b32 6)$(b32 -1)$(padded 504 "$(printf 'ff%.0s' {1..504})")"
        bytes "$(padded 512 "$absolute")"
        bytes "$(padded 512 "$relative")"
        # sectors 0, 9 and 4095 of block 0 are the child's
        bytes "8040$(padded 509 "")01"
        printf 'sector 0 of the child' | dd bs=512 conv=sync status=none
        head -c $((8 * 512)) /dev/zero
        printf 'sector 9 of the child' | dd bs=512 conv=sync status=none
        head -c $((4085 * 512)) /dev/zero
        printf 'sector 4095 of the child' | dd bs=512 conv=sync status=none
        bytes "$(vhd_footer 4 3147264 512 a1a2a3a4a5a6a7a8a9aaabacadaeafb0)"
}
cp dynamic.vhd parent.vhd && keep parent.vhd good-vhd-parent
parent_uuid=$(od -An -v -tx1 -j 68 -N 16 parent.vhd | tr -d ' \n')
child "$parent_uuid" good-vhd-parent '.\good-vhd-parent' >child.vhd && keep child.vhd good-vhd-child

# --- good VHDX ----------------------------------------------------------------------------------------------------------

vhdx() { qemu-img convert -f raw -O vhdx -o "$1" "$2" "$3"; }

vhdx subformat=dynamic,block_size=1M small.raw dynamic.vhdx && keep dynamic.vhdx good-vhdx-dynamic
vhdx subformat=fixed,block_state_zero=off small.raw fixed.vhdx && keep fixed.vhdx good-vhdx-fixed

# A log that was not replayed.  Entry 7 (sectors 251 to 253) turns block 2 into zeros and clears 64 KiB of block 0, entry 8
# (254, 255, 0) lets block 2 point to new space at the end, which it adds, and says that 7 is needed.  Around them: an older
# run, an entry of another log with a higher number, one that was torn.
cp dynamic.vhdx x.vhdx
guid=00112233445566778899aabbccddeeff
end=$(stat -c %s x.vhdx)
vhdx_headers x.vhdx 48 $guid
dd if=x.vhdx of=bat bs=4096 skip=512 count=1 status=none
poke bat 16 0200000000000000
head -c 4096 /dev/zero >zeros
head -c 4096 /dev/zero | tr '\0' '\377' >wrong
vhdx_entry $guid 7 $((251 * 4096)) "$end" "$end" data:$((0x200000)):bat data:$((0x201000)):wrong \
        zero:$(($(vhdx_number x.vhdx $((0x200000)) 8) - 6)):65536 | vhdx_log x.vhdx 251
poke bat 16 "$(l64 $((end | 6)))"
vhdx_entry $guid 8 $((251 * 4096)) "$end" $((end + 1048576)) data:$((0x200000)):bat data:$((0x201000)):zeros |
        vhdx_log x.vhdx 254
vhdx_entry $guid 3 $((20 * 4096)) "$end" "$end" data:$((0x200000)):wrong | vhdx_log x.vhdx 20
vhdx_entry ${guid/00/01} 99 $((30 * 4096)) "$end" "$end" data:$((0x200000)):wrong | vhdx_log x.vhdx 30
vhdx_entry $guid 9 $((251 * 4096)) "$end" "$end" data:$((0x200000)):wrong >entry
poke entry 4090 55 && vhdx_log x.vhdx 1 <entry
keep x.vhdx good-vhdx-log

# A differencing disk by hand, and its parent.
cp small.raw parent.raw && truncate -s 4M parent.raw
vhdx subformat=dynamic,block_size=1M parent.raw parent.vhdx && keep parent.vhdx good-vhdx-parent
qemu-img create -q -f vhdx -o block_size=1M x.vhdx 4M
at=65536
[ "$(vhdx_number parent.vhdx 65544 8)" -gt "$(vhdx_number parent.vhdx 131080 8)" ] || at=131072
vhdx_make_child x.vhdx "$(vhdx_locator parent_linkage "{$(vhdx_guid parent.vhdx $((at + 32)))}" \
        relative_path '.\good-vhdx-parent' absolute_win32_path '\\?\C:\disks\good-vhdx-parent')"
keep x.vhdx good-vhdx-child

# --- good qcow2 ---------------------------------------------------------------------------------------------------------

qcow2() { qemu-img convert -f raw -O qcow2 "${@:3}" -o "$1" small.raw x.qcow2 && keep x.qcow2 "$2"; }

qcow2 compat=0.10 good-qcow2-v2
qcow2 compat=1.1 good-qcow2-v3
qcow2 compat=0.10 good-qcow2-v2-packed -c
qcow2 compression_type=zlib good-qcow2-zlib -c
qcow2 compression_type=zstd good-qcow2-zstd -c
qcow2 cluster_size=512 good-qcow2-cluster-512
qcow2 cluster_size=512 good-qcow2-cluster-512-zlib -c
qcow2 cluster_size=2M good-qcow2-cluster-2m
qcow2 cluster_size=2M good-qcow2-cluster-2m-zlib -c
qcow2 refcount_bits=1 good-qcow2-refcount-1
qcow2 refcount_bits=64 good-qcow2-refcount-64
qcow2 extended_l2=on,cluster_size=128k good-qcow2-extended-l2
qcow2 preallocation=metadata good-qcow2-preallocated
qcow2 lazy_refcounts=on good-qcow2-lazy

# Zero clusters, with and without space behind them; the first hides data of the base.
qemu-img create -q -f qcow2 zero.qcow2 1M
qemu-io -c 'write -P 0x41 0 512k' -c 'write -z 64k 64k' -c 'write -z -u 192k 64k' zero.qcow2 >/dev/null
keep zero.qcow2 good-qcow2-zero-clusters

# A chain of three: raw, qcow2, qcow2 that is longer than its base.
cp small.raw chain-base.raw && keep chain-base.raw good-raw-chain-base
qemu-img create -q -f qcow2 -b chain-base.raw -F raw chain-middle.qcow2
qemu-io -c 'write -P 0x31 100k 50k' -c 'write -z 2100k 64k' chain-middle.qcow2 >/dev/null
keep chain-middle.qcow2 good-qcow2-chain-middle
qemu-img create -q -f qcow2 -b chain-middle.qcow2 -F qcow2 chain-top.qcow2 5M
qemu-io -c 'write -P 0x32 120k 1k' -c 'write -P 0x33 4M 100k' chain-top.qcow2 >/dev/null
keep chain-top.qcow2 good-qcow2-chain-top

# Snapshots: the disk of each is another.
qemu-img create -q -f qcow2 snapshots.qcow2 1M
qemu-io -c 'write -P 0x61 0 200k' snapshots.qcow2 >/dev/null
qemu-img snapshot -c first snapshots.qcow2
qemu-io -c 'write -P 0x62 100k 200k' snapshots.qcow2 >/dev/null
qemu-img snapshot -c second snapshots.qcow2
qemu-io -c 'write -P 0x63 0 64k' snapshots.qcow2 >/dev/null
keep snapshots.qcow2 good-qcow2-snapshots

qemu-img create -q -f qcow2 bitmaps.qcow2 1M
qemu-img bitmap --add bitmaps.qcow2 tracked
qemu-io -c 'write -P 0x71 300k 100k' bitmaps.qcow2 >/dev/null
keep bitmaps.qcow2 good-qcow2-bitmaps

qemu-img create -q -f qcow2 -o data_file=good-raw-data-file,data_file_raw=off datafile.qcow2 1M
qemu-io -c 'write -P 0x81 0 100k' -c 'write -P 0x82 900k 60k' datafile.qcow2 >/dev/null
keep datafile.qcow2 good-qcow2-data-file
keep good-raw-data-file good-raw-data-file

# A writer that was killed: the dirty bit is set and the counts are stale.
qemu-img create -q -f qcow2 -o lazy_refcounts=on dirty.qcow2 1M
qemu-io -c 'write -P 0x91 0 300k' -c 'sigraise 9' dirty.qcow2 >/dev/null 2>&1 || true
keep dirty.qcow2 good-qcow2-dirty

# --- bad VHD ------------------------------------------------------------------------------------------------------------

bad() { cp "$1" x.img && poke x.img "${@:3}" && { [ "${1##*.}" != vhd ] || vhd_reseal x.img; } && keep x.img "$2"; }

qemu-img create -q -f raw tiny.raw 5M
printf 'first' | dd of=tiny.raw conv=notrunc status=none
printf 'third' | dd of=tiny.raw bs=1M seek=4 conv=notrunc status=none
vhd subformat=dynamic,force_size=on tiny.raw tiny.vhd
table=$(number_at tiny.vhd 528 8)

bad tiny.vhd bad-vhd-block-past-end $((table + 8)) 00003000
bad tiny.vhd bad-vhd-block-huge $((table + 8)) fffffffe
bad tiny.vhd bad-vhd-blocks-overlap $((table + 8)) "$(b32 $(($(number_at tiny.vhd "$table" 4) + 8)))"
bad tiny.vhd bad-vhd-block-on-header "$table" 00000001
bad tiny.vhd bad-vhd-block-size-0 544 00000000
bad tiny.vhd bad-vhd-block-size-3000 544 00000bb8
bad tiny.vhd bad-vhd-table-too-small 540 00000001
bad tiny.vhd bad-vhd-table-huge 540 ffffffff
bad tiny.vhd bad-vhd-table-past-end 528 0000000010000000
bad tiny.vhd bad-vhd-header-cookie 512 00
bad tiny.vhd bad-vhd-header-past-end 16 0000000010000000
bad tiny.vhd bad-vhd-type-9 60 00000009
poke x.img $(($(stat -c %s x.img) - 512 + 60)) 00000009 && vhd_reseal x.img && keep x.img bad-vhd-type-9
cp tiny.vhd x.img && poke x.img 548 00000000 && keep x.img bad-vhd-header-checksum
cp tiny.vhd x.img && poke x.img 64 00000000 && poke x.img $(($(stat -c %s x.img) - 448)) 00000000 && keep x.img bad-vhd-both-footers
head -c 3000000 tiny.vhd >x.img && keep x.img bad-vhd-truncated
child "$parent_uuid" nowhere.vhd '.\nowhere.vhd' >x.img && keep x.img bad-vhd-parent-missing
child 00000000000000000000000000000001 good-vhd-parent '.\good-vhd-parent' >x.img && keep x.img bad-vhd-parent-wrong
child a1a2a3a4a5a6a7a8a9aaabacadaeafb0 bad-vhd-parent-self '.\bad-vhd-parent-self' >x.img && keep x.img bad-vhd-parent-self

# --- bad qcow2 ----------------------------------------------------------------------------------------------------------

qemu-img create -q -f qcow2 tiny.qcow2 1M
qemu-io -c 'write -P 0x41 0 64k' -c 'write -P 0x42 512k 64k' tiny.qcow2 >/dev/null
l1=$(number_at tiny.qcow2 40 8)
l2=$(($(number_at tiny.qcow2 "$l1" 8) & 0xfffffffffffe00))
counts=$(number_at tiny.qcow2 "$(number_at tiny.qcow2 48 8)" 8)

bad tiny.qcow2 bad-qcow2-data-past-end "$l2" 8000000000900000
bad tiny.qcow2 bad-qcow2-data-unaligned "$l2" 8000000000050200
bad tiny.qcow2 bad-qcow2-l2-past-end "$l1" 8000000000900000
bad tiny.qcow2 bad-qcow2-l2-unaligned "$l1" 8000000000040200
bad tiny.qcow2 bad-qcow2-l1-past-end 40 0000000000900000
bad tiny.qcow2 bad-qcow2-l1-huge 36 ffffffff
bad tiny.qcow2 bad-qcow2-l1-too-small 36 00000000
bad tiny.qcow2 bad-qcow2-size-huge 24 ffffffffffffff00
bad tiny.qcow2 bad-qcow2-cluster-bits-8 20 00000008
bad tiny.qcow2 bad-qcow2-cluster-bits-22 20 00000016
bad tiny.qcow2 bad-qcow2-header-length 100 00ffff00
bad tiny.qcow2 bad-qcow2-extension-length 116 7fffffff
bad tiny.qcow2 bad-qcow2-refcount-order 96 00000007
bad tiny.qcow2 bad-qcow2-backing-name-long 8 00000000000002000000ffff
head -c 350000 tiny.qcow2 >x.img && keep x.img bad-qcow2-truncated
head -c 104 tiny.qcow2 >x.img && keep x.img bad-qcow2-header-only

# Checks find these; reading is not affected.
bad tiny.qcow2 bad-qcow2-count-low $((counts + 10)) 0000
bad tiny.qcow2 bad-qcow2-count-high $((counts + 10)) 0007
bad tiny.qcow2 bad-qcow2-shared-data $((l2 + 64)) "$(b64 $((16#$(od -An -v -tx1 -j $((l2)) -N 8 tiny.qcow2 | tr -d ' \n'))))"
bad tiny.qcow2 bad-qcow2-data-on-counts "$l2" "$(b64 $((counts | 1 << 63)))"
cp tiny.qcow2 x.img && poke x.img $((counts + 14)) 0001 && truncate -s 524288 x.img && keep x.img bad-qcow2-leak

qemu-img convert -f raw -O qcow2 -c small.raw packed.qcow2
l1=$(number_at packed.qcow2 40 8)
l2=$(($(number_at packed.qcow2 "$l1" 8) & 0xfffffffffffe00))
data=$(($(number_at packed.qcow2 "$l2" 8) & 0x3fffffffffffff))
bad packed.qcow2 bad-qcow2-packed-garbage "$data" ffffffffffffffffffffffff
# a stream that is right and ends too early: one stored block of 16 bytes
bad packed.qcow2 bad-qcow2-packed-short "$data" 011000efff "$(ascii 0123456789abcdef)"

qemu-img create -q -f qcow2 -u -b bad-qcow2-backing-self -F qcow2 x.img 1M && keep x.img bad-qcow2-backing-self
qemu-img create -q -f qcow2 -u -b nowhere.raw -F raw x.img 1M && keep x.img bad-qcow2-backing-missing
qemu-img create -q -f qcow2 -u -b /etc/passwd -F qcow2 x.img 1M && keep x.img bad-qcow2-backing-not-an-image
qemu-img create -q -f qcow2 -u -b /proc/self/environ -F raw x.img 1M && keep x.img bad-qcow2-backing-proc
qemu-img create -q -f qcow2 -u -b /dev/zero -F raw x.img 1M && keep x.img bad-qcow2-backing-device
name='json:{"driver":"file","filename":"/etc/passwd"}'
qemu-img create -q -f qcow2 -u -b "${name//?/p}" -F raw x.img 1M
poke x.img "$(number_at x.img 8 8)" "$(ascii "$name")"
keep x.img bad-qcow2-backing-json
cp datafile.qcow2 x.img
at=$(grep -abo good-raw-data-file x.img | head -n 1 | cut -d: -f1)
poke x.img "$at" "$(ascii //////etc/hostname)" && keep x.img bad-qcow2-data-file-outside

# --- VDI, qcow, QED, Parallels ------------------------------------------------------------------------------------------

qemu-img convert -f raw -O vdi small.raw x.vdi && keep x.vdi good-vdi-dynamic
qemu-img convert -f raw -O vdi -o static=on small.raw fixed.vdi && keep fixed.vdi good-vdi-fixed
# a parent and what VirtualBox makes of it: block 1 changed, block 2 zeros, the rest the parent's
cp x.vdi parent.vdi
poke parent.vdi 392 000102030405060708090a0b0c0d0e0f 101112131415161718191a1b1c1d1e1f
keep parent.vdi good-vdi-parent
head -c 1024 parent.vdi >child.vdi
poke child.vdi 76 04000000 && poke child.vdi 388 01000000
poke child.vdi 392 202122232425262728292a2b2c2d2e2f 303132333435363738393a3b3c3d3e3f \
        000102030405060708090a0b0c0d0e0f 101112131415161718191a1b1c1d1e1f
poke child.vdi 512 ffffffff 00000000 feffffff ffffffff
{ yes 'changed in the child' | head -c 1048576; } >>child.vdi
keep child.vdi good-vdi-child
qemu-img convert -f raw -O vdi tiny.raw tiny.vdi
bad tiny.vdi bad-vdi-block-past-end 512 00000100
bad tiny.vdi bad-vdi-shared-slot 516 00000000
bad tiny.vdi bad-vdi-map-past-end 340 00000070
qemu-img convert -f raw -O vdi tiny.raw tiny.vdi
bad tiny.vdi bad-vdi-block-size-0 376 00000000
bad tiny.vdi bad-vdi-too-few-blocks 384 01000000
head -c 1500000 tiny.vdi >y.vdi && keep y.vdi bad-vdi-truncated
bad child.vdi bad-vdi-parent-missing 424 ffffffff
bad tiny.vdi unsupported-vdi-version-2 68 00000200

qemu-img convert -f raw -O qcow small.raw x.qcow && keep x.qcow good-qcow-plain
qemu-img convert -f raw -O qcow -c small.raw packed.qcow || true       # 7.2 says 1 although all is well
keep packed.qcow good-qcow-packed
cp small.raw chain-base.raw
qemu-img create -q -f qcow -b chain-base.raw -F raw y.qcow && qemu-io -f qcow -c 'write -P 99 1M 5000' y.qcow >/dev/null
keep y.qcow good-qcow-chain
qemu-img convert -f raw -O qcow tiny.raw tiny.qcow
qemu-img convert -f raw -O qcow -c tiny.raw packed.qcow || true
l2=$(number_at packed.qcow 48 8)
data=$(($(number_at packed.qcow "$l2" 8) & 0x7ffffffffffff))
bad packed.qcow bad-qcow-packed-garbage "$data" ffffffffffffffff
bad packed.qcow bad-qcow-packed-past-end "$l2" 8080000000f00000
bad tiny.qcow bad-qcow-l2-past-end 48 0000000000f00000
bad tiny.qcow bad-qcow-cluster-bits-8 32 08
bad tiny.qcow bad-qcow-size-huge 24 0fffffffffffffff
qemu-img create -q -f qcow --object secret,id=s,data=secret -o encrypt.format=aes,encrypt.key-secret=s y.qcow 1M &&
        keep y.qcow unsupported-qcow-aes

qemu-img convert -f raw -O qed small.raw x.qed && keep x.qed good-qed-plain
qemu-img convert -f raw -O qed -o cluster_size=4k,table_size=2 small.raw y.qed && keep y.qed good-qed-small-tables
qemu-img create -q -f qed -b chain-base.raw -F raw y.qed &&
        qemu-io -f qed -c 'write -P 99 1M 64k' -c 'write -z 2M 64k' y.qed >/dev/null
keep y.qed good-qed-chain
qemu-img convert -f raw -O qed tiny.raw tiny.qed
bad tiny.qed bad-qed-l1-past-end 40 0000f0000000
bad tiny.qed bad-qed-table-size-3 8 03
bad tiny.qed bad-qed-cluster-size-2k 4 00080000
head -c 400000 tiny.qed >y.qed && keep y.qed bad-qed-truncated
bad tiny.qed unsupported-qed-feature 16 00010000

qemu-img convert -f raw -O parallels -o cluster_size=64k small.raw x.hds && keep x.hds good-parallels-clusters
# the older magic, sectors in the table, clusters of 63 sectors behind each other: 98 of them
truncate -s $((98 * 32256 + 1024)) old.hds
poke old.hds 0 "$(ascii WithoutFreeSpace)" 02000000 10000000 0c000000 3f000000 62000000 0318000000000000 00000000 02000000
for ((i = 0; i < 98; i++)); do
        at=$((2 + i * 63))
        poke old.hds $((64 + i * 4)) "$(printf '%02x%02x0000' $((at & 255)) $((at >> 8)))"
done
dd if=small.raw of=old.hds bs=512 seek=2 conv=notrunc status=none
keep old.hds good-parallels-old
qemu-img convert -f raw -O parallels -o cluster_size=64k tiny.raw tiny.hds
bad tiny.hds bad-parallels-block-past-end 64 00ffff00
bad tiny.hds bad-parallels-table-huge 32 ffffff7f
bad tiny.hds bad-parallels-cluster-0 28 00000000
head -c 150000 tiny.hds >y.hds && keep y.hds bad-parallels-truncated
bad tiny.hds unsupported-parallels-version-3 16 03

# --- unsupported --------------------------------------------------------------------------------------------------------

bad tiny.qcow2 unsupported-qcow2-version-4 4 00000004
bad tiny.qcow2 unsupported-qcow2-feature 72 4000000000000000
cp tiny.qcow2 x.img && poke x.img 120 0015 "$(ascii 'time travel')" 00 && poke x.img 72 0000000000200000 &&
        keep x.img unsupported-qcow2-named-feature
qemu-img create -q -f qcow2 --object secret,id=s,data=secret -o encrypt.format=aes,encrypt.key-secret=s x.img 1M &&
        keep x.img unsupported-qcow2-aes
qemu-img create -q -f qcow2 --object secret,id=s,data=secret \
        -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=200 x.img 1M
# the key material is noise and of no use here
dd if=/dev/zero of=x.img bs=4096 seek=$((0x41000 / 4096)) count=500 conv=notrunc status=none
keep x.img unsupported-qcow2-luks

du -sb "$out"
