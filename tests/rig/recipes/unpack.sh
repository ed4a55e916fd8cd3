#!/bin/bash
# Unpacks Debian's packages into a new folder, as far as programs run there; no script of theirs runs.
#
# usage: unpack.sh FOLDER PACKAGE...
set -euo pipefail

root=$1
shift
mkdir -p "$root"/{dev,proc,sys,tmp,root,usr/{bin,sbin,lib,lib64}}
chmod 1777 "$root/tmp"
# A file has the same two names as in a system of today, whichever the package has.
for folder in bin sbin lib lib64; do
	ln -s "usr/$folder" "$root/$folder"
done
for package in "$@"; do
	dpkg-deb --fsys-tarfile "$package" | tar -x --keep-directory-symlink -C "$root" \
		--exclude='./usr/share/doc/*' --exclude='./usr/share/man/*' --exclude='./usr/share/locale/*'
done
# What the packages' own scripts would do.
cp "$root/usr/share/base-passwd/passwd.master" "$root/etc/passwd"
cp "$root/usr/share/base-passwd/group.master" "$root/etc/group"
ln -sf debian "$root/etc/dpkg/origins/default"
