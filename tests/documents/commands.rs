//! Whoever follows the documents block by block, on machines that are named and addressed as there,
//! sees done what they say.
//!
//! Nothing in a command is replaced but keys and invitations, which stand for those that a reader
//! would have.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::machines::Machines;
use crate::markdown::{Block, GUIDE, README, blocks};
use crate::support::namespace::in_namespace;
use crate::support::process::{Imux, field};
use crate::support::skipped;
use crate::support::terminal::OnTerminal;
use crate::words::words;

/// Commands that are not run here, and why.
const NOT_RUN: [(&str, &str); 6] = [
    ("cargo install --path . --locked", "builds for minutes, and writes to the home directory"),
    ("cargo test --workspace", "it runs this test"),
    ("useradd --system imux", "it changes the machine"),
    ("install -d -o imux -m 700 /var/lib/imux", "it changes the machine"),
    ("install -m 755 ~/.cargo/bin/imux /usr/local/bin/", "it changes the machine"),
    (
        "systemctl enable --now imux-server",
        "it changes the machine; the unit is verified by another test",
    ),
];

/// What the server of the documents is, where a section does not start one of its own.
const SERVER: &str = "imux server --listen 0.0.0.0:443 --dial localhost:22";

/// And the client.
const CLIENT: &str = "imux client --listen localhost:2222 --dial server.example:443 --bind dev:eth0 --bind dev:wwan0";

/// Somebody who follows a section with two machines on which imux was never run.
struct Reader<'a> {
    machines: &'a Machines,
    /// Of the server's machine and of the client's: keys, and where the reader is.
    homes: [TempDir; 2],
    server: Option<Imux>,
    client: Option<Imux>,
    /// Where `--dial` of the server leads.
    destination: String,
    invitation: Option<String>,
    /// Whether addresses were given routes of their own.
    routed: bool,
}

#[derive(Clone, Copy)]
enum At {
    Server = 0,
    Client = 1,
}

/// Whether a forward is of datagrams, and the rest of it.
fn without_udp(forward: &str) -> (bool, &str) {
    forward.strip_prefix("udp:").map_or((false, forward), |rest| (true, rest))
}

impl<'a> Reader<'a> {
    fn new(machines: &'a Machines) -> Self {
        let homes = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let destination = String::new();
        Self {
            machines,
            homes,
            server: None,
            client: None,
            destination,
            invitation: None,
            routed: false,
        }
    }

    fn program(&self, at: At, args: &[String], environment: &[String]) -> Command {
        let home = self.homes[at as usize].path();
        let program = env!("CARGO_BIN_EXE_imux");
        let mut command = self.machines.command(matches!(at, At::Client), program, home);
        command.args(args).current_dir(home);
        command.envs(environment.iter().filter_map(|word| word.split_once('=')));
        command
    }

    /// Runs a program to its end: what it says on standard output.
    #[track_caller]
    fn finish(&self, mut command: Command) -> String {
        let output = command.output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?}: {told}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    fn follow(&mut self, command: &str) {
        if NOT_RUN.iter().any(|(exempt, _)| *exempt == command) {
            return;
        }
        let mut words = words(command);
        let start = words.iter().position(|word| !word.contains('=')).unwrap();
        let mut args = words.split_off(start);
        let program = args.remove(0);
        match program.as_str() {
            "cargo" => match args.iter().position(|word| word == "--") {
                Some(at) => self.imux(&args[at + 1..], &words),
                None => panic!("{command}: is neither run nor said not to be"),
            },
            "imux" => self.imux(&args, &words),
            "echo" if args[1..] == ["|", "imux", "accept"] => self.accept(&args[0]),
            "echo" if args[1..4] == ["|", "imux", "init"] => self.init(&args[3..], Some(&args[0])),
            "ssh" if args[0] == "-o" => self.ssh_by_command(&args),
            "ssh" => self.ssh(&args),
            "curl" => self.curl(&args),
            "dig" => self.dig(&args),
            "systemctl" if args == ["reload", "imux-server"] => self.reload(),
            "sysctl" if args[0] == "-w" => self.sysctl(&args[1]),
            "ip" => {
                self.routed |= args[0] == "rule";
                self.machines.near.shell(command);
            }
            _ => panic!("{command}: is neither run nor said not to be"),
        }
    }

    #[track_caller]
    fn imux(&mut self, args: &[String], environment: &[String]) {
        let mut args = args.to_vec();
        let command = args[0].trim_start_matches('-').to_owned();
        match command.as_str() {
            "server" => return self.serve(&args, environment),
            "init" => return self.init(&args, None),
            "run" => return self.run(&args),
            _ => {}
        }
        if self.server.is_none() {
            self.serve(&words(SERVER)[1..], &[]);
        }
        let of_server = args.iter().any(|word| word == "--of-server");
        let at = match command.as_str() {
            "authorize" | "revoke" | "invite" | "rotate-key" => At::Server,
            "identity" if of_server => At::Server,
            _ => At::Client,
        };
        // A key stands for the other end's.
        let other = if let At::Server = at { At::Client } else { At::Server };
        for word in args.iter_mut().filter(|word| word.starts_with("SHA256:")) {
            *word = self.key(other);
        }
        if command == "client" {
            return self.connect(&args, environment);
        }
        if command == "gateway" && skipped::because(missing_nft()) {
            return;
        }
        let looks = ["status", "top", "sessions", "lanes"];
        if looks.contains(&command.as_str()) && self.client.is_none() {
            self.connect(&words(CLIENT)[1..], &[]);
        }
        if command == "top" {
            return self.watch(self.program(at, &args, environment));
        }
        if command == "sessions" {
            args[2] = self.session();
        }
        let said = self.finish(self.program(at, &args, environment));
        match command.as_str() {
            "status" => assert!(said.contains(&self.session()), "{said}"),
            "sessions" => self.client.as_ref().unwrap().line("session over").truncate(0),
            "lanes" => self.link_is(&args),
            "identity" => assert_eq!(said.trim(), self.key(at), "what identity shows"),
            "invite" => self.invitation = said.split('\'').nth(1).map(str::to_owned),
            "gateway" => self.machine_goes(&args),
            "demo" => assert!(said.contains("Every byte arrived as it was sent."), "{said}"),
            _ => {}
        }
    }

    /// The reader looks at the client until they have seen it.
    fn watch(&self, mut command: Command) {
        let mut top = OnTerminal::start(command.env("TERM", "xterm"));
        top.sees("imux top: client of server.example:443");
        top.types("q");
        top.exits(0);
    }

    /// What the client's session is called, once it has one.
    fn session(&self) -> String {
        let args = ["status", "--json"].map(str::to_owned);
        for _ in 0..1_000 {
            let shown = self.finish(self.program(At::Client, &args, &[]));
            let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
            if let Some(id) = shown["processes"][0]["sessions"][0]["id"].as_str() {
                return id.to_owned();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the client has no session");
    }

    /// A link is used as it was told to be.
    fn link_is(&self, args: &[String]) {
        let show = ["status", "--json"].map(str::to_owned);
        let shown = self.finish(self.program(At::Client, &show, &[]));
        let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
        let links = shown["processes"][0]["links"].as_array().unwrap();
        let link = links.iter().find(|link| link["name"] == args[2]).unwrap();
        match args[1].as_str() {
            "tier" => assert_eq!(link["tier"], args[3], "{link:#}"),
            what => assert_eq!(link["paused"], what == "pause", "{link:#}"),
        }
    }

    /// The key of the server, or of the client.
    fn key(&self, of: At) -> String {
        if let At::Server = of {
            let ready = self.server.as_ref().unwrap().line("server ready");
            return field(&ready, "key").to_owned();
        }
        let args = ["identity".to_owned()];
        self.finish(self.program(At::Client, &args, &[])).trim().to_owned()
    }

    #[track_caller]
    fn serve(&mut self, args: &[String], environment: &[String]) {
        self.server = None;
        for token in values(args, "--metrics-token") {
            let file = self.homes[At::Server as usize].path().join(token);
            fs::write(&file, "a token that nobody knows\n".replace(' ', "-")).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        }
        let server = Imux::spawn(&mut self.program(At::Server, args, environment));
        let ready = server.line("server ready");
        self.destination = field(&ready, "destination").replace("localhost", "127.0.0.1");
        self.server = Some(server);
    }

    #[track_caller]
    fn connect(&mut self, args: &[String], environment: &[String]) {
        self.client = None;
        self.introduce();
        let client = Imux::spawn(&mut self.program(At::Client, args, environment));
        let json = args.iter().any(|word| word == "json");
        client.line(if json { "\"client ready\"" } else { "client ready" });
        for bind in values(args, "--bind") {
            match bind.split(['=', ',']).next().unwrap() {
                // Each link of this machine.
                "auto" => {
                    for device in ["eth0", "wlan0", "wwan0"] {
                        client.line(&format!("via=\"dev:{device}\""));
                    }
                }
                source => drop(client.line(&format!("via=\"{source}\""))),
            }
        }
        assert!(!self.routed || client.count("leave by") == 0, "{}", client.log());
        self.client = Some(client);
        let named = values(args, "--to").pop();
        for listen in values(args, "--listen") {
            let expected = named.as_deref().unwrap_or(&self.destination);
            self.leads_to(&listen, expected);
        }
        for forward in values(args, "-R") {
            let client = self.client.as_ref().unwrap();
            client.line("the server takes connections for this client");
            let (is_udp, forward) = without_udp(&forward);
            let [_, port, host, at] = forward.split(':').collect::<Vec<_>>()[..] else {
                panic!("{forward}")
            };
            let expected = format!("{}:{at}", host.replace("localhost", "127.0.0.1"));
            let at = format!("server.example:{port}");
            match is_udp {
                true => self.datagrams_lead_to(&at, &expected),
                false => self.leads_to(&at, &expected),
            }
        }
        for port in values(args, "-D") {
            self.proxy_leads_to(&port, "db.example:5432");
        }
        for forward in values(args, "-L") {
            let (is_udp, forward) = without_udp(&forward);
            let (port, to) = forward.split(',').next().unwrap().split_once(':').unwrap();
            let at = format!("localhost:{port}");
            match is_udp {
                true => self.datagrams_lead_to(&at, to),
                false => self.leads_to(&at, to),
            }
        }
    }

    #[track_caller]
    fn datagrams_lead_to(&self, listen: &str, expected: &str) {
        let found = self.machines.destination_of_datagrams(listen);
        assert_eq!(found, expected, "where datagrams to {listen} lead");
    }

    #[track_caller]
    fn leads_to(&self, listen: &str, expected: &str) {
        let expected = expected.replace("db.example", "10.1.0.7");
        assert_eq!(self.machines.destination(listen), expected, "where {listen} leads");
    }

    #[track_caller]
    fn proxy_leads_to(&self, port: &str, place: &str) {
        let (host, to) = place.split_once(':').unwrap();
        let answer =
            self.machines.by_proxy(&format!("localhost:{port}"), host, to.parse().unwrap());
        assert_eq!(answer, place.replace("db.example", "10.1.0.7"), "where {port} leads");
    }

    /// `dig -p PORT @HOST NAME`: a name server is asked there, whichever way dig asks it.
    fn dig(&self, args: &[String]) {
        let [option, port, host, _name] = args else { panic!("{args:?}") };
        assert_eq!(option, "-p");
        let at = format!("{}:{port}", host.trim_start_matches('@'));
        self.datagrams_lead_to(&at, "192.168.7.20:53");
        self.leads_to(&at, "192.168.7.20:53");
    }

    /// `curl PROXY-OPTION PROXY http://HOST/`: the proxy leads there.
    fn curl(&self, args: &[String]) {
        let [option, proxy, url] = args else { panic!("{args:?}") };
        assert!(["--socks5-hostname", "--proxy"].contains(&option.as_str()), "{option}");
        let host = url.strip_prefix("http://").unwrap().trim_end_matches('/');
        let port = proxy.rsplit_once(':').unwrap().1;
        self.proxy_leads_to(port, &format!("{host}:80"));
    }

    /// `ssh -o ProxyCommand=… HOST`: what the command carries is answered by the machine that is
    /// meant.
    fn ssh_by_command(&self, args: &[String]) {
        self.introduce();
        let command = args[1].strip_prefix("ProxyCommand=imux ").unwrap();
        let command = command.replace("%h", &args[2]).replace("%p", "22");
        let script = format!("printf 'who is there?' | '{}' {command}", env!("CARGO_BIN_EXE_imux"));
        let mut shell = self.machines.command(true, "sh", self.homes[1].path());
        shell.args(["-ec", &script]);
        assert_eq!(self.finish(shell), "127.0.0.1:22 who is there?");
    }

    /// The reader has said yes to the server's key once, unless they know it already.
    fn introduce(&self) {
        let known_hosts = self.homes[1].path().join("known_hosts");
        if !known_hosts.exists() {
            fs::write(known_hosts, format!("server.example:443 {}\n", self.key(At::Server)))
                .unwrap();
        }
    }

    /// What the reader's own programs connect to is behind the server, and reached by the tunnel
    /// alone.
    fn machine_goes(&self, args: &[String]) {
        if args.iter().any(|word| word == "--this-machine") {
            self.leads_to("10.1.0.7:5432", "db.example:5432");
            self.datagrams_lead_to("192.168.7.20:51820", "192.168.7.20:51820");
        }
    }

    fn accept(&mut self, invitation: &str) {
        assert!(invitation.ends_with('…'), "{invitation}");
        let real = self.invitation.take().expect("an invitation was made before");
        assert!(real.starts_with(invitation.trim_end_matches('…')), "{real}");
        let script = format!("echo '{real}' | '{}' accept", env!("CARGO_BIN_EXE_imux"));
        let mut command = self.machines.command(true, "sh", self.homes[1].path());
        command.args(["-ec", &script]);
        self.finish(command);
        // Each knows the other now: nothing is asked, and the only one who is listed gets in.
        self.connect(&words("client --listen localhost:2222 --dial server.example:443"), &[]);
    }

    /// `imux init`, with an invitation that stands for the one that was printed.
    fn init(&mut self, args: &[String], invitation: Option<&String>) {
        let Some(invitation) = invitation else {
            let said = self.finish(self.program(At::Server, args, &[]));
            self.invitation = said.split('\'').nth(1).map(str::to_owned);
            return;
        };
        let real = self.invitation.take().expect("an invitation was made before");
        assert!(real.starts_with(invitation.trim_end_matches('…')), "{real}");
        let mut input = tempfile::tempfile().unwrap();
        input.write_all(real.as_bytes()).unwrap();
        input.rewind().unwrap();
        let mut command = self.program(At::Client, args, &[]);
        command.stdin(input);
        self.finish(command);
    }

    /// `imux run -c ~/.imux/ROLE.toml`: the server or client that `imux init` has set up.
    fn run(&mut self, args: &[String]) {
        let file = args[2].strip_prefix("~/.imux/").unwrap();
        let at = if file == "server.toml" { At::Server } else { At::Client };
        let file = self.homes[at as usize].path().join(file);
        let args = ["run", "-c", file.to_str().unwrap()].map(str::to_owned);
        let running = Imux::spawn(&mut self.program(at, &args, &[]));
        if let At::Client = at {
            running.line("client ready");
            self.client = Some(running);
            return self.leads_to("localhost:2222", &self.destination);
        }
        let ready = running.line("server ready");
        self.destination = field(&ready, "destination").replace("localhost", "127.0.0.1");
        self.server = Some(running);
    }

    /// `ssh -p PORT HOST`: something answers there.
    fn ssh(&self, args: &[String]) {
        assert_eq!(args[0], "-p", "{args:?}");
        self.leads_to(&format!("{}:{}", args[2], args[1]), &self.destination);
    }

    /// As the guide's unit does it.
    fn reload(&self) {
        let server = self.server.as_ref().unwrap();
        let before = server.log().lines().count();
        server.signal(Signal::SIGHUP);
        server.nth_line("", before + 1);
    }

    fn sysctl(&self, setting: &str) {
        let (name, value) = setting.split_once('=').unwrap();
        let file = format!("/proc/sys/{}", name.replace('.', "/"));
        assert!(fs::exists(&file).unwrap(), "{file}");
        let script = format!("test ! -w {file} || echo {value} > {file}");
        self.machines.near.shell(&script);
    }
}

fn missing_nft() -> Option<String> {
    let folders = ["/usr/sbin", "/sbin", "/usr/bin"];
    let there = folders.iter().any(|folder| fs::exists(format!("{folder}/nft")).unwrap_or(false));
    (!there).then(|| "not installed: nft".to_owned())
}

/// The values of an option that may be given several times.
fn values(args: &[String], option: &str) -> Vec<String> {
    let with_equals = format!("{option}=");
    let mut values = Vec::new();
    for (at, word) in args.iter().enumerate() {
        // The original's form has one dash or two.
        let double = format!("-{}", word.trim_start_matches('-'));
        let double = if word.starts_with("--") { word.clone() } else { format!("-{double}") };
        if word == option {
            values.push(args[at + 1].clone());
        } else if let Some(value) = double.strip_prefix(&with_equals) {
            values.push(value.to_owned());
        }
    }
    values
}

/// Follows all sections of a document, each with machines as new.
fn follow(document: &str) -> usize {
    let machines = Machines::new();
    let mut section = String::new();
    let mut reader = Reader::new(&machines);
    let mut followed = 0;
    for block in commands(document) {
        if section != block.section {
            section.clone_from(&block.section);
            reader = Reader::new(&machines);
        }
        for command in block.commands() {
            println!("{}: {command}", block.place);
            reader.follow(&command);
            followed += 1;
        }
    }
    followed
}

fn commands(document: &str) -> impl Iterator<Item = Block> {
    blocks(document).into_iter().filter(|block| block.language == "sh")
}

#[test]
fn the_readme_is_followed_block_by_block() {
    in_namespace("commands::the_readme_is_followed_block_by_block", || {
        assert!(follow(README) >= 8);
    });
}

#[test]
fn the_guide_is_followed_block_by_block() {
    in_namespace("commands::the_guide_is_followed_block_by_block", || {
        assert!(follow(GUIDE) >= 25);
    });
}

#[test]
fn what_is_not_run_is_in_the_documents() {
    let all: BTreeSet<_> =
        [README, GUIDE].into_iter().flat_map(commands).flat_map(|block| block.commands()).collect();
    for (command, why) in NOT_RUN {
        assert!(all.contains(command), "{command} ({why}) is in no document any more");
    }
}

#[test]
fn the_guides_list_of_clients_is_one() {
    let all = blocks(GUIDE);
    let list = all.iter().find(|block| block.text.starts_with("SHA256:")).unwrap();
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("list");
    fs::write(&file, &list.text).unwrap();
    let file = file.to_str().unwrap();
    let args = ["server", "--listen", "127.0.0.1:0", "--dial", "localhost:22"];
    let server = Imux::start(home.path(), &[&args[..], &["--authorized-clients", file]].concat());
    server.line("server ready");
    assert_eq!(server.count("any client may use this server"), 0, "{}", server.log());
}
