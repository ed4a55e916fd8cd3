#!/bin/sh
# Builds fakegpu. Runs inside a throw-away chroot that has the kernel's headers.
#
# in:  /build/in/fakegpu/
# out: /build/out/fakegpu.ko
set -eu

headers=$(echo /usr/src/linux-headers-*-amd64)
make -C /build/in/fakegpu KDIR="/lib/modules/${headers#/usr/src/linux-headers-}/build"
mkdir -p /build/out
strip --strip-debug -o /build/out/fakegpu.ko /build/in/fakegpu/fakegpu.ko
