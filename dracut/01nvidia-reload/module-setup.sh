#!/bin/bash
# Keeps NVIDIA's modules out of the initramfs.
#
# What is in there is loaded before the root file system is: a copy of an earlier version that an upgrade
# left behind brings the old driver back at the next boot, under the new libraries. A GPU that computes is
# not needed to find the root file system; without the modules in there, the driver comes from the root
# file system, where packages keep it in step with its libraries.
#
# Opt-in: nothing happens unless a file such as /etc/dracut.conf.d/nvidia-reload.conf says
#   add_dracutmodules+=" nvidia-reload "

# 255: only where it is asked for.
check() {
	return 255
}

depends() {
	return 0
}

# For each kernel module that it installs, dracut looks at omit_drivers, a regular expression (dracut.conf's own
# omit_drivers gives way to add_drivers; so that, which other packages set, would not do). The directory's
# number is low since others install the drivers of what is in use (50drm, 90kernel-modules): this has to
# be said before.
installkernel() {
	# The kill switch: it turns off everything that comes from nvidia-reload.
	if [[ " $(</proc/cmdline) " == *" nvidia_reload=0 "* ]]; then
		dinfo "nvidia-reload: nvidia_reload=0 is on the kernel command line: NVIDIA's modules are left alone"
		return 0
	fi
	if dracut_module_included plymouth; then
		# It draws on the screen before the root file system is there, and needs the screen's driver.
		dinfo "nvidia-reload: plymouth is in the initramfs: NVIDIA's modules are left alone"
		return 0
	fi
	# As they are called in the kernel, and as Debian calls their files (nvidia-current-open.ko). Not
	# nvidiafb and the like, which come with the kernel.
	omit_drivers="${omit_drivers:+$omit_drivers|}^nvidia([-_](current|legacy|tesla|open|server|[0-9]+)[a-z0-9_-]*)?([-_](modeset|drm|uvm|peermem|vgpu[-_]vfio|fs))?\$"
}
