//! The systemd unit of a server or a client.

use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

/// What a unit is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Server,
    Client,
}

/// Which of a machine's service managers it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Manager {
    System,
    /// That of one user, with the folder of their configuration.
    User(Option<PathBuf>),
}

/// A server or client that runs by its file.
#[derive(Debug)]
pub(super) struct Service {
    role: Role,
    manager: Manager,
    program: PathBuf,
    home: PathBuf,
    file: PathBuf,
}

/// Whether systemd has started this machine, as sd_booted(3) finds out.
pub(super) fn runs_here() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Client => "client",
        }
    }

    /// Codes that a restart does not mend: as in docs/GUIDE.md.
    fn hopeless(self) -> &'static str {
        match self {
            Self::Server => "2 3",
            Self::Client => "2 3 6 7 10",
        }
    }
}

/// What a unit may do besides nothing: no more than the program needs. A user's own manager can
/// enforce these wherever it runs.
const HARDENING: &str = "\
NoNewPrivileges=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
";

/// What only the system's manager can enforce everywhere.
const HARDENING_BY_SYSTEM: &str = "\
CapabilityBoundingSet=CAP_NET_BIND_SERVICE
PrivateDevices=yes
PrivateTmp=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProtectSystem=strict
";

impl Service {
    /// Of this process's user.
    pub(super) fn new(role: Role, home: &Path) -> std::io::Result<Self> {
        let of_user = || {
            let set = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
            let set = set.filter(|path| path.is_absolute());
            set.or_else(|| std::env::home_dir().map(|home| home.join(".config")))
        };
        let manager = if geteuid().is_root() { Manager::System } else { Manager::User(of_user()) };
        let program = std::env::current_exe()?;
        let file = home.join(role.name()).with_extension("toml");
        Ok(Self { role, manager, program, home: home.to_owned(), file })
    }

    /// The file that it runs by.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    fn unit_name(&self) -> String {
        format!("imux-{}", self.role.name())
    }

    /// Where the unit belongs.
    pub(super) fn place(&self) -> Result<PathBuf, String> {
        let folder = match &self.manager {
            Manager::System => PathBuf::from("/etc/systemd/system"),
            Manager::User(Some(folder)) => folder.join("systemd/user"),
            Manager::User(None) => {
                return Err("there is no place for a unit: no home directory is set".to_owned());
            }
        };
        Ok(folder.join(self.unit_name()).with_extension("service"))
    }

    /// The unit.
    ///
    /// # Errors
    /// A path that no unit can hold.
    pub(super) fn unit(&self) -> Result<String, String> {
        let [program, home, file] = [&self.program, &self.home, &self.file];
        let home_is = word(&format!("IMUX_HOME={}", text(home)?));
        let (program, home, file) = (word(text(program)?), word(text(home)?), word(text(file)?));
        let (role, hopeless) = (self.role.name(), self.role.hopeless());
        let (confined, wanted_by) = match self.manager {
            Manager::System => {
                // Of homes it sees nothing but what is its own.
                let bound = |path: &str| path.replace(':', "\\:");
                let (program, home) = (bound(&program), bound(&home));
                let homes =
                    format!("ProtectHome=tmpfs\nBindReadOnlyPaths={program}\nBindPaths={home}\n");
                (format!("{HARDENING_BY_SYSTEM}{homes}"), "multi-user.target")
            }
            Manager::User(_) => (String::new(), "default.target"),
        };
        Ok(format!(
            "[Unit]
Description=imux {role}
Wants=network-online.target
After=network-online.target

[Service]
Environment={home_is}
ExecStart={program} run -c {file}
ExecReload={program} reload
Restart=on-failure
RestartPreventExitStatus={hopeless}
SuccessExitStatus=143
LimitNOFILE=65536
{HARDENING}{confined}
[Install]
WantedBy={wanted_by}
"
        ))
    }

    /// The command that starts it, for people.
    pub(super) fn how_to_start(&self, unit: bool) -> String {
        let (name, user) = (self.unit_name(), self.manager != Manager::System);
        if !unit {
            let program = quoted(&self.program);
            return format!("Start it:\n    {program} run -c {}\n", quoted(&self.file));
        }
        if user {
            return format!(
                "Start it, now and whenever you log in (`loginctl enable-linger`: whenever this machine starts):\n    \
                 systemctl --user enable --now {name}\n"
            );
        }
        format!(
            "Start it, now and whenever this machine starts:\n    systemctl enable --now {name}\n"
        )
    }
}

fn text(path: &Path) -> Result<&str, String> {
    let fits = |text: &&str| !text.contains(|c: char| c.is_control() || c == '$');
    let text = path.to_str().filter(fits);
    text.ok_or_else(|| format!("the path {} cannot stand in a unit", path.display()))
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@:=".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// As one word of a unit (systemd.syntax(7)).
fn word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@:=".contains(c);
    if text.chars().all(plain) {
        return text.to_owned();
    }
    let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%");
    format!("\"{text}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(manager: Manager, home: &str) -> Service {
        let home = PathBuf::from(home);
        let file = home.join("client.toml");
        Service { role: Role::Client, manager, program: "/opt/imux".into(), home, file }
    }

    #[test]
    fn the_system_has_one_and_each_user() {
        let system = service(Manager::System, "/root/.imux");
        assert_eq!(system.place().unwrap(), Path::new("/etc/systemd/system/imux-client.service"));
        let unit = system.unit().unwrap();
        for line in [
            "Environment=IMUX_HOME=/root/.imux",
            "ExecStart=/opt/imux run -c /root/.imux/client.toml",
            "BindPaths=/root/.imux",
            "ProtectHome=tmpfs",
            "WantedBy=multi-user.target",
        ] {
            assert!(unit.lines().any(|it| it == line), "{line}: {unit}");
        }
        assert!(system.how_to_start(true).contains("    systemctl enable --now imux-client\n"));
        let user = service(Manager::User(Some("/home/u/.config".into())), "/home/u/.imux");
        let place = "/home/u/.config/systemd/user/imux-client.service";
        assert_eq!(user.place().unwrap(), Path::new(place));
        let unit = user.unit().unwrap();
        assert!(unit.contains("WantedBy=default.target") && !unit.contains("Protect"), "{unit}");
        assert!(user.how_to_start(true).contains("systemctl --user enable --now imux-client"));
        assert!(user.how_to_start(false).contains("/opt/imux run -c /home/u/.imux/client.toml"));
        service(Manager::User(None), "/x").place().unwrap_err();
    }

    #[test]
    fn paths_are_words_of_a_unit_or_none() {
        let unit = service(Manager::System, "/a b/100%:c").unit().unwrap();
        for line in [
            "Environment=\"IMUX_HOME=/a b/100%%:c\"",
            "ExecStart=/opt/imux run -c \"/a b/100%%:c/client.toml\"",
            "BindPaths=\"/a b/100%%\\:c\"",
        ] {
            assert!(unit.lines().any(|it| it == line), "{line}: {unit}");
        }
        for bad in ["/a\nExecStart=/b", "/$HOME"] {
            assert!(service(Manager::System, bad).unit().is_err(), "{bad:?}");
        }
    }
}
