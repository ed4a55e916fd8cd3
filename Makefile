# SPDX-License-Identifier: MIT
# Both packages are built with this file: `make`, then `make install DESTDIR=FOLDER`. Rust comes from cargo in PATH.
# For another architecture: CARGO_BUILD_TARGET, as cargo has it, and TARGET_RUNNER, which runs its programs here.

CARGO_TARGET_DIR ?= $(CURDIR)/target
export CARGO_TARGET_DIR
# Debian has another one.
ZSH_COMPLETIONS ?= /usr/share/zsh/site-functions

HELPERS = preflight drain-containers stop-units kill-holders unbind-vt rmmod-chain gpu-reset \
	install-driver modprobe-chain verify restore settings rollback upgrade \
	check-initramfs user-agent heal fleet-lock
PROGRAMS = $(HELPERS) ask-nvml
RELEASE = $(CARGO_TARGET_DIR)$(CARGO_BUILD_TARGET:%=/%)/release
GENERATED = $(CARGO_TARGET_DIR)/generated
INSTALL ?= install
INSTALL_FILE = $(INSTALL) -D -m 0644
INSTALL_PROGRAM = $(INSTALL) -D -m 0755

.PHONY: all install

all:
	@command -v cargo >/dev/null || { echo 'cargo is not in the PATH: install Rust (1.89 or newer)' >&2; exit 1; }
	cargo build --release --locked $(addprefix --package ,nvidia-reload $(HELPERS))
	mkdir -p $(GENERATED)
	$(TARGET_RUNNER) $(RELEASE)/nvidia-reload generate $(GENERATED)

install:
	$(INSTALL_PROGRAM) -t $(DESTDIR)/usr/sbin $(RELEASE)/nvidia-reload
	$(INSTALL_PROGRAM) -t $(DESTDIR)/usr/libexec/nvidia-reload $(addprefix $(RELEASE)/,$(PROGRAMS)) packaging/before-removal
	$(INSTALL_FILE) -t $(DESTDIR)/usr/lib/systemd/system units/*.service targets/*.target
	for dropin in units/*.d; do \
		$(INSTALL_FILE) -t $(DESTDIR)/usr/lib/systemd/system/$${dropin##*/} $$dropin/*.conf || exit 1; \
	done
	$(INSTALL_FILE) -t $(DESTDIR)/usr/lib/systemd/catalog units/nvidia-reload.catalog
	$(INSTALL_FILE) units/nvidia-reload.tmpfiles $(DESTDIR)/usr/lib/tmpfiles.d/nvidia-reload.conf
	$(INSTALL_FILE) -t $(DESTDIR)/usr/lib/nvidia-reload units/config.toml
	for file in $$(find fleet -type f); do \
		mode=0644; [ ! -x $$file ] || mode=0755; \
		$(INSTALL) -D -m $$mode $$file $(DESTDIR)/usr/share/nvidia-reload/$$file || exit 1; \
	done
	$(INSTALL_PROGRAM) -t $(DESTDIR)/usr/lib/dracut/modules.d/01nvidia-reload dracut/01nvidia-reload/*
	$(INSTALL_FILE) -t $(DESTDIR)/usr/share/man/man8 $(GENERATED)/*.8 docs/man/*.8
	$(INSTALL_FILE) -t $(DESTDIR)/usr/share/man/man5 $(GENERATED)/*.5
	$(INSTALL_FILE) $(GENERATED)/nvidia-reload.bash $(DESTDIR)/usr/share/bash-completion/completions/nvidia-reload
	$(INSTALL_FILE) -t $(DESTDIR)$(ZSH_COMPLETIONS) $(GENERATED)/_nvidia-reload
	$(INSTALL_FILE) -t $(DESTDIR)/usr/share/fish/vendor_completions.d $(GENERATED)/nvidia-reload.fish
