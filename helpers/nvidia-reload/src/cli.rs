// SPDX-License-Identifier: MIT
//! What can be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Exit codes and places, as `--help` and the manual page show them.
const AFTER: &str = "\
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

const AFTER_VERIFY: &str = "\
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

const AFTER_STATUS: &str = "\
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
               the names of the system's containers among the owners, by id
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

const AFTER_PLAN: &str = "\
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

const AFTER_SLOTS: &str = "\
With --json: one object, schema \"nvidia-reload.slots/1\":
  slots        the newest first: version, state (whole, other-kernel or
               spoiled), problems, made_usec, files, bytes, origin (dpkg, rpm,
               installer, names or null), loaded, on_disk
New fields may be added within a version of the schema; none is removed or
changes its meaning.";

const AFTER_HEAL: &str = "\
With --json: one object, schema \"nvidia-reload.heal/1\":
  state        healed, possible (with --dry-run only), not-needed, refused or
               ended
  version      the driver whose libraries programs find, or would; or null
  instead_of   the version of the libraries that they found before, or null
  reasons      why not: what, remedy
  does         what was done or would be, in sentences
New fields may be added within a version of the schema; none is removed or
changes its meaning.";

const AFTER_REQUEST: &str = "\
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

const AFTER_HISTORY: &str = "\
With --json: one object, schema \"nvidia-reload.history/1\":
  runs         the newest first: run (its id), began_usec, ended_usec (null while it is open), what
               (reload, reset, install, rollback, drained or offline), result (done, rolled-back,
               cancelled, degraded or null), driver_before, driver_after, seconds,
               downtime_seconds (the longest of one workload), started_by (command, unit, uid,
               user; or null), failed_step
  unreadable   records that cannot be read, in sentences
New fields may come within a version of the schema; none goes or changes its meaning.";

const AFTER_LOGS: &str = "\
With --json: one object, schema \"nvidia-reload.logs/1\":
  run          the run's id
  entries      at_usec, unit, priority (as syslog has it), message, message_id (where there is one)
New fields may come within a version of the schema; none goes or changes its meaning.";

const AFTER_REPORT: &str = "\
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

const AFTER_CHECK: &str = "\
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

const AFTER_EXPLAIN: &str = "\
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

/// Reloads or resets the NVIDIA driver without a reboot, and restarts everything that had to stop for it.
#[derive(Debug, Parser)]
#[command(name = "nvidia-reload", version, after_help = AFTER, max_term_width = 80, args_conflicts_with_subcommands = true)]
pub struct Arguments {
    /// What to do; without one, `status`.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How the answer of `status` comes.
    #[command(flatten)]
    pub output: Output,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the driver, the GPUs, what uses them, and the last run
    ///
    /// Works for every user, and says what only root can see. With --verbose, one line for each process.
    #[command(after_long_help = AFTER_STATUS)]
    Status(Output),
    /// Check that the loaded driver and every GPU works; change nothing
    ///
    /// Compares the modules, the library and the GPUs with what is installed and, where there was a run in
    /// this boot, with how the machine was before it. Exits with 0 if all is well, 1 if something is not,
    /// 4 if no reload can help now.
    #[command(after_long_help = AFTER_VERIFY)]
    Verify(Verify),
    /// Show what a command would stop, load and restart; change nothing
    ///
    /// `plan` is of a reload; `plan COMMAND` of reset, stop, start, rollback, recover, install or heal, and the
    /// same as `COMMAND --dry-run`. Exits with 0 if it may begin, 3 if it would be refused, 4 if no reload can
    /// help now.
    #[command(after_long_help = AFTER_PLAN)]
    Plan(Plan),
    /// Stop what uses the GPUs, reload the driver, restart everything
    ///
    /// Shows the plan and asks before it begins. The installed driver is loaded. If anything fails, everything
    /// is rolled back.
    Reload(Reload),
    /// Stop what uses the GPUs, reset them, restart everything
    ///
    /// For a GPU that needs a reset by what NVIDIA's driver says; a reload does not reset it. The driver stays
    /// loaded. Resets all GPUs, or with --gpu some, and then stops only what uses those, or may. Shows the plan
    /// and asks before it begins.
    Reset(Reset),
    /// Stop what uses the GPUs, until `nvidia-reload start`
    ///
    /// Shows the plan and asks before it begins. With --offline the driver is unloaded too.
    Stop(Stop),
    /// Restart everything that `nvidia-reload stop` stopped
    ///
    /// Shows the plan and asks. After `stop --offline`, the installed driver is loaded and verified as in a
    /// reload; if it fails, the driver that was loaded before is loaded again. `systemctl stop
    /// nvidia-offline.target` loads that one in any case.
    Start(Restart),
    /// Go back to the previous driver
    ///
    /// Installs it from its slot while no driver is loaded: VERSION, or the newest that is not loaded. Shows the
    /// plan and asks before it begins. A run that is just ending is waited for. An interrupted run is ended by
    /// `nvidia-reload recover`, not by this.
    Rollback(Rollback),
    /// End a run that was interrupted, and restore what it stopped
    ///
    /// Shows the plan and asks. After a power cut or a reboot this happens by itself. The driver that the boot
    /// has loaded stays, unless the run had changed its files or had seen it fail. To go back to the previous
    /// driver: `nvidia-reload rollback`.
    Recover(Restart),
    /// Install NVIDIA's driver from its .run file, with a reload
    ///
    /// The file is checked, and modules are built for the running kernel, while everything still runs. Then
    /// as `reload`, with the installer run while no driver is loaded. If anything fails, the previous driver is
    /// loaded again, with its files.
    Install(Install),
    /// Let programs find the loaded driver's libraries after an upgrade
    ///
    /// After an upgrade, programs that start find the libraries of the installed driver, which do not work with
    /// the one that is loaded ("Driver/library version mismatch"). This lets them find the loaded driver's own,
    /// from its slot, until the next reload, which ends it. Nothing is stopped, and no packaged file is touched.
    #[command(after_long_help = AFTER_HEAL)]
    Heal(Heal),
    /// List the saved drivers, and whether each is whole
    ///
    /// A slot is a saved, complete copy of a driver, for a rollback. Works for every user. Exits with 1 if one is
    /// corrupt.
    #[command(after_long_help = AFTER_SLOTS)]
    Slots(Output),
    /// Ask for a reload when the GPUs are idle, as packages do; or cancel it
    #[command(after_long_help = AFTER_REQUEST)]
    Request(Request),
    /// List the runs on record: when, what, versions, result, duration and downtime
    ///
    /// The last 50 runs, the newest first.
    #[command(after_long_help = AFTER_HISTORY)]
    History(Output),
    /// Show the journal of a run
    ///
    /// What the steps wrote while the run went on, the oldest line first.
    #[command(after_long_help = AFTER_LOGS)]
    Logs(Logs),
    /// Report on a run: its steps, each workload, versions, failures and what is not restored
    ///
    /// As text, as JSON, as a page for a browser, or as an archive for a bug report.
    #[command(after_long_help = AFTER_REPORT)]
    Report(Report),
    /// Explain an Xid, or the messages in a saved kernel log
    ///
    /// Also says what a reload would do about it. Works for every user, and without a GPU.
    #[command(
        after_long_help = AFTER_EXPLAIN,
        override_usage = "nvidia-reload explain [OPTIONS] CODE...\n       nvidia-reload explain [OPTIONS] --all\n       nvidia-reload explain [OPTIONS] --log FILE"
    )]
    Explain(Explain),
    /// Report in one line what the driver needs, for monitors and cron
    ///
    /// Works for every user; what only root sees is reported as not seen. Exits as a monitoring plugin
    /// does: 0 versions match, 1 reload needed, 2 GPU failed, reset or reboot needed, or no driver installed for
    /// the running kernel, 3 unknown. With --format another monitor's exit status and form.
    #[command(after_long_help = AFTER_CHECK)]
    Check(Check),
    /// Write the same for Prometheus, in its text format
    ///
    /// For the node exporter's textfile collector; best as root, who sees everything.
    Metrics {
        /// The file to replace, which ends in .prom; else standard output
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

/// How the answer comes: the same for every command.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Output {
    /// Print one JSON object instead of text; progress goes to standard error
    #[arg(long)]
    pub json: bool,
    /// Print every detail
    #[arg(long, short, conflicts_with = "quiet")]
    pub verbose: bool,
    /// Print the result in one line, and errors; no progress
    #[arg(long, short)]
    pub quiet: bool,
}

/// Whether it is done: the same for every command that stops, loads or writes something.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Consent {
    /// Do not ask
    #[arg(long, short, conflicts_with = "dry_run")]
    pub yes: bool,
    /// Show the plan and end; nothing is touched
    #[arg(long)]
    pub dry_run: bool,
}

/// Arguments of `start` and `recover`.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Restart {
    /// Whether it is done.
    #[command(flatten)]
    pub consent: Consent,
    /// How the answer comes.
    #[command(flatten)]
    pub output: Output,
}

/// What a plan can be made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// `nvidia-reload reload`
    #[default]
    Reload,
    /// `nvidia-reload reset`, with --gpu of some GPUs
    Reset,
    /// `nvidia-reload stop`, with --offline
    Stop,
    /// `nvidia-reload start`
    Start,
    /// `nvidia-reload rollback`, with VERSION
    Rollback,
    /// `nvidia-reload recover`
    Recover,
    /// `nvidia-reload install`, with FILE
    Install,
    /// `nvidia-reload heal`
    Heal,
}

/// Arguments of `plan`.
#[derive(Debug, Clone, Default, Args)]
pub struct Plan {
    /// The command to plan
    #[arg(value_enum, default_value_t, value_name = "COMMAND", hide_possible_values = true)]
    pub what: What,
    /// Its argument: the VERSION of `rollback`, the FILE of `install`
    #[arg(value_name = "VERSION|FILE")]
    pub argument: Option<PathBuf>,
    /// Which GPUs a reset is of.
    #[command(flatten)]
    pub gpus: Gpus,
    /// Of `stop`: unload the driver too
    #[arg(long)]
    pub offline: bool,
    /// Refuse it if work would be lost
    #[arg(long)]
    pub if_idle: bool,
    /// How the answer comes.
    #[command(flatten)]
    pub output: Output,
}

/// Arguments of all that reload or reset.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Reload {
    /// Whether it is done.
    #[command(flatten)]
    pub consent: Consent,
    /// Only if no work is lost; else it is refused and nothing is touched
    ///
    /// Services that upgrade.restartable in the configuration names may be stopped all the same. This is
    /// checked again when the run begins.
    #[arg(long)]
    pub if_idle: bool,
    /// Start the run and do not wait for its end
    #[arg(long)]
    pub no_wait: bool,
    /// How the answer comes.
    #[command(flatten)]
    pub output: Output,
}

/// Arguments of `reset`.
#[derive(Debug, Clone, Default, Args)]
pub struct Reset {
    /// Which GPUs.
    #[command(flatten)]
    pub gpus: Gpus,
    /// How.
    #[command(flatten)]
    pub reload: Reload,
}

/// Which GPUs are reset.
#[derive(Debug, Clone, Default, Args)]
pub struct Gpus {
    /// A GPU, by PCI address, UUID or index, and what is reset with it
    #[arg(long = "gpu", value_name = "ID", value_delimiter = ',')]
    pub ids: Vec<String>,
}

/// Arguments of `rollback`.
#[derive(Debug, Clone, Default, Args)]
pub struct Rollback {
    /// The driver to go back to, as `nvidia-reload slots` lists it
    #[arg(value_name = "VERSION")]
    pub version: Option<String>,
    /// How it goes.
    #[command(flatten)]
    pub reload: Reload,
}

/// Arguments of `install`.
#[derive(Debug, Clone, Default, Args)]
pub struct Install {
    /// NVIDIA's installer, such as NVIDIA-Linux-x86_64-550.163.01.run
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// How it goes.
    #[command(flatten)]
    pub reload: Reload,
    /// More for the installer, such as `-- --kernel-module-type=open`
    #[arg(last = true, value_name = "ARGUMENT")]
    pub arguments: Vec<String>,
}

/// Arguments of `verify`.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Verify {
    /// Also run the test of verify.smoke in the configuration
    #[arg(long)]
    pub smoke: bool,
    /// How the answer comes.
    #[command(flatten)]
    pub output: Output,
}

/// Arguments of `check`.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Check {
    /// The monitor that reads the line and the exit status
    #[arg(long, value_name = "MONITOR", value_enum, default_value_t, conflicts_with = "json")]
    pub format: crate::check::Format,
    /// How the answer comes.
    #[command(flatten)]
    pub output: Output,
}

/// Arguments of `stop`.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Stop {
    /// Unload the driver too
    #[arg(long)]
    pub offline: bool,
    /// Whether it is done.
    #[command(flatten)]
    pub consent: Consent,
    /// How the answer comes.
    #[command(flatten)]
    pub output: Output,
}

/// Arguments of `heal`.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Heal {
    /// Let programs find the libraries on disk again
    #[arg(long)]
    pub end: bool,
    /// Whether it is done.
    #[command(flatten)]
    pub consent: Consent,
    /// How the answer comes.
    #[command(flatten)]
    pub output: Output,
}

/// Arguments of `request`.
#[derive(Debug, Clone, Default, Args)]
pub struct Request {
    /// Who asks, and why
    #[arg(long, value_name = "TEXT", default_value = "asked for by hand", conflicts_with = "cancel")]
    pub reason: String,
    /// Cancel the request; a reload that has begun goes on
    #[arg(long)]
    pub cancel: bool,
    /// How the answer comes.
    #[command(flatten)]
    pub output: Output,
}

/// Arguments of `logs`.
#[derive(Debug, Clone, Default, Args)]
pub struct Logs {
    /// The run, as `nvidia-reload history` lists it; without, the last one
    #[arg(value_name = "RUN")]
    pub run: Option<String>,
    /// How the answer comes.
    #[command(flatten)]
    pub output: Output,
}

/// Arguments of `report`.
#[derive(Debug, Clone, Default, Args)]
pub struct Report {
    /// The run, as `nvidia-reload history` lists it; without, the last one
    #[arg(value_name = "RUN")]
    pub run: Option<String>,
    /// Write a page for a browser
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Write a tar archive for a bug report
    #[arg(long, value_name = "FILE")]
    pub bundle: Option<PathBuf>,
    /// How the answer comes.
    #[command(flatten)]
    pub output: Output,
}

/// Arguments of `explain`.
#[derive(Debug, Clone, Default, Args)]
pub struct Explain {
    /// The Xid, such as 79 in `Xid (PCI:0000:91:00): 79`
    #[arg(
        value_name = "CODE",
        value_parser = code,
        required_unless_present_any = ["all", "log"],
        conflicts_with_all = ["all", "log"]
    )]
    pub codes: Vec<u32>,
    /// Every known Xid, in a table
    #[arg(long, conflicts_with = "log")]
    pub all: bool,
    /// A saved kernel log; - for standard input
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// How the answer comes; of a log, --json prints one object a line.
    #[command(flatten)]
    pub output: Output,
}

/// An Xid as people type it.
fn code(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| "an Xid is a number, as the 79 in `Xid (PCI:0000:91:00): 79`".to_owned())
}
