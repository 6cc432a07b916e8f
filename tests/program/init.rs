//! From two machines on which imux was never run to bytes over both of their links: `imux init`, by
//! options and on a terminal.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::namespace::{Host, in_namespace, shell};
use crate::support::net::{self, Destination};
use crate::support::process::{Imux, run};
use crate::support::terminal::OnTerminal;
use crate::support::{bounded, eventually};

const UNITS: &str = "/etc/systemd/system";

/// A server's machine behind two links, and this one: on neither was imux ever run.
struct Fresh {
    far: Host,
    homes: [TempDir; 2],
    /// Behind the server, at its loopback.
    destination: Destination,
    _etc: TempDir,
}

impl Fresh {
    fn new() -> Self {
        let far = Host::new();
        far.shell("ip address add 203.0.113.1/32 dev lo");
        for number in [1, 2] {
            let pid = far.pid();
            shell(&format!(
                "ip link add near{number} type veth peer name far{number} netns {pid}
                 ip link set near{number} up
                 ip address add 10.77.{number}.2/24 dev near{number}
                 ip route add default via 10.77.{number}.1 dev near{number} metric {number}0"
            ));
            far.shell(&format!(
                "ip link set far{number} up; ip address add 10.77.{number}.1/24 dev far{number}"
            ));
        }
        far.shell("ip route add default via 10.77.1.2");
        // Units go to a place of this test's own.
        let etc = tempfile::tempdir().unwrap();
        shell(&format!(
            "cp -a /etc/. '{0}' 2> /dev/null || true
             rm -rf '{0}/systemd/system'; mkdir -p '{0}/systemd/system'; mount --bind '{0}' /etc",
            etc.path().display()
        ));
        let listener = far.run(|| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        listener.set_nonblocking(true).unwrap();
        let destination =
            Destination::on(tokio::net::TcpListener::from_std(listener).unwrap(), net::echo);
        let homes = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        Self { far, homes, destination, _etc: etc }
    }

    fn file(&self, of: usize, name: &str) -> String {
        self.homes[of].path().join(name).display().to_string()
    }

    /// On the server's machine.
    fn at_server(&self, args: &[&str]) -> Command {
        let mut command = self.far.command(env!("CARGO_BIN_EXE_imux"));
        command.args(args).env("IMUX_HOME", self.homes[0].path()).env_remove("RUST_LOG");
        command
    }

    /// On this one.
    fn at_client(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_imux"));
        command.args(args).env("IMUX_HOME", self.homes[1].path()).env_remove("RUST_LOG");
        command
    }

    /// Bytes go there and back through `at`, over both links.
    async fn both_links_carry(&self, at: &str) {
        let mut socket = TcpStream::connect(at).await.unwrap();
        let carried = async {
            let mut byte = [0];
            for number in 0..=255 {
                socket.write_all(&[number]).await.unwrap();
                socket.read_exact(&mut byte).await.unwrap();
                assert_eq!(byte, [number]);
            }
            let (mut read, mut write) = socket.split();
            let sending = async { while write.write_all(&[7; 16_384]).await.is_ok() {} };
            let receiving = async {
                let mut got = [0; 16_384];
                while read.read(&mut got).await.is_ok_and(|count| count > 0) {}
            };
            tokio::join!(sending, receiving)
        };
        let both = eventually(30, "both links carry", || {
            let (code, shown, _) = run(self.homes[1].path(), &["status", "--json"]);
            let shown: Value = serde_json::from_str(&shown).unwrap_or_default();
            let links = shown["processes"][0]["links"].as_array().cloned().unwrap_or_default();
            let names: Vec<_> = links.iter().map(|link| link["name"].as_str().unwrap()).collect();
            let carries = |link: &Value| {
                let bytes = |name: &str| link[name].as_u64().unwrap_or_default();
                bytes("sent_bytes") > 500_000 && bytes("received_bytes") > 500_000
            };
            code == 0 && names == ["dev:near1", "dev:near2"] && links.iter().all(carries)
        });
        tokio::select! {
            _ = carried => panic!("the connection was cut"),
            () = both => {}
        }
    }
}

/// The words of a unit's command.
fn command_of(unit: &str) -> Vec<String> {
    let text = fs::read_to_string(Path::new(UNITS).join(unit)).unwrap();
    let command = text.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    command.split(' ').map(str::to_owned).collect()
}

fn mode(path: &str) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn four_commands_with_options_and_both_links_carry() {
    in_namespace("init::four_commands_with_options_and_both_links_carry", || {
        bounded(60, async {
            let fresh = Fresh::new();
            let to = fresh.destination.addr.to_string();
            let server = ["203.0.113.1:7443", "--dial", &to, "--comment", "laptop"];
            let args = [&["init", "server", "--unit"], &server[..]].concat();
            let output = fresh.at_server(&args).output().unwrap();
            let told = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
            assert!(told.contains("systemctl enable --now imux-server\n"), "{told}");
            let [_, by_unit @ ..] = &command_of("imux-server.service")[..] else {
                panic!("{told}")
            };
            assert_eq!(by_unit, ["run", "-c", &fresh.file(0, "server.toml")]);
            assert_eq!(mode(&fresh.file(0, "server.toml")), 0o600);
            let by_unit: Vec<_> = by_unit.iter().map(String::as_str).collect();
            let server = Imux::start_at(&fresh.far, fresh.homes[0].path(), &by_unit);
            server.line("server ready");

            // As it is printed, as root of another machine would.
            let line = told.lines().find(|line| line.contains("| imux init client")).unwrap();
            let line = line.replace("| imux", &format!("| '{}'", env!("CARGO_BIN_EXE_imux")));
            let mut shell = Command::new("sh");
            shell.args(["-ec", &format!("{line} --unit")]);
            shell.env("IMUX_HOME", fresh.homes[1].path()).env_remove("RUST_LOG");
            let output = shell.output().unwrap();
            let told = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
            let by_unit = command_of("imux-client.service");
            let by_unit: Vec<_> = by_unit[1..].iter().map(String::as_str).collect();
            let client = Imux::start(fresh.homes[1].path(), &by_unit);
            client.line("client ready");
            fresh.both_links_carry(&format!("localhost:{}", fresh.destination.addr.port())).await;
            let list = fs::read_to_string(fresh.file(0, "authorized_clients")).unwrap();
            assert!(list.contains("laptop"), "{list}");
        });
    });
}

#[test]
fn four_commands_on_a_terminal_and_both_links_carry() {
    in_namespace("init::four_commands_on_a_terminal_and_both_links_carry", || {
        bounded(60, async {
            let fresh = Fresh::new();
            let to = fresh.destination.addr.to_string();
            let mut server = OnTerminal::start(&mut fresh.at_server(&["init", "server"]));
            server.sees("How do clients reach this server?");
            server.sees("[10.77.1.1:443] > ");
            server.types("203.0.113.1:7443\n");
            server.sees("What may the client reach");
            server.types("nonsense\n");
            server.sees("nonsense");
            server.types(&format!("{to}\n"));
            server.sees("Who is the first client?");
            server.types("laptop\n");
            server.sees("Write a systemd unit");
            server.types("perhaps\n");
            server.sees("Write yes or no.");
            server.types("no\n");
            server.sees("imux init client");
            server.exits(0);
            let screen = server.screen().replace('\r', "");
            let file = fresh.file(0, "server.toml");
            assert!(screen.contains(&format!("run -c {file}\n")), "{screen}");
            assert!(fs::read_dir(UNITS).unwrap().next().is_none());
            let running = Imux::start_at(&fresh.far, fresh.homes[0].path(), &["run", "-c", &file]);
            running.line("server ready");

            let invitation = screen.split('\'').find(|part| part.starts_with("imux://")).unwrap();
            let mut client = OnTerminal::start(&mut fresh.at_client(&["init", "client"]));
            client.sees("Paste the invitation");
            client.types("imux://server.example\n");
            client.sees("this is no invitation");
            client.types(&format!("{invitation}\n"));
            client.sees("(now dev:near1, dev:near2)");
            client.types("\n");
            client.sees("Where do programs connect to?");
            client.types("2299\n");
            client.sees("Write a systemd unit");
            client.types("\n");
            client.exits(0);
            let file = fresh.file(1, "client.toml");
            let client = Imux::start(fresh.homes[1].path(), &["run", "-c", &file]);
            client.line("client ready");
            fresh.both_links_carry("localhost:2299").await;
        });
    });
}

/// What is in a folder.
fn names(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|it| it.unwrap().file_name());
    let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn without_a_terminal_what_is_missing_is_named_and_nothing_is_written() {
    let home = tempfile::tempdir().unwrap();
    let (code, out, told) = run(home.path(), &["init", "server"]);
    assert_eq!((code, out.as_str()), (2, ""), "{told}");
    for flag in ["HOST:PORT, ", "--dial, ", "--comment, ", "--unit or --no-unit", "--yes"] {
        assert!(told.contains(flag), "{told}");
    }
    let known = ["init", "client", "--dial", "127.0.0.1:9", "--pin", PIN];
    let (code, _, told) = run(home.path(), &known);
    assert_eq!(code, 2, "{told}");
    assert!(told.contains("--bind, --listen, -L or -D, --unit or --no-unit"), "{told}");
    // Standard input is empty.
    let (code, _, told) = run(home.path(), &["init", "client", "--yes"]);
    assert_eq!(code, 2, "{told}");
    assert!(told.contains("invitation"), "{told}");
    let unknown = ["init", "client", "--dial", "127.0.0.1:9", "--yes"];
    let (code, _, told) = run(home.path(), &unknown);
    assert_eq!(code, 6, "{told}");
    assert!(told.contains("--pin SHA256:"), "{told}");
    let wrong = [&known[..], &["--bind", "dev:a/b", "--yes"]].concat();
    let (code, _, told) = run(home.path(), &wrong);
    assert_eq!(code, 2, "{told}");
    assert!(told.contains("--bind") && told.contains("nothing was written"), "{told}");
    assert!(names(home.path()).is_empty());
}

const PIN: &str = "SHA256:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE";

#[test]
fn what_would_be_written_is_shown_and_is_right() {
    let home = tempfile::tempdir().unwrap();
    let client = ["client", "--dial", "127.0.0.1:9", "--pin", PIN, "-D", "1080", "-L"];
    let client = [&client[..], &["5432:db.example:5432"]].concat();
    for (role, args) in [("server", &["server"][..]), ("client", &client)] {
        let how = ["--yes", "--print", "--unit"];
        let (code, out, told) = run(home.path(), &[&["init"], args, &how[..]].concat());
        assert_eq!(code, 0, "{told}");
        assert!(names(home.path()).is_empty());
        let (file, unit) = out.split_once("\n[Unit]\n").unwrap();
        let (file, path) = file.rsplit_once("\n# ").unwrap();
        assert!(path.ends_with(&format!("/imux-{role}.service")), "{path}");
        let start = format!(" run -c {}", home.path().join(role).with_extension("toml").display());
        assert!(unit.contains(&start), "{unit}");
        let written = tempfile::NamedTempFile::new().unwrap();
        fs::write(&written, file).unwrap();
        let path = written.path().to_str().unwrap();
        let (code, said, told) = run(home.path(), &["check", path]);
        assert_eq!(code, 0, "{told}");
        assert!(said.contains(&format!("1 {role}, nothing wrong")), "{said}");
    }
}

#[test]
fn what_is_there_stays_unless_it_is_to_be_replaced() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("server.toml");
    fs::write(&file, "mine").unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap().to_string();
    let args = ["init", "server", "--yes", "--no-unit", "127.0.0.1:7443", "--listen"];
    // The port is looked at first.
    let (code, _, told) = run(home.path(), &[&args[..], &[&at]].concat());
    assert_eq!(code, 4, "{told}");
    assert!(told.contains("another program listens there"), "{told}");
    let listen = &["127.0.0.1:0"];
    let (code, _, told) = run(home.path(), &[&args[..], listen].concat());
    assert_eq!(code, 3, "{told}");
    assert!(told.contains("server.toml is there already") && told.contains("--force"), "{told}");
    assert_eq!(names(home.path()), ["server.toml"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
    let (code, out, told) = run(home.path(), &[&args[..], listen, &["--force"]].concat());
    assert_eq!(code, 0, "{told}");
    assert!(out.contains("echo 'imux://127.0.0.1:7443/"), "{out}");
    assert!(fs::read_to_string(&file).unwrap().contains("listen = \"127.0.0.1:0\""));
}

#[test]
fn an_invitation_that_is_not_accepted_leaves_nothing_behind() {
    bounded(60, async {
        let homes = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let port = net::unused_port().await.to_string();
        let server = ["init", "server", "--yes", "--no-unit", &port];
        let (code, out, told) = run(homes[0].path(), &server);
        assert_eq!(code, 0, "{told}");
        let invitation = out.split('\'').nth(1).unwrap();
        let client =
            ["init", "client", "--yes", "--no-unit", "--listen", "127.0.0.1:0", invitation];
        // Nobody is there yet.
        let (code, _, told) = run(homes[1].path(), &client);
        assert_eq!(code, 5, "{told}");
        let rest = names(homes[1].path());
        assert!(
            rest.iter().all(|name| name.starts_with("client.key") || name == "client.crt"),
            "{rest:?}"
        );
        let file = homes[0].path().join("server.toml");
        let server = Imux::start(homes[0].path(), &["run", "-c", file.to_str().unwrap()]);
        server.line("server ready");
        let (code, out, told) = run(homes[1].path(), &client);
        assert_eq!(code, 0, "{told}");
        assert!(out.contains("client.toml"), "{out}");
        // It was for one.
        let other = tempfile::tempdir().unwrap();
        let (code, _, told) = run(other.path(), &client);
        assert_eq!(code, 10, "{told}");
        assert!(!other.path().join("client.toml").exists());
    });
}
