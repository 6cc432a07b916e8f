//! A browser that is told of a proxy.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::support::pair::Pair;
use crate::support::process::field;
use crate::{bounded, command, installed, web_server};

const IMAGES: usize = 24;

/// Says in its title what it has loaded: the widths of all images together, a colour of the style
/// sheet, and the length of what the script has fetched.
const SCRIPT: &str = "addEventListener('load', async () => {
    const widths = [...document.images].reduce((sum, image) => sum + image.naturalWidth, 0);
    const colour = getComputedStyle(document.body).color;
    const text = await (await fetch('large.txt')).text();
    document.title = `${widths} ${colour} ${text.length}`;
});";

#[test]
fn chromium_loads_a_page_and_all_that_belongs_to_it() {
    if !installed(&["chromium", "python3"]) {
        return;
    }
    bounded(async {
        let folder = tempfile::tempdir().unwrap();
        let expected = write_page(folder.path());
        let daemon = web_server(folder).await;
        let port = daemon.addr.port();
        let profile = tempfile::tempdir().unwrap();
        let audit = profile.path().join("audit");
        let at = format!("localhost:{port}");
        let pair = Pair::server_with(
            "127.0.0.1:9",
            Some(&format!("dial=\"{at}\"")),
            &["--audit", audit.to_str().unwrap()],
        );
        let client = pair.client(&["-D", "127.0.0.1:0"]);
        let proxy = field(&client.line("client ready"), "address").to_owned();
        for scheme in ["socks5", "http"] {
            let home = profile.path().join(scheme);
            let shown = browse(&home, &format!("{scheme}://{proxy}"), &format!("http://{at}/"));
            assert!(shown.contains(&expected), "{scheme}: {shown}\n{}", daemon.log());
        }
        // What loaded it was the server's end of the tunnel.
        let carried = fs::read_to_string(&audit).unwrap().matches(&at).count();
        assert!(carried >= 2 * 2, "{carried}");
        let log = daemon.log();
        for name in ["style.css", "script.js", "large.txt", "image0.svg", "image23.svg"] {
            assert_eq!(log.matches(&format!("GET /{name} ")).count(), 2, "{name}: {log}");
        }
    });
}

/// The page, and the title that it will have.
fn write_page(folder: &Path) -> String {
    let (mut images, mut widths) = (String::new(), 0);
    for number in 0..IMAGES {
        let width = 10 + number;
        widths += width;
        let padding = "x".repeat(50_000);
        let image = format!(
            "<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='9'><!--{padding}--></svg>"
        );
        fs::write(folder.join(format!("image{number}.svg")), image).unwrap();
        images += &format!("<img src='image{number}.svg'>");
    }
    let page = format!(
        "<!doctype html><meta charset='utf-8'><title>nothing yet</title><link rel='stylesheet' href='style.css'>\
         <script src='script.js'></script>{images}"
    );
    fs::write(folder.join("index.html"), page).unwrap();
    fs::write(folder.join("style.css"), "body { color: rgb(1, 2, 3) }").unwrap();
    fs::write(folder.join("script.js"), SCRIPT).unwrap();
    fs::write(folder.join("large.txt"), "y".repeat(3_000_000)).unwrap();
    format!("<title>{widths} rgb(1, 2, 3) 3000000</title>")
}

/// The page as it is once it has loaded through a proxy.
fn browse(home: &Path, proxy: &str, url: &str) -> String {
    let proxy = format!("--proxy-server={proxy}");
    // Otherwise it goes to this machine by itself.
    shows(home, &["--proxy-bypass-list=<-loopback>", &proxy, "--virtual-time-budget=30000"], url)
}

/// The page as it is once it has loaded, in a browser that is started like this.
pub(crate) fn shows(home: &Path, how: &[&str], url: &str) -> String {
    fs::create_dir(home).unwrap();
    let mut chromium = command("chromium");
    chromium.env("HOME", home).args([
        "--headless",
        // It refuses to be root with one.
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--dump-dom",
    ]);
    chromium.arg(format!("--user-data-dir={}", home.display()));
    chromium.args(how).arg(url);
    let (shown, told) = (home.join("shown"), home.join("told"));
    let mut browser = Browser::start(chromium, &shown, &told);
    let code = browser.end_within(Duration::from_secs(60));
    let told = fs::read_to_string(told).unwrap_or_default();
    assert_eq!(code, Some(0), "{told}");
    fs::read_to_string(shown).unwrap()
}

/// With all of its processes, which are one group; ended when dropped.
struct Browser(Child);

impl Browser {
    fn start(mut command: Command, shown: &Path, told: &Path) -> Self {
        let into = |path| Stdio::from(fs::File::create(path).unwrap());
        command.process_group(0).stdout(into(shown)).stderr(into(told));
        Self(command.spawn().unwrap())
    }

    fn end_within(&mut self, time: Duration) -> Option<i32> {
        for _ in 0..time.as_millis() / 20 {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let group = Pid::from_raw(self.0.id().cast_signed());
        let _ = killpg(group, Signal::SIGKILL);
        let _ = self.0.wait();
    }
}
