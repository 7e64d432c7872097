#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# The command line as such: help, versions, wrong usage, standard streams.
load helpers

commands() { vdtool --list-commands; }
options() { vdtool "$1" --list-options; }

@test "--version names the version and the optional libraries" {
        succeeds vdtool --version
        grep -Eq '^vdtool [0-9]+\.[0-9]+' <<<"$output"
        grep -q '^optional libraries: ' <<<"$output"
}

@test "--help lists every command with its summary" {
        succeeds vdtool --help
        local command
        for command in $(commands); do
                grep -Eq "^  $command +[a-z]" <<<"$output" || say "no $command in --help"
        done
}

@test "the commands of the spine exist" {
        local command
        for command in info create convert map check compare formats; do
                commands | grep -qx "$command" || say "no $command"
        done
}

@test "every command explains itself with --help, on standard output, with status 0" {
        local command
        for command in $(commands); do
                succeeds vdtool "$command" --help
                [[ $output == "usage: vdtool $command"* ]] || told
                [ -z "$stderr" ]
        done
}

@test "--help of a command shows every option that it lists for completion" {
        local command name
        for command in $(commands); do
                vdtool "$command" --help >help
                while IFS=$'\t' read -r _ name _; do
                        grep -q -e "$name" help || say "$command --help lacks $name"
                done < <(options "$command" | sed 's/^\t/-\t/')
        done
}

@test "every option has a long name and no two options of a command share a name" {
        local command
        for command in $(commands); do
                options "$command" | cut -f2 >names
                refute grep -qv '^--[a-z]' names
                same "$(sort names | uniq -d)" ""
                same "$(options "$command" | cut -f1 | sed '/^$/d' | sort | uniq -d)" ""
        done
}

@test "every option of a command has a line of help" {
        local command
        for command in $(commands); do
                options "$command" | awk -F'\t' '$4 == "" { print; bad = 1 } END { exit bad }'
        done
}

@test "an unknown command is one line and status 1" {
        fails_with 'frobnicate' vdtool frobnicate
        same "$status" 1
}

@test "a misspelt command gets a suggestion" {
        fails_with 'convert' vdtool convrt a b
}

@test "no command at all is wrong usage" {
        capture vdtool
        same "$status" 1
        [[ $stderr == usage:* ]]
}

@test "an unknown option is one line that names it, for every command" {
        local command
        for command in $(commands); do
                fails_with '--no-such-option' vdtool "$command" --no-such-option
                same "$status" 1
        done
}

@test "operands that are missing or too many are errors" {
        local command
        for command in info create convert map check compare; do
                fails_cleanly vdtool "$command"
                same "$status" 1
        done
        fails_cleanly vdtool map a b
        fails_cleanly vdtool compare a b c
        fails_cleanly vdtool convert a
}

@test "an option without its value is an error" {
        fails_cleanly vdtool convert a b -O
        fails_cleanly vdtool map a --start-offset
}

@test "--output takes human or json only" {
        fails_with xml vdtool info --output xml whatever
}

@test "a size with a bad suffix is an error that shows it" {
        fails_with '10Q' vdtool create disk.qcow2 10Q
        fails_cleanly vdtool create disk.qcow2 -- -5
        fails_cleanly vdtool create disk.qcow2 1.2.3M
        fails_cleanly vdtool create disk.qcow2 99999999999E
        fails_cleanly vdtool create disk.qcow2 ''
        only_files
}

@test "sizes take b, s, k, M, G, T and fractions" {
        local pair
        for pair in 512b=512 3s=1536 1k=1024 1K=1024 1M=1048576 1.5M=1572864 0.5G=536870912 1T=1099511627776 2048=2048; do
                vdtool create -f raw disk.raw "${pair%=*}"
                same "$(size_of disk.raw)" "${pair#*=}" || say "${pair%=*}"
                rm disk.raw
        done
}

@test "options may stand behind operands, and -- ends them" {
        fixture good-qcow2-v3 ./-f
        same "$(vdtool info --field format -- -f)" qcow2
        fixture good-qcow2-v3
        same "$(vdtool info good-qcow2-v3 --field format)" qcow2
}

@test "vpc is another name for vhd, everywhere a format is named" {
        truncate -s 1M disk.raw
        vdtool convert -f raw -O vpc disk.raw disk.vhd
        same "$(vdtool info -f vpc --field virtual-size disk.vhd)" 1048576
        same "$(vdtool info -f vhd --field virtual-size disk.vhd)" 1048576
        vdtool create -f vpc other.vhd 1M
}

@test "a full standard output is a failure" {
        [ -w /dev/full ]
        fixture good-qcow2-v3
        local command
        for command in info map formats; do
                capture bash -c '"$0" "$@" >/dev/full' "$VDTOOL" $command $([ $command = formats ] || echo good-qcow2-v3)
                [ "$status" -ne 0 ] || say "$command did not notice"
                [[ $stderr == *'No space left'* ]] || told
        done
}

@test "a reader who goes away ends the program quietly" {
        fixture good-qcow2-cluster-512
        capture bash -c 'set -o pipefail; "$0" map --output json good-qcow2-cluster-512 | head -c 1 >/dev/null' "$VDTOOL"
        [ "$status" -lt 126 ] || told
        [ -z "$stderr" ] || told
}

@test "closed standard streams do not end up in the image" {
        disk_image disk.raw
        "$VDTOOL" convert -f raw -O qcow2 disk.raw disk.qcow2 <&- >&- 2>&-
        judge qcow2 disk.qcow2 disk.raw
        rm disk.qcow2
        "$VDTOOL" convert -f raw -O qcow2 disk.raw disk.qcow2 0<&-
        judge qcow2 disk.qcow2 disk.raw
}

@test "-q silences warnings, not errors" {
        fixture good-vhd-end-footer-gone
        capture vdtool convert -q -O raw good-vhd-end-footer-gone disk.raw
        same "$status" 0
        [ -z "$stderr" ] || told
        fails_cleanly vdtool convert -q nowhere.vhd disk2.raw
}

@test "the locale and the time zone change nothing that is printed" {
        fixture good-qcow2-v3
        vdtool info good-qcow2-v3 >plain
        LC_ALL=de_DE.UTF-8 TZ=Asia/Tokyo vdtool info good-qcow2-v3 | diff plain -
}

@test "no descriptor of an image is open on 0, 1 or 2, and none is inherited" {
        requires strace
        disk_image disk.raw 1048576
        ASAN_OPTIONS=detect_leaks=0 strace -f -e trace=openat,openat2,open -o trace "$VDTOOL" convert -f raw -O qcow2 disk.raw disk.qcow2
        grep -E 'disk\.raw|O_TMPFILE|\.vdtool-' trace >images
        [ -s images ]
        refute grep -v O_CLOEXEC images
}
