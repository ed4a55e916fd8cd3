#!/bin/sh
# Runs a program with another root, in a mount namespace of its own (`unshare --mount`), where what is
# named has the same place as outside.
#
# usage: inside.sh ROOT PATH... -- PROGRAM ARGUMENT...
set -eu

root=$1
shift
# A mount of its own, so that who is inside can do the same again.
mount --bind "$root" "$root"
for path in /dev /proc /sys; do
	mount --rbind "$path" "$root$path"
done
while [ "$1" != -- ]; do
	if [ -d "$1" ]; then
		mkdir -p "$root$1"
		mount --rbind "$1" "$root$1"
	elif [ -e "$1" ]; then
		mkdir -p "$(dirname "$root$1")"
		# A link, as resolv.conf often is one, would lead elsewhere inside.
		[ ! -L "$root$1" ] || rm "$root$1"
		[ -e "$root$1" ] || : >"$root$1"
		mount --bind "$1" "$root$1"
	fi
	shift
done
shift
exec chroot "$root" "$@"
