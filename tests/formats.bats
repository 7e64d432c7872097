#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# vdtool formats, and how a format is chosen
load helpers

@test "formats lists raw, vhd and qcow2, by name only with --names" {
        local name
        succeeds vdtool formats --names
        for name in raw vhd qcow2; do
                grep -qx $name <<<"$output" || say "no $name"
        done
        same "$(sort <<<"$output" | uniq -d)" ""
}

@test "the table of formats has a row for each format" {
        local name
        vdtool formats >table
        for name in $(vdtool formats --names); do
                grep -Eq "(^|[| ])$name([| ]|$)" table || say "no row for $name"
        done
}

@test "formats as JSON says what each can do" {
        vdtool formats --output json >formats.json
        jq -e 'length >= 3' formats.json
        same "$(jq -r '.[].name' formats.json | sort)" "$(vdtool formats --names | sort)"
}

@test "every format that can be created is found by content afterwards" {
        local name
        for name in $(vdtool formats --names); do
                vdtool create -f "$name" "disk.$name" 4M || continue
                same "$(vdtool info --field format "disk.$name")" "$(qemu_name "$name")" || return 1
                same "$(vdtool info --field virtual-size "disk.$name")" 4194304 || return 1
        done
        [ -f disk.raw ] && [ -f disk.vhd ] && [ -f disk.qcow2 ]
}

@test "the name of a file does not matter when it is read" {
        fixture good-vhd-dynamic disk.qcow2
        fixture good-qcow2-v3 disk.vhd
        fixture good-qcow2-v3 disk.raw
        same "$(vdtool info --field format disk.qcow2)" vpc
        same "$(vdtool info --field format disk.vhd)" qcow2
        same "$(vdtool info --field format disk.raw)" qcow2
}

@test "a new file's format comes from its extension when none is given" {
        local extension
        disk_image source.img 1048576
        for extension in qcow2 vhd vpc raw img avhd; do
                vdtool convert -f raw source.img "new.$extension" || continue
                echo "$extension $(vdtool info --field format "new.$extension")"
        done >found
        grep -qx 'qcow2 qcow2' found
        grep -qx 'vhd vpc' found
        grep -qx 'raw raw' found
        grep -qx 'img raw' found
}

@test "an unknown extension of a new file is an error that lists the known ones" {
        truncate -s 1M source.img
        fails_with qcow2 vdtool convert source.img new.xyz
        [[ $stderr == *vhd* && $stderr == *xyz* ]] || told
        fails_cleanly vdtool create new 1M
        only_files source.img
}

@test "a fixed VHD is never taken for a raw disk" {
        local name
        for name in good-vhd-fixed good-vhd-fixed-hyperv good-vhd-fixed-511; do
                fixture $name disk.img
                same "$(vdtool info --field format disk.img)" vpc
                same "$(vdtool info --field virtual-size disk.img)" 3147264
        done
}

@test "qcow2 version 4 is not taken for raw" {
        fixture unsupported-qcow2-version-4
        fails_cleanly vdtool info unsupported-qcow2-version-4
        fails_cleanly vdtool convert -O raw unsupported-qcow2-version-4 out.raw
}

@test "-f raw reads any file as it is" {
        fixture good-vhd-dynamic
        vdtool convert -f raw -O raw good-vhd-dynamic copy
        cmp good-vhd-dynamic copy
}

@test "-f of the wrong format is an error, not a guess" {
        fixture good-qcow2-v3
        fixture good-vhd-dynamic
        fails_cleanly vdtool convert -f vhd -O raw good-qcow2-v3 out
        fails_cleanly vdtool convert -f qcow2 -O raw good-vhd-dynamic out
        only_files good-qcow2-v3 good-vhd-dynamic
}
