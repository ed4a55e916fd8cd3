#!/bin/bash
# SPDX-License-Identifier: MIT
# Keeps NVIDIA's modules out of the initramfs.
#
# Modules in the initramfs are loaded before the root file system is mounted. A copy of an earlier version there
# loads the old driver at the next boot, with the new libraries on disk. A compute GPU is not needed to mount the
# root file system; without a copy in the initramfs, the driver is loaded from the root file system, where packages
# keep it and its libraries at the same version.
#
# Opt-in: nothing happens without a line in a file such as /etc/dracut.conf.d/nvidia-reload.conf:
#   add_dracutmodules+=" nvidia-reload "

# 255: only if the configuration names this module.
check() {
	return 255
}

depends() {
	return 0
}

# For each kernel module that it installs, dracut checks omit_drivers, a regular expression. (omit_drivers in
# dracut.conf has lower precedence than add_drivers, which other packages set.) The number of the directory is low,
# since other modules (50drm, 90kernel-modules) install the drivers in use: this must run before them.
installkernel() {
	# The kill switch: it turns off everything that comes from nvidia-reload.
	if [[ " $(</proc/cmdline) " == *" nvidia_reload=0 "* ]]; then
		dinfo "nvidia-reload: nvidia_reload=0 is on the kernel command line: NVIDIA's modules are not touched"
		return 0
	fi
	if dracut_module_included plymouth; then
		# It draws on the screen before the root file system is mounted, and needs the driver of the screen.
		dinfo "nvidia-reload: plymouth is in the initramfs: NVIDIA's modules are not touched"
		return 0
	fi
	# Their names in the kernel, and the file names of Debian (nvidia-current-open.ko). Not
	# nvidiafb and others that belong to the kernel.
	omit_drivers="${omit_drivers:+$omit_drivers|}^nvidia([-_](current|legacy|tesla|open|server|[0-9]+)[a-z0-9_-]*)?([-_](modeset|drm|uvm|peermem|vgpu[-_]vfio|fs))?\$"
}
