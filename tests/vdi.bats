#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# shellcheck disable=SC2154  # capture sets status, output and stderr
# VDI: dynamic, fixed and differencing disks; parents found by UUID; damage
load helpers
load killed

le32() { printf '%02x%02x%02x%02x' $(($1 & 255)) $(($1 >> 8 & 255)) $(($1 >> 16 & 255)) $(($1 >> 24 & 255)); }
field() { vdtool info --field "format-specific.data.$1" "$2"; }

# --- writing ------------------------------------------------------------------------------------------------------------

@test "vdi: each kind of new image holds the disk, for qemu-img and 7-Zip" {
        local options
        disk_image disk.raw
        for options in subformat=dynamic subformat=fixed static=on static comment=hello; do
                vdtool convert -q --force -o $options disk.raw disk.vdi
                judge vdi disk.vdi disk.raw
                qemu-img check -q disk.vdi
                same "$(content_7z disk.vdi vdi)" "$(sha256 disk.raw)"
                same "$(content disk.vdi)" "$(sha256 disk.raw)"
                vdtool check -q --data disk.vdi
        done
}

@test "vdi: what qemu-img made is read" {
        local options
        disk_image disk.raw
        for options in static=off static=on; do
                qemu-img convert -O vdi -o $options disk.raw disk.vdi
                same "$(content disk.vdi)" "$(sha256 disk.raw)"
                vdtool check -q disk.vdi
        done
}

@test "vdi: other block sizes are ours to read" {
        local size
        disk_image disk.raw
        for size in 512 4k 64k 8M; do
                vdtool convert -q --force -o block_size=$size disk.raw disk.vdi
                same "$(content disk.vdi)" "$(sha256 disk.raw)"
                vdtool check -q disk.vdi
        done
}

@test "vdi: sizes of a sector, a block and a sector; a size that is no multiple of a sector is rounded up" {
        local size
        for size in 512 1048576 1049088 1000; do
                truncate -s 0 disk.raw
                truncate -s $size disk.raw
                printf x | dd of=disk.raw bs=1 seek=$((size - 1)) conv=notrunc status=none
                vdtool convert -q --force disk.raw disk.vdi
                same "$(vdtool info --field virtual-size disk.vdi)" $(((size + 511) / 512 * 512))
                qemu-img compare -q -f vdi -F raw disk.vdi disk.raw
        done
}

@test "vdi: an empty dynamic disk of 2 TiB is made and described without its data" {
        vdtool create -q disk.vdi 2T
        same "$(field blocks disk.vdi)" 2097152
        same "$(field allocated-blocks disk.vdi)" 0
        qemu-img info disk.vdi | grep -q '2 TiB (2199023255552 bytes)'
}

@test "vdi: more than the map can hold, and nothing at all, are refused with the limit" {
        fails_with 'does not fit the first 4 GiB' vdtool create disk.vdi 2P
        fails_with '0 bytes' vdtool create disk.vdi 0
        fails_with 'power of two' vdtool create -o block_size=3000 disk.vdi 1M
        fails_with 'not a UUID' vdtool create -o uuid=12 disk.vdi 1M
        fails_with 'at most 255 fit' vdtool create -o comment="$(printf 'x%.0s' {1..256})" disk.vdi 1M
        fails_with 'static means' vdtool create -o static=on,subformat=dynamic disk.vdi 1M
        only_files
}

@test "vdi: comment and UUIDs are kept and shown" {
        vdtool create -q -o 'comment=two words,uuid=0F1E2D3C-4B5A-4978-8796-A5B4C3D2E1F0' two.vdi 1M
        same "$(field comment two.vdi)" 'two words'
        same "$(field uuid two.vdi)" 0f1e2d3c-4b5a-4978-8796-a5b4c3d2e1f0
        same "$(peek two.vdi 392 16)" 3c2d1e0f5a4b78498796a5b4c3d2e1f0
}

@test "vdi: the same input gives the same bytes when SOURCE_DATE_EPOCH is set" {
        disk_image disk.raw
        SOURCE_DATE_EPOCH=1700000000 vdtool convert -q disk.raw one.vdi
        SOURCE_DATE_EPOCH=1700000000 vdtool convert -q disk.raw two.vdi
        cmp one.vdi two.vdi
        SOURCE_DATE_EPOCH=1700000001 vdtool convert -q disk.raw three.vdi
        [ "$(field uuid one.vdi)" != "$(field uuid three.vdi)" ]
}

# --- map ----------------------------------------------------------------------------------------------------------------

@test "vdi: map says what qemu-img map says" {
        disk_image disk.raw
        qemu-img convert -O vdi disk.raw disk.vdi
        diff <(vdtool map --output json disk.vdi | jq -c '.[] | [.start, .length, .data, .zero, .offset]') \
             <(qemu-img map --output json disk.vdi | jq -c '.[] | [.start, .length, .data, .zero, .offset]')
}

@test "vdi: free and zero blocks are told apart" {
        vdtool create -q -o uuid=0f1e2d3c-4b5a-4978-8796-a5b4c3d2e1f0 disk.vdi 4M
        poke disk.vdi 4096 "$(le32 0xffffffff)" "$(le32 0xfffffffe)"
        same "$(vdtool map --output json disk.vdi | jq -c '[.[] | [.start, .length, .present]]')" \
             '[[0,1048576,false],[1048576,1048576,true],[2097152,2097152,false]]'
}

# --- parents ------------------------------------------------------------------------------------------------------------

# family: base.vdi, and child.vdi with a change at 2000000
family() {
        disk_image disk.raw
        vdtool convert -q disk.raw base.vdi
        vdtool create -q -b base.vdi -F vdi child.vdi
        cp disk.raw changed.raw
        printf 'changed' | dd of=changed.raw bs=1 seek=2000000 conv=notrunc status=none
        dd if=/dev/zero of=changed.raw bs=1M seek=3 count=1 conv=notrunc status=none
        vdtool convert -q -n -f raw -O vdi changed.raw child.vdi
}

@test "vdi: a child is found its parent by UUID, whatever the name" {
        family
        same "$(content child.vdi)" "$(sha256 changed.raw)"
        mv base.vdi 'another name.VDI'
        same "$(content child.vdi)" "$(sha256 changed.raw)"
        vdtool check -q child.vdi
}

@test "vdi: a child whose parent is missing is an error, never zeros; --parent names it" {
        family
        mkdir elsewhere
        mv base.vdi elsewhere/
        fails_with 'the parent image is missing' vdtool convert -O raw child.vdi out.raw
        same "$(content --parent elsewhere/base.vdi child.vdi)" "$(sha256 changed.raw)"
        vdtool info child.vdi | grep -q "UUID of parent: $(field uuid elsewhere/base.vdi)"
}

@test "vdi: the wrong parent is refused with both UUIDs" {
        family
        vdtool create -q other.vdi 6M
        fails_with "$(field uuid other.vdi)" vdtool convert --parent other.vdi -O raw child.vdi out.raw
        [[ $stderr == *"$(field uuid base.vdi)"* ]]
        fails_cleanly vdtool convert --parent disk.raw -O raw child.vdi out.raw
        only_files base.vdi child.vdi other.vdi disk.raw changed.raw
}

@test "vdi: a parent that was changed since is a warning to readers and an error to writers" {
        family
        vdtool convert -q -n -f raw -O vdi disk.raw base.vdi
        succeeds vdtool convert -O raw child.vdi out.raw
        [[ $stderr == *"was changed after"* ]]
        fails_with 'was changed after' vdtool convert -n -f raw -O vdi disk.raw child.vdi
}

@test "vdi: of two files with the parent's UUID the one with the right last change is taken" {
        family
        cp base.vdi a-copy.vdi
        poke a-copy.vdi 408 00112233445566778899aabbccddeeff
        succeeds vdtool convert -O raw child.vdi out.raw
        same "$(sha256 out.raw)" "$(sha256 changed.raw)"
        [[ $stderr != *"was changed after"* ]]
}

@test "vdi: zeros over the parent's data take no block, and survive a second conversion" {
        family
        vdtool convert -q -B base.vdi child.vdi again.vdi
        same "$(content again.vdi)" "$(sha256 changed.raw)"
        same "$(field allocated-blocks child.vdi) $(field allocated-blocks again.vdi)" "4 4"
}

@test "vdi: a chain that comes back to itself is refused" {
        family
        # the child says that it is its own parent
        dd if=child.vdi of=child.vdi bs=1 skip=392 seek=424 count=32 conv=notrunc status=none
        fails_with 'comes back' vdtool convert -O raw child.vdi out.raw
}

@test "vdi: a raw parent, a parent that is not open, differencing without parent" {
        disk_image disk.raw
        fails_with 'the parent of a VDI is a VDI' vdtool create -b disk.raw -F raw child.vdi
        fails_with 'needs a parent' vdtool create --type differencing child.vdi 1M
        vdtool create -q base.vdi 1M
        fails_with 'must be opened' vdtool create -u -b base.vdi -F vdi child.vdi 1M
        only_files disk.raw base.vdi
}

# --- in place -----------------------------------------------------------------------------------------------------------

@test "vdi: written in place, over nothing and over everything, ours and qemu-img's" {
        disk_image disk.raw
        head -c 5244416 /dev/zero | tr '\0' o >old.raw
        vdtool create -q one.vdi 5244416
        vdtool convert -q old.raw two.vdi
        qemu-img convert -O vdi old.raw three.vdi
        vdtool create -q --type fixed four.vdi 5244416
        local name
        for name in one two three four; do
                vdtool convert -q -n -f raw -O vdi disk.raw $name.vdi
                judge vdi $name.vdi disk.raw
                qemu-img check -q $name.vdi
                vdtool check -q $name.vdi
        done
}

@test "vdi: writing changes the UUID of the last change and keeps the other" {
        disk_image disk.raw
        vdtool convert -q disk.raw disk.vdi
        local id change
        id=$(field uuid disk.vdi)
        change=$(field modify-uuid disk.vdi)
        vdtool convert -q -n -f raw -O vdi disk.raw disk.vdi
        same "$(field uuid disk.vdi)" "$id"
        [ "$(field modify-uuid disk.vdi)" != "$change" ]
}

@test "vdi: killed at any write, every byte is the old or the new one" {
        requires strace
        killed_everywhere vdi block_size=4k
}

# --- damage -------------------------------------------------------------------------------------------------------------

@test "vdi: headers that break the rules are refused by name and value" {
        disk_image disk.raw 2097152
        vdtool convert -q disk.raw good.vdi
        while read -r at bytes text; do
                cp good.vdi bad.vdi
                poke bad.vdi $((at)) "$bytes"
                fails_with "$text" vdtool convert -O raw bad.vdi out.raw
        done < <(printf '%s\n' \
                '68 00000900 version 9.0' \
                '72 00010000 at least 384 expected' \
                '76 09000000 type 9' \
                '76 03000000 undo images' \
                '340 00000000 block map at 0' \
                '344 00000000 blocks begin at 0' \
                '344 ffffff7f the file ends at' \
                '368 0000000000000000 disk size 0' \
                '368 00000000000000ff do not cover' \
                '376 00001100 not a power of two' \
                '376 00000080 at most' \
                '380 03000000 extra bytes' \
                '384 01000000 do not cover')
        only_files good.vdi bad.vdi disk.raw
}

@test "vdi: an entry past the end of the file is an error, not zeros" {
        disk_image disk.raw
        vdtool convert -q disk.raw disk.vdi
        poke disk.vdi 4096 "$(le32 1000000)"
        fails_with 'past end of file' vdtool convert -O raw disk.vdi out.raw
        capture vdtool check disk.vdi
        same "$status" 2
        [[ $output == *vdi-map-entry* ]]
        fails_with 'past end of file' vdtool convert -n -f raw -O vdi disk.raw disk.vdi
}

@test "vdi: check finds shared slots, lost ones, and a wrong count" {
        disk_image disk.raw
        vdtool convert -q disk.raw good.vdi
        local used
        used=$(field allocated-blocks good.vdi)
        cp good.vdi bad.vdi
        poke bad.vdi 4100 "$(peek bad.vdi 4096 4)"
        capture vdtool check bad.vdi
        same "$status" 2
        [[ $output == *overlap* ]]
        cp good.vdi bad.vdi
        poke bad.vdi 4096 ffffffff
        capture vdtool check bad.vdi
        same "$status" 3
        [[ $output == *vdi-leak* ]]
        cp good.vdi bad.vdi
        poke bad.vdi 388 "$(le32 $((used - 1)))"
        capture vdtool check bad.vdi
        same "$status" 2
        [[ $output == *vdi-allocated* ]]
        fails_with 'past end of file' vdtool convert -n -f raw -O vdi disk.raw bad.vdi
        cp good.vdi bad.vdi
        poke bad.vdi 388 "$(le32 $((used + 1)))"
        capture vdtool check bad.vdi
        same "$status" 2
        [[ $output == *vdi-truncated* ]]
}

@test "vdi: cut anywhere, convert fails or the content is right" {
        disk_image disk.raw 2500000
        vdtool convert -q -o block_size=64k disk.raw whole.vdi
        cut_everywhere whole.vdi "$(content whole.vdi)" 40
}

@test "vdi: a size that is no multiple of a sector reads as whole sectors and is not written" {
        vdtool create -q disk.vdi 1M
        poke disk.vdi 368 01020000
        same "$(vdtool info --field virtual-size disk.vdi)" 1024
        capture vdtool check disk.vdi
        [[ $output == *vdi-size* ]]
        truncate -s 1024 zeros.raw
        fails_with 'is only read' vdtool convert -n -f raw -O vdi zeros.raw disk.vdi
}

# --- the corpus ---------------------------------------------------------------------------------------------------------

@test "vdi: every image of the corpus reads as the manifest says and passes check" {
        requires corpus
        local file name
        for file in $(corpus_known vdi); do
                [ "$(corpus_fact "$file" virtual_size)" -lt 2000000000 ] || continue
                name=$(corpus "$file")
                same "$(content "$name")" "$(corpus_fact "$file" content_sha256)" || say "$file"
                vdtool check -q "$name" || say "$file"
                rm -f "$name"
        done
}
