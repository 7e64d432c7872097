#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Manual page, README, completions and installation say what the program does
load helpers

commands() { vdtool --list-commands; }
# The manual as plain text, hyphens as hyphens.
manual() { man -l --nh --nj "$ROOT/vdtool.1" 2>/dev/null | col -bx; }

@test "the manual page formats without a warning" {
        LC_ALL=C.UTF-8 MANROFFSEQ='' MANWIDTH=100 capture man --warnings -l "$ROOT/vdtool.1"
        same "$status" 0
        same "$stderr" ""
}

@test "the manual page has every command with its operands" {
        local command
        for command in $(commands); do
                grep -Eq "^\.(SS|TP|B|SH).*$command|^\.B.* $command|\\\\fB(vdtool )?$command" "$ROOT/vdtool.1" || say "$command"
        done
}

@test "the manual page has every option of every command" {
        local command letter name
        sed 's/\\-/-/g; s/\\f[BIRP]//g' "$ROOT/vdtool.1" >page
        for command in $(commands); do
                while IFS='|' read -r letter name; do
                        grep -q -e "$name\b" page || say "$command: $name is not in the manual"
                        [ -z "$letter" ] || grep -Eq -e "(^|[^a-zA-Z-])$letter\b" page || say "$command: $letter is not in the manual"
                done < <(vdtool "$command" --list-options | awk -F'\t' '{ print $1 "|" $2 }')
        done
}

@test "the manual page has no long option that no command knows" {
        { for command in $(commands); do vdtool "$command" --list-options | cut -f2; done
          printf '%s\n' --help --version --list-commands --list-options; } | sort -u >known
        # hidden spellings are accepted too
        sed 's/\\-/-/g; s/\\f[BIRP]//g' "$ROOT/vdtool.1" | grep -oE -e '(^|[^a-z-])--[a-z][a-z-]+' | grep -oE -e '--[a-z-]+' | sort -u >written
        local option
        while read -r option; do
                grep -qx -e "$option" known || say "$option is in the manual only"
        done <written
}

@test "the manual page has every create option of every format" {
        local format option
        sed 's/\\-/-/g; s/\\f[BIRP]//g; s/\\(ga//g' "$ROOT/vdtool.1" >page
        for format in $(vdtool formats --names); do
                vdtool create -f "$format" -o help x 1M >options || continue
                for option in $(sed -nE 's/^ +([a-z_0-9]+)=?.*/\1/p' options); do
                        grep -qw -e "$option" page || say "$format: $option is not in the manual"
                done
        done
}

@test "the manual page has every exit status" {
        manual >page
        grep -q 'EXIT STATUS' page
        local status
        for status in 0 1 2 3 4 63; do
                grep -Eq "^ +$status( |$)" page || say "status $status"
        done
}

@test "README's table of capabilities is what vdtool formats prints" {
        local name
        sed -n '/^<!-- formats -->/,/^<!-- end -->/p' "$ROOT/README.md" | sed '1d;$d' | sed '/^```/d' >written
        [ -s written ]
        vdtool formats | sed 's/ *$//' | diff written -
}

@test "README's examples print what README says" {
        fixture good-vhd-os-disk disk.vhd
        awk '/^```console/ { on = 1; next } /^```/ { on = 0 } on' "$ROOT/README.md" >examples
        grep -q '^\$ vdtool' examples
        PATH=$BATS_TEST_TMPDIR/bin:$PATH
        mkdir "$BATS_TEST_TMPDIR/bin"
        ln -s "$VDTOOL" "$BATS_TEST_TMPDIR/bin/vdtool"
        export COLUMNS=80
        while IFS= read -r line; do
                printf '%s\n' "$line"
                if [[ $line == '$ '* ]]; then
                        bash -c "${line#\$ }" 2>&1 </dev/null || true
                fi
        done < <(grep '^\$ ' examples) >printed
        # how much of a disk a file takes is the file system's to say
        diff <(grep -v '^disk size:' examples) <(grep -v '^disk size:' printed)
}

@test "README's two commands are targets of the Makefile" {
        grep -q 'make deps demo' "$ROOT/README.md"
        grep -q 'make deps check' "$ROOT/README.md"
        make -C "$ROOT" -n demo >/dev/null
        grep -q 'make deps check' "$ROOT/.ci/run"
}

@test "the demo runs" {
        VDTOOL=$VDTOOL "$ROOT/tests/demo.sh" >out
        grep -q '^\$ vdtool convert' out
        grep -q 'No errors were found on the image' out
}

@test "install puts program, manual and completions in place, uninstall takes them away" {
        make -s -C "$ROOT" install DESTDIR="$PWD/root" PREFIX=/usr >/dev/null
        [ -x root/usr/bin/vdtool ]
        [ -f root/usr/share/man/man1/vdtool.1 ]
        same "$(find root/usr/share -name '*vdtool*' -not -name '*.1' | wc -l)" 3
        root/usr/bin/vdtool --version
        make -s -C "$ROOT" uninstall DESTDIR="$PWD/root" PREFIX=/usr >/dev/null
        same "$(find root -type f)" ""
}

# complete WORDS...: what bash would offer for the last word
complete_bash() {
        bash --norc -c '
                . "$1"
                shift
                COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMP_POINT=${#COMP_LINE}
                entry=$(complete -p vdtool)
                [[ $entry =~ -F\ ([A-Za-z_0-9]+) ]]
                "${BASH_REMATCH[1]}" vdtool "${@: -1}" "${@: -2:1}"
                printf "%s\n" "${COMPREPLY[@]}"' _ "$ROOT/completions/vdtool.bash" "$@"
}

@test "bash completes commands, options and formats" {
        mkdir bin
        ln -s "$VDTOOL" bin/vdtool
        PATH=$PWD/bin:$PATH
        complete_bash vdtool con | grep -qx 'convert *'
        complete_bash vdtool convert --targ | grep -q -e '--target-format'
        complete_bash vdtool convert -O qco | grep -q qcow2
        complete_bash vdtool info --output js | grep -q json
}

@test "the completions of zsh and fish name the program's own lists" {
        grep -q -e '--list-options' "$ROOT/completions/vdtool.zsh"
        grep -q -e '--list-options' "$ROOT/completions/vdtool.fish"
}

@test "docs name only files that exist" {
        local path
        # docs/interop is QEMU's
        for path in $(grep -ohE '`(cmd|core|formats|util|tests|docs)/[A-Za-z0-9_./-]+`' "$ROOT"/README.md "$ROOT"/docs/*.md |
                      tr -d '`' | sort -u | grep -v '^docs/interop/'); do
                [ -e "$ROOT/$path" ] || compgen -G "$ROOT/$path*" >/dev/null || say "$path is named and does not exist"
        done
}

@test "every finding that the source can report is described in docs/findings.md" {
        local code format
        for format in $(vdtool formats --names); do
                grep -rhoE "\"$format-[a-z0-9-]+\"" "$ROOT/formats" | tr -d '"'
        done | sort -u >codes
        [ "$(wc -l <codes)" -gt 40 ]
        while read -r code; do
                grep -q "\`$code\`" "$ROOT/docs/findings.md" || say "$code is not described"
        done <codes
}

@test "docs/findings.md describes no finding that the source does not have" {
        local code
        for code in $(grep -oE '^\| `[^|]*' "$ROOT/docs/findings.md" | grep -oE '`[a-z0-9-]+`' | tr -d '`'); do
                grep -rqF "\"$code\"" "$ROOT/formats" "$ROOT/core" || say "$code"
        done
}
