#!/bin/bash
# The rpm, by rpm, dnf and zypper: installed, upgraded, triggered and removed; and the hook for pacman. Runs inside a
# throw-away Debian that has them all.
#
# in: /build/nvidia-reload-*.rpm, /build/spec, /build/hook
set -Eeuo pipefail
trap 'echo "line $LINENO: $BASH_COMMAND" >&2' ERR
cd /build

fail() {
	echo "FAIL: $*" >&2
	exit 1
}

# Debian's rpm has its database elsewhere, and says at each installation that people should not.
echo '%_dbpath /var/lib/rpm' >/root/.rpmmacros
rpm() {
	command rpm "$@" 2> >(sed '/^rpm: /d' >&2)
}

# make_rpm NAME VERSION SECTION FILE…: a package with these files, and with this in its spec.
make_rpm() {
	local name=$1 version=$2 section=$3
	shift 3
	{
		printf '%s\n' "Name: $name" "Version: $version" 'Release: 1' 'Summary: a package of the rig' 'License: MIT' \
			'BuildArch: noarch' "$section" '%description' 'A package of the rig.' '%files' "$@" '%install'
		for file; do
			echo "install -D /dev/null %{buildroot}$file"
		done
	} >"$name.spec"
	rpmbuild -bb --quiet --define '_topdir /build/rpmbuild' --define '_rpmdir /build' \
		--define '_rpmfilename %%{NAME}-%%{VERSION}-%%{RELEASE}.rpm' "$name.spec"
}

# of_release N: the package with its own scripts, and instead of the command one that notes what it was asked for,
# and what the helper that waits for package managers sees at that moment.
of_release() {
	rm -rf again
	mkdir -p again/{tree,packaging}
	rpm2cpio /build/nvidia-reload-*.x86_64.rpm | (cd again/tree && cpio --quiet -idm)
	rm -rf again/tree/usr/lib/.build-id
	cat >again/tree/usr/sbin/nvidia-reload <<-'END'
		#!/bin/sh
		echo "$*" >>/build/asked
		mkdir -p /run/nvidia-reload
		now=$(date +%s)000000
		printf '{"schema":"nvidia-reload.request/1","reasons":["rig"],"asked_usec":%s,"since_usec":%s,"state":"queued","because":[]}' \
			"$now" "$now" >/run/nvidia-reload/request.json
		timeout 2 /usr/libexec/nvidia-reload/upgrade
		cp /run/nvidia-reload/request.json /build/seen
	END
	gunzip again/tree/usr/share/man/man8/*.gz
	cp again/tree/usr/lib/systemd/system-preset/90-nvidia-reload.preset again/packaging/
	cp again/tree/usr/share/licenses/nvidia-reload*/LICENSE again/
	sed "s/^Release:.*/Release: $1/; s/^make$//; s,^make install .*,cp -a tree/. %{buildroot}," spec >again/spec
	(cd again && rpmbuild -bb --quiet --build-in-place --nodeps --define '_topdir /build/rpmbuild' \
		--define '_rpmdir /build' --define '_rpmfilename recorder-%%{RELEASE}.rpm' spec)
}

# asked WHAT N: so many requests since the last time.
asked() {
	local count=0
	[ ! -e asked ] || count=$(wc -l <asked)
	[ "$count" = "$2" ] || fail "$1: asked $count times, not $2: $(cat asked 2>/dev/null)"
	[ "$count" = 0 ] || ! grep -qv '^request --reason ' asked || fail "$1: asked for $(cat asked)"
	rm -f asked
}

# seen WHAT LOCK: the package manager was seen at work, by its lock.
seen() {
	grep -q '"state": *"waiting-for-packages"' seen && grep -q "has locked $2\"" seen || fail "$1: $(cat seen)"
	rm -f seen
}

enabled() {
	for unit in recover save-driver; do
		[ "$(systemctl --root=/ is-enabled nvidia-reload-$unit.service)" = "$1" ] || fail "nvidia-reload-$unit.service is not $1"
	done
}

# What is left of the package. (Its ledger's history stays, of which there is none here.)
nothing_left() {
	local left
	left=$(find / -xdev \( -path /build -o -path /proc -o -path /sys -o -path /dev -o -path /var/lib/rpm -o -path /var/cache -o -path /root -o -path /run \) -prune -o \
		-name '*nvidia-reload*' -print)
	[ -z "$left" ] || fail "left of the package: $left"
}

# The distribution that its requirements are to be met by: the oldest of the table, Enterprise Linux 9.
provides=$(
	echo 'Provides: /bin/sh, /bin/bash, systemd = 249, kmod = 28, rtld(GNU_HASH)'
	for version in 2.2.5 2.3 2.3.2 2.3.3 2.3.4 $(seq -f 2.%.0f 4 34); do
		echo "Provides: libc.so.6(GLIBC_$version)(64bit), libm.so.6(GLIBC_$version)(64bit)"
		echo "Provides: ld-linux-x86-64.so.2(GLIBC_$version)(64bit)"
	done
	for version in 3.0 3.3 3.3.1 4.2.0; do
		echo "Provides: libgcc_s.so.1(GCC_$version)(64bit)"
	done
	echo 'Provides: libc.so.6()(64bit), libm.so.6()(64bit), ld-linux-x86-64.so.2()(64bit), libgcc_s.so.1()(64bit)'
	echo 'Provides: libkmod.so.2()(64bit), libkmod.so.2(LIBKMOD_5)(64bit)'
)
make_rpm rig-host 1 "$provides" /usr/share/rig-host
for version in 535 550 570; do
	make_rpm nvidia-driver-libs $version '' /usr/lib64/libnvidia-ml.so.$version
done
make_rpm kmod-nvidia 550 '' /lib/modules/5.14.0-1.el9.x86_64/extra/nvidia.ko
make_rpm kmod-nvidia-dkms 550 '' /usr/src/nvidia-550/dkms.conf
make_rpm unrelated 1 '' /usr/share/unrelated
of_release 1
of_release 2

echo '--- rpm: the package itself'
rpm -i rig-host-*.rpm nvidia-driver-libs-535-1.rpm
rpm -i nvidia-reload-*.x86_64.rpm
# The machine's /run is not in the package, and its own directories are root's.
rpm -V nvidia-reload
enabled enabled
nvidia-reload --version
nvidia-reload request | grep 'Nothing is queued' >/dev/null
rpm -e nvidia-reload
nothing_left

echo '--- rpm: installation'
rpm -i recorder-1.rpm
# The first one changes nothing by itself, though a driver is there.
asked 'the first installation' 0
echo '--- rpm: triggers'
rpm -i unrelated-1-1.rpm
asked 'a package of another kind' 0
rpm -U nvidia-driver-libs-550-1.rpm
asked 'another driver' 1
seen 'another driver' /var/lib/rpm/.rpm.lock
rpm -i kmod-nvidia-550-1.rpm kmod-nvidia-dkms-550-1.rpm
asked 'two packages of modules' 1
echo '--- rpm: upgrade'
systemctl --quiet --no-reload disable nvidia-reload-save-driver.service
rpm -U recorder-2.rpm
asked 'an upgrade of the package' 1
[ "$(systemctl --root=/ is-enabled nvidia-reload-save-driver.service || :)" = disabled ] || fail 'the upgrade has enabled a unit'
systemctl --quiet --no-reload enable nvidia-reload-save-driver.service
enabled enabled
echo '--- rpm: removal'
mkdir -p /run/systemd/system /var/lib/nvidia-reload/slots/550
echo '{"event":{"opened":{}}}' >/var/lib/nvidia-reload/ledger.jsonl
if rpm -e nvidia-reload 2>said; then
	fail 'removed while a run is open'
fi
grep 'not removed: a run is open' said >/dev/null || fail "$(cat said)"
[ -x /usr/libexec/nvidia-reload/drain-containers ] || fail 'the helpers are gone'
enabled enabled
rm /var/lib/nvidia-reload/ledger.jsonl
rmdir /run/systemd/system
rpm -e nvidia-reload
nothing_left
rpm -e nvidia-driver-libs kmod-nvidia kmod-nvidia-dkms unrelated

echo '--- dnf'
mkdir -p repository /etc/yum.repos.d
cp recorder-*.rpm nvidia-driver-libs-*.rpm unrelated-*.rpm repository/
createrepo_c --quiet repository
printf '[rig]\nname=rig\nbaseurl=file:///build/repository\ngpgcheck=0\n' >/etc/yum.repos.d/rig.repo
dnf=(dnf --assumeyes --quiet --releasever=9 --disablerepo='*' --enablerepo=rig)
"${dnf[@]}" install nvidia-driver-libs-535 nvidia-reload-0.1.0-1
asked 'dnf install' 0
enabled enabled
"${dnf[@]}" install unrelated
asked 'dnf install of another kind' 0
"${dnf[@]}" upgrade nvidia-driver-libs-550
asked 'dnf upgrade of the driver' 1
seen 'dnf' /var/lib/rpm/.rpm.lock
"${dnf[@]}" upgrade
asked 'dnf upgrade of the driver and the package' 1
rpm -q nvidia-driver-libs-570 nvidia-reload-0.1.0-2
"${dnf[@]}" remove nvidia-reload nvidia-driver-libs unrelated
nothing_left

echo '--- zypper'
zypper=(zypper --non-interactive --no-gpg-checks --quiet)
"${zypper[@]}" addrepo --no-gpgcheck /build/repository rig
"${zypper[@]}" install nvidia-driver-libs=535 nvidia-reload=0.1.0-1
asked 'zypper install' 0
"${zypper[@]}" update nvidia-driver-libs
asked 'zypper update of the driver' 1
seen zypper /run/zypp.pid
"${zypper[@]}" remove nvidia-reload nvidia-driver-libs
nothing_left

echo '--- pacman'
# A host of pacman's has no package of ours yet: the command and the helper are put there.
rpm2cpio recorder-1.rpm | (cd / && cpio --quiet -id './usr/libexec/*' './usr/sbin/nvidia-reload')
ln -s ../sbin/nvidia-reload /usr/bin/nvidia-reload
install -D -m 0644 hook /etc/pacman.d/hooks/zz-nvidia-reload.hook
pacman_package() { # NAME FILE
	rm -rf arch
	install -D /dev/null "arch/$2"
	printf '%s\n' "pkgname = $1" 'pkgver = 550-1' 'pkgdesc = a package of the rig' 'builddate = 0' 'size = 0' 'arch = any' >arch/.PKGINFO
	tar -C arch -cf "$1-550-1-any.pkg.tar" .PKGINFO "${2%%/*}"
}
printf '[options]\nArchitecture = auto\nLocalFileSigLevel = Never\nHookDir = /etc/pacman.d/hooks\n' >pacman.conf
pacman_package unrelated usr/share/unrelated
pacman_package nvidia-utils usr/lib/libnvidia-ml.so.550
mkdir -p /var/lib/pacman
pacman --config pacman.conf --noconfirm -U unrelated-550-1-any.pkg.tar
asked 'pacman: another kind' 0
pacman --config pacman.conf --noconfirm -U nvidia-utils-550-1-any.pkg.tar
asked pacman 1
seen pacman /var/lib/pacman/db.lck
echo 'all is well'
