//! Has what runs by a file become what the file says now: all that can be changed, or nothing.

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use imux::tunnel::Listener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_blocking;

use super::address::Endpoint;
use super::args::read_file;
use super::bind::Binds;
use super::config::{
    ClientConfig, FileConfig, Invocation, Origin, ServerConfig, Task, require_home,
};
use super::connect::proxy_options;
use super::control::reload_all;
use super::exit::{Exit, Failure};
use super::forward::{Forward, Leads};
use super::logging;
use super::part::ClientChange;
use super::reverse::Reverse;
use super::taking::{Sockets, Wanted};
use super::text::print;

/// How long a client may take to become what it is to be.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where changes are sent to.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// In the order of the file.
    pub(super) clients: Vec<mpsc::Sender<ClientChange>>,
    pub(super) rereads: watch::Sender<()>,
    pub(super) sockets: Sockets,
}

/// What runs, as the file said it.
#[derive(Debug)]
pub(super) struct Reloads {
    origin: Origin,
    logging: logging::Options,
    servers: Vec<Fixed>,
    clients: Vec<Running>,
}

/// Keys that only a new start changes, with what they say.
type Fixed = Vec<(&'static str, String)>;

/// What a client is, as far as it may change.
#[derive(Debug, Clone)]
struct Running {
    fixed: Fixed,
    forwards: Vec<Forward>,
    reverse: Vec<Reverse>,
    redundant: bool,
    proxy_auth: Option<PathBuf>,
    binds: Binds,
}

impl Running {
    fn new(config: &ClientConfig) -> Self {
        Self {
            fixed: of_client(config),
            forwards: config.forwards.clone(),
            reverse: config.reverse.clone(),
            redundant: config.redundant,
            proxy_auth: config.proxy_auth.clone(),
            binds: config.binds.clone(),
        }
    }

    /// What the client is once it is changed to what `new` says.
    fn changed_to(&self, new: &Self) -> Self {
        Self { fixed: self.fixed.clone(), ..new.clone() }
    }

    /// Whether it is no client that this one could be changed to.
    fn is_another(&self, new: &Self) -> bool {
        self.fixed[0] != new.fixed[0]
    }

    /// Where it takes connections no more once it is what `new` says.
    fn given_up(&self, new: &ClientConfig) -> Vec<Endpoint> {
        let new = Self::new(new);
        if self.is_another(&new) {
            return Vec::new();
        }
        let gone = |it: &&Forward| {
            !as_meant(it) && new.forwards.iter().all(|other| other.listen != it.listen)
        };
        self.forwards.iter().filter(gone).map(|it| it.listen.clone()).collect()
    }

    /// What differs, in words.
    fn differences(&self, new: &Self) -> Vec<&'static str> {
        let all = [
            ("forwards", self.forwards != new.forwards || self.redundant != new.redundant),
            ("reverse forwards", self.reverse != new.reverse),
            ("proxy-auth", self.proxy_auth != new.proxy_auth),
            ("binds", self.binds != new.binds),
        ];
        all.into_iter().filter_map(|(name, differs)| differs.then_some(name)).collect()
    }
}

fn as_meant(forward: &Forward) -> bool {
    forward.to == Leads::WhereMeant
}

fn said(name: &'static str, value: &dyn Debug) -> (&'static str, String) {
    (name, format!("{value:?}"))
}

fn of_client(config: &ClientConfig) -> Fixed {
    let transparent = config.forwards.iter().filter(|it| as_meant(it));
    vec![
        said("dial", &config.dial),
        said("stdio", &config.stdio),
        said("transparent", &transparent.collect::<Vec<_>>()),
        said("host-key, pin", &config.trust),
        said("connect-timeout", &config.connect_timeout),
        said("keep-trying", &config.keep_trying),
        said("classical-key-exchange", &config.key_exchange),
        said("what its sessions keep to", &config.session),
        said("metrics", &config.web),
    ]
}

fn of_server(config: &ServerConfig) -> Fixed {
    vec![
        said("listen", &config.listen),
        said("dial", &config.dial),
        said("from, proxy-protocol", &config.dialing),
        said("allow-listen", &config.listen_for_strangers),
        said("authorized-clients", &config.authorized_clients),
        said("allow-anyone", &config.allow_anyone),
        said("identity", &config.identity),
        said("max-sessions", &config.sessions),
        said("what its sessions keep to", &config.session),
        said("metrics", &config.web),
    ]
}

/// The keys that say something else now.
fn differing(old: &Fixed, new: &Fixed) -> Vec<&'static str> {
    let pairs = old.iter().zip(new);
    pairs.filter(|(old, new)| old != new).map(|(old, _)| old.0).collect()
}

/// What a reload comes to: prepared whole before any of it is done.
#[derive(Default)]
struct Plan {
    /// By the clients' numbers.
    clients: Vec<(usize, Running, Wanted)>,
    level: Option<logging::Level>,
    changed: Vec<String>,
    needs_restart: Vec<String>,
}

impl Reloads {
    pub(super) fn new(config: &FileConfig) -> Self {
        Self {
            origin: config.origin.clone(),
            logging: config.logging.clone(),
            servers: config.servers.iter().map(of_server).collect(),
            clients: config.clients.iter().map(Running::new).collect(),
        }
    }

    /// Reads the file again, and has done what it says. What has changed, and what needs a restart.
    ///
    /// # Errors
    /// The file is wrong, or a place where connections are to be taken cannot be had: all stays as
    /// it was. The log says so as well.
    pub(super) async fn reload(&mut self, changes: &Changes) -> Result<String, String> {
        match self.plan(&changes.sockets).await {
            Ok(plan) => {
                let said = plan.said();
                self.carry_out(plan, changes).await;
                tracing::info!("reload: {said}");
                Ok(said)
            }
            Err(why) => {
                // Of several lines, those that tell, without those that show.
                let lines = why.lines().filter(|line| !line.starts_with("    "));
                let shown = lines.collect::<Vec<_>>().join("; ");
                tracing::error!("reload: all stays as it was: {shown}");
                Err(format!("{why}\nall stays as it was"))
            }
        }
    }

    async fn plan(&self, sockets: &Sockets) -> Result<Plan, String> {
        let Origin { file, over, home } = self.origin.clone();
        let read = spawn_blocking(move || read_file(&file, &over, home.as_deref())).await;
        let read = read.unwrap_or_else(|error| Err(error.to_string()))?;
        let Invocation { task: Task::File(new), logging, .. } = read else {
            return Err("it asks for nothing".to_owned());
        };
        let mut plan = Plan::default();
        plan.compare_log(&self.logging, &logging);
        let counts = [
            ("[[server]]", self.servers.len() != new.servers.len()),
            ("[[client]]", self.clients.len() != new.clients.len()),
        ];
        for (table, _) in counts.iter().filter(|(_, differ)| *differ) {
            plan.needs_restart.push(format!("another number of {table}"));
        }
        let servers = self.servers.iter().zip(&new.servers).enumerate();
        for (number, (old, new)) in servers.filter(|_| !counts[0].1) {
            plan.tell_fixed(&format!("server {}", number + 1), old, &of_server(new));
        }
        let clients = || self.clients.iter().zip(&new.clients).filter(|_| !counts[1].1);
        let given_up: Vec<_> = clients().flat_map(|(old, new)| old.given_up(new)).collect();
        // A place that another client gives up comes with its sockets.
        let taken_over = |at: &Endpoint| sockets.there(at).filter(|_| given_up.contains(at));
        for (number, (old, config)) in clients().enumerate() {
            plan.compare_client(number, old, config, sockets, taken_over).await?;
        }
        Ok(plan)
    }

    async fn carry_out(&mut self, plan: Plan, changes: &Changes) {
        if let Some(level) = plan.level {
            logging::set_level(level);
            self.logging.level = level;
        }
        for (number, running, wanted) in plan.clients {
            let (done, is_done) = oneshot::channel();
            let change = ClientChange { wanted, binds: running.binds.clone(), done };
            if let Some(client) = changes.clients.get(number) {
                let changed = async {
                    let _ = client.send(change).await;
                    let _ = is_done.await;
                };
                // One that is about to end does nothing any more.
                let _ = tokio::time::timeout(PATIENCE, changed).await;
            }
            self.clients[number] = running;
        }
    }
}

impl Plan {
    fn compare_log(&mut self, old: &logging::Options, new: &logging::Options) {
        if old.level != new.level {
            self.level = Some(new.level);
            self.changed.push("the log's level".to_owned());
        }
        if old.json != new.json {
            self.needs_restart.push("log-format".to_owned());
        }
        if old.audit != new.audit {
            self.needs_restart.push("audit".to_owned());
        }
    }

    fn tell_fixed(&mut self, who: &str, old: &Fixed, new: &Fixed) {
        let differ = differing(old, new);
        if !differ.is_empty() {
            self.needs_restart.push(format!("{} of {who}", differ.join(", ")));
        }
    }

    /// Listens already where the client is to from now on.
    async fn compare_client(
        &mut self,
        number: usize,
        old: &Running,
        config: &ClientConfig,
        sockets: &Sockets,
        taken_over: impl Fn(&Endpoint) -> Option<Vec<Arc<Listener>>>,
    ) -> Result<(), String> {
        let (who, mut new) = (format!("client {}", number + 1), Running::new(config));
        self.tell_fixed(&who, &old.fixed, &new.fixed);
        if old.is_another(&new) {
            return Ok(());
        }
        // The rules of a gateway know these ports.
        new.forwards.retain(|it| !as_meant(it));
        new.forwards.extend(old.forwards.iter().filter(|it| as_meant(it)).cloned());
        let proxy = proxy_options(config).map_err(|failure| failure.to_string())?;
        let mut forwards = Vec::new();
        for forward in &new.forwards {
            let there = old.forwards.iter().any(|it| it.listen == forward.listen);
            let listeners = match there {
                true => None,
                false => match taken_over(&forward.listen) {
                    Some(all) => Some(all),
                    None => {
                        let all = sockets.listen(&forward.listen).await;
                        Some(all.map_err(|failure| failure.to_string())?)
                    }
                },
            };
            forwards.push((forward.clone(), listeners));
        }
        let differences = old.differences(&new);
        if !differences.is_empty() {
            self.changed.push(format!("{} of {who}", differences.join(", ")));
        }
        let (reverse, redundant) = (new.reverse.clone(), new.redundant);
        let wanted = Wanted { forwards, reverse, redundant, proxy };
        self.clients.push((number, old.changed_to(&new), wanted));
        Ok(())
    }

    fn said(&self) -> String {
        let mut said = match self.changed.as_slice() {
            [] => "nothing has changed".to_owned(),
            changed => format!("changed: {}", changed.join("; ")),
        };
        if !self.needs_restart.is_empty() {
            said.push_str(&format!("; needs a restart: {}", self.needs_restart.join("; ")));
        }
        said
    }
}

/// `imux reload`: has every process of this home that runs by a file read it again.
pub(super) async fn run_reload(home: Option<&Path>) -> Result<Exit, Failure> {
    let home = require_home(home)?;
    let shown = home.display();
    let answers = reload_all(home).await.map_err(|error| {
        let what = format!("cannot ask what runs with its keys in {shown}: {error}");
        Failure::message(Exit::Config, what)
    })?;
    if answers.is_empty() {
        return Err(Failure::message(
            Exit::Config,
            format!(
                "nothing runs by a file (imux run) with its keys in {shown}; nothing was changed"
            ),
        ));
    }
    let (mut lines, mut failed) = (String::new(), Vec::new());
    for (who, said) in answers {
        match said {
            Ok(said) => lines.push_str(&format!("{who}: {said}\n")),
            Err(why) => failed.push(format!("{who}: {why}")),
        }
    }
    let printed = print(lines).await;
    printed.map_err(|error| {
        Failure::message(Exit::Config, format!("cannot print the result: {error}"))
    })?;
    match failed.is_empty() {
        true => Ok(Exit::Ok),
        false => Err(Failure::message(Exit::Config, failed.join("\n"))),
    }
}
