#!/bin/sh
# Builds NVIDIA's open kernel modules, every version given. Runs inside a
# throw-away chroot that has the kernel's headers.
#
# usage: modules.sh VERSION...
# in:    /build/in/nvidia-open-kernel-dkms_VERSION-*.deb
# out:   /build/out/VERSION/*.ko
set -eu

headers=$(echo /usr/src/linux-headers-*-amd64)
abi=${headers#/usr/src/linux-headers-}

for version in "$@"; do
	tree=/build/source-$version
	dpkg-deb --extract /build/in/nvidia-open-kernel-dkms_"$version"-*.deb "$tree"
	# Debug information, which the kernel's configuration asks for, is a part of the time and of no use here.
	make -C "$tree/usr/src/nvidia-current-open-$version" -j"$(nproc)" modules KCFLAGS=-g0 \
		SYSSRC="/lib/modules/$abi/source" SYSOUT="/lib/modules/$abi/build"
	mkdir -p "/build/out/$version"
	for module in nvidia nvidia-modeset nvidia-uvm nvidia-drm nvidia-peermem; do
		strip --strip-debug -o "/build/out/$version/$module.ko" \
			"$tree/usr/src/nvidia-current-open-$version/$module.ko"
	done
	rm -rf "$tree"
done
