//! Signals do what they do by convention, or nothing: none is a silent end.

use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::bounded;
use crate::support::net::Destination;
use crate::support::process::Imux;
use crate::support::tunnel::Tunnel;

/// Signals that end a process by default.
const MEANINGLESS: [Signal; 6] = [
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGPIPE,
    Signal::SIGVTALRM,
    Signal::SIGPROF,
    Signal::SIGXFSZ,
];

#[test]
fn signals_leave_what_is_open_alone() {
    bounded(60, async {
        let destination = Destination::echo().await;
        let mut tunnel = Tunnel::start(destination.addr).await;
        let mut socket = tunnel.connect().await;
        for signal in MEANINGLESS.into_iter().chain([Signal::SIGHUP, Signal::SIGUSR1]) {
            tunnel.client.signal(signal);
            tunnel.server.signal(signal);
            socket.write_all(b"?").await.unwrap();
            assert_eq!(socket.read_u8().await.unwrap(), b'?', "{signal}");
        }
        let status = tunnel.client.line(" status ");
        assert!(status.contains("connections=1") && !status.contains("lanes=0"), "{status}");
        assert!(tunnel.server.line(" status ").contains("sessions=1"));
        tunnel.client.line("SIGHUP");
        tunnel.assert_healthy();
        for end in [&mut tunnel.client, &mut tunnel.server] {
            end.signal(Signal::SIGQUIT);
            assert_eq!(end.exit_code(), Some(131));
            end.line("SIGQUIT");
        }
    });
}

#[test]
fn a_demo_ends_with_a_word_only() {
    for (signal, code) in [(Signal::SIGQUIT, 131), (Signal::SIGHUP, 129)] {
        let home = tempfile::tempdir().unwrap();
        let mut demo = Imux::start(home.path(), &["demo", "--size", "16GiB"]);
        demo.line("%");
        for signal in MEANINGLESS.into_iter().chain([Signal::SIGUSR1]) {
            demo.signal(signal);
        }
        std::thread::sleep(std::time::Duration::from_millis(300));
        assert!(demo.is_running());
        demo.signal(signal);
        assert_eq!(demo.exit_code(), Some(code));
        demo.line(signal.as_str());
    }
}
