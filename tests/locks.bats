#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Locks that QEMU understands, against a real QEMU process
load helpers

# hold MODE FILE: a qemu-io that has the image open, read-write or read-only, until let_go
hold() {
        local options=()
        [ "$1" = write ] || options=(-r)
        mkfifo hold.fifo
        qemu-io "${options[@]}" -f "${3:-qcow2}" "$2" <hold.fifo >hold.out 2>&1 3>&- &
        holder=$!
        exec {feed}>hold.fifo
        echo 'read 0 512' >&"$feed"
        until grep -q 'read 512/512' hold.out; do
                kill -0 $holder 2>/dev/null || say "qemu-io: $(cat hold.out)" || return 1
        done
}
let_go() {
        echo quit >&"$feed"
        exec {feed}>&-
        wait $holder
        rm -f hold.fifo hold.out
}

teardown() {
        [ -z "${holder:-}" ] || kill $holder 2>/dev/null || true
        [ -z "${stopped:-}" ] || kill -KILL "$stopped" || true
        cd / && rm -rf "$BATS_TEST_TMPDIR/work"
}

@test "convert, compare and check refuse an image that QEMU writes, and name the option that overrides" {
        fixture good-qcow2-v3 disk.qcow2
        truncate -s 1M other.raw
        hold write disk.qcow2
        fails_with -U vdtool convert -O raw disk.qcow2 out.raw
        fails_with -U vdtool check disk.qcow2
        fails_with -U vdtool compare disk.qcow2 other.raw
        [ ! -e out.raw ]
        let_go
        vdtool convert -O raw disk.qcow2 out.raw
}

@test "the message names the process that has the image" {
        fixture good-qcow2-v3 disk.qcow2
        hold write disk.qcow2
        fails_with "$holder" vdtool convert -O raw disk.qcow2 out.raw
        [[ $stderr == *qemu-io* ]] || told
        let_go
}

@test "-U reads an image that QEMU writes, with a warning" {
        fixture good-qcow2-v3 disk.qcow2
        hold write disk.qcow2
        capture vdtool convert -U -O raw disk.qcow2 out.raw
        same "$status" 0
        [[ $stderr == *'warning'* ]] || told
        let_go
        same "$(sha256 out.raw)" "$(fixture_fact good-qcow2-v3 4)"
}

@test "info and map of an image that QEMU writes go on, with a warning" {
        fixture good-qcow2-v3 disk.qcow2
        hold write disk.qcow2
        local command
        for command in info map; do
                capture vdtool $command disk.qcow2
                same "$status" 0 || told
                [[ $stderr == 'vdtool: warning: disk.qcow2: is being written to: '* ]] || told
        done
        let_go
        capture vdtool info disk.qcow2
        [[ $stderr != *'written to'* ]] || told
}

@test "an image that QEMU only reads can be read, and not written" {
        fixture good-qcow2-v3 disk.qcow2
        disk_image new.raw 3147264
        local before
        before=$(sha256 disk.qcow2)
        hold read disk.qcow2
        vdtool convert -O raw disk.qcow2 out.raw
        vdtool check disk.qcow2
        fails_cleanly vdtool convert -n -f raw -O qcow2 new.raw disk.qcow2
        fails_cleanly vdtool convert -n -U -f raw -O qcow2 new.raw disk.qcow2
        same "$(sha256 disk.qcow2)" "$before"
        let_go
        vdtool convert -n -f raw -O qcow2 new.raw disk.qcow2
}

@test "an image that QEMU has open is not replaced, not even with --force" {
        fixture good-qcow2-v3 disk.qcow2
        disk_image new.raw 1048576
        local before mode
        before=$(sha256 disk.qcow2)
        for mode in read write; do
                hold $mode disk.qcow2
                fails_cleanly vdtool convert --force -f raw -O qcow2 new.raw disk.qcow2
                fails_cleanly vdtool create --force disk.qcow2 1M
                same "$(sha256 disk.qcow2)" "$before"
                let_go
        done
        vdtool create --force disk.qcow2 1M
}

@test "the layers below are looked at too" {
        fixture good-raw-chain-base chain-base.raw
        fixture good-qcow2-chain-middle chain-middle.qcow2
        fixture good-qcow2-chain-top chain-top.qcow2
        hold write chain-middle.qcow2
        fails_cleanly vdtool convert -O raw chain-top.qcow2 out.raw
        vdtool convert -U -O raw chain-top.qcow2 out.raw
        let_go
}

@test "while we read, QEMU may read and not write; while we write, neither" {
        requires strace
        fixture good-qcow2-v3 disk.qcow2
        head -c 3147264 /dev/zero | tr '\0' 'n' >new.raw
        stop_at pwrite64 1 convert -O raw disk.qcow2 out.raw
        qemu-img info disk.qcow2 >/dev/null
        fails_by_lock qemu-io -c 'write 0 512' disk.qcow2
        go_on
        stop_at pwrite64 1 convert -n -f raw -O qcow2 new.raw disk.qcow2
        fails_by_lock qemu-img info disk.qcow2
        fails_by_lock qemu-io -c 'write 0 512' disk.qcow2
        qemu-img info -U disk.qcow2 >/dev/null
        go_on
        qemu-io -c 'write 0 512' disk.qcow2
}

fails_by_lock() {
        capture "$@"
        [[ $stderr$output == *lock* ]] || told
}

@test "two of us may read the same image, one may write it" {
        requires strace
        fixture good-qcow2-v3 disk.qcow2
        disk_image new.raw 3147264
        stop_at pwrite64 1 convert -O raw disk.qcow2 one.raw
        vdtool convert -O raw disk.qcow2 two.raw
        fails_cleanly vdtool convert -n -f raw -O qcow2 new.raw disk.qcow2
        go_on
        cmp one.raw two.raw
}

@test "--no-lock looks at no lock" {
        fixture good-qcow2-v3 disk.qcow2
        hold write disk.qcow2
        succeeds vdtool convert --no-lock -O raw disk.qcow2 out.raw
        let_go
}

@test "VHDs and raw disks are locked like qcow2" {
        fixture good-vhd-dynamic disk.vhd
        hold write disk.vhd vpc
        fails_cleanly vdtool convert -O raw disk.vhd out.raw
        let_go
        vdtool convert -O raw disk.vhd out.raw
}

@test "a lock ends with the process, also when it was killed" {
        requires strace
        fixture good-qcow2-v3 disk.qcow2
        injected signal=SIGKILL:when=1 convert -O raw disk.qcow2 out.raw || true
        qemu-io -c 'write 0 512' disk.qcow2
}
