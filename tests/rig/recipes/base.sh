#!/bin/sh
# The last touches to Debian's root file system, before anything of the rig's
# own goes in. Runs inside it.
#
# in: /build/linux-image-*.deb
set -eu

# Only what finds the root file system: a full initramfs adds seconds to a boot.
echo MODULES=list >/etc/initramfs-tools/conf.d/rig
printf '%s\n' virtio_pci virtio_blk ext4 >>/etc/initramfs-tools/modules
dpkg --install /build/linux-image-*.deb
rm -rf /build

echo rig >/etc/hostname
printf '127.0.0.1 localhost\n127.0.1.1 rig\n' >/etc/hosts
echo '/dev/vda / ext4 defaults,noatime 0 1' >/etc/fstab

systemctl set-default multi-user.target
systemctl enable systemd-networkd.service ssh.service
# Nothing that wakes up by itself in the middle of a measurement; and no login
# prompt on the serial port, which carries the rig's own line.
systemctl mask serial-getty@ttyS0.service getty@tty1.service \
	systemd-networkd-wait-online.service \
	apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
	e2scrub_reap.service fstrim.timer logrotate.timer man-db.timer podman-auto-update.timer podman-auto-update.service
# There for the scenarios that start them.
systemctl disable munge.service slurmctld.service slurmd.service lxc.service lxc-net.service \
	unattended-upgrades.service
rm /etc/apt/apt.conf.d/99needrestart

# Ordinary people, for holders that are not root's.
for user in alice bob; do
	useradd --create-home --shell /bin/bash "$user"
done
rm -f /etc/ssh/ssh_host_*
rm -rf /etc/update-motd.d /etc/motd

# root's own manager runs from the start: each login would wait for it.
mkdir -p /var/lib/systemd/linger
: >/var/lib/systemd/linger/root
