//! What can be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Exit codes and places, as `--help` and the manual page show them.
const AFTER: &str = "\
Exit status:
  0  done
  1  failed; everything was rolled back
  2  wrong usage
  3  refused; nothing was touched
  4  no reload can help now: nothing was touched, or a module is stuck in the kernel
  5  done or rolled back, but something could not be given back: it is named
A run goes on in systemd when this command is interrupted (exit status 130).

Each run is a systemd target, and each step a unit: `systemctl start nvidia-reload.target` does what
`nvidia-reload reload` does, and `journalctl -u 'nvidia-reload-*'` tells the story. With
nvidia_reload=0 on the kernel command line nothing is ever stopped or unloaded.";

/// Which of the two `--rollback` may have meant.
pub const ROLLBACK_HINT: &str = "--rollback is two commands now: `nvidia-reload rollback` goes back to the previous driver, \
`nvidia-reload recover` ends a run that was interrupted.";

const AFTER_VERIFY: &str = "\
With --json: one object, schema \"nvidia-reload.verify/1\":
  grade          ok, note, failed or reboot-required: the worst of the checks
  driver         loaded, on_disk (versions or null)
  compared_with  the run whose picture of the machine was compared with, or null
  checks         about (modules, device nodes, PCI devices, library, NVML, GPU and its index, or smoke
                 test), grade, what (a sentence)
  gpus           index, pci, uuid, name, health (recovery_action, remapped_rows,
                 retired_pages_pending, ecc, mig, fabric; null is what the GPU or the driver does not
                 have), settings (what is set and not at its default), unread
New fields may come within a version of the schema; none goes or changes its meaning.";

const AFTER_STATUS: &str = "\
With --json: one object, schema \"nvidia-reload.status/1\":
  driver       loaded, on_disk (versions or null), mismatch (true, false, or null for unknown),
               out_of_reach (why no reload can help now, and what does: what, remedy; or null)
  state        in-service, busy, giving-back, drained, offline or unknown
  targets      the state of each target, or null where systemd does not answer
  gate         shut: the driver cannot be loaded now; busy: a run is under way
  modules      name, refcount, dependents, of_driver; what has to be unloaded first comes first
  holders      one object a process: pid, start_ticks, since, uid, user, comm, command, state,
               devices, owner, gpu_memory
  consoles     text consoles drawn on the driver
  unexplained  references that no holder found accounts for: module, references, places
  unseen       what could not be looked at, in sentences
  runs         visible (false without root), open, last
  put_back     version, instead_of, run, remedy: a driver whose files were put back, or null
  healed       version, instead_of, made_usec, firmware, cdi: the driver whose libraries are found
               before those on disk, until the reload; or null
  request      a reload that waits for its moment, as `nvidia-reload request --json` has it, or null
  lease        server, group, id, state (asking, held or releasing), since_usec, run, trouble: the
               lease that this machine has, or may have, from the fleet lock; or null
  initramfs    where the initramfs holds another driver than the disk: archive, stale (name, path,
               version, srcversion), remedy (a command or null); else null
New fields may come within a version of the schema; none goes or changes its meaning.";

const AFTER_SLOTS: &str = "\
With --json: one object, schema \"nvidia-reload.slots/1\":
  slots        the newest first: version, state (whole, other-kernel or spoiled), problems, made_usec,
               files, bytes, origin (dpkg, rpm, installer, names or null), loaded, on_disk
New fields may come within a version of the schema; none goes or changes its meaning.";

const AFTER_HEAL: &str = "\
With --json: one object, schema \"nvidia-reload.heal/1\":
  state        healed, possible (with --dry-run only), not-needed, refused or ended
  version      the driver whose libraries programs find, or would; or null
  instead_of   the version of the libraries that they found before, or null
  reasons      why not: what, remedy
  does         what was done or would be, in sentences
New fields may come within a version of the schema; none goes or changes its meaning.";

const AFTER_REQUEST: &str = "\
Packages call this when they have brought another driver, from a trigger or their postinst:
  nvidia-reload request --reason \"$DPKG_MAINTSCRIPT_PACKAGE\" || true
It returns at once, and what comes of it is nvidia-reload-upgrade.service's: that waits until the package
manager is through, looks whether the driver on disk differs from the one that is loaded, and does what
upgrade.policy in the configuration says. A second request joins the first. A reboot drops it, and so
does a driver that is in step again.

Nothing is queued, and the exit status is 0, where there is nothing to reload: no systemd, a container or
a chroot, nvidia_reload=0 on the kernel command line, no driver loaded, or the policy `never`.

With --json: one object, schema \"nvidia-reload.request/1\", or null where nothing is queued:
  reasons      who asked, and why
  asked_usec   when it was asked for last, in microseconds since 1970
  state        queued, waiting-for-packages, waiting-for-idle, waiting-for-window,
               waiting-for-inhibitor, waiting-for-lock, asking, reloading, given-up, refused,
               not-installed, reboot-required or failed
  since_usec   since when, in microseconds since 1970
  because      what it waits for, or why it went no further: what, remedy
New fields may come within a version of the schema; none goes or changes its meaning.";

const AFTER_CHECK: &str = "\
With --json: one object, schema \"nvidia-reload.check/1\":
  condition    in-step, reload-needed, not-installed (for the running kernel), gpu-failed,
               reset-needed, reboot-needed or unknown
  why          the reasons, in sentences
  driver       loaded, on_disk (versions or null)
  library      the version of NVML's library, or null
  healed       the driver whose libraries are found before those on disk, or null
  gpus         pci and class (as `nvidia-reload explain` has it) of each GPU
  unseen       what could not be looked at, in sentences
New fields may come within a version of the schema; none goes or changes its meaning.";

const AFTER_EXPLAIN: &str = "\
The classes are what a message means for a reload: info and app let it go on, reload is cured by it,
support lets it go on with a warning, reset and reboot refuse it before anything is stopped.

A log may be of dmesg, the journal (short, export, JSON), syslog or /dev/kmsg, of any machine. What other
programs say about the driver is not the driver's, and counts for nothing.

With --json: one object, schema \"nvidia-reload.xids/1\":
  xids         code, mnemonic, title, action (NVIDIA's; or null), action_in_words, class, what_we_do,
               remark (or null)
With --log and --json: one object a line for each message that is recognised, schema
\"nvidia-reload.message/1\":
  line_number  where the message begins in the log
  kind         xid, sxid, sxid_data, gpu_lost, gpu_serial, gpu_uuid, rm_init_failed, gsp_init_failed,
               wpr2_up, gsp_ratelimit, probe_failed, needs_open_module, api_mismatch, driver_load,
               uvm_fatal, unbind_wait, unbind_done, modeset_load, modeset_unload, modeset_error,
               modeset_warning or nvlink_rxdet_failed
  cls          the class, or null for messages that only tell
  multiline    whether the message has several lines
  cold         only switching the power off and on again helps
  resolution   of an Xid from 144 to 150: IGNORE, XID_154_EVAL, RESET_GPU, or null for unknown
  pci, fn      domain:bus:device, and the function, or null
  xid, pid, name, msg, gi, ci
               of an Xid: code, process, its name, the rest; MIG GPU and compute instance
  and by kind or code: action_from and action_to (154), caused_by (45), unit (48), reset_pending (63),
               link and regs (74), rst and drst (94, 95), timeout_s, rpc and sequence (119), gpc, tpc
               and sm (13), sub, severity, xc, injected, link, intrinfo and status (144 to 150), switch,
               sxid, severity, link and always_fatal (sxid), code, count, version, open, client,
               client_version, module_version, device_id, dedup_of, serial, uuid, error, gpu_instance,
               gpu_index, stuck
New fields and kinds may come within a version of the schema; none goes or changes its meaning.";

/// Changes or unsticks the NVIDIA driver without a reboot, and gives everything back that had to
/// stop for it.
#[derive(Debug, Parser)]
#[command(name = "nvidia-reload", version, after_help = AFTER, max_term_width = 100)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the driver, who holds it, and what was done last
    ///
    /// Works for every user, and says what only root can see.
    #[command(after_long_help = AFTER_STATUS)]
    Status(Output),
    /// Look whether the driver that is loaded serves, and every GPU with it; change nothing
    ///
    /// Compares the modules, the library and the GPUs with what is on disk and, where there was a run in
    /// this boot, with how the machine was before it. Exits with 0 if all is well, 1 if something is not,
    /// 4 if no reload can help now.
    #[command(after_long_help = AFTER_VERIFY)]
    Verify(Verify),
    /// Show what a reload would do to whom, and why; change nothing
    ///
    /// Exits with 0 if it may begin, 3 if it would be refused, 4 if no reload can help now.
    Plan(Plan),
    /// Stop what holds the GPUs, load the driver anew, give everything back
    ///
    /// Shows the plan and asks before it begins. The driver that is on disk is the one that is
    /// loaded. Whatever fails, the machine goes back to where it was.
    Reload(Reload),
    /// Stop what holds the GPUs, reset them, give everything back; the driver stays loaded
    ///
    /// For a GPU that NVIDIA says needs a reset, which a reload does not bring. Resets all GPUs, or with
    /// --gpu some, and then stops only what uses those, or may. Shows the plan and asks before it begins.
    Reset(Reset),
    /// Stop what holds the GPUs and keep it stopped until `nvidia-reload start`
    Stop(Stop),
    /// Restore everything that `nvidia-reload stop` took
    ///
    /// After `stop --offline`, the driver that is on disk is loaded and verified as in a reload; if it fails, the
    /// driver that was loaded before is loaded again. `systemctl stop nvidia-offline.target` loads that one
    /// in any case.
    Start(Output),
    /// Go back to the previous driver
    ///
    /// Takes it from its slot while no driver is loaded: VERSION, or the newest that is not loaded. Shows the
    /// plan and asks before that begins. A run that is just ending is waited for. A run that was interrupted is
    /// ended by `nvidia-reload recover`, not by this.
    Rollback(Rollback),
    /// End a run that was interrupted, and restore what it took
    ///
    /// After a power cut or a reboot this happens by itself. The driver that the boot has loaded stays, unless the
    /// run had changed its files or had seen it fail. To go back to the previous driver: `nvidia-reload
    /// rollback`.
    Recover(Output),
    /// Install NVIDIA's driver from its .run file, with a reload
    ///
    /// The file is checked, and modules are built for the running kernel, while everything still runs. Then
    /// as `reload`, with the installer run while no driver is loaded. Whatever fails, the driver that serves
    /// now serves again, with its files.
    Install(Install),
    /// Let programs find the loaded driver's libraries while another driver is installed; stop nothing
    ///
    /// After an upgrade, programs that start find the libraries of the driver on disk, which do not work with
    /// the one that is loaded ("Driver/library version mismatch"). This lets them find the loaded driver's own,
    /// from its slot, until the next reload, which ends it. Nothing is stopped, and no packaged file is touched.
    #[command(after_long_help = AFTER_HEAL)]
    Heal(Heal),
    /// List the drivers that are kept for the way back, and whether they are whole
    ///
    /// Works for every user. Exits with 1 if one is spoiled.
    #[command(after_long_help = AFTER_SLOTS)]
    Slots(Output),
    /// Ask for a reload at its moment, as packages do; or drop such a request
    #[command(after_long_help = AFTER_REQUEST)]
    Request(Request),
    /// Tell what an Xid means, or what a saved kernel log says, and what a reload would do about it
    ///
    /// Works for every user, and without a GPU.
    #[command(
        after_long_help = AFTER_EXPLAIN,
        override_usage = "nvidia-reload explain [--json] CODE...\n       nvidia-reload explain [--json] --all\n       nvidia-reload explain [--json] --log FILE"
    )]
    Explain(Explain),
    /// Say in one line what the driver needs, for monitors and cron
    ///
    /// Works for every user; what only root sees is said to be unseen. Exits as a monitoring plugin
    /// does: 0 in step, 1 reload needed, 2 GPU failed, reset or
    /// reboot needed, or no driver installed for the running kernel, 3 unknown. With --format another
    /// monitor's exit status and form.
    #[command(after_long_help = AFTER_CHECK)]
    Check(Check),
    /// Write the same for Prometheus, in its text format
    ///
    /// For the node exporter's textfile collector; best as root, who sees everything.
    Metrics {
        /// The file to replace, which ends in .prom; without one, standard output
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Write the manual pages and shell completions into a directory
    #[command(hide = true)]
    Generate {
        /// The directory; it must exist.
        directory: PathBuf,
    },
}

/// How the answer comes.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Output {
    /// Print one JSON object instead of text; what happens meanwhile goes to standard error
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `plan`.
#[derive(Debug, Clone, Default, Args)]
pub struct Plan {
    /// What a reset would do, rather than a reload
    #[arg(long)]
    pub reset: bool,
    /// Which GPUs.
    #[command(flatten)]
    pub gpus: Gpus,
    /// Say that it is refused if somebody would lose work by it
    #[arg(long)]
    pub if_idle: bool,
    /// How the answer comes.
    #[command(flatten)]
    pub output: Output,
}

/// Arguments of all that reload or reset.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Reload {
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
    /// Only if nobody loses work by it: else it is refused, and nothing is touched
    ///
    /// What upgrade.restartable in the configuration names may be stopped all the same. It is looked at
    /// once more when the run begins.
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
    /// Reset this GPU, and what can only be reset with it: PCI address, UUID or index
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
    /// What the installer is given beside what it always is, such as `-- --kernel-module-type=open`
    #[arg(last = true, value_name = "ARGUMENT")]
    pub arguments: Vec<String>,
}

/// Arguments of `verify`.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Verify {
    /// Run the test that the configuration names under verify.smoke, too
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
    /// How the answer comes.
    #[command(flatten)]
    pub output: Output,
}

/// Arguments of `heal`.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Heal {
    /// Let programs find the libraries on disk again
    #[arg(long, conflicts_with_all = ["dry_run", "yes"])]
    pub end: bool,
    /// Say what would be done, and end
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
    /// How the answer comes.
    #[command(flatten)]
    pub output: Output,
}

/// Arguments of `request`.
#[derive(Debug, Clone, Default, Args)]
pub struct Request {
    /// Who asks, and why: shown to whoever looks
    #[arg(long, value_name = "TEXT", default_value = "asked for by hand", conflicts_with = "cancel")]
    pub reason: String,
    /// Drop the request that waits; a reload that has begun goes on
    #[arg(long)]
    pub cancel: bool,
    /// How the answer comes.
    #[command(flatten)]
    pub output: Output,
}

/// Arguments of `explain`.
#[derive(Debug, Clone, Default, Args)]
pub struct Explain {
    /// The Xid, as in `Xid (PCI:0000:91:00): 79`
    #[arg(
        value_name = "CODE",
        value_parser = code,
        required_unless_present_any = ["all", "log"],
        conflicts_with_all = ["all", "log"]
    )]
    pub codes: Vec<u32>,
    /// All that are known, in a table
    #[arg(long, conflicts_with = "log")]
    pub all: bool,
    /// A saved kernel log; - for standard input
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// Print JSON instead of text; of a log one object a line
    #[arg(long)]
    pub json: bool,
}

/// An Xid as people type it.
fn code(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| "an Xid is a number, as the 79 in `Xid (PCI:0000:91:00): 79`".to_owned())
}
