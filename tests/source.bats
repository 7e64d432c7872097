#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Rules that the source text keeps
load helpers

setup() { cd "$ROOT" || return 1; }
teardown() { :; }

sources() { git ls-files '*.c' '*.h' 2>/dev/null || find . -name '*.[ch]' -not -path './build*'; }

@test "no source file is longer than 700 lines" {
        local file
        for file in $(sources); do
                [ "$(wc -l <"$file")" -le 700 ] || say "$file: $(wc -l <"$file") lines"
        done
}

@test "no line is longer than 140 columns, and none is indented by tabs" {
        refute grep -nE '^.{141,}$' $(sources)
        refute grep -nP '^ *\t' $(sources)
}

@test "every source file begins with its licence" {
        local file
        for file in $(sources) $(git ls-files '*.sh' '*.bash' '*.bats' .ci/run); do
                head -n 2 "$file" | grep -q 'SPDX-License-Identifier: MIT' || say "$file"
        done
}

@test "core names no format" {
        local name
        for name in $(vdtool formats --names); do
                [ "$name" != raw ] || continue
                # comments may give examples
                refute grep -nwi "\"$name\"" <(sed 's|/\*.*||; s|^ \* .*||' core/*.[ch])
        done
}

@test "layers include downwards only" {
        # util: only util; core: core and util; a format: core, util, shared and its own header; cmd: no format
        refute grep -nE '#include "(\.\./)*(core|formats|cmd)/' util/*.[ch]
        refute grep -nE '#include "(\.\./)*(formats|cmd)/' core/*.[ch]
        refute grep -rnE '#include "(\.\./)*cmd/' formats
        refute grep -nE '#include "(\.\./)*formats/' cmd/*.[ch]
        refute grep -rnE '#include "(\.\./)*formats/[a-z0-9_]+\.h' formats/shared
        local file other
        for file in formats/*.c; do
                for other in $(sed -nE 's/^#include "(formats\/)?([a-z0-9]+)(_[a-z0-9_]*)?\.h".*/\2/p' "$file"); do
                        [[ $(basename "$file") == "$other"* || ! -e formats/$other.c ]] || say "$file includes $other"
                done
        done
}

@test "core and formats print nothing and end nothing" {
        refute grep -rnE '\b(printf|puts|putchar|perror|exit|abort|_exit)\(' core formats
        refute grep -rnwE 'stdout|stderr' core formats
}

@test "core and formats have no variables that outlive a call" {
        local object
        for object in "$ROOT"/build/core/*.o "$ROOT"/build/formats/*.o "$ROOT"/build/formats/shared/*.o; do
                [ -e "$object" ] || continue
                # writable data of any binding; relocated constants (.data.rel.ro) are not writable
                refute grep -E '\|(\.data|\.bss|\*COM\*)[^|]*$' <(nm -f sysv "$object" | grep -v '\.data\.rel\.ro')
        done
}

@test "numbers from files are not added or multiplied unchecked where they enter" {
        refute grep -rnE '(be|le)(16|32|64)_get\([^;]*\) *\* *(be|le)(16|32|64)_get' formats
}

@test "on-disk structs have their sizes asserted" {
        local file name
        for file in $(grep -lE '^struct [a-z0-9_]+_disk \{' -r formats); do
                for name in $(sed -nE 's/^struct ([a-z0-9_]+_disk) \{.*/\1/p' "$file"); do
                        # of fields in byte order, or it does not stand on a disk
                        sed -n "/^struct $name {/,/^};/p" "$file" | grep -qE '\b[bl]e(16|32|64) ' || continue
                        # part of another one, whose size counts
                        ! grep -qE "^ +struct $name [a-z]" "$file" || continue
                        tr '\n' ' ' <"$file" | grep -oE 'static_assert\([^;]*;' | grep -q "sizeof(struct $name)" ||
                                say "$file: struct $name"
                done
        done
}

@test "nothing is left for later in the source" {
        refute grep -rnwE 'TODO|FIXME|XXX|HACK' cmd core formats util
        refute grep -rnE '^#if 0' cmd core formats util
}

@test "every format and command is one line in its list" {
        local name
        for name in $(sed -n 's/^VD_COMMAND(\(.*\))/\1/p' cmd/commands.def); do
                vdtool --list-commands | grep -qx "$name" || say "$name"
        done
        same "$(sed -n 's/^VD_FORMAT(\(.*\))/\1/p' formats/formats.def | tr _ - | sort)" "$(vdtool formats --names | sort)"
}

@test "every header can be included alone" {
        local header
        for header in $(git ls-files '*.h'); do
                "${CC:-cc}" -std=gnu11 -D_GNU_SOURCE -I. -fsyntax-only -x c "$header" 2>&1 | grep -v 'pragma once' || true
                "${CC:-cc}" -std=gnu11 -D_GNU_SOURCE -I. -fsyntax-only -x c "$header" || say "$header"
        done
}

@test "the top level holds what it should and nothing else" {
        same "$(git ls-files | cut -d/ -f1 | sort -u | grep -v '^\.' | grep -vxE 'cmd|core|formats|util|completions|docs|tests|Makefile|vdtool\.1|README\.md|LICENSE')" ""
}
