#!/bin/sh
# Makes Debian's root file system into the test machine. Runs inside it.
#
# usage: image.sh DEFAULT-VERSION OTHER-VERSION...
# in:    what drivers.sh takes, /build/guest/, /build/recipes/, /build/key.pub
set -eu

cp -r --no-preserve=ownership /build/guest/. /
sh /build/recipes/drivers.sh "$@"
driver-on-disk "$1"

# As the package of nvidia-persistenced does it. The service is there, and off.
adduser --system --group --quiet --home /var/run/nvpd/ --no-create-home nvpd

ssh-keygen -q -t ed25519 -N '' -C rig -f /etc/ssh/ssh_host_ed25519_key
install -d -m 0700 /root/.ssh
install -m 0600 /build/key.pub /root/.ssh/authorized_keys

# The container image gpu-job: a busybox and nothing else.
job=/build/gpu-job
mkdir -p "$job/bin" "$job/dev" "$job/proc" "$job/sys" "$job/etc" "$job/tmp"
cp /bin/busybox "$job/bin/"
for applet in $(busybox --list); do
	[ "$applet" = busybox ] || ln -s busybox "$job/bin/$applet"
done
tar -C "$job" --owner=0 --group=0 -cf /usr/share/rig/gpu-job.tar .

systemctl enable rig-gpus.service rig-first-boot.service rig-ready.service
rm -rf /build
