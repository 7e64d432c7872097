# SPDX-License-Identifier: MIT
# make               build ./vdtool                     make check        unit tests and bats (TESTS="map info": only these)
# make deps          install the Debian packages        make check-asan   the same under ASan and UBSan (check-tsan: TSan)
# make demo          a real VHD becomes a qcow2         make bench        ratios against qemu-img and cp (BENCH_DIR=, BENCH_MIB=)
# make install       PREFIX=/usr/local DESTDIR=         make lint         shellcheck on every script
# make uninstall     the same                           make clean
# knobs: V=1 shows command lines, WERROR=1 makes warnings errors, D=asan|tsan sanitizes, NO_ISAL=1, NO_LIBNBD=1 leave libraries out

PREFIX  ?= /usr/local
DESTDIR ?=
CC      ?= cc
CFLAGS  ?= -O2 -g
BUILD   ?= build$(if $(D),-$(D))
PROGRAM ?= $(if $(D),$(BUILD)/vdtool,vdtool)

VERSION := 0.1.0

LIBS     := popt jansson zlib libdeflate libzstd liblzma expat nettle
OPTIONAL := $(if $(NO_ISAL),,libisal) $(if $(NO_LIBNBD),,libnbd)

# Debian packages; those of OPTIONAL_PACKAGES do not exist on every architecture.
BUILD_PACKAGES    := gcc clang make pkg-config libc6-dev libpopt-dev libjansson-dev zlib1g-dev libdeflate-dev libzstd-dev \
                     liblzma-dev libbz2-dev libarchive-dev libexpat1-dev nettle-dev
TEST_PACKAGES     := bats qemu-utils 7zip libvhdi-utils libvmdk-utils libqcow-utils xz-utils bzip2 e2fsprogs jq openssl \
                     procps man-db shellcheck strace valgrind nbdkit
OPTIONAL_PACKAGES := libisal-dev libnbd-dev

WARNINGS := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes $(if $(WERROR),-Werror)
comma    := ,
SANITIZE := $(if $(filter asan,$(D)),-fsanitize=address$(comma)undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)$(if $(filter tsan,$(D)),-fsanitize=thread)

# pkg-config is asked at the first use, once: "make deps check" installs it before.
once      = $(eval $(1) := $(2))$($(1))
FOUND     = $(call once,FOUND,$(foreach lib,$(OPTIONAL),$(shell pkg-config --exists $(lib) && echo $(lib))))
VD_CFLAGS = $(call once,VD_CFLAGS,-std=gnu11 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -I. -pthread $(WARNINGS) $(SANITIZE) \
            -DVD_VERSION='"$(VERSION)"' $(foreach lib,$(FOUND),-DHAVE_$(subst LIB,,$(shell echo $(lib) | tr a-z A-Z))) \
            $(shell pkg-config --cflags $(LIBS) $(FOUND)))
VD_LIBS   = $(call once,VD_LIBS,$(shell pkg-config --libs $(LIBS) $(FOUND)) -lbz2 -pthread)

LIBRARY_SOURCES := $(wildcard util/*.c core/*.c formats/*.c formats/shared/*.c)
SOURCES         := $(LIBRARY_SOURCES) $(wildcard cmd/*.c)
UNIT_SOURCES    := $(wildcard tests/unit/*.c)
OBJECTS         := $(SOURCES:%.c=$(BUILD)/%.o)
LIBRARY_OBJECTS := $(LIBRARY_SOURCES:%.c=$(BUILD)/%.o)
UNITS           := $(UNIT_SOURCES:tests/unit/%.c=$(BUILD)/unit/%)

Q := $(if $(V),,@)

all: $(PROGRAM)

$(PROGRAM): $(OBJECTS)
	$(Q)echo "  LINK    $@"
	$(Q)$(CC) $(CFLAGS) $(SANITIZE) $(LDFLAGS) -o $@ $^ $(VD_LIBS)

$(BUILD)/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(Q)echo "  CC      $<"
	$(Q)$(CC) $(VD_CFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

# Objects depend on the flags they were made with.
$(BUILD)/flags: FORCE | $(filter deps,$(MAKECMDGOALS))
	@mkdir -p $(@D)
	@echo '$(CC) $(VD_CFLAGS) $(CFLAGS)' | cmp -s - $@ || echo '$(CC) $(VD_CFLAGS) $(CFLAGS)' >$@

$(BUILD)/unit/%: tests/unit/%.c $(LIBRARY_OBJECTS)
	@mkdir -p $(@D)
	$(Q)echo "  UNIT    $*"
	$(Q)$(CC) $(VD_CFLAGS) $(CFLAGS) $(LDFLAGS) -MMD -MP -o $@ $(filter %.c %.o,$^) $(VD_LIBS)

units: $(UNITS)

# --- for people -------------------------------------------------------------------------------------------------------

deps:
	$(Q)tests/deps.sh $(BUILD_PACKAGES) $(TEST_PACKAGES) -- $(OPTIONAL_PACKAGES)

demo: all
	$(Q)VDTOOL=$(abspath $(PROGRAM)) tests/demo.sh

check: all units
	$(Q)VDTOOL=$(abspath $(PROGRAM)) UNITS="$(abspath $(UNITS))" tests/run.sh $(TESTS)

check-asan check-tsan: check-%:
	$(Q)$(MAKE) --no-print-directory check D=$*

bench: all $(BUILD)/floor
	$(Q)VDTOOL=$(abspath $(PROGRAM)) FLOOR=$(abspath $(BUILD)/floor) tests/bench.sh

$(BUILD)/floor: tests/floor.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(VD_CFLAGS) $(CFLAGS) -o $@ $<

# The table of formats in README.md, from the program.
readme: all
	$(Q)VDTOOL=$(abspath $(PROGRAM)) tests/readme.sh

lint:
	$(Q)shellcheck -S warning -x .ci/run tests/*.sh tests/images/make.sh completions/vdtool.bash
	$(Q)shellcheck -S warning -e SC2154,SC2046,SC2034 --shell=bats tests/helpers.bash tests/*.bats

SHARE := $(DESTDIR)$(PREFIX)/share

install: all
	install -D -m 755 $(PROGRAM) $(DESTDIR)$(PREFIX)/bin/vdtool
	install -D -m 644 vdtool.1 $(SHARE)/man/man1/vdtool.1
	install -D -m 644 completions/vdtool.bash $(SHARE)/bash-completion/completions/vdtool
	install -D -m 644 completions/vdtool.zsh $(SHARE)/zsh/site-functions/_vdtool
	install -D -m 644 completions/vdtool.fish $(SHARE)/fish/vendor_completions.d/vdtool.fish

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/bin/vdtool $(SHARE)/man/man1/vdtool.1 $(SHARE)/bash-completion/completions/vdtool \
	      $(SHARE)/zsh/site-functions/_vdtool $(SHARE)/fish/vendor_completions.d/vdtool.fish

clean:
	rm -rf build build-* vdtool

FORCE:
.PHONY: all units deps demo check check-asan check-tsan bench readme lint install uninstall clean FORCE

-include $(OBJECTS:.o=.d) $(UNITS:=.d)
