#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# What an image may make us open
load helpers

@test "devices, /proc, /sys, URLs and json: names are never parents" {
        local name
        for name in device proc json; do
                fixture bad-qcow2-backing-$name
                fails_cleanly vdtool convert -O raw bad-qcow2-backing-$name out.raw
                [ ! -e out.raw ]
        done
        for name in /sys/kernel/uevent_seqnum nbd://localhost/x http://localhost/x ssh://localhost/x fat:/etc 'nbd:unix:/run/x'; do
                rm -f top.qcow2
                truncate -s 1M base
                qemu-img create -q -f qcow2 -b "$PWD/base" -F raw top.qcow2
                printf 'qcow2 refers to %s\n' "$name"
                qemu-img rebase -u -b "$name" -F raw top.qcow2
                fails_cleanly vdtool convert -O raw top.qcow2 out.raw || return 1
                [ ! -e out.raw ]
        done
}

@test "a symbolic link to a device is no parent either" {
        ln -s /dev/zero base.raw
        qemu-img create -q -f qcow2 -u -b base.raw -F raw top.qcow2 1M
        fails_cleanly vdtool convert -O raw top.qcow2 out.raw
        [ ! -e out.raw ]
}

@test "a FIFO as parent does not hang" {
        mkfifo base.raw
        qemu-img create -q -f qcow2 -u -b base.raw -F raw top.qcow2 1M
        fails_cleanly timeout 20 "$VDTOOL" convert -O raw top.qcow2 out.raw
        [ ! -e out.raw ]
}

@test "a forbidden parent is not even opened" {
        requires strace
        fixture bad-qcow2-backing-device
        fixture bad-qcow2-backing-proc
        local name
        for name in bad-qcow2-backing-device bad-qcow2-backing-proc; do
                ASAN_OPTIONS=$ASAN_OPTIONS:detect_leaks=0 strace -f -e trace=open,openat,openat2 -o "$BATS_TEST_TMPDIR/trace" \
                        "$VDTOOL" convert -O raw $name out.raw || true
                refute grep -E '"/dev/zero"|"/proc/self/environ"' "$BATS_TEST_TMPDIR/trace"
        done
}

@test "a data file outside the image's directory is refused" {
        fixture bad-qcow2-data-file-outside
        fails_cleanly vdtool convert -O raw bad-qcow2-data-file-outside out.raw
        [[ $stderr == *hostname* ]] || told
        mkdir images
        (cd images && fixture good-qcow2-data-file >/dev/null)
        fixture good-raw-data-file
        ln -s ../good-raw-data-file images/good-raw-data-file
        fails_cleanly vdtool convert -O raw images/good-qcow2-data-file out.raw
        vdtool convert -O raw --references any images/good-qcow2-data-file out.raw
        same "$(sha256 out.raw)" "$(fixture_fact good-qcow2-data-file 4)"
}

@test "--references none opens no parent, and then nothing is invented" {
        fixture good-raw-chain-base chain-base.raw
        fixture good-qcow2-chain-middle
        fails_cleanly vdtool convert --references none -O raw good-qcow2-chain-middle out.raw
        only_files chain-base.raw good-qcow2-chain-middle
}

@test "--references below keeps parents to the image's directory" {
        mkdir images
        fixture good-raw-chain-base chain-base.raw
        fixture good-qcow2-chain-middle images/top.qcow2
        qemu-img rebase -u -b ../chain-base.raw -F raw images/top.qcow2
        fails_cleanly vdtool convert --references below -O raw images/top.qcow2 out.raw
        vdtool convert -O raw images/top.qcow2 out.raw
        same "$(sha256 out.raw)" "$(fixture_fact good-qcow2-chain-middle 4)"
        cp chain-base.raw images/
        qemu-img rebase -u -b chain-base.raw -F raw images/top.qcow2
        vdtool convert --references below -O raw images/top.qcow2 out2.raw
        cmp out.raw out2.raw
}

@test "a parent that was probed may not name further files" {
        fixture good-raw-chain-base chain-base.raw
        fixture good-qcow2-chain-middle chain-middle.qcow2
        # the overlay does not record its parent's format
        qemu-img create -q -f qcow2 -b chain-middle.qcow2 -F qcow2 top.qcow2
        poke top.qcow2 112 00000001
        fails_cleanly vdtool convert -O raw top.qcow2 out.raw
        [ ! -e out.raw ]
}

@test "a raw parent that looks like a qcow2 stays raw when the format is recorded" {
        fixture bad-qcow2-backing-proc guest.raw
        qemu-img create -q -f qcow2 -b guest.raw -F raw top.qcow2
        vdtool convert -O raw top.qcow2 out.raw
        cmp -n "$(size_of guest.raw)" guest.raw out.raw
}

@test "info, check and map of one layer open no reference of a hostile image" {
        requires strace
        local name command
        for name in bad-qcow2-backing-not-an-image bad-qcow2-backing-proc bad-qcow2-data-file-outside; do
                fixture $name
                for command in info check; do
                        ASAN_OPTIONS=$ASAN_OPTIONS:detect_leaks=0 strace -f -e trace=open,openat,openat2 -o "$BATS_TEST_TMPDIR/trace" \
                                "$VDTOOL" $command $name || true
                        refute grep -E '"[/]*(etc/passwd|proc/self/environ|etc/hostname)"' "$BATS_TEST_TMPDIR/trace"
                done
        done
}
