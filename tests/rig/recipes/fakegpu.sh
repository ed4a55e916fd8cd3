#!/bin/sh
# Builds fakegpu and the modules beside it. Runs inside a throw-away chroot that
# has the kernel's headers.
#
# in:  /build/in/fakegpu/
# out: /build/out/*.ko
set -eu

headers=$(echo /usr/src/linux-headers-*-amd64)
make -C /build/in/fakegpu KDIR="/lib/modules/${headers#/usr/src/linux-headers-}/build"
mkdir -p /build/out
for module in /build/in/fakegpu/*.ko; do
	versions=
	# See gdr_standin.c.
	case $module in *_standin.ko) versions=--remove-section=__versions ;; esac
	strip --strip-debug $versions -o "/build/out/${module##*/}" "$module"
done
