// SPDX-License-Identifier: MIT
//! What stands below the options in the help of a command: mostly its JSON.

/// Exit codes and places, as `--help` and the manual page show them.
pub(super) const AFTER: &str = "\
Without a command, `nvidia-reload` shows the status. Every command that stops,
loads or writes something shows its plan and asks; --yes does not ask, and
--dry-run ends after the plan.

Exit status:
  0  done
  1  failed; everything was rolled back
  2  wrong usage
  3  refused; nothing was touched
  4  no reload can help now: nothing was touched, or a module is stuck in the
     kernel
  5  done or rolled back, but finished degraded: what is not restored is named
A run goes on in systemd when this command is interrupted (exit status 130).

Each run is a systemd target, and each step a unit: `systemctl start
nvidia-reload.target` does what `nvidia-reload reload` does, and `journalctl -u
'nvidia-reload-*'` shows what it did. With nvidia_reload=0 on the kernel command
line nothing is ever stopped or unloaded.";

pub(super) const AFTER_VERIFY: &str = "\
With --json: one object, schema \"nvidia-reload.verify/1\":
  grade          ok, note, failed or reboot-required: the worst of the checks
  driver         loaded, on_disk (versions or null)
  compared_with  the run whose record of the machine was compared with, or null
  checks         about (modules, device nodes, PCI devices, library, NVML, GPU
                 and its index, or smoke test), grade, what (a sentence)
  gpus           index, pci, uuid, name, health (recovery_action, remapped_rows,
                 retired_pages_pending, ecc, mig, fabric; null is what the GPU
                 or the driver does not have), settings (what is set and not at
                 its default), unread
New fields may be added within a version of the schema; none is removed or
changes its meaning.";

pub(super) const AFTER_STATUS: &str = "\
With --json: one object, schema \"nvidia-reload.status/1\":
  driver       loaded, on_disk, library (versions or null), mismatch (true,
               false, or null for unknown), present (whether the kernel has the
               module), out_of_reach (why no reload can help now, and what does:
               what, remedy; or null)
  state        in-service, busy, giving-back, drained, offline or unknown
  targets      the state of each target, or null where systemd does not answer
  at_work      while a run is under way: step, says, target; or null
  gate         shut: module loading is blocked; busy: a run is under way
  modules      name, refcount, dependents, of_driver; what has to be unloaded
               first comes first
  gpus         pci, class (as `nvidia-reload explain` has it), why, index,
               minor, uuid, name, memory (used, total; in bytes); null is what
               is not known
  holders      one object a process: pid, start_ticks, since, uid, user, comm,
               command, state, devices, owner, gpu_memory
  container_names
               the names of containers among the owners, by id
  consoles     text consoles drawn on the driver
  unexplained  references that no holder explains: module, references, places
  unseen       what could not be looked at, in sentences
  runs         visible (false without root), open, last (id, opened_usec,
               last_usec, outcome, cancelled, failures, missing, ended, before,
               after, reset, started_by, took), refused (usec, reset, verdict, reasons: a
               run that was refused after the last; or null)
  put_back     version, instead_of, run, remedy: a driver whose files were put
               back, or null
  healed       version, instead_of, made_usec, firmware, cdi: the driver whose
               libraries are found before those on disk, until the reload; or
               null
  request      a reload that waits, as `nvidia-reload request --json` has it, or
               null
  lease        server, group, id, state (asking, held or releasing),
               since_usec, run, trouble: the lease that this machine has, or may
               have, from the fleet lock; or null
  initramfs    where the initramfs holds another driver than the disk: archive,
               stale (name, path, version, srcversion), remedy (a command or
               null); else null
New fields may be added within a version of the schema; none is removed or
changes its meaning.";

pub(super) const AFTER_PLAN: &str = "\
With --json, as with --dry-run and --json of each command: one object, schema
\"nvidia-reload.plan/1\":
  command      reload, reset, stop, stop-offline, start, rollback, recover or
               install
  verdict      ready, refused or reboot-required
  reasons      why it is refused: what, remedy
  warnings     what does not refuse it: what, remedy
  driver       loaded, on_disk (versions or null)
  modules      what is unloaded, in that order, and loaded in reverse
  actions      step, object, what, why, pids, comes_back (false: not restarted)
  settings     what is set on the GPUs and is set again
  unknown      what may use a GPU and cannot be asked
  reset        whether it is a reset
  expected     last (the last good run of this kind: seconds, downtime_seconds,
               ended_usec; or null), container_seconds and process_seconds (the
               longest that one gets to stop)
New fields may be added within a version of the schema; none is removed or
changes its meaning.";

pub(super) const AFTER_SLOTS: &str = "\
With --json: one object, schema \"nvidia-reload.slots/1\":
  slots        the newest first: version, state (whole, other-kernel or
               spoiled), problems, made_usec, files, bytes, origin (dpkg, rpm,
               installer, names or null), loaded, on_disk
New fields may be added within a version of the schema; none is removed or
changes its meaning.";

pub(super) const AFTER_HEAL: &str = "\
With --json: one object, schema \"nvidia-reload.heal/1\":
  state        healed, possible (with --dry-run only), not-needed, refused or
               ended
  version      the driver whose libraries programs find, or would; or null
  instead_of   the version of the libraries that they found before, or null
  reasons      why not: what, remedy
  does         what was done or would be, in sentences
New fields may be added within a version of the schema; none is removed or
changes its meaning.";

pub(super) const AFTER_REQUEST: &str = "\
Packages call this when they have installed another driver, from a trigger or
their postinst:
  nvidia-reload request --reason \"$DPKG_MAINTSCRIPT_PACKAGE\" || true
It returns at once; nvidia-reload-upgrade.service does the rest: it waits until
the package manager has ended, compares the installed driver with the loaded
one, and does what upgrade.policy in the configuration says. A second request
joins the first. A reboot drops it, and so does a driver that matches again.

Nothing is queued, and the exit status is 0, where there is nothing to reload:
no systemd, a container or a chroot, nvidia_reload=0 on the kernel command line,
no driver loaded, the policy `never`, or a loaded and an installed version that
match while no package manager is at work.

With --json: one object, schema \"nvidia-reload.request/1\", or null where
nothing is queued:
  reasons      who asked, and why
  asked_usec   when it was asked for last, in microseconds since 1970
  state        queued, waiting-for-packages, waiting-for-idle,
               waiting-for-window, waiting-for-inhibitor, waiting-for-lock,
               asking, reloading, given-up, refused, not-installed,
               reboot-required or failed
  since_usec   since when, in microseconds since 1970
  because      what it waits for, or why it ended: what, remedy
New fields may be added within a version of the schema; none is removed or
changes its meaning.";

pub(super) const AFTER_HISTORY: &str = "\
With --json: one object, schema \"nvidia-reload.history/1\":
  runs         the newest first: run (its id), began_usec, ended_usec (null while it is open), what
               (reload, reset, install, rollback, drained or offline), result (done, rolled-back,
               cancelled, degraded or null), driver_before, driver_after, seconds,
               downtime_seconds (the longest of one workload), started_by (command, unit, uid,
               user; or null), failed_step
  unreadable   records that cannot be read, in sentences
New fields may come within a version of the schema; none goes or changes its meaning.";

pub(super) const AFTER_LOGS: &str = "\
With --json: one object, schema \"nvidia-reload.logs/1\":
  run          the run's id
  entries      at_usec, unit, priority (as syslog has it), message, message_id (where there is one)
New fields may come within a version of the schema; none goes or changes its meaning.";

pub(super) const AFTER_REPORT: &str = "\
--html writes one file without scripts that loads nothing. --bundle writes a tar archive with the
report, the record of the run and, where a step failed, what was kept at that moment. Both name
programs and not their arguments, and have no environment of a container. Names of containers,
units and users are in them. Both files get mode 0600; a file or link in their place is replaced.

With --json: one object, schema \"nvidia-reload.report/1\", with what history has of the run, and:
  boots        ids of the boots in which something of it happened
  committed    whether the driver was verified
  steps        step, began_usec, ended_usec, result (done, failed or cancelled)
  failed_usec  when the first step failed or was cancelled, or null
  workloads    kind, name, down_usec, up_usec, seconds, state (restored, stopped or not-restored),
               reason
  terminated   processes that are not restarted: pid, uid, command, at_usec
  failures     step, reason
  not_restored name, step, reason, object
  journal, kernel_log
               lines, as logs has them
  at_failure   what was kept when a step failed, schema \"nvidia-reload.failure/1\", or null
  unseen       what could not be read, in sentences
New fields may come within a version of the schema; none goes or changes its meaning.";

pub(super) const AFTER_CHECK: &str = "\
With --json: one object, schema \"nvidia-reload.check/1\":
  condition    in-step (the versions match), reload-needed, not-installed (for
               the running kernel), gpu-failed, reset-needed, reboot-needed or
               unknown
  why          the reasons, in sentences
  driver       loaded, on_disk (versions or null)
  library      the version of NVML's library, or null
  healed       the driver whose libraries are found before those on disk, or
               null
  gpus         pci and class (as `nvidia-reload explain` has it) of each GPU
  unseen       what could not be looked at, in sentences
New fields may be added within a version of the schema; none is removed or
changes its meaning.";

pub(super) const AFTER_EXPLAIN: &str = "\
The classes are what a message means for a reload: info and app do not matter,
reload is cured by it, support is a warning, reset and reboot refuse it before
anything is stopped.

A log may be of dmesg, the journal (short, export, JSON), syslog or /dev/kmsg,
of any machine. What other programs say about the driver does not count.

With --json: one object, schema \"nvidia-reload.xids/1\":
  xids         code, mnemonic, title, action (NVIDIA's; or null),
               action_in_words, class, what_we_do, remark (or null)
With --log and --json: one object a line for each message that is recognised,
schema \"nvidia-reload.message/1\":
  line_number  where the message begins in the log
  kind         xid, sxid, sxid_data, gpu_lost, gpu_serial, gpu_uuid,
               rm_init_failed, gsp_init_failed, wpr2_up, gsp_ratelimit,
               probe_failed, needs_open_module, api_mismatch, driver_load,
               uvm_fatal, unbind_wait, unbind_done, modeset_load,
               modeset_unload, modeset_error, modeset_warning or
               nvlink_rxdet_failed
  cls          the class, or null for messages that only report
  multiline    whether the message has several lines
  cold         only switching the power off and on again helps
  resolution   of an Xid from 144 to 150: IGNORE, XID_154_EVAL, RESET_GPU, or
               null for unknown
  pci, fn      domain:bus:device, and the function, or null
  xid, pid, name, msg, gi, ci
               of an Xid: code, process, its name, the rest; MIG GPU and compute
               instance
  and by kind or code:
               action_from and action_to (154), caused_by (45), unit (48),
               reset_pending (63), link and regs (74), rst and drst (94, 95),
               timeout_s, rpc and sequence (119), gpc, tpc and sm (13), sub,
               severity, xc, injected, link, intrinfo and status (144 to 150),
               switch, sxid, severity, link and always_fatal (sxid), code,
               count, version, open, client, client_version, module_version,
               device_id, dedup_of, serial, uuid, error, gpu_instance,
               gpu_index, stuck
New fields and kinds may be added within a version of the schema; none is
removed or changes its meaning.";
