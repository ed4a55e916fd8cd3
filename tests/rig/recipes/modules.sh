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
	make -C "$tree/usr/src/nvidia-current-open-$version" -j"$(nproc)" modules \
		SYSSRC="/lib/modules/$abi/source" SYSOUT="/lib/modules/$abi/build"
	mkdir -p "/build/out/$version"
	# With its debug sections nvidia.ko alone is 185 MB.
	for module in nvidia nvidia-modeset nvidia-uvm nvidia-drm nvidia-peermem; do
		strip --strip-debug -o "/build/out/$version/$module.ko" \
			"$tree/usr/src/nvidia-current-open-$version/$module.ko"
	done
	rm -rf "$tree"
done
