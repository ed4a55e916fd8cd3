// SPDX-License-Identifier: MIT
//! One operation of the FleetLock protocol: a POST, of which only the status 200 is a yes.

use std::io::{self, ErrorKind, Read};
use std::net::ToSocketAddrs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fleetlock::{Answer, Lease};
use serde::{Deserialize, Serialize};
use step::Root;
use ureq::http::{Response, Uri};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body, Error, Timeout};

use crate::certificates::certificates;

/// How long it may take, from the name's resolution to the answer's last byte.
const TIME: Duration = Duration::from_secs(20);

/// More of an answer is not read.
const MOST: u64 = 16 << 10;

/// More of a server's words is not shown.
const WORDS: usize = 300;

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Operation {
    /// The lease.
    Lock,
    /// Its end.
    Unlock,
}

impl Operation {
    fn path(self) -> &'static str {
        match self {
            Operation::Lock => "v1/pre-reboot",
            Operation::Unlock => "v1/steady-state",
        }
    }
}

#[derive(Serialize)]
struct Question<'a> {
    client_params: Parameters<'a>,
}

#[derive(Serialize)]
struct Parameters<'a> {
    id: &'a str,
    group: &'a str,
}

/// What a server says that does not do it.
#[derive(Deserialize)]
struct Refusal {
    kind: String,
    value: String,
}

/// Asks the server of `lease`.
pub(crate) fn post(root: &Root, lease: &Lease, operation: Operation) -> Answer {
    post_within(root, lease, operation, TIME)
}

fn post_within(root: &Root, lease: &Lease, operation: Operation, time: Duration) -> Answer {
    let tls = match lease.server.starts_with("https:") {
        true => match certificates(root) {
            Ok(found) => RootCerts::new_with_certs(&found),
            Err(error) => return Answer::Unreached(format!("{error:#}")),
        },
        false => RootCerts::new_with_certs(&[]),
    };
    let url = format!("{}/{}", lease.server.trim_end_matches('/'), operation.path());
    let until = Instant::now() + time;
    if let Err(error) = resolve(&url, until) {
        return Answer::Unreached(words(&error.to_string()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let agent: Agent = Agent::config_builder()
        // What is in the environment is not this machine's configuration.
        .proxy(None)
        // The protocol has a header against redirection.
        .max_redirects(0)
        .http_status_as_error(false)
        .timeout_global(Some(until.saturating_duration_since(Instant::now())))
        .user_agent(concat!("nvidia-reload/", env!("CARGO_PKG_VERSION")))
        .tls_config(TlsConfig::builder().root_certs(tls).unversioned_rustls_crypto_provider(provider).build())
        .build()
        .into();
    let client_params = Parameters { id: &lease.id, group: &lease.group };
    let body = match serde_json::to_vec(&Question { client_params }) {
        Ok(body) => body,
        Err(error) => return Answer::Unreached(error.to_string()),
    };
    let sent = agent
        .post(&url)
        .header("fleet-lock-protocol", "true")
        .header("content-type", "application/json")
        .send(&body[..]);
    match sent {
        Ok(response) if response.status() == 200 => Answer::Granted,
        Ok(response) => Answer::Refused(refusal(response)),
        Err(error) => fault(&error),
    }
}

/// Whether the server's name has an address: the client itself tells this apart by its words only.
fn resolve(url: &str, until: Instant) -> io::Result<()> {
    let uri: Uri = url.parse().map_err(io::Error::other)?;
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = uri.port_u16().unwrap_or(443);
    let found = bounded::call(until, move || (host, port).to_socket_addrs().map(|mut found| found.next()))??;
    found.map(drop).ok_or_else(|| io::Error::other("the name has no address"))
}

/// The server's own words, where it has any.
fn refusal(response: Response<Body>) -> String {
    let status = response.status();
    let mut text = Vec::new();
    // What could be read of it is shown; the status is the answer.
    let whole = response.into_body().into_reader().take(MOST).read_to_end(&mut text).is_ok();
    let words = match serde_json::from_slice::<Refusal>(&text) {
        Ok(Refusal { kind, value }) if whole => format!("{} ({})", words(&value), words(&kind)),
        _ => return format!("{status}"),
    };
    format!("{status}: {words}")
}

fn words(text: &str) -> String {
    let text = step::text::clean(text);
    match text.char_indices().nth(WORDS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Whether the server can know of a question that came to this.
fn fault(error: &Error) -> Answer {
    let is_unreached = match error {
        Error::HostNotFound | Error::ConnectionFailed | Error::BadUri(_) | Error::Http(_) => true,
        Error::Tls(_) | Error::Pem(_) | Error::Rustls(_) | Error::TlsRequired => true,
        Error::Timeout(Timeout::Resolve | Timeout::Connect) => true,
        Error::Io(error) => {
            is_refused_by_us(error)
                || matches!(
                    error.kind(),
                    ErrorKind::ConnectionRefused | ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable
                )
        }
        _ => false,
    };
    let why = match error {
        Error::Timeout(_) => "no answer in time".to_owned(),
        error => words(&error.to_string()),
    };
    if is_unreached { Answer::Unreached(why) } else { Answer::Unclear(why) }
}

/// Whether this side took the server for another, or for one it has no language in common with: the question is
/// sent after that.
fn is_refused_by_us(error: &io::Error) -> bool {
    use rustls::Error::{InvalidCertificate, NoCertificatesPresented, PeerIncompatible};
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
    matches!(cause, Some(InvalidCertificate(_) | NoCertificatesPresented | PeerIncompatible(_)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::{Mode, Server};

    fn lease(server: &str, id: &str, group: &str) -> Lease {
        serde_json::from_value(serde_json::json!({
            "schema": "nvidia-reload.lease/1", "server": server, "group": group, "id": id,
            "state": "asking", "since_usec": 1, "run": null, "trouble": null,
        }))
        .expect("is a lease")
    }

    fn ask(server: &Server, id: &str, operation: Operation) -> Answer {
        let time = Duration::from_secs(5);
        post_within(&Root::at("/nonexistent"), &lease(&server.url(), id, "default"), operation, time)
    }

    fn refused(answer: Answer) -> String {
        let Answer::Refused(why) = answer else { panic!("{answer:?}") };
        why
    }

    #[test]
    fn the_protocol_is_spoken_as_it_is_written() {
        let server = Server::start(1);
        assert_eq!(ask(&server, "n1", Operation::Lock), Answer::Granted);
        assert_eq!(ask(&server, "n1", Operation::Lock), Answer::Granted, "the same id asks again");
        let why = refused(ask(&server, "n2", Operation::Lock));
        assert_eq!(why, "500 Internal Server Error: semaphore currently full (failed_lock_semaphore_full)");
        assert_eq!(ask(&server, "n2", Operation::Unlock), Answer::Granted, "it has none");
        assert_eq!(server.holders(), ["n1"]);
        assert_eq!(ask(&server, "n1", Operation::Unlock), Answer::Granted);
        assert_eq!(ask(&server, "n2", Operation::Lock), Answer::Granted);
        let nowhere = lease(&format!("{}/elsewhere", server.url()), "n2", "default");
        let root = Root::at("/nonexistent");
        assert!(refused(post(&root, &nowhere, Operation::Lock)).starts_with("404"));
        // The server has seen to the header, the method and the body in each case: see there.
        assert_eq!(server.complaints(), Vec::<String>::new());
    }

    #[test]
    fn whatever_a_server_says_but_200_is_a_no() {
        let server = Server::start(1);
        for (mode, expected) in [
            (Mode::Failing, "500 Internal Server Error: etcd is down (internal\\n)"),
            (Mode::NoJson, "503 Service Unavailable"),
            (Mode::Redirecting, "307 Temporary Redirect"),
            (Mode::Created, "201 Created"),
            (Mode::Huge, "500 Internal Server Error"),
        ] {
            server.set(mode);
            assert_eq!(refused(ask(&server, "n1", Operation::Lock)), expected, "{mode:?}");
        }
        assert_eq!(server.holders(), Vec::<String>::new(), "no redirection was followed");
        // The protocol gives the body of a 200 no meaning, whatever is in it.
        server.set(Mode::GarbageWith200);
        assert_eq!(ask(&server, "n1", Operation::Lock), Answer::Granted);
    }

    #[test]
    fn a_server_that_does_not_answer_is_left_and_may_have_done_it() {
        let server = Server::start(1);
        for mode in [Mode::Silent, Mode::Hangup, Mode::Trickle, Mode::NoHttp] {
            server.set(mode);
            let began = Instant::now();
            let time = Duration::from_millis(500);
            let lease = lease(&server.url(), "n1", "default");
            let answer = post_within(&Root::at("/nonexistent"), &lease, Operation::Lock, time);
            let Answer::Unclear(why) = answer else { panic!("{mode:?}: {answer:?}") };
            assert!(mode != Mode::Silent || why == "no answer in time", "{why}");
            assert!(began.elapsed() < Duration::from_secs(5), "{mode:?}");
        }
        server.set(Mode::Slow);
        assert_eq!(ask(&server, "n1", Operation::Lock), Answer::Granted, "slow is not silent");
    }

    #[test]
    fn a_server_whose_certificate_is_not_accepted_knows_of_nothing() {
        let wrapped = |error| fault(&Error::Io(io::Error::new(ErrorKind::InvalidData, error)));
        let unknown = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let Answer::Unreached(why) = wrapped(unknown) else { panic!("the question was not sent") };
        assert!(why.contains("UnknownIssuer"), "{why}");
        assert!(matches!(wrapped(rustls::Error::DecryptError), Answer::Unclear(_)), "it may have been");
    }

    #[test]
    fn a_server_that_is_not_reached_knows_of_nothing() {
        let root = Root::at("/nonexistent");
        let port =
            std::net::TcpListener::bind("127.0.0.1:0").expect("binds").local_addr().expect("has one").port();
        for (url, word) in [
            (format!("http://127.0.0.1:{port}"), "refused"),
            ("http://no-such-host.invalid".to_owned(), ""),
            // The certificates are looked for where the system has them.
            ("https://127.0.0.1".to_owned(), "ca-certificates"),
        ] {
            let Answer::Unreached(why) = post(&root, &lease(&url, "n1", "default"), Operation::Lock) else {
                panic!("{url}")
            };
            assert!(why.to_lowercase().contains(word), "{url}: {why}");
        }
    }
}
