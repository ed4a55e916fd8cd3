# SPDX-License-Identifier: MIT
# shellcheck shell=sh
# What the programs beside this file share. Slurm starts them with an environment of its own.
PATH=/usr/sbin:/usr/bin:/sbin:/bin:${PATH-}
export PATH LC_ALL=C

# The node's name in Slurm.
node() {
	name=${SLURMD_NODENAME:-${SLURM_NODE_NAME-}}
	[ -n "$name" ] || name=$(scontrol show aliases 2>/dev/null)
	[ -n "$name" ] || name=$(hostname -s)
	echo "${name%% *}"
}

# Reloads the driver; says on standard output why not.
reload() {
	status=0
	nvidia-reload reload --yes >&2 </dev/null || status=$?
	case $status in
	0) ;;
	1) echo 'the reload failed and was rolled back' ;;
	3) echo 'the reload was refused, nothing was touched; see nvidia-reload plan' ;;
	4) echo 'a reload cannot help; see nvidia-reload verify' ;;
	5) echo 'finished degraded; see nvidia-reload status' ;;
	127) echo 'nvidia-reload is not installed' ;;
	*) echo "the reload ended with exit status $status" ;;
	esac
	return "$status"
}

# close REASON [STATE]: the node is set to STATE first, and gets no job until an administrator resumes it. Not only DOWN,
# which `ReturnToService=2` undoes.
close() {
	logger -p daemon.err -t nvidia-reload-slurm -- "$1" ||
		echo "nvidia-reload: $1" >&2
	name=$(node)
	# By one scontrol: there is no time for a job to start in between.
	{
		[ -z "${2-}" ] || echo "update NodeName=$name State=$2"
		echo "update NodeName=$name State=DRAIN Reason=\"nvidia-reload: $1\""
	} | scontrol >&2
	scontrol --oneliner show node "$name" | grep -q 'State=[A-Z+_]*DRAIN'
}
