//! The client of a container engine, which speaks HTTP over a Unix socket. The engine is a stand-in
//! that knows three questions: one of its own would not run everywhere.

use crate::support::eventually;
use crate::support::net::unused_port;
use crate::support::pair::Pair;
use crate::support::skipped;
use crate::{Ended, bounded, command, find, run};

const ENGINE: &str = r#"
import http.server, json, socketserver, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def address_string(self): return "unix"
    def answer(self):
        version = {"Version": "1.2.3-stand-in", "ApiVersion": "1.41", "MinAPIVersion": "1.12", "Os": "linux", "Arch": "amd64"}
        one = {"Id": "ab" * 32, "Names": ["/far-away"], "Image": "busybox", "Command": "sleep", "Created": 1,
               "State": "running", "Status": "Up 7 minutes", "Ports": [], "Labels": {}}
        path = self.path.split("?")[0]
        if path.endswith("/_ping"): text, kind = "OK", "text/plain"
        elif path.endswith("/version"): text, kind = json.dumps(version), "application/json"
        elif path.endswith("/containers/json"): text, kind = json.dumps([one]), "application/json"
        else: return self.send_error(404)
        body = text.encode()
        self.send_response(200)
        for name, value in [("Api-Version", "1.41"), ("Content-Type", kind), ("Content-Length", str(len(body)))]:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD": self.wfile.write(body)
    do_GET = do_HEAD = answer
class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer): daemon_threads = True
Server(sys.argv[1], Handler).serve_forever()
"#;

#[test]
fn docker_asks_an_engine_far_away() {
    // Nobody is required to have it: Debian's comes with the whole engine.
    let missing = ["docker", "python3"].into_iter().find(|program| find(program).is_none());
    if skipped::mark(missing.map(|program| format!("not installed: {program}")).as_deref()) {
        return;
    }
    bounded(async {
        let folder = tempfile::tempdir().unwrap();
        let (far, near) = (folder.path().join("engine.sock"), folder.path().join("near.sock"));
        let mut python = command("python3");
        python.env("HOME", std::env::var_os("HOME").unwrap_or_default());
        let _engine = Ended(python.args(["-c", ENGINE]).arg(&far).spawn().unwrap());
        eventually(30, "it listens", || far.exists()).await;
        let pair = Pair::server("127.0.0.1:9", Some(&format!("dial=\"unix:{}\"", far.display())));
        let place = unused_port().await;
        let client = pair.client(&[
            "-L",
            &format!("{place}:{}", far.display()),
            "-L",
            &format!("{}:{}", near.display(), far.display()),
        ]);
        client.nth_line("client ready", 2);
        for host in [format!("unix://{}", near.display()), format!("tcp://{place}")] {
            let docker = |args: &[&str]| {
                let mut docker = command("docker");
                docker.env("HOME", folder.path()).args(["-H", &host]).args(args);
                run(docker)
            };
            let version = docker(&["version", "--format", "{{.Server.Version}}"]).await;
            assert_eq!(String::from_utf8_lossy(&version.stdout).trim(), "1.2.3-stand-in");
            let listed = docker(&["ps", "--format", "{{.Names}} {{.Image}} {{.Status}}"]).await;
            let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
            assert_eq!(listed.trim(), "far-away busybox Up 7 minutes");
        }
    });
}
