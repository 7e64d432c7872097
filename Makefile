# SPDX-License-Identifier: MIT
# make               build ./vdtool                     make check        unit tests and bats
# make deps          install the Debian packages        make check-asan   the same under ASan and UBSan
# make demo          a real VHD becomes a qcow2         make bench        ratios against qemu-img and the floor
# make install       PREFIX=/usr/local DESTDIR=         make clean
# knobs: V=1 shows command lines, WERROR=1 makes warnings errors, D=asan|tsan sanitizes, NO_ISAL=1 leaves a library out

PREFIX  ?= /usr/local
DESTDIR ?=
CC      ?= cc
CFLAGS  ?= -O2 -g
BUILD   ?= build$(if $(D),-$(D))
PROGRAM ?= $(if $(D),$(BUILD)/vdtool,vdtool)

VERSION := 0.1.0

LIBS     := popt jansson zlib libdeflate libzstd liblzma
OPTIONAL := $(if $(NO_ISAL),,libisal)
FOUND    := $(foreach lib,$(OPTIONAL),$(shell pkg-config --exists $(lib) && echo $(lib)))

WARNINGS := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes $(if $(WERROR),-Werror)
comma    := ,
SANITIZE := $(if $(filter asan,$(D)),-fsanitize=address$(comma)undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)$(if $(filter tsan,$(D)),-fsanitize=thread)

VD_CFLAGS := -std=gnu11 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -I. -pthread $(WARNINGS) $(SANITIZE) \
             -DVD_VERSION='"$(VERSION)"' $(foreach lib,$(FOUND),-DHAVE_$(subst LIB,,$(shell echo $(lib) | tr a-z A-Z))) \
             $(shell pkg-config --cflags $(LIBS) $(FOUND))
VD_LIBS   := $(shell pkg-config --libs $(LIBS) $(FOUND)) -lbz2 -pthread

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
$(BUILD)/flags: FORCE
	@mkdir -p $(@D)
	@echo '$(CC) $(VD_CFLAGS) $(CFLAGS)' | cmp -s - $@ || echo '$(CC) $(VD_CFLAGS) $(CFLAGS)' >$@

$(BUILD)/unit/%: tests/unit/%.c $(LIBRARY_OBJECTS)
	@mkdir -p $(@D)
	$(Q)echo "  UNIT    $*"
	$(Q)$(CC) $(VD_CFLAGS) $(CFLAGS) $(LDFLAGS) -MMD -MP -o $@ $^ $(VD_LIBS)

units: $(UNITS)

clean:
	rm -rf build build-* vdtool

FORCE:
.PHONY: all units clean FORCE

-include $(OBJECTS:.o=.d) $(UNITS:=.d)
