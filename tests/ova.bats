#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# OVA and tar: disks inside archives, appliances written, manifests, hostile archives
load helpers

# manifest_holds MANIFEST: sha256sum or sha1sum finds what the manifest says of the files beside it
manifest_holds() {
        local tool
        tool=$(sed -nE '1s/^(SHA[0-9]+)\(.*/\L\1sum/p' "$1")
        [ -n "$tool" ] || return 1
        sed -E 's/^SHA[0-9]+\((.*)\)= ([0-9a-f]+)$/\2  \1/' "$1" | (cd "$(dirname "$1")" && "$tool" --strict -c --quiet)
}

# fix_header FILE OFFSET: the checksum of the tar header there, after a change
fix_header() {
        local sum=0 byte
        poke "$1" $(($2 + 148)) 2020202020202020
        for byte in $(od -An -v -tu1 -j "$2" -N 512 "$1"); do
                sum=$((sum + byte))
        done
        printf '%06o\0 ' "$sum" | dd of="$1" bs=1 seek=$(($2 + 148)) conv=notrunc status=none
}

# text FILE OFFSET TEXT: overwrites bytes in place
text() { printf '%s' "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none; }

# appliance DISK...: an OVF of these files in box.ovf, their ids disk1, disk2 ...
appliance() {
        local file n=0
        {
                echo '<?xml version="1.0"?><ovf:Envelope xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"><ovf:References>'
                for file; do
                        echo "<ovf:File ovf:id='file$((++n))' ovf:href='$file'/>"
                done
                echo '</ovf:References><ovf:DiskSection>'
                n=0
                for file; do
                        echo "<ovf:Disk ovf:diskId='disk$((++n))' ovf:fileRef='file$n' ovf:capacity='8' " \
                             "ovf:capacityAllocationUnits='byte * 2^20'/>"
                done
                echo '</ovf:DiskSection></ovf:Envelope>'
        } >box.ovf
}

# --- writing ----------------------------------------------------------------------------------------------------------

@test "a new appliance: ustar, OVF first, a manifest that holds, a disk that others read" {
        disk_image disk.raw
        vdtool convert disk.raw box.ova
        same "$(tar tf box.ova | tr '\n' ' ')" "box.ovf box.mf box-disk1.vmdk "
        same "$(peek box.ova 257 8)" 7573746172003030
        mkdir out
        tar xf box.ova -C out
        manifest_holds out/box.mf
        same "$(wc -l <out/box.mf)" 2
        qemu-img compare -q -f vmdk -F raw out/box-disk1.vmdk disk.raw
        qemu-img check -q -f vmdk out/box-disk1.vmdk
        7zz t box.ova >/dev/null
        same "$(7zz e -so box.ova box-disk1.vmdk 2>/dev/null | sha256sum)" "$(sha256sum <out/box-disk1.vmdk)"
        grep -q "ovf:size=\"$(size_of out/box-disk1.vmdk)\"" out/box.ovf
        grep -q "ovf:capacity=\"$(size_of disk.raw)\"" out/box.ovf
        vdtool check -q --data box.ova
        same "$(content box.ova)" "$(sha256 disk.raw)"
        rm -r out
        only_files disk.raw box.ova
}

@test "the same disk gives the same appliance, by any number of threads, with SOURCE_DATE_EPOCH" {
        disk_image disk.raw
        export SOURCE_DATE_EPOCH=1700000000
        vdtool convert -m 1 disk.raw one.ova
        mkdir other
        vdtool convert -m 4 disk.raw other/one.ova
        cmp one.ova other/one.ova
        tar tvf one.ova | grep -q 2023-11-14
}

@test "options: digest, hardware, cpus, memory, level; wrong ones are refused" {
        disk_image disk.raw
        for digest in sha1 sha256 sha512; do
                vdtool convert --force -o digest=$digest disk.raw box.ova
                mkdir -p out
                tar xf box.ova -C out
                manifest_holds out/box.mf
                grep -q "^${digest^^}(box.ovf)= " out/box.mf
        done
        vdtool convert --force -o cpus=4,memory=2048,hwversion=vmx-19,compression_level=9 disk.raw box.ova
        same "$(vdtool info --field format-specific.data.cpus box.ova)" 4
        same "$(vdtool info --field format-specific.data.memory box.ova)" 2147483648
        same "$(vdtool info --field format-specific.data.hardware box.ova)" vmx-19
        same "$(vdtool info --field format-specific.data.disks.0.attached-to box.ova)" "scsi 0:0"
        same "$(content box.ova)" "$(sha256 disk.raw)"
        fails_with 'vmx- and a number' vdtool convert -o 'hwversion=<x>' disk.raw no.ova
        fails_with 'digest' vdtool convert -o digest=md5 disk.raw no.ova
        fails_with 'allowed are' vdtool convert -o cpus=100000 disk.raw no.ova
        [ ! -e no.ova ]
}

@test "names that XML or importers do not like become plain members" {
        disk_image disk.raw 1048576
        vdtool convert disk.raw '<a> & "b" ü.ova'
        same "$(tar tf '<a> & "b" ü.ova' | grep -c '^[A-Za-z0-9._-]*$')" 3
        same "$(vdtool info --field format-specific.data.name '<a> & "b" ü.ova')" '<a> & "b" ü'
        vdtool convert disk.raw "$(printf 'n%.0s' {1..200}).ova"
        tar tf n*.ova >/dev/null
        same "$(content n*.ova)" "$(sha256 disk.raw)"
}

@test "packed units go into an appliance as they are" {
        disk_image disk.raw
        vdtool convert --type streamOptimized disk.raw disk.vmdk
        capture vdtool convert -v disk.vmdk box.ova
        [[ $output == *'units compressed: 0'* || $output =~ 'units compressed'[:\ ]+0 ]]
        same "$(content box.ova)" "$(sha256 disk.raw)"
}

@test "a conversion that fails leaves no appliance" {
        disk_image disk.raw
        vdtool convert -c disk.raw bad.qcow2
        truncate -s -70000 bad.qcow2
        fails_cleanly vdtool convert bad.qcow2 box.ova
        only_files disk.raw bad.qcow2
}

# --- reading ----------------------------------------------------------------------------------------------------------

@test "an appliance of VMware's has the content that is known, and its digests hold" {
        requires corpus
        local file
        file=$(corpus ova/tdAppliance1-t2.ova.xz)
        same "$(content "$file")" "$(corpus_fact ova/tdAppliance1-t2.ova.xz content_sha256)"
        vdtool check -q --data "$file"
        same "$(vdtool info --field format "$file")" ova
        same "$(vdtool info --field virtual-size "$file")" 2147483648
        same "$(vdtool info --field format-specific.data.disks.0.id "$file")" vmdisk1
        same "$(vdtool info --field format-specific.data.disks.0.attached-to "$file")" "ide 0:0"
        same "$(vdtool info --field format-specific.data.manifest-algorithm "$file")" SHA1
}

@test "two disks: info and check look at both, the rest wants one named" {
        disk_image one.raw 8388608
        disk_image two.raw 4194304
        qemu-img convert -f raw -O vmdk -o subformat=streamOptimized one.raw one.vmdk
        qemu-img convert -f raw -O qcow2 two.raw two.qcow2
        appliance one.vmdk two.qcow2
        tar cf box.ova box.ovf one.vmdk two.qcow2
        same "$(vdtool info --output json box.ova | jq -r '."format-specific".data.disks[] | .file + " " + .format' |
                tr '\n' ' ')" "one.vmdk vmdk two.qcow2 qcow2 "
        vdtool check -q --data box.ova
        for command in 'convert box.ova x.raw' 'map box.ova' 'compare box.ova one.raw'; do
                # shellcheck disable=SC2086
                fails_with 'one.vmdk, two.qcow2' vdtool $command
        done
        same "$(content box.ova:one.vmdk)" "$(sha256 one.raw)"
        same "$(content box.ova:two.qcow2)" "$(sha256 two.raw)"
        same "$(content box.ova:disk2)" "$(sha256 two.raw)"
        same "$(vdtool info --field virtual-size box.ova:two.qcow2)" 4194304
        vdtool compare -q box.ova:two.qcow2 two.raw
        fails_with "holds no 'three.vmdk'" vdtool convert box.ova:three.vmdk x.raw
}

@test "members are read in place: map gives positions in the archive" {
        disk_image disk.raw
        tar cf disk.tar disk.raw
        position=$(vdtool map --output json disk.tar | jq '.[0].offset')
        same "$position" 512
        dd if=disk.tar bs=512 skip=1 count=$(($(size_of disk.raw) / 512)) status=none | cmp - disk.raw
        vdtool compare -q disk.tar disk.raw
}

@test "tar: the only image, one by name, in any dialect" {
        local dialect long
        disk_image disk.raw
        qemu-img convert -f raw -O qcow2 disk.raw disk.qcow2
        echo readme >README
        long=$(printf 'd%.0s' {1..60})/$(printf 'e%.0s' {1..60})/$(printf 'f%.0s' {1..60})
        mkdir -p "$long"
        cp disk.raw "$long/disk.raw"
        for dialect in v7 ustar oldgnu gnu pax; do
                tar --format=$dialect -cf disk.tar README disk.qcow2
                same "$(vdtool info --field format disk.tar)" tar
                same "$(content disk.tar)" "$(sha256 disk.raw)" || say $dialect
                same "$(content disk.tar:disk.qcow2)" "$(sha256 disk.raw)"
                [ $dialect != v7 ] || continue
                tar --format=$dialect -cf long.tar README "$long"
                same "$(content "long.tar:$long/disk.raw")" "$(sha256 disk.raw)" || say $dialect
        done
        tar cf dot.tar ./disk.raw
        same "$(content dot.tar:disk.raw)" "$(sha256 disk.raw)"
        tar cf both.tar disk.raw disk.qcow2
        fails_with 'disk.raw, disk.qcow2' vdtool convert both.tar x.raw
        same "$(content both.tar:disk.raw)" "$(sha256 disk.raw)"
}

@test "a fixed VHD inside ends where its member ends" {
        disk_image disk.raw 5242880
        vdtool convert --type fixed disk.raw disk.vhd
        tar cf disk.tar disk.vhd README* 2>/dev/null || tar cf disk.tar disk.vhd
        same "$(content disk.tar)" "$(sha256 disk.raw)"
        tar cf more.tar disk.vhd disk.raw
        same "$(content more.tar:disk.vhd)" "$(sha256 disk.raw)"
}

@test "a file whose name has a colon is that file" {
        disk_image disk.raw 1048576
        cp disk.raw 'a:b.raw'
        same "$(content -f raw 'a:b.raw')" "$(sha256 disk.raw)"
        tar --force-local -cf 'x:y.tar' disk.raw
        same "$(content 'x:y.tar:disk.raw')" "$(sha256 disk.raw)"
        fails_with 'no archive' vdtool info disk.raw:x
}

@test "what cannot be read in place is named: sparse members, archives in archives, compressed files" {
        truncate -s 8M hole.raw
        printf x | dd of=hole.raw bs=1 seek=4000000 conv=notrunc status=none
        tar --format=gnu -cSf hole.tar hole.raw
        fails_with 'sparse' vdtool convert hole.tar x.raw
        tar --format=pax -cSf hole.tar hole.raw
        fails_with 'sparse' vdtool convert hole.tar:hole.raw x.raw
        tar cf outer.tar hole.tar
        fails_with 'archive inside an archive' vdtool convert outer.tar:hole.tar x.raw
        appliance hole.raw
        sed -i "s/ovf:href=/ovf:compression='gzip' &/" box.ovf
        tar cf box.ova box.ovf hole.raw
        fails_with 'compressed as a whole' vdtool convert box.ova x.raw
        fails_with 'cannot be changed in place' vdtool convert -n hole.raw box.ova
}

@test "a disk cut in pieces" {
        disk_image disk.raw 2621440
        vdtool convert disk.raw disk.qcow2
        split -b 100000 -d -a 9 disk.qcow2 disk.qcow2.
        appliance disk.qcow2
        sed -i "s/ovf:href=/ovf:chunkSize='100000' ovf:size='$(size_of disk.qcow2)' &/" box.ovf
        tar cf box.ova box.ovf disk.qcow2.*
        same "$(content box.ova)" "$(sha256 disk.raw)"
        rm disk.qcow2.000000001
        tar cf box.ova box.ovf disk.qcow2.*
        fails_with 'piece 2' vdtool convert box.ova x.raw
}

# --- digests ----------------------------------------------------------------------------------------------------------

@test "a digest that does not fit stops convert, unless told not to look, and is found by check --data" {
        disk_image disk.raw
        for tool in sha1 sha256 sha512; do
                appliance disk.raw
                (${tool}sum --tag box.ovf disk.raw | sed -E 's/ \(/(/; s/\) = /)= /') >box.mf
                tar cf box.ova box.ovf box.mf disk.raw
                same "$(content box.ova)" "$(sha256 disk.raw)"
                vdtool check -q --data box.ova
                poke box.ova $(($(size_of box.ova) - 3000000)) ff
                fails_with "'disk.raw' is not what the manifest says" vdtool convert box.ova x.raw
                [ ! -e x.raw ]
                capture vdtool check --data --output json box.ova
                same "$status" 2
                jq -e '.findings[] | select(.code == "ova-digest")' <<<"$output" >/dev/null
                vdtool check -q box.ova
                vdtool convert --no-verify box.ova x.raw
                rm x.raw
        done
}

@test "manifests of other producers: blanks, CRLF, at the end; one that makes no sense is an error" {
        disk_image disk.raw 1048576
        appliance disk.raw
        sum=$(sha256 disk.raw)
        printf 'SHA256 (disk.raw) = %s  \r\n\r\n' "${sum^^}" >box.mf
        tar cf box.ova box.ovf disk.raw box.mf
        same "$(content box.ova)" "$sum"
        vdtool check -q --data box.ova
        printf 'SHA256(disk.raw)= 1234\n' >box.mf
        tar cf box.ova box.ovf disk.raw box.mf
        fails_with 'line 1 of the manifest' vdtool convert box.ova x.raw
        printf 'WHIRL(disk.raw)= 1234\n' >box.mf
        tar cf box.ova box.ovf disk.raw box.mf
        fails_with 'WHIRL is unknown' vdtool convert box.ova x.raw
        printf 'SHA256(gone.raw)= %s\n' "$sum" >box.mf
        tar cf box.ova box.ovf disk.raw box.mf
        fails_with "'gone.raw'" vdtool convert box.ova x.raw
}

# --- damage and malice ------------------------------------------------------------------------------------------------

@test "an archive cut short never converts, and check says so" {
        local cut
        disk_image disk.raw
        vdtool convert disk.raw box.ova
        for cut in 100 512 700 3000 5000 6000 50000 200000 $(($(size_of box.ova) - 1100)); do
                head -c "$cut" box.ova >cut.ova
                fails_cleanly vdtool convert cut.ova x.raw || return 1
                survives vdtool info cut.ova
                capture vdtool check cut.ova
                [ "$status" -ne 0 ] || say "$cut bytes: check found nothing"
                [ ! -e x.raw ] || return 1
        done
        # without the blocks of zeros all data is there
        head -c $(($(size_of box.ova) - 1024)) box.ova >cut.ova
        same "$(content cut.ova)" "$(sha256 disk.raw)"
        capture vdtool check cut.ova
        [[ $output == *tar-no-end* ]]
}

@test "names that lead out of the archive are not followed" {
        local name
        disk_image disk.raw 1048576
        cp disk.raw outside.raw
        mkdir in
        for name in ../outside.raw /etc/passwd 'sub/disk.raw' '%2e%2e%2foutside.raw' 'C:\disk.raw' ..; do
                appliance "$name"
                tar cf box.ova box.ovf disk.raw
                fails_with 'no plain file name' vdtool convert box.ova x.raw
        done
        appliance disk.raw
        tar cPf box.ova box.ovf disk.raw ../work/outside.raw
        same "$(content box.ova)" "$(sha256 disk.raw)"
        capture vdtool check box.ova
        [[ $output == *ova-member* ]]
        only_files disk.raw outside.raw in box.ovf box.ova
}

@test "a disk inside an archive may not lead to files outside" {
        disk_image base.raw 1048576
        qemu-img create -q -f qcow2 -b "$PWD/base.raw" -F raw over.qcow2
        tar cf over.tar over.qcow2
        fails_with 'parent' vdtool convert over.tar x.raw
        vdtool convert --type monolithicFlat base.raw flat.vmdk
        tar cf flat.tar flat.vmdk
        fails_cleanly vdtool convert flat.tar x.raw
        [ ! -e x.raw ]
}

@test "links, directories and devices are no disks" {
        disk_image disk.raw 1048576
        ln -s disk.raw link.raw
        mkdir dir.raw
        mkfifo pipe.raw
        for name in link.raw dir.raw pipe.raw; do
                appliance $name
                tar cf box.ova box.ovf $name
                fails_cleanly vdtool convert box.ova x.raw
                fails_cleanly vdtool convert "box.ova:$name" x.raw
        done
}

@test "two members of one name are an error" {
        disk_image disk.raw 1048576
        appliance disk.raw
        tar cf box.ova box.ovf disk.raw
        head -c 1048576 /dev/zero >disk.raw
        tar rf box.ova disk.raw
        fails_with 'found 2 members' vdtool convert box.ova x.raw
        capture vdtool check box.ova
        same "$status" 2
}

@test "sizes that no archive has" {
        disk_image disk.raw 1048576
        tar --format=ustar -cf disk.tar disk.raw
        for size in 77777777777 '-1         ' '99999999999' '           ' 'zzzzzzzzzzz'; do
                cp disk.tar bad.tar
                text bad.tar 124 "$size"
                fix_header bad.tar 0
                fails_cleanly vdtool convert bad.tar x.raw || say "size $size"
                survives vdtool check bad.tar
        done
        for size in 80ffffffffffffffffffffff ffffffffffffffffffffffff 800000007fffffffffffffff 80000000fffffffffffffe00; do
                cp disk.tar bad.tar
                poke bad.tar 124 $size
                fix_header bad.tar 0
                fails_cleanly vdtool convert bad.tar x.raw || say "size $size"
                survives vdtool check bad.tar
        done
        # a pax record may say the size, right or wrong
        tar --format=pax --pax-option=size:=1048576 -cf pax.tar disk.raw
        same "$(content pax.tar:disk.raw)" "$(sha256 disk.raw)"
        tar --format=pax --pax-option=size:=18446744073709551615 -cf pax.tar disk.raw
        fails_cleanly vdtool convert pax.tar:disk.raw x.raw
}

@test "headers with wrong checksums, and pax records of wrong lengths" {
        disk_image disk.raw 1048576
        tar --format=ustar -cf disk.tar disk.raw disk.raw
        poke disk.tar $((1048576 + 512 + 3)) 41
        fails_with 'checksum' vdtool convert disk.tar:disk.raw x.raw
        tar --format=pax --pax-option=comment:=hello -cf pax.tar disk.raw
        for record in '99999 path=x' '1 path=x' 'xx path=x' '16 nothing here!'; do
                cp pax.tar bad.tar
                text bad.tar 512 "$record"
                fails_cleanly vdtool convert bad.tar x.raw || say "$record"
        done
}

@test "descriptors that are none" {
        disk_image disk.raw 1048576
        for ovf in '' 'no XML' '<Envelope>' '<html/>' \
                   '<!DOCTYPE x [<!ENTITY a "aaaa">]><Envelope>&a;</Envelope>' \
                   '<Envelope><DiskSection><Disk diskId="d" fileRef="nowhere"/></DiskSection></Envelope>' \
                   '<Envelope><References><File id="f"/></References><DiskSection><Disk diskId="d" fileRef="f"/></DiskSection></Envelope>'; do
                printf '%s' "$ovf" >box.ovf
                tar cf box.ova box.ovf disk.raw
                fails_cleanly vdtool convert box.ova x.raw || say "$ovf"
                survives vdtool check box.ova
        done
        { printf '<Envelope>'; printf '<a>%.0s' {1..5000}; } >box.ovf
        tar cf box.ova box.ovf disk.raw
        fails_cleanly vdtool info box.ova
        truncate -s 17M box.ovf
        tar cf box.ova box.ovf disk.raw
        fails_with 'allowed are' vdtool info box.ova
}

@test "check compares descriptor and members" {
        disk_image disk.raw 16777216
        appliance disk.raw
        sed -i "s/ovf:href=/ovf:size='17' &/" box.ovf
        tar cf box.ova disk.raw box.ovf
        same "$(vdtool info --field format box.ova)" tar
        capture vdtool check box.ova
        for code in ova-file-size ova-capacity ova-order ova-no-manifest; do
                [[ $output == *$code* ]] || say $code
        done
        same "$status" 0
}
