#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# shellcheck disable=SC2154  # capture sets status, output and stderr
# NBD exports as sources and targets: against nbdkit and qemu-nbd, on sockets in the test's own directory.

load helpers

SOCKET=sock
URI="nbd+unix:///?socket=$SOCKET"

teardown() {
        stop_server
        cd / && rm -rf "$BATS_TEST_TMPDIR/work"
}

needs_nbd() {
        requires "$@"
        vdtool --version | grep -q '^optional libraries:.* nbd' || skip "built without libnbd"
}

# serve ARGUMENTS: nbdkit with these; returns when it listens.
serve() { nbdkit -U "$PWD/$SOCKET" -P "$PWD/$SOCKET.pid" "$@" 3>&-; }

serve_qemu() { qemu-nbd --fork --persistent --socket="$PWD/$SOCKET" --pid-file="$PWD/$SOCKET.pid" "$@" 3>&- >/dev/null; }

# Whoever reaps orphans may take its time.
is_running() { [ "$(ps -o stat= -p "$1" | cut -c1)" != Z ] && kill -0 "$1" 2>/dev/null; }

# stop_server [SIGNAL]: all of them.
stop_server() {
        local file pid
        for file in ./*.pid; do
                pid=$(cat "$file" 2>/dev/null) || continue
                kill "${1:--TERM}" "$pid" 2>/dev/null
                for _ in $(seq 100); do
                        is_running "$pid" || break
                        sleep 0.05
                done
                rm -f "$file" "${file%.pid}"
        done
}

@test "nbd: nbdkit as a source: bytes and holes" {
        needs_nbd nbdkit
        disk_image disk.raw
        serve file disk.raw
        vdtool convert -O raw "$URI" out.raw
        cmp out.raw disk.raw
        [ "$(blocks_of out.raw)" -le "$(blocks_of disk.raw)" ]
        same "$(vdtool map --output json "$URI")" "$(vdtool map --output json disk.raw)"
        same "$(vdtool info --field virtual-size "$URI")" 5244416
        vdtool convert "$URI" out.qcow2
        vdtool compare out.qcow2 "$URI"
}

@test "nbd: qemu-nbd as a source: holes are not read" {
        needs_nbd qemu-nbd qemu-img
        disk_image disk.raw
        qemu-img convert -O qcow2 disk.raw disk.qcow2
        serve_qemu -r -f qcow2 disk.qcow2
        vdtool convert -v -O raw "$URI" out.raw | grep -q 'left as holes: *4'
        qemu-img compare -q -f raw -F qcow2 out.raw disk.qcow2
        vdtool map "$URI" | grep -q '^0x10f000 *0x31000\|^0x110000\|^0x100000'
}

@test "nbd: an image of another format inside an export" {
        needs_nbd nbdkit
        disk_image disk.raw
        vdtool convert -c disk.raw disk.qcow2
        serve -r file disk.qcow2
        same "$(vdtool info --field format "$URI")" qcow2
        vdtool check -q "$URI"
        vdtool compare -q "$URI" disk.raw
}

@test "nbd: a server on a TCP port, with an export name" {
        needs_nbd nbdkit
        disk_image disk.raw
        for port in 20809 21809 22809 skip; do
                [ "$port" != skip ] || skip "no free port"
                nbdkit -i 127.0.0.1 -p "$port" -P "$PWD/tcp.pid" -e 'the disk' file disk.raw 3>&- 2>/dev/null && break
        done
        vdtool compare -q "nbd://127.0.0.1:$port/the%20disk" disk.raw
}

@test "nbd: an export without block status is all data" {
        needs_nbd nbdkit
        disk_image disk.raw
        serve --filter=noextents file disk.raw
        vdtool convert -O raw "$URI" out.raw
        cmp out.raw disk.raw
        same "$(vdtool map --output json "$URI" | wc -l)" 1
}

@test "nbd: nbdkit as a target: data written, zeros zeroed" {
        needs_nbd nbdkit
        disk_image disk.raw
        head -c 5244416 /dev/urandom >export.raw
        poke export.raw 0 1f8b08        # what stands there is no matter
        serve file export.raw
        vdtool convert -n disk.raw "$URI"
        cmp export.raw disk.raw
        [ "$(blocks_of export.raw)" -le "$(blocks_of disk.raw)" ]
}

@test "nbd: a target without zeroing, or that refuses it, gets zeros written" {
        needs_nbd nbdkit
        disk_image disk.raw
        head -c 5244416 /dev/urandom >export.raw
        serve --filter=nozero file export.raw zeromode=none
        vdtool convert -n disk.raw "$URI"
        cmp export.raw disk.raw
        stop_server
        head -c 5244416 /dev/urandom >export.raw
        serve --filter=error file export.raw error-zero=EINVAL error-zero-rate=1
        vdtool convert -n disk.raw "$URI"
        cmp export.raw disk.raw
}

@test "nbd: qemu-nbd as a target: a qcow2 filled through it" {
        needs_nbd qemu-nbd qemu-img
        disk_image disk.raw
        qemu-img create -q -f qcow2 disk.qcow2 8M
        serve_qemu -f qcow2 --discard=unmap --detect-zeroes=unmap disk.qcow2
        vdtool convert -n disk.raw "$URI"
        stop_server
        qemu-img check -q disk.qcow2
        qemu-img compare -q disk.qcow2 disk.raw
        [ "$(size_of disk.qcow2)" -lt 2500000 ]
}

@test "nbd: from an export into an export, on one thread and on many" {
        needs_nbd nbdkit qemu-nbd
        disk_image disk.raw 20000256
        truncate -s 20000256 export.raw
        SOCKET=target serve_qemu -f raw --shared=8 export.raw
        serve file disk.raw
        for threads in 1 2 8; do
                head -c 20000256 /dev/urandom >export.raw
                vdtool convert -m "$threads" -n "$URI" 'nbd+unix:///?socket=target'
                cmp export.raw disk.raw
        done
}

@test "nbd: one disk by several processes, each a part of it" {
        needs_nbd qemu-nbd
        disk_image disk.raw 20000256
        vdtool convert disk.raw disk.vhd
        vdtool create -q target.qcow2 20000256
        serve_qemu -f qcow2 --shared=8 target.qcow2
        seq 0 25 | xargs -P 3 -I '{}' "$VDTOOL" dd -q bs=1M count=1 skip='{}' seek='{}' if=disk.vhd of="$URI"
        stop_server
        vdtool check -q target.qcow2
        vdtool compare -q target.qcow2 disk.raw
}

@test "nbd: the server's smallest and largest block are kept" {
        needs_nbd nbdkit
        disk_image disk.raw 5242880
        serve --filter=blocksize-policy file disk.raw blocksize-error-policy=error \
                blocksize-minimum=4096 blocksize-preferred=4096 blocksize-maximum=16384
        vdtool convert -O raw "$URI" out.raw
        cmp out.raw disk.raw
        stop_server
        vdtool convert -q -O raw --offset 1000 --size 100000 disk.raw odd.raw
        head -c 5242880 /dev/urandom >export.raw
        cp export.raw expected.raw
        dd if=odd.raw of=expected.raw bs=1 seek=777 conv=notrunc status=none
        serve --filter=blocksize-policy file export.raw blocksize-error-policy=error \
                blocksize-minimum=4096 blocksize-preferred=4096 blocksize-maximum=16384
        vdtool convert -n --target-offset 777 --target-size 100000 odd.raw "$URI"
        cmp export.raw expected.raw
        vdtool convert -n disk.raw "$URI"
        cmp export.raw disk.raw
}

@test "nbd: a server killed half-way is a clean failure" {
        needs_nbd nbdkit
        seq 1 2000000 >disk.raw
        serve --filter=delay file disk.raw rdelay=200ms
        (sleep 0.5; kill -KILL "$(cat sock.pid)") 3>&- &
        fails_with "reading" vdtool convert -m 1 -O raw "$URI" out.raw
        [[ $stderr == *"$URI"* ]] || told
        wait
        [ ! -e out.raw ]
        stop_server
        truncate -s 20M export.raw
        serve --filter=delay file export.raw wdelay=400ms
        (sleep 0.5; kill -KILL "$(cat sock.pid)") 3>&- &
        fails_with "writing" vdtool convert -m 4 -n disk.raw "$URI"
        wait
}

@test "nbd: an error of the server is an error with its place; salvage goes on" {
        needs_nbd nbdkit
        seq 1 400000 | head -c 2M >disk.raw
        # shellcheck disable=SC2016  # $3 bytes at $4, for the server's shell
        serve eval get_size='echo 2097152' pread='[ $(($3 + $4)) -le 1900544 ] || { echo EIO broken >&2; exit 1; }
                dd if='"$PWD/disk.raw"' count=$3 skip=$4 iflag=count_bytes,skip_bytes status=none'
        fails_with "Input/output error" vdtool convert -f raw -O raw "$URI" out.raw
        fails_with "could not be read" vdtool convert -q -f raw --salvage -O raw "$URI" out.raw
        cmp -n 1900544 out.raw disk.raw
        same "$(size_of out.raw)" 2097152
        stop_server
        truncate -s 1M export.raw
        serve --filter=error file export.raw error-pwrite=ENOSPC error-pwrite-rate=1
        head -c 1M disk.raw >small.raw
        fails_with "No space left" vdtool convert -n small.raw "$URI"
}

@test "nbd: a signal ends a wait for the server" {
        needs_nbd nbdkit
        seq 1 200000 >disk.raw
        serve --filter=delay file disk.raw rdelay=20
        capture timeout --foreground -s INT 1 "$VDTOOL" convert -f raw -O raw "$URI" out.raw
        [[ $stderr == *"stopped by"* ]] || told
        [ ! -e out.raw ]
        stop_server -KILL
}

@test "nbd: what cannot be is refused" {
        needs_nbd nbdkit
        disk_image disk.raw
        cp disk.raw before.raw
        fails_with "connecting" vdtool info "$URI"
        fails_with "connecting" vdtool info 'nbd+unix:///'
        fails_with "not created" vdtool convert disk.raw "$URI"
        fails_with "not created" vdtool create "$URI" 1M
        serve -r file disk.raw
        fails_with "Read-only" vdtool convert -n before.raw "$URI"
        fails_with "also an input" vdtool convert -n "$URI" "$URI"
        stop_server
        serve memory 1M
        fails_with "smaller than the source" vdtool convert -n disk.raw "$URI"
        cmp disk.raw before.raw
}

@test "nbd: a name inside an image is never an export" {
        needs_nbd nbdkit qemu-img
        disk_image disk.raw
        serve file disk.raw
        qemu-img create -q -f qcow2 -u -b "$URI" -F raw overlay.qcow2 5244416
        fails_with "only names of files are followed" vdtool convert overlay.qcow2 out.raw
        fails_with "only names of files are followed" vdtool convert --references any overlay.qcow2 out.raw
        # The user may say so.
        vdtool convert --parent "$URI" overlay.qcow2 out.raw
        cmp out.raw disk.raw
}
