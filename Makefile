# adit: a userspace IPsec stack over TUN. `make help` lists the targets.
#
# VARIANT picks a build: release (default), asan (AddressSanitizer and UndefinedBehaviorSanitizer),
# tsan (ThreadSanitizer) or clang (a second compiler's warnings). V=1 shows the commands.

VARIANT ?= release
CC      ?= cc
PREFIX  ?= /usr/local
BUILD   := build/$(VARIANT)
Q       := $(if $(V),,@)
VERSION := 0.1.0

# Their mbedTLS comes without a pkg-config file in Debian 12.
PKGS     := libsodium liburing inih jansson
PKG_FLAG := $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
PKG_LIBS := $(shell pkg-config --libs $(PKGS) 2>/dev/null) -lmbedx509 -lmbedcrypto

# intel-ipsec-mb is optional: the fast engine where it is installed, left out with IPSEC_MB=no.
IPSEC_MB ?= $(shell test -e /usr/include/intel-ipsec-mb.h && echo yes || echo no)
ifeq ($(IPSEC_MB),yes)
PKG_LIBS += -lIPSec_MB
DEFINES  += -DHAVE_IPSEC_MB
endif

CFLAGS_release := -O2 -g -D_FORTIFY_SOURCE=2 -fstack-protector-strong
CFLAGS_asan    := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
CFLAGS_tsan    := -O1 -g -fsanitize=thread -fno-omit-frame-pointer
CFLAGS_clang   := -O2

ALL_CFLAGS := -std=c11 -D_GNU_SOURCE -DADIT_VERSION='"$(VERSION)"' $(DEFINES) -Wall -Wextra -Wpedantic -Werror -Wshadow \
	-Wstrict-prototypes -Wmissing-prototypes -fno-strict-aliasing -pthread -I. $(PKG_FLAG) $(CFLAGS_$(VARIANT)) $(CFLAGS)
ALL_LDFLAGS := -pthread $(CFLAGS_$(VARIANT)) $(LDFLAGS)

SRC  := $(filter-out core/main.c,$(wildcard core/base/*.c crypto/*.c policy/*.c tun/*.c esp/*.c ike/*.c core/*.c))
ifneq ($(IPSEC_MB),yes)
SRC  := $(filter-out $(wildcard crypto/*ipsec_mb.c),$(SRC))
endif
OBJ  := $(SRC:%.c=$(BUILD)/%.o)
UNIT := $(patsubst test/unit/%.c,$(BUILD)/unit/%,$(wildcard test/unit/test_*.c))
FUZZ := $(patsubst test/fuzz/%.c,$(BUILD)/fuzz/%,$(wildcard test/fuzz/fuzz_*.c))
UTIL := $(filter-out $(wildcard test/unit/test_*.c) test/unit/fault.c,$(wildcard test/unit/*.c))

.PHONY: all help deps deps-there deps-build deps-test demo check unit bench install uninstall clean asan tsan format compile_commands.json
.SECONDARY:

all: $(BUILD)/adit

help:
	@echo 'all      build $(BUILD)/adit            asan, tsan  the same with sanitizers, and the unit tests'
	@echo 'demo     two hosts, real traffic (root) check       every test (root)'
	@echo 'bench    compare with others (root)     unit        unit tests only'
	@echo 'deps     install missing packages       install     to $$DESTDIR$(PREFIX); uninstall'

$(BUILD)/adit: $(BUILD)/core/main.o $(BUILD)/libadit.a
	@echo '  LINK $@'
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(PKG_LIBS)

$(BUILD)/libadit.a: $(OBJ)
	@rm -f $@
	@echo '  AR   $@'
	$(Q)ar qcs $@ $^

$(BUILD)/%.o: %.c | deps-there
	@mkdir -p $(@D)
	@echo '  CC   $@'
	$(Q)$(CC) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/unit/%: $(BUILD)/test/unit/%.o $(UTIL:%.c=$(BUILD)/%.o) $(BUILD)/libadit.a
	@mkdir -p $(@D)
	@echo '  LINK $@'
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(PKG_LIBS) -lcmocka

# Benchmarks of the engine in memory; test/bench/run builds what it wants of them.
$(BUILD)/bench/%: $(BUILD)/test/bench/%.o $(BUILD)/test/unit/crowd.o $(BUILD)/libadit.a
	@mkdir -p $(@D)
	@echo '  LINK $@'
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(PKG_LIBS)

# What the tests of faults make fail.
FAULTS := malloc calloc realloc secret_alloc ike_finish ike_finish_sk keyed_new prf ike_job_run \
	sad_publish_in sad_publish_out dataplane_install dataplane_reserve
FAULTY := $(filter $(BUILD)/unit/test_faults%,$(UNIT))
$(FAULTY): ALL_LDFLAGS += $(FAULTS:%=-Wl,--wrap=%)
$(FAULTY): $(BUILD)/test/unit/fault.o

# What the test of nonces listens at.
$(BUILD)/unit/test_nonce: ALL_LDFLAGS += -Wl,--wrap=keyed_new,--wrap=keyed_seal

# Without libFuzzer each fuzz target is linked with a driver that replays and mutates its seeds: same code, gcc's reach.
$(BUILD)/fuzz/%: $(BUILD)/test/fuzz/%.o $(BUILD)/test/fuzz/driver.o $(BUILD)/libadit.a
	@mkdir -p $(@D)
	@echo '  LINK $@'
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(PKG_LIBS)

unit: $(UNIT) $(FUZZ)

asan tsan:
	$(MAKE) VARIANT=$@ all unit

deps: deps-build deps-test
deps-there:
	@test/deps there
deps-build:
	@test/deps build
deps-test:
	@test/deps test

demo: deps-build
	@test/deps demo
	@$(MAKE) --no-print-directory all
	@test/demo $(BUILD)/adit

check: deps-test
	@test/check

bench: deps-test
	@$(MAKE) --no-print-directory all
	@test/bench/run $(BUILD)/adit

install: all
	install -D -m 755 $(BUILD)/adit $(DESTDIR)$(PREFIX)/sbin/adit
	install -D -m 644 core/adit.8 $(DESTDIR)$(PREFIX)/share/man/man8/adit.8
	install -D -m 644 core/adit.ini.5 $(DESTDIR)$(PREFIX)/share/man/man5/adit.ini.5
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system
	sed 's,/usr/local/,$(PREFIX)/,' core/adit@.service > $(DESTDIR)$(PREFIX)/lib/systemd/system/adit@.service

uninstall:
	rm -f $(addprefix $(DESTDIR)$(PREFIX)/,sbin/adit share/man/man8/adit.8 share/man/man5/adit.ini.5 lib/systemd/system/adit@.service)

format:
	clang-format -i $$(git ls-files -co --exclude-standard '*.c' '*.h')

compile_commands.json:
	@{ echo '['; sep=; for f in $(SRC) core/main.c; do \
	  printf '%s{"directory":"%s","file":"%s","command":"%s"}\n' "$$sep" "$(CURDIR)" "$$f" \
	  "$(CC) $(subst ",\\\",$(ALL_CFLAGS)) -c $$f"; sep=,; done; echo ']'; } > $@

clean:
	rm -rf build compile_commands.json

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
