// SPDX-License-Identifier: MIT
use super::super::gallery::{busy_server, drained_for_a_user, now};
use super::super::text::width;
use super::*;

#[test]
fn a_busy_server_at_a_glance() {
    let style = Style { width: Some(80), ..Style::PLAIN };
    let page = status(&busy_server(), style, now());
    assert!(!page.contains('\x1b'));
    insta::assert_snapshot!(page);
}

#[test]
fn where_no_reload_helps_none_is_advised() {
    let mut here = busy_server();
    here.request = None;
    here.runs.last = None;
    here.driver.out_of_reach = Some(step::Reason::new("there is none for this kernel", "install it"));
    let page = status(&here, Style::PLAIN, now());
    assert!(page.contains("there is none for this kernel\n") && page.contains("install it\n"), "{page}");
    assert!(!page.contains("`nvidia-reload reload`"), "{page}");
}

#[test]
fn a_file_gets_the_whole_command_lines() {
    let page = status(&busy_server(), Style::PLAIN, now());
    assert!(page.contains("--data /srv/data/imagenet --resume"));
}

#[test]
fn the_page_fits_narrow_terminals() {
    let style = Style { width: Some(80), ..Style::PLAIN };
    let page = status(&busy_server(), style, now());
    assert!(page.lines().all(|line| width(line) <= 80), "{page}");
}

#[test]
fn a_user_sees_what_only_root_can_look_at() {
    let style = Style { width: Some(60), ..Style::PLAIN };
    insta::assert_snapshot!(status(&drained_for_a_user(), style, now()));
}

#[test]
fn every_state_of_the_machine_has_its_first_line_and_what_to_type_next() {
    use crate::status::{AtWork, Refusal};
    let style = Style { width: Some(80), ..Style::PLAIN };
    let quiet = |mut status: Status| {
        status.request = None;
        status.initramfs = None;
        status.put_back = None;
        status.consoles.clear();
        status.unexplained.clear();
        status.holders.clear();
        status.modules.retain(|module| module.name == "nvidia_modeset");
        status.gpus.iter_mut().for_each(|gpu| gpu.need.class = Class::Info);
        status
    };
    let base = quiet(busy_server());
    let matched = |mut status: Status| {
        status.driver.on_disk = status.driver.loaded.clone();
        status.driver.library = status.driver.loaded.clone();
        status.driver.mismatch = Some(false);
        status
    };
    let mut open = base.runs.last.clone().expect("is there");
    open.outcome = None;
    let held = crate::status::Runs { open: Some(open), last: None, visible: true, refused: None };
    let work = AtWork {
        step: ledger::Step::DrainContainers,
        says: "stopped 3 of 5".into(),
        target: Some("nvidia-reload.target"),
    };
    let refused = Refusal {
        usec: 1_763_999_940_000_000,
        reset: false,
        verdict: Verdict::Refused,
        reasons: vec![step::Reason::new("Xorg (pid 812) draws on card0", "stop it: `systemctl stop gdm`")],
    };
    let mut unread = base.clone();
    unread.driver.loaded = None;
    unread.driver.mismatch = None;
    unread.modules.clear();
    let mut absent = unread.clone();
    absent.driver.present = false;
    absent.gpus.clear();
    let mut after_refusal = base.clone();
    after_refusal.runs.refused = Some(refused);
    let pages = [
        ("healthy", matched(base.clone())),
        ("refused", after_refusal),
        ("drained", Status { state: State::Drained, runs: held.clone(), ..matched(base.clone()) }),
        ("offline", Status { state: State::Offline, runs: held.clone(), ..absent.clone() }),
        ("under way", Status { state: State::Busy, at_work: Some(work), ..base.clone() }),
        ("interrupted", Status { runs: held, ..matched(base) }),
        ("unreadable", unread),
        ("not loaded", absent),
    ];
    let text: Vec<String> =
        pages.iter().map(|(title, page)| format!("=== {title}\n{}", status(page, style, now()))).collect();
    assert!(text.iter().flat_map(|page| page.lines()).all(|line| width(line) <= 80), "{}", text.join(""));
    insta::assert_snapshot!(text.join(""));
}
