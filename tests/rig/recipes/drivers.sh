#!/bin/sh
# Arranges what `driver-on-disk` puts on disk: for every version a folder with
# the userland as it lies in the system, and for each layout of the kernel
# modules their files, their index and their modprobe.d. Runs in the root file
# system of the machine, as the image is made: an index takes 20 s there later.
#
# usage: drivers.sh VERSION...
# in:    /build/abi, /build/fakegpu/*.ko, /build/modules/VERSION/*.ko,
#        /build/userland/VERSION/*.deb, /build/userland/VERSION/needed/*.deb
# out:   /usr/share/rig/
set -eu

rig=/usr/share/rig
read -r abi </build/abi
modules=/lib/modules/$abi
triplet=x86_64-linux-gnu

mkdir -p "$rig" "$modules/extra"
cp /build/abi "$rig/abi"
cp /build/fakegpu/*.ko "$modules/extra/"

# As DKMS does it: compressed where the kernel's own modules are.
compress() { # VERSION
	if find "$modules/kernel" -name '*.ko.xz' | grep -q .; then
		xz --check=crc32 --lzma2=dict=1MiB -f "/build/modules/$1"/*.ko
	fi
}

arrange_userland() { # TREE USERLAND
	mkdir -p "$2/usr/bin" "$2/usr/lib/$triplet" "$2/usr/lib/systemd/system"
	# Debian keeps these apart, behind alternatives; NVIDIA's installer and
	# most other packages put them where the loader looks.
	cp -a "$1/usr/lib/$triplet/nvidia/current/." "$2/usr/lib/$triplet/"
	cp -a "$1/usr/lib/nvidia/current/nvidia-smi" "$1"/usr/bin/* "$2/usr/bin/"
	for unit in "$1"/lib/systemd/system/*.service "$1"/usr/lib/systemd/system/*.service; do
		[ ! -e "$unit" ] || cp -a "$unit" "$2/usr/lib/systemd/system/"
	done
}

# The names that the driver asks for, and nothing in them: with real firmware
# the GPU, which is none, would be waited for.
arrange_firmware() { # VERSION
	for name in $(modinfo --field firmware "/build/modules/$1"/nvidia.ko*); do
		mkdir -p "$rig/drivers/$1/firmware/${name%/*}"
		echo "A stand-in of the test machine, no firmware." >"$rig/drivers/$1/firmware/$name"
	done
}

arrange_modules() { # LAYOUT VERSION TREE
	target=$rig/drivers/$2/$1
	mkdir -p "$target/modules" "$target/index" "$target/modprobe.d"
	for module in "/build/modules/$2"/*.ko*; do
		file=${module##*/}
		[ "$1" = upstream ] || file=nvidia-current-open${file#nvidia}
		ln "$module" "$target/modules/$file"
	done
	if [ "$1" = debian ]; then
		cp "$3/etc/nvidia/current-open/nvidia-modprobe.conf" "$target/modprobe.d/nvidia.conf"
		cp "$3/etc/nvidia/current-open/nvidia-options.conf" "$target/modprobe.d/"
	else
		echo "# options nvidia NVreg_DeviceFileMode=0666" >"$target/modprobe.d/nvidia-options.conf"
	fi
	rm -rf "$modules/updates"
	mkdir "$modules/updates"
	cp -al "$target/modules" "$modules/updates/dkms"
	depmod "$abi"
	for index in "$modules"/modules.*; do
		case ${index##*/} in
		modules.order | modules.builtin | modules.builtin.modinfo) ;; # the kernel's own
		*) cp "$index" "$target/index/" ;;
		esac
	done
	rm -rf "$modules/updates"
}

# What `dpkg --install` takes: Debian's packages of the userland, and one with the modules, built
# for this kernel, as Ubuntu's linux-modules-nvidia-* has them, and the stand-in of the firmware. That
# one is the rig's: Debian builds the modules on the machine.
arrange_packages() { # VERSION
	packages=$rig/packages/$1
	mkdir -p "$packages"
	cp /build/userland/"$1"/*.deb /build/userland/"$1"/needed/*.deb "$packages/"
	# Of another suite it does not install, and it is there without its package.
	rm "$packages"/nvidia-persistenced_*.deb
	tree=/build/modules-package-$1
	target=$tree/lib/modules/$abi/updates/dkms
	mkdir -p "$tree/DEBIAN" "$target"
	ln "$rig/drivers/$1/debian/modules"/*.ko* "$target/"
	cp -r "$rig/drivers/$1/firmware" "$tree/lib/"
	cat >"$tree/DEBIAN/control" <<-END
		Package: rig-nvidia-modules-$abi
		Version: $1
		Architecture: amd64
		Maintainer: the rig <rig@localhost>
		Description: NVIDIA's modules $1 for $abi, without firmware (made by the rig)
	END
	# In the place of depmod, which takes 20 s in the machine.
	cat >"$tree/DEBIAN/postinst" <<-END
		#!/bin/sh
		set -e
		if [ "\$1" = configure ]; then
			cp $rig/drivers/$1/debian/index/* $modules/
		fi
	END
	chmod 0755 "$tree/DEBIAN/postinst"
	dpkg-deb --root-owner-group -Zzstd -z3 --build "$tree" "$packages/" >/dev/null
}

for version in "$@"; do
	mkdir -p "$rig/drivers/$version"
	tree=/build/tree-$version
	for deb in /build/userland/"$version"/*.deb; do
		dpkg-deb --extract "$deb" "$tree"
	done
	arrange_userland "$tree" "$rig/drivers/$version/userland"
	compress "$version"
	arrange_firmware "$version"
	arrange_modules upstream "$version" "$tree"
	arrange_modules debian "$version" "$tree"
	arrange_packages "$version"
done
