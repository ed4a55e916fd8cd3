#!/bin/sh
# Makes Debian's sources of the drivers fit a kernel that is newer than they are. Runs on the host.
#
# usage: sources.sh FOLDER
# in and out: FOLDER/nvidia-open-kernel-dkms_*.deb
set -eu

tree=$(mktemp -d "$1/tree.XXXXXX")
for package in "$1"/nvidia-open-kernel-dkms_*.deb; do
	dpkg-deb --raw-extract "$package" "$tree/files"
	# Linux 6.12.117 has a fourth argument there, and no version of the driver in Debian knows of it: as
	# it is, DKMS builds none for Debian 13's kernel. No GPU of the rig can be resized.
	sed -i 's/\(pci_resize_resource(pci_dev, NV_GPU_BAR1, requested_size\))/\1, 0)/' \
		"$tree"/files/usr/src/*/nvidia/nv-pci.c
	grep -q 'requested_size, 0)' "$tree"/files/usr/src/*/nvidia/nv-pci.c
	dpkg-deb --root-owner-group -Znone --build "$tree/files" "$package" >/dev/null
	rm -r "$tree/files"
done
rmdir "$tree"
