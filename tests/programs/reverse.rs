//! Programs by a port that the server takes for a client, and by Unix sockets.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use crate::support::eventually;
use crate::support::net::unused_port;
use crate::support::pair::Pair;
use crate::support::process::Imux;
use crate::{
    Daemon, Ended, assert_same, bounded, command, file, installed, run, server_of_a_large_file,
};

/// A client at whose place `daemon` is, and the server's port for it.
async fn at_home(daemon: &Daemon, options: &str) -> (Pair, Imux, SocketAddr) {
    let place = unused_port().await;
    let pair = Pair::server("127.0.0.1:9", Some(&format!("listen=\"{place}\"")));
    let client = pair.client(&["-R", &format!("{place}:{}{options}", daemon.addr)]);
    client.line("the server takes connections for this client");
    (pair, client, place)
}

#[test]
fn curl_from_a_web_server_at_home() {
    if !installed(&["curl", "python3"]) {
        return;
    }
    bounded(async {
        let (daemon, large) = server_of_a_large_file().await;
        let (_pair, _client, place) = at_home(&daemon, "").await;
        let got = tempfile::tempdir().unwrap();
        let many: Vec<_> = (0..4).map(|number| got.path().join(number.to_string())).collect();
        let mut curl = command("curl");
        curl.args(["-sSf", "--parallel"]);
        for copy in &many {
            curl.arg("-o").arg(copy).arg(format!("http://{place}/large"));
        }
        run(curl).await;
        for copy in &many {
            assert_same(&large, copy);
        }
        let mut missing = command("curl");
        missing.args(["-s", "-o", "/dev/null", "-w", "%{http_code}"]);
        let said = missing.arg(format!("http://{place}/missing")).output().unwrap();
        assert_eq!(said.stdout, b"404");
    });
}

#[test]
fn ssh_and_rsync_to_a_machine_at_home() {
    if !installed(&["ssh", "sshd", "ssh-keygen", "rsync", "git"]) {
        return;
    }
    bounded(async {
        let daemon = crate::ssh::server().await;
        let (_pair, _client, place) = at_home(&daemon, "").await;
        let folder = daemon.folder.path();
        let known = format!("UserKnownHostsFile={}", folder.join("known").display());
        let ssh = format!(
            "ssh -F none -q -i {} -p {} -o {known} -o StrictHostKeyChecking=no -o IdentitiesOnly=yes",
            folder.join("user").display(),
            place.port()
        );
        let local = file(folder.join("local"), 1, 20_000_000);
        let mut cat = command("sh");
        cat.args(["-c", &format!("{ssh} 127.0.0.1 cat < {}", local.display())]);
        assert!(run(cat).await.stdout == fs::read(&local).unwrap(), "cat changed it");
        let mut rsync = command("rsync");
        rsync.args(["-e", &ssh]).arg(&local);
        rsync.arg(format!("127.0.0.1:{}", folder.join("copy").display()));
        run(rsync).await;
        assert_same(&local, &folder.join("copy"));
        let mut exits = command("sh");
        exits.args(["-c", &format!("{ssh} 127.0.0.1 exit 7")]);
        assert_eq!(exits.status().unwrap().code(), Some(7));

        let git = |args: &[&str]| {
            let mut git = command("git");
            git.env("GIT_SSH_COMMAND", &ssh).args([
                "-c",
                "user.name=t",
                "-c",
                "user.email=t@e.org",
            ]);
            git.arg("-C").arg(folder).args(args);
            git
        };
        run(git(&["init", "-q", "work"])).await;
        file(folder.join("work/file"), 3, 1_000_000);
        run(git(&["-C", "work", "add", "."])).await;
        run(git(&["-C", "work", "commit", "-q", "-m", "one"])).await;
        let url = format!("ssh://127.0.0.1:{}{}", place.port(), folder.join("work").display());
        run(git(&["clone", "-q", &url, "clone"])).await;
        assert_same(&folder.join("work/file"), &folder.join("clone/file"));
    });
}

/// As a container engine has it: HTTP over a Unix socket, or over a port that leads to one.
#[test]
fn curl_and_a_web_server_over_unix_sockets() {
    if !installed(&["curl", "python3"]) {
        return;
    }
    const SERVER: &str = "import http.server, socketserver, sys
class Handler(http.server.SimpleHTTPRequestHandler):
    def address_string(self): return 'unix'
class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer): pass
Server(sys.argv[1], Handler).serve_forever()";
    bounded(async {
        let folder = tempfile::tempdir().unwrap();
        let large = file(folder.path().join("large"), 1, 5_000_000);
        let (far, near) = (folder.path().join("engine.sock"), folder.path().join("near.sock"));
        let mut python = command("python3");
        python.env("HOME", std::env::var_os("HOME").unwrap_or_default());
        python.args(["-c", SERVER]).arg(&far).current_dir(folder.path());
        let mut python = Ended(python.spawn().unwrap());
        eventually(30, "it listens", || far.exists()).await;
        let pair = Pair::server("127.0.0.1:9", Some(&format!("dial=\"unix:{}\"", far.display())));
        let port = unused_port().await;
        let client = pair.client(&[
            "-L",
            &format!("{port}:{}", far.display()),
            "-L",
            &format!("{}:{}", near.display(), far.display()),
        ]);
        client.nth_line("client ready", 2);
        for (number, way) in
            [vec![], vec!["--unix-socket", near.to_str().unwrap()]].into_iter().enumerate()
        {
            let copy = folder.path().join(format!("copy{number}"));
            let mut curl = command("curl");
            curl.arg("-sSf").args(way).arg("-o").arg(&copy).arg(format!("http://{port}/large"));
            run(curl).await;
            assert_same(&large, &copy);
        }
        assert!(python.0.try_wait().unwrap().is_none());
    });
}

#[test]
fn nginx_logs_who_visits_it_at_home_and_who_the_client_is() {
    if !installed(&["nginx", "curl"]) {
        return;
    }
    bounded(async {
        let daemon = Daemon::start(tempfile::tempdir().unwrap(), nginx).await;
        let logged = |folder: &Path| fs::read_to_string(folder.join("access.log")).unwrap();
        let get = |from: &str, to: SocketAddr| {
            let mut curl = command("curl");
            curl.args(["-sSf", "--interface", from]).arg(format!("http://{to}/"));
            run(curl)
        };
        // Who comes to the server's port.
        for version in ["", "=v1"] {
            let (_pair, _client, place) =
                at_home(&daemon, &format!(",proxy-protocol{version}")).await;
            let got = get("127.0.0.77", place).await;
            assert_eq!(got.stdout, b"127.0.0.77");
        }
        // Where the client's first lane comes from.
        let pair = Pair::server_with(&daemon.addr.to_string(), None, &["--proxy-protocol"]);
        let how =
            ["client", "--dial", &pair.at, "--pin", &pair.key, "--bind=127.0.0.66=1,express=no"];
        let client =
            Imux::start(pair.folder.path(), &[&how[..], &["--listen", "127.0.0.1:0"]].concat());
        assert_eq!(get("127.0.0.88", client.ready()).await.stdout, b"127.0.0.66");
        // And who connects to it, where it is trusted with that.
        let line = format!("trust-source,dial=\"{}\"", daemon.addr);
        let pair = Pair::server("127.0.0.1:9", Some(&line));
        let client = pair.client(&["-L", &format!("127.0.0.1:0:{},proxy-protocol", daemon.addr)]);
        assert_eq!(get("127.0.0.99", client.ready()).await.stdout, b"127.0.0.99");
        let log = logged(daemon.folder.path());
        for address in ["127.0.0.77", "127.0.0.66", "127.0.0.99"] {
            assert!(log.lines().any(|line| line.starts_with(address)), "{address}: {log}");
        }
        assert_eq!(log.lines().count(), 4, "{log}");
    });
}

/// Takes the PROXY protocol, and answers with the address that it names.
fn nginx(folder: &Path, addr: SocketAddr) -> Command {
    let config = folder.join("nginx.conf");
    let text = format!(
        "daemon off; pid {0}/pid; error_log stderr; worker_processes 1; user root;
         events {{ }}
         http {{
           log_format who '$proxy_protocol_addr $request'; access_log {0}/access.log who;
           client_body_temp_path {0}/b; proxy_temp_path {0}/p; fastcgi_temp_path {0}/f;
           uwsgi_temp_path {0}/u; scgi_temp_path {0}/s;
           server {{ listen {addr} proxy_protocol; return 200 $proxy_protocol_addr; }}
         }}",
        folder.display()
    );
    fs::write(&config, text).unwrap();
    let mut nginx = command("nginx");
    nginx.arg("-p").arg(folder).arg("-c").arg(config).args(["-e", "stderr"]);
    nginx
}
