//! Programs that are told of a proxy, or of a command in its place.

use std::fs;
use std::net::SocketAddr;

use crate::support::pair::Pair;
use crate::support::process::{Imux, field};
use crate::{
    Daemon, assert_same, bounded, command, file, installed, run, server_of_a_large_file, web_server,
};

/// A client that may go to `daemon` and to a port at which nobody listens.
pub(crate) fn proxy(daemon: &Daemon, how: &[&str]) -> (Pair, Imux, SocketAddr) {
    let port = daemon.addr.port();
    let line = format!("dial=\"localhost:{port}\",dial=\"127.0.0.1:{port}\",dial=\"127.0.0.1:1\"");
    let pair = Pair::server("127.0.0.1:9", Some(&line));
    let client = pair.client(how);
    let addr = field(&client.line("client ready"), "address").parse().unwrap();
    (pair, client, addr)
}

#[test]
fn curl_through_socks_and_http() {
    if !installed(&["curl", "python3"]) {
        return;
    }
    bounded(async {
        let (daemon, large) = server_of_a_large_file().await;
        let (_pair, _client, addr) = proxy(&daemon, &["-D", "127.0.0.1:0"]);
        let port = daemon.addr.port();
        let got = tempfile::tempdir().unwrap();
        let proxied = |way: &[&str]| {
            let mut curl = command("curl");
            let way: Vec<_> =
                way.iter().map(|word| word.replace("PROXY", &addr.to_string())).collect();
            curl.args(["-sS", "--fail", "--noproxy", ""]).args(way);
            curl
        };
        let ways: [&[&str]; 5] = [
            &["--socks5-hostname", "PROXY"],
            &["--proxy", "socks4a://PROXY"],
            &["--proxy", "http://PROXY", "--proxytunnel"],
            &["--proxy", "http://PROXY"],
            &["--socks4", "PROXY"],
        ];
        for (number, way) in ways.iter().enumerate() {
            let to = got.path().join(number.to_string());
            let mut curl = proxied(way);
            curl.arg("-o").arg(&to).arg(format!("http://localhost:{port}/large"));
            run(curl).await;
            assert_same(&large, &to);
        }
        // 97: the proxy says no. 22 or, of older ones in tunnels, 56: its status is no success.
        for (way, codes) in ways.iter().zip([[97; 2], [97; 2], [22, 56], [22; 2], [97; 2]]) {
            let mut curl = proxied(way);
            curl.arg("http://127.0.0.1:1/");
            let told = curl.output().unwrap();
            assert!(codes.contains(&told.status.code().unwrap()), "{way:?}: {told:?}");
        }
        let mut many = proxied(&["--proxy", "http://PROXY", "--parallel"]);
        many.args(["-o", "/dev/null", "-w", "%{http_code} "]);
        many.arg(format!("http://localhost:{port}/large?[1-30]"));
        let codes = String::from_utf8(run(many).await.stdout).unwrap();
        assert_eq!(codes, "200 ".repeat(30));
    });
}

#[test]
fn git_clones_through_socks_and_http() {
    if !installed(&["git", "python3"]) {
        return;
    }
    bounded(async {
        let folder = tempfile::tempdir().unwrap();
        let git = |at: &std::path::Path, args: &[&str]| {
            let mut git = command("git");
            git.args(["-c", "user.name=a", "-c", "user.email=a@b"]).args(args).current_dir(at);
            git
        };
        let work = tempfile::tempdir().unwrap();
        file(work.path().join("file"), 1, 3_000_000);
        for args in [&["init", "-q"][..], &["add", "file"], &["commit", "-q", "-m", "one"]] {
            run(git(work.path(), args)).await;
        }
        let bare = folder.path().join("bare.git");
        let bare_name = bare.to_str().unwrap();
        run(git(work.path(), &["clone", "-q", "--bare", ".", bare_name])).await;
        run(git(&bare, &["update-server-info"])).await;
        let daemon = web_server(folder).await;
        let (_pair, _client, addr) = proxy(&daemon, &["-D", "127.0.0.1:0"]);
        let url = format!("http://localhost:{}/bare.git", daemon.addr.port());
        for (number, scheme) in ["socks5h", "http"].iter().enumerate() {
            let by = format!("http.proxy={scheme}://{addr}");
            let to = format!("clone{number}");
            run(git(work.path(), &["-c", &by, "clone", "-q", &url, &to])).await;
            assert_same(&work.path().join("file"), &work.path().join(to).join("file"));
        }
    });
}

#[test]
fn ssh_by_a_proxy_command() {
    if !installed(&["ssh", "sshd", "ssh-keygen", "rsync"]) {
        return;
    }
    bounded(async {
        let daemon = crate::ssh::server().await;
        let port = daemon.addr.port();
        let pair = Pair::server("127.0.0.1:9", Some(&format!("dial=\"localhost:{port}\"")));
        let folder = daemon.folder.path();
        let imux = format!(
            "env IMUX_HOME={} {} client --dial {} --pin {} --bind any=2",
            pair.folder.path().display(),
            env!("CARGO_BIN_EXE_imux"),
            pair.at,
            pair.key
        );
        let options = |to: &str| {
            let known = format!("UserKnownHostsFile={}", folder.join("known").display());
            let by = format!("ProxyCommand={imux} -W {to}");
            let mut options = vec!["-F".to_owned(), "none".to_owned(), "-q".to_owned()];
            options.extend(["-i".to_owned(), folder.join("user").display().to_string()]);
            for option in [&*known, &*by, "StrictHostKeyChecking=no", "IdentitiesOnly=yes"] {
                options.extend(["-o".to_owned(), option.to_owned()]);
            }
            options
        };
        let local = file(folder.join("local"), 1, 20_000_000);
        let here = format!("localhost:{port}");
        let mut ssh = command("ssh");
        ssh.args(options(&here)).args(["anywhere", "cat"]).stdin(fs::File::open(&local).unwrap());
        let done = run(ssh).await;
        assert!(done.stdout == fs::read(&local).unwrap(), "cat changed it");
        assert_eq!(String::from_utf8_lossy(&done.stderr), "");
        let mut ssh = command("ssh");
        ssh.args(options(&here)).args(["anywhere", "exit 7"]);
        assert_eq!(ssh.status().unwrap().code(), Some(7));
        let shell = options(&here).iter().map(|word| format!("'{word}'")).collect::<Vec<_>>();
        let mut rsync = command("rsync");
        rsync.arg("-e").arg(format!("ssh {}", shell.join(" "))).arg(&local);
        rsync.arg(format!("anywhere:{}", folder.join("copy").display()));
        run(rsync).await;
        assert_same(&local, &folder.join("copy"));
        // What is not allowed is told on standard error, and ssh ends.
        let mut ssh = command("ssh");
        ssh.args(options("localhost:1")).args(["anywhere", "true"]);
        let told = ssh.output().unwrap();
        assert_eq!(told.status.code(), Some(255));
        let told = String::from_utf8_lossy(&told.stderr);
        assert!(told.contains("localhost:1") && told.contains("not allowed"), "{told}");
    });
}
