# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# What every scenario starts with:
#
#   #!/bin/bash
#   # One line that says what it shows.
#   # rig: timeout=600 gpus=2 driver=550.163.01     (only where the defaults,
#   #                                                300, 1 and 535.261.03, do not do)
#   # rig: by-name                                (takes long: only with --all, or when it is named)
#   # rig: parts=a,b                              (NAME-a and NAME-b are tests that run it with that argument,
#   #                                                only with --all, or when they are named)
#   # rig: kernel=ARGUMENT                          (more for the kernel's command line)
#   # rig: distro=debian12,forky                    (the suite runs it on the first, --all on each; else on debian12)
#   # rig: machines=3 with=ansible                (node1, where it runs, node2, …: node1 reaches the others by ssh;
#   #                                                Ansible is on node1)
#   # rig: with=rpm                                (rpm and rpmbuild are there, with an empty database, and the
#                                                product's package for it: /usr/share/rig/nvidia-reload.rpm)
#   . /usr/share/rig/lib.sh
#
# A scenario runs as root in a machine of its own, in which the package is
# installed and 535.261.03 is loaded. It passes when it exits with 0. There are:
#
#   driver-on-disk VERSION [--layout upstream|debian]
#       another driver on disk, as a package upgrade leaves it; loads nothing
#   /usr/share/rig/packages/VERSION/*.deb
#       the driver as packages: Debian's own, and one of the rig's with the modules; the first time
#       after `driver-on-disk none`, which takes away what no package owns
#   hold [OPTION…] DEVICE…
#       a process that holds a device in one of many ways (hold --help);
#       prints `ready PID` once it does; with --fork it goes to the background
#   nvml-sim install FILE, nvml-sim show
#       a simulation in the place of NVML, for every driver on disk, with the GPUs
#       and the faults that FILE describes (then /etc/nvml-sim.toml, to be changed
#       at will; tests/nvml-sim/src/config.rs says what can be in it); and what is
#       set on its GPUs, as JSON by UUID; hides /proc/driver, which would contradict, and takes
#       away /etc/nvidia-reload/conf.d/50-rig-gpus.toml: as long as that is there, the product does
#       not mind that NVML shows none of the machine's GPUs
#   docker run -d gpu-job, podman run -d gpu-job
#       a container that opens /dev/nvidiactl, where it is given that, and waits
#   alice, bob
#       users without rights: runuser -u alice -- COMMAND…
#   rig-reboot, rig-power-cut
#       reboot the machine, in order or as if the power went. The scenario is
#       then run again from its start, with RIG_BOOT=2 (then 3, …) where it was
#       RIG_BOOT=1 the first time; /run is empty then, the disk is not. Neither
#       returns:
#           case $RIG_BOOT in
#           1) …; rig-power-cut ;;
#           2) … ;;
#           esac
#   rig-kexec INITRD
#       the same into the kernel that runs, with another initramfs than the rig's own
#   whole
#       whether all of the scenario is to run: it is not in the default suite, where a long one shows
#       the most informative half
#   soft_reboot
#       the same with all but the kernel (systemd 254 and later): /run and the modules stay
#   RIG_GPUS, RIG_DRIVER, RIG_DISTRO
#       what the machine was started with
set -Eeuo pipefail

# Says what went wrong and ends the scenario.
fail() {
	echo "FAIL: $*" >&2
	exit 1
}

# wait_for SECONDS COMMAND…: tries the command until it succeeds, the last time after the deadline. It ends a hang
# and measures nothing, so none is shorter than two minutes: the machine is emulated and shares its cores.
wait_for() {
	local seconds=$(($1 > 120 ? $1 : 120)) end is_last
	shift
	end=$((EPOCHSECONDS + seconds))
	while :; do
		is_last=$((EPOCHSECONDS >= end))
		if "$@" >/dev/null 2>&1; then
			return
		fi
		[ "$is_last" = 0 ] || fail "after $seconds s still not true: $*"
		sleep 0.1
	done
}

# assert_eq ACTUAL EXPECTED [WHAT]
assert_eq() {
	[ "$1" = "$2" ] || fail "${3:+$3: }expected '$2', got '$1'"
}

# Whether all of the scenario is to run.
whole() {
	[ -z "${RIG_SHORT:-}" ]
}

soft_reboot() {
	echo soft-reboot >/run/rig/control
	exec sleep infinity
}

# status_of COMMAND…: its exit status, on standard output; its own output goes
# to standard error.
status_of() {
	local status=0
	"$@" >&2 || status=$?
	echo "$status"
}

# Whether a process has ended, reaped or not.
gone() { # PID
	[ ! -d "/proc/$1" ] || grep -q '^State:.Z' "/proc/$1/status"
}

# The version of the driver that is loaded; empty when there is none.
loaded_version() {
	cat /sys/module/nvidia/version 2>/dev/null || :
}

# The version of the driver that would be loaded; empty when there is none.
disk_version() {
	modinfo --field version nvidia 2>/dev/null || modinfo --field version nvidia-current-open 2>/dev/null || :
}

# The NVIDIA modules that are loaded, in alphabetical order, on one line.
loaded_modules() {
	awk '/^nvidia/ { print $1 }' /proc/modules | sort | paste -s -d ' '
}

# --- what a run of nvidia-reload leaves

# Waits until no step is active, starting or stopping any more. An undo runs depmod, which took a minute
# and a half where other machines were emulated on the same cores.
settled() {
	wait_for 300 no_step_active
}
no_step_active() {
	no_step_is active,activating,deactivating,reloading
}
# no_step_is STATES: none is in one of them, and no job of one waits.
no_step_is() {
	local found units=('nvidia-reload-*.service' 'nvidia-reload.target' 'nvidia-drained.target' 'nvidia-offline.target')
	# No answer, as while PID 1 is executed again, is not an empty one.
	found=$(systemctl list-units --no-legend --state="$1" "${units[@]}") || return 1
	[ -z "$found" ] || return 1
	# Only then: a step that fails leaves the job that starts rollback behind, while no unit is active.
	found=$(systemctl list-jobs --no-legend "${units[@]}") || return 1
	[ -z "$found" ]
}

# How the last closed run ended: done, rolled-back, degraded.
last_outcome() {
	local last
	last=$(find /var/lib/nvidia-reload/history -name '*.jsonl' | sort | tail -n 1)
	[ -n "$last" ] || return 0
	tail -n 1 "$last" | python3 -c 'import json, sys; print(json.load(sys.stdin)["event"]["closed"]["outcome"])'
}

# Waits until the journal has all that has been said until now: journald is behind while the machine is busy, with
# the kernel's messages too, and answers once it has read what waited.
sync_journal() {
	command journalctl --sync
}
journalctl() {
	sync_journal
	command journalctl "$@"
}

# How many times the kernel has loaded the driver in this boot: it says so itself.
driver_loads() {
	journalctl --boot --dmesg --output=cat | grep -c 'NVRM: loading NVIDIA UNIX' || :
}

gate_is_open() {
	[ ! -e /run/modprobe.d/00-nvidia-reload.conf ] && [ ! -e /run/nvidia-reload/busy ]
}

# slot_has VERSION PATH ORIGINAL: the slot of that driver has that file, and it is whole.
slot_has() {
	local kept slot=/var/lib/nvidia-reload/slots/$1
	kept=$(python3 - "$slot/manifest.json" "$2" <<-'END'
		import json, sys
		names = sys.argv[2], "/usr" + sys.argv[2]
		for file in json.load(open(sys.argv[1]))["files"]:
		    if file["kind"] == "file" and file["path"] in names:
		        print(f"modules/{file['module']['name']}.ko" if file.get("module") else f"files{file['path']}")
	END
	)
	[ -n "$kept" ] || fail "the slot of $1 has no $2"
	cmp "$slot/$kept" "$3" || fail "$2 is another one in the slot of $1"
}

# Everything that holds after any run, however it went.
assert_at_rest() {
	settled
	gate_is_open || fail 'the gate is still shut'
	[ ! -e /var/lib/nvidia-reload/ledger.jsonl ] || fail "a run is still open: $(cat /var/lib/nvidia-reload/ledger.jsonl)"
}

# serves_whole VERSION WHEN: that driver is loaded and on disk, with its own userland and nothing of
# another's in its place.
serves_whole() {
	local file files userland=/usr/share/rig/drivers/$1/userland
	assert_eq "$(loaded_version)" "$1" "loaded $2"
	assert_eq "$(disk_version)" "$1" "on disk $2"
	# Not 18: driver and library are of one version.
	assert_eq "$(status_of nvidia-smi)" 6 "nvidia-smi $2"
	files=$(find /usr/lib /usr/bin /lib/modules \( -name '*.so.[0-9][0-9][0-9].*' ! -name "*$1" \) -o -name '.*.nvidia-reload')
	[ -z "$files" ] || fail "left $2: $files"
	for file in usr/bin/nvidia-smi usr/bin/nvidia-modprobe usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1; do
		cmp "/$file" "$userland/$file" || fail "$file is another one $2"
		assert_eq "$(stat -L -c '%a %u %g' "/$file")" "$(stat -L -c '%a %u %g' "$userland/$file")" "$file $2"
	done
}

# --- what packages ask for

# Installs the driver's packages, in the order that their Pre-Depends want.
install_driver() { # VERSION
	# The machine starts with the rig's initrd: no minutes for one that nobody boots from.
	echo update_initramfs=no >/etc/initramfs-tools/update-initramfs.conf
	DEBIAN_FRONTEND=noninteractive apt-get --yes install /usr/share/rig/packages/"$1"/*.deb
}

# apt_repository FOLDER: its packages are all that apt knows.
apt_repository() {
	python3 - "$1" <<-'END'
		import glob, hashlib, os, subprocess, sys
		os.chdir(sys.argv[1])
		with open("Packages", "w") as index:
		    for deb in sorted(glob.glob("*.deb")):
		        content = open(deb, "rb").read()
		        index.write(subprocess.run(["dpkg-deb", "--field", deb], check=True, capture_output=True, text=True).stdout)
		        index.write(f"Filename: ./{deb}\nSize: {len(content)}\nSHA256: {hashlib.sha256(content).hexdigest()}\n\n")
		content = open("Packages", "rb").read()
		with open("Release", "w") as release:
		    release.write(f"Origin: rig\nSuite: rig\nSHA256:\n {hashlib.sha256(content).hexdigest()} {len(content)} Packages\n")
	END
	rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/*
	echo "deb [trusted=yes] file:$1 ./" >/etc/apt/sources.list.d/rig.list
	apt-get --quiet update
}

# How far the request for a reload is; empty when there is none.
request_state() {
	python3 - <<-'END'
		import json
		try:
		    print(json.load(open("/run/nvidia-reload/request.json"))["state"])
		except FileNotFoundError:
		    pass
	END
}
request_is() { # STATE
	[ "$(request_state)" = "$1" ]
}

# Whether the request says a word in what it waits for, or in why it went no further.
request_says() { # WORD
	python3 - "$1" <<-'END'
		import json, sys
		because = json.load(open("/run/nvidia-reload/request.json"))["because"]
		assert sys.argv[1] in str(because), because
	END
}

# A container that holds the GPU; its name.
gpu_container() {
	docker run -d --name "$1" --device /dev/nvidiactl gpu-job >/dev/null
	wait_for 30 docker_holds "$1"
}
docker_holds() {
	local pid
	pid=$(docker inspect -f '{{.State.Pid}}' "$1")
	[ "$pid" -gt 0 ] && find "/proc/$pid/fd" -lname '*nvidiactl' | grep -q .
}
docker_state() {
	docker inspect -f '{{.State.Status}}' "$1"
}

# plan_says STATUS WHAT WORDS…: what `nvidia-reload plan` exits with, and what is on its page; WHAT names the case.
plan_says() {
	local status=0 expected=$1 what=$2 words
	shift 2
	echo "--- $what"
	nvidia-reload plan >/tmp/said || status=$?
	cat /tmp/said
	assert_eq "$status" "$expected" "$what: plan"
	for words in "$@"; do
		tr -s ' \n' ' ' </tmp/said | grep -qF -- "$words" || fail "$what: '$words' is not told"
	done
}

# check_owners HIERARCHY: the owner of each kind of holder is told by its cgroup. A container, units,
# and processes put into groups named as Slurm, Kubernetes and LXC name theirs: those are not in the
# machine, and nothing but their groups is to be read. HIERARCHY: where groups can be made.
check_owners() {
	local id=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef pod=0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9
	gpu_container job
	systemd-run --quiet --unit=holder --property=Type=notify --property=NotifyAccess=all hold /dev/nvidiactl
	hold_in "$1/slurm/uid_1000/job_7/step_batch"
	hold_in "$1/system.slice/slurmstepd.scope/job_8/step_0/user/task_0"
	hold_in "$1/kubepods/burstable/pod$pod/$id"
	hold_in "$1/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod${pod//-/_}.slice/cri-containerd-$id.scope"
	hold_in "$1/lxc/web"
	hold_in "$1/lxc.payload.db"
	# What holds is one process each, but the container's two.
	assert_eq "$(nvidia-reload status --json | python3 -c '
import json, sys
def said(owner):
    pod = owner.get("pod") or {}
    words = owner.get("engine"), owner.get("unit"), owner.get("job"), owner.get("step"), pod.get("uid")
    id = [owner["id"][:12]] if "id" in owner else []
    return " ".join([owner["type"], *id, *(word for word in words if word)])
status = json.load(sys.stdin)
assert not status["unexplained"], status
print("\n".join({said(holder["owner"]) for holder in status["holders"]}))' | LC_ALL=C sort)" "$(LC_ALL=C sort <<END
container $(docker inspect -f '{{.Id}}' job | head -c 12) docker
container ${id:0:12} containerd $pod
container ${id:0:12} unknown $pod
container db lxc
container web lxc
slurm-step 7 batch
slurm-step 8 0
system-unit holder.service
END
)" owners
	pkill -x -f 'hold --fork /dev/nvidiactl'
}
hold_in() {
	local pid
	mkdir -p "$1"
	read -r _ pid < <(hold --fork /dev/nvidiactl)
	echo "$pid" >"$1/cgroup.procs"
}

# --- Slurm

# A cluster of this machine, by another name than the machine's own. NODE has more words about the node; standard
# input, more lines of slurm.conf.
slurm_cluster() { # HOW IT TRACKS PROCESSES [NODE]
	local user
	# Debian 13 starts the controller as Slurm's own user.
	user=$(systemctl show -P User slurmctld)
	systemctl stop slurmd slurmctld
	mkdir -p /etc/slurm /var/spool/rig-slurm/{ctld,d}
	chown "${user:-root}" /var/spool/rig-slurm/ctld
	cat >/etc/slurm/slurm.conf <<-END
		ClusterName=rig
		SlurmctldHost=$(hostname -s)(127.0.0.1)
		SlurmUser=${user:-root}
		AuthType=auth/munge
		ProctrackType=proctrack/$1
		TaskPlugin=task/none
		JobAcctGatherType=jobacct_gather/none
		MpiDefault=none
		StateSaveLocation=/var/spool/rig-slurm/ctld
		SlurmdSpoolDir=/var/spool/rig-slurm/d
		SlurmctldPidFile=/run/slurmctld.pid
		SlurmdPidFile=/run/slurmd.pid
		SelectType=select/cons_tres
		SelectTypeParameters=CR_Core
		GresTypes=gpu
		ReturnToService=2
		InactiveLimit=0
		KillWait=5
		NodeName=gpu1 NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 CPUs=$(nproc) Gres=gpu:1 State=UNKNOWN ${2-}
		PartitionName=main Nodes=gpu1 Default=YES
	END
	[ -t 0 ] || cat >>/etc/slurm/slurm.conf
	echo 'Name=gpu File=/dev/nvidia0' >/etc/slurm/gres.conf
	# Without one its steps do not start (seen with 22.05).
	echo 'ConstrainCores=yes' >/etc/slurm/cgroup.conf
	systemctl start munge slurmctld slurmd
	wait_for 90 node_is idle
}
node_is() { # STATE
	[ "$(sinfo --noheader --Node --format=%T)" = "$1" ]
}
# A job of alice's: its number.
submit() { # OPTION… -- COMMAND
	local options=()
	while [ "$1" != -- ]; do
		options+=("$1")
		shift
	done
	runuser -u alice -- sbatch --parsable --chdir=/tmp --output=/dev/null --ntasks=1 "${options[@]}" --wrap "exec ${*:2}"
}
job_is() { # NUMBER STATE
	[ "$(squeue --noheader --job="$1" --format=%T 2>/dev/null)" = "$2" ]
}

# --- faults

# fail_step STEP: the step fails without having done anything, until fix_step.
fail_step() {
	mkdir -p "/run/systemd/system/nvidia-reload-$1.service.d"
	printf '[Unit]\nConditionPathExists=\n[Service]\nExecStart=\nExecStart=/bin/false\n' >"/run/systemd/system/nvidia-reload-$1.service.d/fault.conf"
	systemctl daemon-reload
}
# before_step STEP COMMAND: the step begins with that, until fix_step: what preflight could not see.
before_step() {
	mkdir -p "/run/systemd/system/nvidia-reload-$1.service.d"
	printf '[Unit]\nConditionPathExists=\n[Service]\nExecStartPre=+%s\n' "$2" >"/run/systemd/system/nvidia-reload-$1.service.d/fault.conf"
	systemctl daemon-reload
}
fix_step() {
	rm "/run/systemd/system/nvidia-reload-$1.service.d/fault.conf"
	systemctl daemon-reload
}

# Where a command fails under set -e, it is named.
trap 'echo "FAIL: line $LINENO: $BASH_COMMAND (exit status $?)" >&2' ERR

# On the way out of a scenario that failed: what somebody would look at first.
rig_at_exit() {
	local status=$?
	trap - ERR
	if [ "$status" -ne 0 ]; then
		/usr/lib/rig/diagnose >&2 2>&1 || :
	fi
	exit "$status"
}
trap rig_at_exit EXIT
